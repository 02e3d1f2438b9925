"""Every variant of a stage computes the same as a plain NumPy loop."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed.jit.numpy_stages import NUMPY_STAGES, copy_params
from experiments.speed.jit.stages import LEARNING_RATE, NUM_BATCHES, PAIRS, STAGES, Sizes, make_problem
from experiments.speed.jit.variants import VMAP_WIDTH, analyze_cost, make_variants

V = 5
SIZES = Sizes(vocab_size=V, context_length=2, embedding_dim=2, hidden_dim=3, batch_size=4, items=2)
LIBRARIES = {"numpy": NUMPY_STAGES}
if importlib.util.find_spec("torch"):
    from experiments.speed.jit.pytorch_stages import PYTORCH_STAGES

    LIBRARIES["torch"] = PYTORCH_STAGES


@pytest.fixture(scope="module")
def problem():
    """Return a problem whose arrays are all far from zero, biases included."""
    fresh = make_problem(SIZES)
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), fresh.variables)
    return dataclasses.replace(fresh, variables=variables)


def variants_of(name, problem):
    """Return the stage and its variants. `eager` of one stage is enough: it compiles each operation by itself."""
    stage = STAGES[name](problem)
    others = {library: stages[name](problem) for library, stages in LIBRARIES.items()}
    variants = make_variants(stage, SIZES.items, others)
    assert {"eager", "no jit", "jit", "donated", "loop", "scan", "vmap", "numpy"} <= set(variants)
    if name != "forward":
        del variants["eager"]
    return stage, variants


def logits_of(params, contexts):
    embedding, hidden_kernel, hidden_bias, kernel, bias = params
    rows = [np.concatenate([embedding[token] for token in context]) for context in contexts]
    return np.array([np.tanh(row @ hidden_kernel + hidden_bias) @ kernel + bias for row in rows])


def nats_of(logits, targets):
    return np.array([np.log(np.exp(row).sum()) - row[target] for row, target in zip(logits, targets, strict=True)])


def float64(problem):
    return [array.astype(np.float64) for array in copy_params(problem)]


def expected_count(problem, i):
    table = np.zeros((V, V), int)
    for item in range(i + 1):
        ids = problem.ids[(item % NUM_BATCHES) * PAIRS :][: PAIRS + 1]
        table += np.bincount(ids[:-1] * V + ids[1:], minlength=V * V).reshape(V, V)
    return table


def expected_forward(problem, i):
    return logits_of(float64(problem), problem.windows[i, :, :-1])


def expected_loss(problem, i):
    return nats_of(problem.logits[i].astype(np.float64), problem.windows[i, :, -1]).mean()


def expected_training_step(problem, i):
    """Return the loss of step i, with gradients by central differences."""
    params = float64(problem)
    for item in range(i + 1):
        contexts, targets = problem.windows[item, :, :-1], problem.windows[item, :, -1]
        loss = nats_of(logits_of(params, contexts), targets).mean()
        gradients = [np.zeros_like(param) for param in params]
        for param, gradient in zip(params, gradients, strict=True):
            for index in np.ndindex(param.shape):
                value, ends = param[index], []
                for shift in (1e-5, -1e-5):
                    param[index] = value + shift
                    ends.append(nats_of(logits_of(params, contexts), targets).mean())
                param[index] = value
                gradient[index] = (ends[0] - ends[1]) / 2e-5
        params = [param - LEARNING_RATE * gradient for param, gradient in zip(params, gradients, strict=True)]
    return loss


EXPECTED = {
    "count": expected_count,
    "forward": expected_forward,
    "loss": expected_loss,
    "training_step": expected_training_step,
}


def result_of(name, state):
    """Return the loss of a training step, which also has a state, and otherwise the state."""
    return state[1] if name == "training_step" else state


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_variants_compute_the_expected_output(problem, name):
    stage, variants = variants_of(name, problem)
    for variant_name, variant in variants.items():
        output = variant.call()
        if variant_name not in LIBRARIES:
            output = result_of(name, output)
        if variant_name == "vmap":  # copy c does item c
            found, last_item = jax.tree.map(lambda leaf: leaf[-1], output), VMAP_WIDTH - 1
            if name in ("count", "training_step"):  # from the initial state
                state = stage.step(stage.inputs, stage.state, last_item)
                np.testing.assert_allclose(found, result_of(name, state), rtol=2e-5, atol=1e-5)
                continue
        else:
            found, last_item = output, 0 if variant_name in ("eager", "no jit") else SIZES.items - 1
        expected = EXPECTED[name](problem, last_item)
        np.testing.assert_allclose(np.asarray(found), expected, rtol=2e-5, atol=1e-5, err_msg=variant_name)


@pytest.mark.slow
def test_batches_are_windows_of_the_stream(problem):
    """In a stream that counts upwards, a window shows where it was cut."""
    counting = dataclasses.replace(problem, ids=np.arange(500, dtype=np.int32))
    for name, variant in variants_of("batch", counting)[1].items():
        contexts, targets = (np.asarray(each) for each in variant.call())
        assert contexts.shape[-2:] == (SIZES.batch_size, SIZES.context_length), name
        windows = np.concatenate([contexts, targets[..., None]], axis=-1)
        assert (np.diff(windows, axis=-1) == 1).all(), name
        assert len(np.unique(targets)) > 1, name


@pytest.mark.slow
def test_sampling_appends_the_only_possible_token(problem):
    """Token 3 has probability 1 after every context."""
    variables = jax.tree.map(jnp.zeros_like, problem.variables)
    bias = np.full(V, -1e4, np.float32)
    bias[3] = 0
    variables["params"]["projection"]["bias"] = jnp.asarray(bias)
    certain = dataclasses.replace(problem, variables=variables)
    first = certain.windows[0, 0, 1]
    assert first != 3
    for name, variant in variants_of("sampling", certain)[1].items():
        context = np.asarray(variant.call()).reshape(-1, 2)[-1]
        np.testing.assert_array_equal(
            context, [first, 3] if name in ("eager", "no jit", "vmap") else [3, 3], err_msg=name
        )


def test_large_state_has_no_vmapped_variant(problem):
    stage = STAGES["forward"](problem)._replace(state=np.zeros(2**24))
    assert "vmap" not in make_variants(stage, 2, {})


def test_analyze_cost_of_a_matrix_product():
    cost = analyze_cost(jnp.matmul, np.ones((3, 5), np.float32), np.ones((5, 7), np.float32))
    assert cost == {"flops": 2 * 3 * 5 * 7, "bytes": 4 * (3 * 5 + 5 * 7 + 3 * 7)}
