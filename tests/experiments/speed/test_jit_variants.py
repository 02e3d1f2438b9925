"""Every variant of a stage computes the same as its NumPy program, which has its own gradients."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed.jit.numpy_stages import NUMPY_STAGES
from experiments.speed.jit.stages import STAGES, Sizes, make_problem
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
    """Return the variants of a stage. `eager` of one stage is enough: it compiles each operation by itself."""
    stage = STAGES[name](problem)
    others = {library: stages[name](problem) for library, stages in LIBRARIES.items()}
    variants = make_variants(stage, SIZES.items, others)
    assert {"eager", "no jit", "jit", "donated", "loop", "scan", "vmap", "numpy"} <= set(variants)
    if name != "forward":
        del variants["eager"]
    return variants


@pytest.mark.slow
@pytest.mark.parametrize("name", ["count", "forward", "loss", "training_step"])
def test_variants_compute_what_numpy_computes(problem, name):
    items_of = {"eager": [0], "no jit": [0], "vmap": [VMAP_WIDTH - 1]}  # each copy of `vmap` does one item
    for variant_name, variant in variants_of(name, problem).items():
        output = variant.call()
        if name == "training_step" and variant_name not in LIBRARIES:
            output = output[1]  # the loss
        found = output[-1] if variant_name == "vmap" else np.asarray(output)
        run = NUMPY_STAGES[name](problem)
        *_, expected = (run(None, item) for item in items_of.get(variant_name, range(SIZES.items)))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5, err_msg=variant_name)


@pytest.mark.slow
def test_batches_are_windows_of_the_stream(problem):
    """In a stream that counts upwards, a window shows where it was cut."""
    counting = dataclasses.replace(problem, ids=np.arange(500, dtype=np.int32))
    for name, variant in variants_of("batch", counting).items():
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
    for name, variant in variants_of("sampling", certain).items():
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
