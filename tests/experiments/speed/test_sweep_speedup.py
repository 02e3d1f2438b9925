"""Both ways train the same runs, and the artefacts are there."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.shared.experiment import run_experiment
from experiments.speed import sweep_speedup as sweep_cost
from experiments.speed.sweep_speedup import SweepOptions, contest, prepare


@pytest.mark.slow
def test_both_ways_train_the_same_runs():
    row = contest(jaxlm.NeuralBigramLM(27, 2), 3, judges=True)
    single, many = (way.call() for way in row.variants.values())
    assert {way.units for way in row.variants.values()} == {len(single)} == {20}
    for run, variables in enumerate(single):
        jax.tree.map(
            lambda one, all_runs, run=run: np.testing.assert_allclose(all_runs[run], one, rtol=1e-4, atol=1e-6),
            variables,
            many,
        )
    (target,) = row.targets
    assert (target.bound, target.at_most) == (0.35, True)
    assert list(row.variants) == [target.denominator, target.numerator]


@pytest.mark.slow
def test_the_artefacts(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_cost, "_MODELS", {"bigram": jaxlm.NeuralBigramLM(27, 2)})
    options = SweepOptions(quick=True, out=tmp_path / "run")
    path = run_experiment(prepare, options, Console(file=(told := io.StringIO()), width=200))
    results = json.loads((path / "results.json").read_text("utf-8"))
    assert results["num_devices"] == len(jax.devices())
    assert all(figure["median_us"] > 0 for figure in results["rows"]["bigram"]["variants"].values())
    assert (path / "picture.png").exists()
    assert (path / "table.txt").read_text("utf-8") in told.getvalue()


@pytest.mark.parametrize("name", ["repeats", "steps"])
def test_nothing_is_timed_no_times(tmp_path, name):
    with pytest.raises(ValueError, match=f"--{name} must be at least 1, got 0"):
        run_experiment(prepare, SweepOptions(out=tmp_path / "run", **{name: 0}), Console(quiet=True))
    assert not (tmp_path / "run").exists()
