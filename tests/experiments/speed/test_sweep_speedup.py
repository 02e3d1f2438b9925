"""Both variants train the same runs."""

import jax
import numpy as np
import pytest

import jaxlm
from experiments.speed.sweep_speedup import make_benchmark


@pytest.mark.stress
def test_variants_train_the_same_runs():
    benchmark = make_benchmark(jaxlm.NeuralBigramLM(27, 2), 3)
    single, many = (variant.call() for variant in benchmark.variants.values())
    assert {variant.units for variant in benchmark.variants.values()} == {len(single)} == {20}
    for run, variables in enumerate(single):
        stacked = jax.tree.map(lambda leaf, run=run: leaf[run], many)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), stacked, variables)
