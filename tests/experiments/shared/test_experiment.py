"""What every experiment writes, and the interval of a mean."""

import io
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from experiments.shared.experiment import Findings, Output, mean_and_interval, new_figure, run_experiment
from jaxlm.runs.directory import is_run
from jaxlm.runs.manifest import read_manifest


@dataclass(frozen=True)
class Config:
    """An experiment's options."""

    num_throws: int
    output: Output


def found():
    figure = new_figure(1, 1)
    figure.subplots().plot([1, 2])
    return Findings({"heads": 3, "share": math.nan}, "heads  3\n", figure)


def run(config, find=found):
    console = Console(file=io.StringIO(), width=80)
    return run_experiment("coin", config, console, find), console.file.getvalue()


def test_the_folder_holds_figures_text_and_picture(tmp_path):
    path, said = run(Config(7, Output(tmp_path / "run")))
    assert path == tmp_path / "run"
    assert (read_manifest(path)["state"], read_manifest(path)["kind"]) == ("done", "coin")
    assert (path / "table.txt").read_text("utf-8") == "heads  3\n"
    assert "heads  3\n" in said
    assert (path / "picture.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((path / "results.json").read_text("utf-8"))
    assert (results["heads"], results["share"], results["config"]["num_throws"]) == (3, None, 7)
    assert results["versions"]["jax"]


def test_without_a_name_the_folder_is_a_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, _ = run(Config(7, Output()))
    assert path.parts[0] == "runs"
    assert path.name.startswith("coin-")
    assert is_run(path)


def test_a_run_is_replaced_only_where_that_is_asked_for(tmp_path):
    run(Config(7, Output(tmp_path / "run")))

    def never():
        raise AssertionError("no work is done for a folder that is taken")

    with pytest.raises(FileExistsError, match="holds a run"):
        run(Config(8, Output(tmp_path / "run")), never)
    run(Config(8, Output(tmp_path / "run", overwrite=True)))
    assert json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))["config"]["num_throws"] == 8


def test_an_experiment_that_fails_leaves_no_results(tmp_path):
    def fail():
        raise ValueError("the coin stands")

    with pytest.raises(ValueError, match="the coin stands"):
        run(Config(7, Output(tmp_path / "run")), fail)
    assert read_manifest(tmp_path / "run")["state"] == "failed"
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("num_values", [2, 3, 5, 30])
def test_the_interval_is_scipys(num_values):
    values = np.random.default_rng(num_values).normal(3, 2, num_values).tolist()
    mean, half_width = mean_and_interval(values)
    low, high = stats.t.interval(0.95, num_values - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high))


def test_a_single_value_has_no_interval():
    assert mean_and_interval([5.0]) == (5.0, math.inf)
