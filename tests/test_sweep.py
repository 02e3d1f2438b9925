"""Runs of one vmapped program are the runs that `train_lm` makes one by one."""

import jax
import numpy as np
import pytest

import jaxlm
from experiments.sweep import num_sharing, train_sweep
from jaxlm.timing import timed

IDS = np.random.default_rng(0).integers(0, 7, 200)
MODEL = jaxlm.MLPLanguageModel(7, 3, 2, 5)
LRS, KEYS = np.array([0.1, 0.5, 2.0]), jax.random.split(jax.random.key(3), 3)


@pytest.mark.slow
def test_each_run_is_that_of_train_lm():
    together = train_sweep(MODEL, IDS, lrs=LRS, keys=KEYS, batch_size=8, num_steps=20)
    for run, (lr, key) in enumerate(zip(LRS, KEYS, strict=True)):
        alone, _ = jaxlm.train_lm(MODEL, IDS, key=key, batch_size=8, num_steps=20, lr=float(lr))
        for ours, wanted in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(ours[run], wanted, rtol=1e-4, atol=1e-5)


def test_the_most_devices_that_divide_the_runs_share_them():
    assert [num_sharing(16, devices) for devices in (1, 3, 6, 16, 40)] == [1, 2, 4, 16, 16]
    assert num_sharing(7, 6) == 1


def test_other_rates_and_another_number_of_steps_compile_nothing():
    train_sweep(MODEL, IDS, lrs=LRS, keys=KEYS, batch_size=8, num_steps=2)
    with timed() as timing:
        train_sweep(MODEL, IDS, lrs=LRS / 2, keys=KEYS, batch_size=8, num_steps=5)
    assert timing.compile_seconds == 0
