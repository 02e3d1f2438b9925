"""Runs side by side come back in order, and SGD with momentum follows the published update."""

import jax
import numpy as np
import pytest

import jaxlm
from experiments.shared.training import momentum_sgd, train_side_by_side

IDS = np.tile([0, 1, 2], 30)


@pytest.mark.slow
def test_train_side_by_side_returns_the_runs_in_order():
    """A run with learning rate 0 keeps its initial variables."""
    model = jaxlm.NeuralBigramLM(3, 2)
    keys, hyperparams = jaxlm.sweep_grid(jax.random.split(jax.random.key(0), 2), lr=[0.0, 0.5])
    runs, histories = train_side_by_side(model, IDS, 3, keys=keys, hyperparams=hyperparams, batch_size=4)
    assert len(runs) == len(histories) == 4
    for key, lr, run in zip(keys, hyperparams["lr"], runs, strict=True):
        initial = jaxlm.init(model, jax.random.fold_in(key, 2**31 - 1))
        assert jax.tree.all(jax.tree.map(np.array_equal, run, initial)) == (lr == 0)


def test_momentum_sgd_follows_the_published_update():
    """Momentum 0.9 and a half cosine over two steps: rates lr and lr / 2, steps 1 and 1.9 gradients."""
    optimizer = momentum_sgd(0.5, 2, clip_norm=None)
    state = optimizer.init(1.0)
    for expected in (-0.5 * 3, -0.25 * 1.9 * 3):
        update, state = optimizer.update(3.0, state, 1.0)
        assert update == pytest.approx(expected)
    clipped = momentum_sgd(0.5, 2)
    assert clipped.update(np.float32(3), clipped.init(np.float32(1)), np.float32(1))[0] == pytest.approx(-0.5)
