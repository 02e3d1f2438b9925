"""Training with and without checkpoints gives the same variables."""

import jax
import numpy as np
import pytest
from rich.console import Console
from tiny_runs import tiny_config

from experiments.speed.checkpoint_overhead import make_benchmark
from jaxlm.checkpoints.train_states import checkpoint_steps
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.setup import prepare_training


@pytest.mark.slow
def test_variants_train_the_same_variables(tmp_path):
    setup, path = prepare_training(tiny_config(tmp_path), None, Console(quiet=True)), tmp_path / "run"
    variants = make_benchmark(setup, path).variants
    first, *others = (variant.call() for variant in variants.values())
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)
    assert {variant.units for variant in variants.values()} == {setup.config.num_steps}
    # The last variant replaced the run of the one before.
    assert checkpoint_steps(path / "checkpoints")[-1] == setup.config.num_steps
    assert [line["step"] + 1 for line in read_metrics(path / "metrics.jsonl")] == [1, 6, 11, 12]
