"""Both variants train the same runs."""

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.shared.experiment import run_experiment
from experiments.speed.sweep_speedup import SweepOptions, make_benchmark, prepare


@pytest.mark.slow
def test_variants_train_the_same_runs():
    benchmark = make_benchmark(jaxlm.NeuralBigramLM(27, 2), 3)
    single, many = (variant.call() for variant in benchmark.variants.values())
    assert {variant.units for variant in benchmark.variants.values()} == {len(single)} == {20}
    for run, variables in enumerate(single):
        stacked = jax.tree.map(lambda leaf, run=run: leaf[run], many)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), stacked, variables)
    (target,) = benchmark.targets
    assert (target.bound, target.at_most) == (0.35, True)
    assert list(benchmark.variants) == [target.denominator, target.numerator]


@pytest.mark.parametrize("name", ["repeats", "steps"])
def test_prepare_checks_the_options(tmp_path, name):
    with pytest.raises(ValueError, match=f"--{name} must be at least 1, got 0"):
        run_experiment(prepare, SweepOptions(out=tmp_path / "run", **{name: 0}), Console(quiet=True))
    assert not (tmp_path / "run").exists()
