"""Training with and without checkpoints gives the same variables."""

import jax
import numpy as np
import pytest
from rich.console import Console
from tiny_runs import tiny_config

from experiments.speed.checkpoint_overhead import make_benchmark, train_and_save
from jaxlm.checkpoints.train_states import checkpoint_steps
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.setup import prepare_training


@pytest.fixture
def setup(tmp_path):
    return prepare_training(tiny_config(tmp_path), None, Console(quiet=True))


@pytest.mark.slow
def test_variants_train_the_same_variables(setup, tmp_path):
    benchmark = make_benchmark(setup, tmp_path / "run")
    first, *others = (variant.call() for variant in benchmark.variants.values())
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)
    assert {variant.units for variant in benchmark.variants.values()} == {setup.config.num_steps}
    (target,) = benchmark.targets
    assert {target.numerator, target.denominator} < benchmark.variants.keys()


@pytest.mark.slow
def test_train_and_save_replaces_the_last_run(setup, tmp_path):
    path = tmp_path / "run"
    for _ in range(2):
        train_and_save(setup, path)
        assert checkpoint_steps(path / "checkpoints")[-1] == setup.config.num_steps
        assert [line["step"] + 1 for line in read_metrics(path / "metrics.jsonl")] == [1, 6, 11, 12]
