"""Every variant of a stage computes the same as a plain NumPy loop."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed.jit.stages import LEARNING_RATE, NUM_BATCHES, PAIRS, STAGES, VMAP_WIDTH, Sizes, make_problem
from experiments.speed.jit.variants import analyze_cost, make_variants, measure_variants, repeat

SIZES = Sizes(vocab_size=11, context_length=2, embedding_dim=3, hidden_dim=5, batch_size=4, items=3)
CPU = jax.devices("cpu")[0]
TORCH = importlib.import_module("torch") if importlib.util.find_spec("torch") else None


@pytest.fixture(scope="module")
def problem():
    """Return a problem whose arrays are all far from zero, biases included."""
    fresh = make_problem(SIZES)
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), fresh.variables)
    return dataclasses.replace(fresh, variables=variables)


def logits_of(params, contexts):
    embedding, hidden_kernel, hidden_bias, kernel, bias = params
    rows = [np.concatenate([embedding[token] for token in context]) for context in contexts]
    return np.array([np.tanh(row @ hidden_kernel + hidden_bias) @ kernel + bias for row in rows])


def nats_of(logits, targets):
    return np.array([np.log(np.exp(row).sum()) - row[target] for row, target in zip(logits, targets, strict=True)])


def float64(problem):
    return [array.astype(np.float64) for array in problem.arrays]


def expected_count(problem, i):
    table = np.zeros((11, 11), int)
    for item in range(i + 1):
        ids = problem.ids[(item % NUM_BATCHES) * PAIRS :][: PAIRS + 1]
        table += np.bincount(ids[:-1] * 11 + ids[1:], minlength=121).reshape(11, 11)
    return table


def expected_forward(problem, i):
    return logits_of(float64(problem), problem.contexts[i % NUM_BATCHES])


def expected_loss(problem, i):
    logits = np.asarray(STAGES["loss"](problem).inputs[0], np.float64)
    return nats_of(logits[i % NUM_BATCHES], problem.targets[i % NUM_BATCHES]).mean()


def expected_evaluation(problem, i):
    params = float64(problem)
    batches = [item % NUM_BATCHES for item in range(i + 1)]
    return sum(nats_of(logits_of(params, problem.contexts[each]), problem.targets[each]).sum() for each in batches)


def expected_training_step(problem, i):
    """Return the loss of step i, with gradients by central differences."""
    params = float64(problem)
    for item in range(i + 1):
        contexts, targets = problem.contexts[item % NUM_BATCHES], problem.targets[item % NUM_BATCHES]
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
    "evaluation": expected_evaluation,
}


def check_copies(stage, outputs):
    """Check that copy c of a vmapped variant did items c and VMAP_WIDTH + c in its two calls."""
    for copy in (0, VMAP_WIDTH - 1):
        state = stage.state
        for i in (copy, VMAP_WIDTH + copy):
            state = jax.jit(stage.step)(stage.inputs, state, i)
        for found, wanted in zip(jax.tree.leaves(outputs), jax.tree.leaves(stage.output(state)), strict=True):
            np.testing.assert_allclose(found[copy], wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_variants_compute_the_expected_output(problem, name):
    stage, items = STAGES[name](problem), 2
    variants, missing = make_variants(stage, items, CPU, TORCH)
    assert {"eager", "jit", "loop", "vmap", "numpy"} <= set(variants)
    assert not missing
    for variant_name, variant in variants.items():
        variant.call()
        state = variant.call()
        if variant_name == "vmap":
            check_copies(stage, stage.output(state))
            continue
        output = state if variant_name in ("numpy", "torch") else stage.output(state)
        last_item = 1 if variant_name == "eager" else 2 * items - 1
        expected = EXPECTED[name](problem, last_item)
        np.testing.assert_allclose(np.asarray(output), expected, rtol=2e-5, atol=1e-5, err_msg=variant_name)


@pytest.mark.slow
def test_batches_are_windows_of_the_stream(problem):
    """In a stream that counts upwards, a window shows where it was cut."""
    counting = dataclasses.replace(problem, ids=np.arange(500, dtype=np.int32))
    variants, _ = make_variants(STAGES["batch"](counting), 2, CPU, TORCH)
    for name, variant in variants.items():
        contexts, targets = (np.asarray(each) for each in variant.call())
        assert contexts.shape[-2:] == (SIZES.batch_size, SIZES.context_length), name
        windows = np.concatenate([contexts, targets[..., None]], axis=-1)
        assert (np.diff(windows, axis=-1) == 1).all(), name
        assert len(np.unique(targets)) > 1, name


@pytest.mark.slow
def test_samples_follow_the_distribution(problem):
    """Token 3 has probability 1/4 and token 7 has 3/4 after every context."""
    variables = jax.tree.map(jnp.zeros_like, problem.variables)
    bias = np.full(11, -1e4, np.float32)
    bias[[3, 7]] = np.log([1, 3])
    variables["params"]["projection"]["bias"] = jnp.asarray(bias)
    variants, _ = make_variants(
        STAGES["sampling"](dataclasses.replace(problem, variables=variables)), 1, CPU, TORCH
    )
    for name, variant in variants.items():
        windows = np.array([np.asarray(variant.call()).copy() for _ in range(20 if name == "eager" else 300)])
        tokens = windows[2:].reshape(-1, SIZES.context_length)[:, -1]
        assert set(tokens) <= {3, 7}, name
        # Five standard deviations: one false alarm in a million.
        assert abs((tokens == 7).mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / len(tokens)), name
        if name != "vmap":  # each token is appended to the previous window
            np.testing.assert_array_equal(windows[1:, 0, :-1], windows[:-1, 0, 1:])


def test_measure_variants_rejects_compilation():
    growing = iter(range(1, 10_000))
    tracing = repeat(lambda _, i: jax.eval_shape(lambda x: x * i, jnp.float32(1)), None)
    compiling = repeat(lambda _, i: jnp.ones(3) * jnp.ones((next(growing), 3)).sum(), None)
    assert measure_variants({"eager": tracing}, 1, "a title")["eager"].median > 0  # eager JAX always traces
    with pytest.raises(ValueError, match="a title: jit compiled"):
        measure_variants({"jit": tracing}, 1, "a title")
    with pytest.raises(ValueError, match="a title: eager compiled"):
        measure_variants({"eager": compiling}, 1, "a title")


@pytest.mark.parametrize("shape", [(3, 5, 7), (64, 32, 16)])
def test_analyze_cost_of_a_matrix_product(shape):
    m, k, n = shape
    cost = analyze_cost(jax.jit(jnp.matmul), np.ones((m, k), np.float32), np.ones((k, n), np.float32))
    assert cost == {"flops": 2 * m * n * k, "bytes": 4 * (m * k + k * n + m * n)}
