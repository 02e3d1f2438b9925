"""SGD does what PyTorch's does: three of its steps, written out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.training.optimizers import sgd

PARAMS = {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]]), "bias": np.array([0.25, -4.0])}
# Norms of the whole gradient: above 10, below 1, and in between.
GRADIENTS = [
    {"kernel": np.array([[6.0, 8.0], [-7.0, 2.0]]), "bias": np.array([3.0, -5.0])},
    {"kernel": np.array([[0.1, -0.2], [0.3, 0.0]]), "bias": np.array([0.1, 0.2])},
    {"kernel": np.array([[1.0, 2.0], [-1.0, 0.5]]), "bias": np.array([0.0, 1.0])},
]
NUM_STEPS = 5


def by_optax(optimizer, num_steps=3):
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    for step in range(num_steps):
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, GRADIENTS[step % 3]), state, params)
        params = optax.apply_updates(params, updates)
    return params


def written_out(lr, *, schedule="constant", momentum=0.0, weight_decay=0.0, decoupled_decay=False, clip_norm=None):
    """What `torch.nn.utils.clip_grad_norm_`, `torch.optim.SGD` and `CosineAnnealingLR` are documented to do.

    PyTorch's SGD has no decoupled decay: that is lines 8 and 9 of algorithm 1 of Loshchilov & Hutter 2019, with
    the decay scaled by the learning rate as in `torch.optim.AdamW`.
    """
    params = {name: array.copy() for name, array in PARAMS.items()}
    buffers = {name: np.zeros_like(array) for name, array in PARAMS.items()}
    for step, gradients in enumerate(GRADIENTS):
        norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        scale = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
        rate = lr * (1 + math.cos(math.pi * step / NUM_STEPS)) / 2 if schedule == "cosine" else lr
        for name in params:
            decay = weight_decay * params[name]
            buffers[name] = momentum * buffers[name] + scale * gradients[name] + (not decoupled_decay) * decay
            params[name] -= rate * (buffers[name] + decoupled_decay * decay)
    return params


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"clip_norm": 1.0},
        {"clip_norm": 100.0},
        {"schedule": "cosine"},
        {"momentum": 0.9, "weight_decay": 0.1, "clip_norm": 1.0, "schedule": "cosine"},
        {"momentum": 0.9, "weight_decay": 0.1, "decoupled_decay": True, "clip_norm": 1.0, "schedule": "cosine"},
    ],
    ids=str,
)
def test_three_steps_are_those_of_pytorch(options):
    params, expected = by_optax(sgd(0.3, NUM_STEPS, **options)), written_out(0.3, **options)
    for name, array in expected.items():
        np.testing.assert_allclose(params[name], array, rtol=1e-5, atol=1e-6)


def rates_of(optimizer, num_steps):
    """A gradient of one, and no momentum: each step is the rate."""
    state, rates = optimizer.init(jnp.zeros(())), []
    for _ in range(num_steps):
        update, state = optimizer.update(jnp.ones(()), state)
        rates.append(-float(update))
    return rates


def test_the_cosine_falls_from_the_rate_to_zero():
    rates = rates_of(sgd(0.8, 4, schedule="cosine"), 6)
    halves = 0.4 + 0.4 * math.sqrt(0.5), 0.4 - 0.4 * math.sqrt(0.5)
    np.testing.assert_allclose(rates, [0.8, halves[0], 0.4, halves[1], 0, 0], atol=1e-6)


@pytest.mark.parametrize("norm", [0.999, 1.0, 1.001, 1e15])
def test_a_gradient_is_clipped_to_the_norm_and_never_to_less(norm):
    optimizer = sgd(1.0, 1, clip_norm=1.0)
    gradient = norm * jnp.array([0.6, -0.8])
    update, _ = optimizer.update(gradient, optimizer.init(jnp.zeros(2)))
    np.testing.assert_allclose(-update, np.array([0.6, -0.8]) * min(norm, 1.0), rtol=1e-5)


def test_no_gradient_is_no_step():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    optimizer = sgd(1.0, 1, clip_norm=1.0, momentum=0.9)
    updates, _ = optimizer.update(zeros, optimizer.init(zeros))
    for update in jax.tree.leaves(updates):
        np.testing.assert_array_equal(update, 0)


def test_only_momentum_needs_memory():
    def num_arrays(**options):
        return sum(leaf.ndim > 0 for leaf in jax.tree.leaves(sgd(0.1, 5, **options).init(PARAMS)))

    assert num_arrays(schedule="cosine", clip_norm=1.0, weight_decay=0.1) == 0
    assert num_arrays(momentum=0.9) == len(PARAMS)


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("cosine", [1.0, 0.5 + 0.5 * math.sqrt(0.5), 0.5, 0.5 - 0.5 * math.sqrt(0.5)]),
    ],
)
def test_warm_up_rises_on_a_line_to_the_rate_with_which_the_schedule_begins(schedule, after):
    rates = rates_of(sgd(1.0, 8 if schedule == "constant" else 7, schedule=schedule, warmup_steps=3), 7)
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, *after], rtol=1e-6)


def test_a_warm_up_that_leaves_the_cosine_no_step_is_refused():
    with pytest.raises(ValueError, match="warmup_steps=5 must be below num_steps=5"):
        sgd(1.0, 5, schedule="cosine", warmup_steps=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "linear"}, "unknown schedule 'linear'; choose constant or cosine"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
    ],
)
def test_what_no_schedule_has_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        sgd(1.0, 5, **options)
