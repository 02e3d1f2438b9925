"""All ways train the same, the folder is new each time, and the artefacts are there."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console
from tiny_runs import tiny_config

from experiments.speed import checkpoint_overhead as saving_cost
from experiments.speed.checkpoint_overhead import SavingConfig, contest, run_saving
from jaxlm.checkpoints.train_states import checkpoint_steps
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.setup import prepare_training


@pytest.fixture
def job(tmp_path):
    return prepare_training(tiny_config(tmp_path), None, Console(quiet=True))


def test_every_way_trains_the_same(job, tmp_path):
    with contest(tmp_path, job, judges=True) as row:
        variables = [way.call() for way in row.variants.values()]
        (target,) = row.targets
        assert {target.numerator, target.denominator} < row.variants.keys()
        assert all(way.units == job.config.num_steps for way in row.variants.values())
    for other in variables[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, variables[0])


def test_what_is_saved_is_all_of_a_run_each_time_anew(job, tmp_path):
    for _ in range(2):
        saving_cost.saved(job, folder := tmp_path / "saved")
        assert checkpoint_steps(folder / "checkpoints")[-1] == job.config.num_steps
        assert [line["step"] + 1 for line in read_metrics(folder / "metrics.jsonl")] == [1, 6, 11, 12]


def test_the_artefacts(tmp_path, monkeypatch):
    monkeypatch.setattr(saving_cost, "TrainConfig", lambda **options: tiny_config(tmp_path))
    out = run_saving(
        SavingConfig(repeats=1, out=tmp_path / "run"), Console(file=(told := io.StringIO()), width=200)
    )
    assert read_manifest(out)["state"] == "done"
    (row,) = json.loads((out / "results.json").read_text("utf-8"))["rows"].values()
    assert [target["title"] for target in row["targets"]] == ["saved / not saved"]
    assert all(figure["median_us"] > 0 for figure in row["variants"].values())
    assert (out / "table.txt").read_text("utf-8") in told.getvalue()


def test_nothing_is_timed_no_times(tmp_path):
    with pytest.raises(ValueError, match="--repeats must be at least 1, got 0"):
        run_saving(SavingConfig(repeats=0, out=tmp_path / "run"), Console(quiet=True))
    assert not (tmp_path / "run").exists()
