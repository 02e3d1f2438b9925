"""SGD against PyTorch's documented steps in NumPy, and its learning rates against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.training.optimizers import sgd

PARAMS = {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]]), "bias": np.array([0.25, -4.0])}
# The norms of the whole gradient are above 10, below 1, and in between.
GRADIENTS = [
    {"kernel": np.array([[6.0, 8.0], [-7.0, 2.0]]), "bias": np.array([3.0, -5.0])},
    {"kernel": np.array([[0.1, -0.2], [0.3, 0.0]]), "bias": np.array([0.1, 0.2])},
    {"kernel": np.array([[1.0, 2.0], [-1.0, 0.5]]), "bias": np.array([0.0, 1.0])},
]
NUM_STEPS = 5


def pytorch_steps(lr, *, schedule="constant", momentum=0.0, weight_decay=0.0, clip_norm=math.inf):
    """Three steps of `clip_grad_norm_`, `torch.optim.SGD` and `CosineAnnealingLR`, as PyTorch documents them.

    Decoupled decay is lines 8 and 9 of algorithm 1 of Loshchilov & Hutter 2019, scaled by the learning rate as in
    `torch.optim.AdamW`.
    """
    params = {name: array.copy() for name, array in PARAMS.items()}
    buffers = {name: np.zeros_like(array) for name, array in PARAMS.items()}
    for step, gradients in enumerate(GRADIENTS):
        norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        scale = min(1.0, clip_norm / norm)
        rate = lr * (1 + math.cos(math.pi * step / NUM_STEPS)) / 2 if schedule == "cosine" else lr
        for name in params:
            decay = weight_decay * params[name]
            buffers[name] = momentum * buffers[name] + scale * gradients[name] + decay
            params[name] -= rate * buffers[name]
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
    ],
    ids=str,
)
def test_sgd_equals_pytorch(options):
    optimizer, params = sgd(0.3, NUM_STEPS, **options), jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    for gradients in GRADIENTS:
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, gradients), state, params)
        params = optax.apply_updates(params, updates)
    for name, expected in pytorch_steps(0.3, **options).items():
        np.testing.assert_allclose(params[name], expected, rtol=1e-5, atol=1e-6)
    # Only momentum needs an accumulator per param.
    assert sum(leaf.ndim > 0 for leaf in jax.tree.leaves(state)) == (len(PARAMS) if "momentum" in options else 0)


HALF = math.sqrt(0.5) / 2  # cos(pi / 4) / 2


@pytest.mark.parametrize(
    ("num_steps", "options", "expected"),
    [
        (4, {"schedule": "cosine"}, [1.0, 0.5 + HALF, 0.5, 0.5 - HALF, 0, 0]),
        (8, {"warmup_steps": 3}, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
        (7, {"warmup_steps": 3, "schedule": "cosine"}, [0.25, 0.5, 0.75, 1.0, 0.5 + HALF, 0.5, 0.5 - HALF, 0]),
    ],
    ids=["cosine", "warmup", "warmup_cosine"],
)
def test_sgd_learning_rates(num_steps, options, expected):
    optimizer = sgd(0.8, num_steps, **options)
    state, rates = optimizer.init(jnp.zeros(())), []
    for _ in expected:
        update, state = optimizer.update(jnp.ones(()), state, jnp.zeros(()))
        rates.append(-float(update))
    np.testing.assert_allclose(rates, 0.8 * np.array(expected), atol=1e-6)


@pytest.mark.parametrize("norm", [0.0, 0.999, 1.0, 1.001, 1e15])
def test_sgd_clips_the_norm(norm):
    optimizer = sgd(1.0, 1, clip_norm=1.0)
    update, _ = optimizer.update(norm * jnp.array([0.6, -0.8]), optimizer.init(jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_allclose(-update, np.array([0.6, -0.8]) * min(norm, 1.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "linear"}, "unknown schedule 'linear'; choose constant or cosine"),
        ({"warmup_steps": -1}, r"warmup_steps must be in \[0, inf\), got -1"),
        ({"clip_norm": -1}, "clip_norm must be above 0, got -1"),
        ({"momentum": 1.5}, r"momentum must be in \[0, 1\), got 1.5"),
        ({"schedule": "cosine", "warmup_steps": 5}, "warmup_steps must be below num_steps=5 for a cosine, got 5"),
    ],
)
def test_sgd_out_of_range_is_a_value_error(options, message):
    with pytest.raises(ValueError, match=message):
        sgd(1.0, 5, **options)
