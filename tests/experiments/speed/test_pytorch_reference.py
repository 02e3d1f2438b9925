"""The PyTorch workloads compute the same logits, losses, steps, counts, perplexities and samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm

torch = pytest.importorskip("torch")
from experiments.speed.pytorch import reference  # noqa: E402

MODELS = {"mlp": jaxlm.MLPLanguageModel(11, 3, 4, 6), "bigram": jaxlm.NeuralBigramLM(11, 4)}
IDS = np.random.default_rng(0).integers(0, 11, 80).astype(np.int32)
STREAM = torch.tensor(IDS, dtype=torch.int64)


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def model(request):
    return request.param


def windows_of(model, starts):
    return np.stack([IDS[start : start + model.context_length + 1] for start in starts])


def test_from_flax_gives_the_same_logits_and_loss(model, variables):
    module = reference.from_flax(model, variables)
    windows = windows_of(model, range(20))
    logits = model.apply(variables, jnp.asarray(windows[:, :-1]))
    stream = torch.tensor(windows, dtype=torch.int64)
    np.testing.assert_allclose(module(stream[:, :-1]).detach().numpy(), logits, rtol=1e-4, atol=1e-5)
    nats = np.asarray(jaxlm.token_nats(logits, jnp.asarray(windows[:, -1])))
    assert reference.window_nats(module, stream).item() == pytest.approx(nats.mean(), rel=1e-5)
    assert reference.window_nats(module, stream, "sum").item() == pytest.approx(nats.sum(), rel=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_train_matches_gradient_steps_in_jax(model, compiled, variables):
    module = reference.from_flax(model, variables)
    windows = windows_of(model, [0, 5, 5, 30])
    nats = reference.window_nats
    reference.train(
        module,
        STREAM,
        context_length=model.context_length,
        batch_size=4,
        num_steps=2,
        lr=0.3,
        cut=lambda *_: torch.tensor(windows, dtype=torch.int64),
        nats=torch.compile(nats, backend="eager") if compiled else nats,
    )

    def mean_nats(variables):
        logits = model.apply(variables, jnp.asarray(windows[:, :-1]))
        return jaxlm.token_nats(logits, jnp.asarray(windows[:, -1])).mean()

    for _ in range(2):
        gradients = jax.grad(mean_nats)(variables)
        variables = jax.tree.map(lambda param, gradient: param - 0.3 * gradient, variables, gradients)
    expected = model.apply(variables, jnp.asarray(windows[:, :-1]))
    trained = module(torch.tensor(windows[:, :-1], dtype=torch.int64)).detach().numpy()
    np.testing.assert_allclose(trained, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", [reference.cut_by_gather, reference.cut_in_python])
def test_cut_windows_are_slices_of_the_stream(model, cut):
    starts = [3, 0, 76 - model.context_length, 3]
    windows = cut(STREAM, torch.tensor(starts), model.context_length)
    np.testing.assert_array_equal(windows.numpy(), windows_of(model, starts))


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_perplexity_matches_jaxlm(model, batch_size, variables):
    module = reference.from_flax(model, variables)
    options = {"context_length": model.context_length, "batch_size": batch_size}
    expected = pytest.approx(jaxlm.perplexity(model, variables, IDS), rel=1e-5)
    assert reference.perplexity(module, STREAM, **options) == expected
    assert reference.perplexity_in_python(module, IDS.tolist(), **options) == expected


def count_pairs():
    table = np.zeros((11, 11), np.int32)
    for first, second in zip(IDS.tolist(), IDS[1:].tolist(), strict=False):
        table[first, second] += 1
    return table


@pytest.mark.parametrize(
    "count",
    [
        reference.count_by_index_put,
        reference.count_by_scatter_add,
        reference.count_by_bincount,
        lambda table, ids: reference.count_one_by_one(table, ids.tolist()),
    ],
)
def test_counting_adds_every_pair(count):
    table = torch.full((11, 11), 2, dtype=torch.int32)
    count(table, STREAM)
    np.testing.assert_array_equal(table.numpy(), count_pairs() + 2)


def test_table_perplexity_matches_jaxlm():
    table = count_pairs()
    variables = {"counts": {"table": jnp.asarray(table)}}
    expected = pytest.approx(jaxlm.perplexity(jaxlm.CountsBigramLM(11), variables, IDS), rel=1e-5)
    tensor = reference.from_jax(table)
    assert reference.table_perplexity(tensor, STREAM) == expected


def test_generate_follows_a_deterministic_model():
    """Each token has one successor, three further, with probability 1."""
    successor = (np.arange(11) + 3) % 11
    certain = np.eye(11, dtype=np.float32)[successor] * 100
    params = {
        "embedding": {"embedding": np.eye(11, dtype=np.float32)},
        "projection": {"kernel": certain, "bias": np.zeros(11, np.float32)},
    }
    module = reference.from_flax(jaxlm.NeuralBigramLM(11, 11), {"params": params})
    after_5, after_9 = [8, 0, 3, 6], [1, 4, 7, 10]
    drawn = reference.generate(module, torch.tensor([[5], [9]]), 4)
    np.testing.assert_array_equal(drawn.numpy(), [after_5, after_9])
    assert reference.generate_in_python(module, [5], 4) == after_5
    table = torch.tensor(certain / 100)
    np.testing.assert_array_equal(reference.generate_from_table(table, 5, 4).numpy(), after_5)
    assert reference.generate_from_table_in_python(table, 9, 4) == after_9


def test_generate_shifts_the_context():
    seen = []

    def next_is_last_plus_one(_, window):
        seen.append(window.tolist())
        return torch.eye(11)[(window[:, -1] + 1) % 11]

    reference.generate(None, torch.tensor([[7, 2, 4]]), 3, probabilities=next_is_last_plus_one)
    assert seen == [[[7, 2, 4]], [[2, 4, 5]], [[4, 5, 6]]]
