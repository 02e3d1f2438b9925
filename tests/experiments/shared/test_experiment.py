"""The frame checks the options first, writes the results last, and records a failure."""

import doctest
import importlib
import io
import json
import math
import pkgutil
import sys
from dataclasses import dataclass

import jax
import pytest
import tyro
from rich.console import Console

import experiments
from experiments.shared.experiment import Experiment, Findings, main, run_experiment
from experiments.shared.options import RunOptions, SeedOptions
from experiments.shared.report import plot_lines
from jaxlm.runs.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class CoinOptions(SeedOptions):
    """Toss a coin."""

    tosses: int = 7


def prepare(options):
    return Experiment("coin", measure, details={"side": "heads"})


def measure(run):
    run.log("tossing")
    figure = plot_lines({"by toss": {"heads": ([0, 1], [1, 2])}}, xlabel="toss")
    return Findings({"heads": 3, "share": math.nan}, "heads  3", {"picture": figure})


def run(options, prepare=prepare):
    console = Console(file=io.StringIO(), width=80)
    return run_experiment(prepare, options, console), console.file.getvalue()


def refuse(options):
    raise AssertionError("the experiment was prepared")


def test_run_experiment_writes_results_table_and_picture(tmp_path):
    path, output = run(CoinOptions(out=tmp_path / "run"))
    assert path == tmp_path / "run"
    manifest = read_manifest(path)
    assert [manifest[name] for name in ("state", "kind", "side")] == ["done", "coin", "heads"]
    assert (path / "table.txt").read_text("utf-8") == "heads  3\n"
    assert output.startswith("tossing\n")
    assert "heads  3\n" in output
    assert (path / "picture.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((path / "results.json").read_text("utf-8"))
    assert (results["heads"], results["share"], results["config"]["tosses"]) == (3, None, 7)
    assert results["versions"]["jax"] == jax.__version__


def test_run_experiment_uses_the_device(tmp_path):
    cpu = jax.devices("cpu")[0]

    def measure(run):
        return Findings({"device": str(jax.config.jax_default_device), "same": run.device == cpu})

    path, _ = run(CoinOptions(out=tmp_path / "run"), lambda _: Experiment("coin", measure, device=cpu))
    results = json.loads((path / "results.json").read_text("utf-8"))
    assert (results["device"], results["same"]) == (str(cpu), True)  # a key of the findings replaces the frame's
    assert not (path / "table.txt").exists()


def test_run_experiment_names_the_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, _ = run(CoinOptions())
    assert path.parts[0] == "runs"
    assert path.name.startswith("coin-")
    assert (path / "results.json").exists()


def test_run_experiment_replaces_a_run_only_on_request(tmp_path):
    run(CoinOptions(out=tmp_path / "run"))
    with pytest.raises(FileExistsError, match="overwrite"):
        run(CoinOptions(out=tmp_path / "run"), refuse)
    run(CoinOptions(out=tmp_path / "run", overwrite=True, tosses=8))
    assert json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))["config"]["tosses"] == 8


def test_run_experiment_writes_nothing_if_prepare_fails(tmp_path):
    def fail(options):
        raise ValueError("--tosses must be at least 1, got 0")

    with pytest.raises(ValueError, match="--tosses"):
        run(CoinOptions(out=tmp_path / "run"), fail)
    assert not (tmp_path / "run").exists()


def test_run_experiment_records_a_failure(tmp_path):
    def fail(run):
        raise ValueError("the coin stands")

    with pytest.raises(ValueError, match="the coin stands"):
        run(CoinOptions(out=tmp_path / "run"), lambda _: Experiment("coin", fail))
    assert read_manifest(tmp_path / "run")["state"] == "failed"
    assert not (tmp_path / "run" / "results.json").exists()


def test_main_exits_with_the_status(tmp_path, monkeypatch, capsys):
    for seed, status in (("0", 0), ("-1", 2)):
        monkeypatch.setattr(
            sys, "argv", ["coin.py", "--out", str(tmp_path / "run"), "--overwrite", "--seed", seed]
        )
        with pytest.raises(SystemExit) as exit_info:
            main(CoinOptions, prepare)
        assert exit_info.value.code == status
    assert capsys.readouterr().err == "error: --seed must be in [0, 2**32), got -1\n"


def experiment_modules():
    """Import every module below `experiments`, except those that import PyTorch."""
    for module in pkgutil.walk_packages(experiments.__path__, "experiments."):
        if not module.name.endswith((".reference", ".workloads", ".pytorch_stages")):
            yield importlib.import_module(module.name)


def test_options_of_each_experiment_parse():
    prepared = [module for module in experiment_modules() if hasattr(module, "prepare")]
    assert len(prepared) == 15
    for module in prepared:
        (options_type,) = (
            each
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, RunOptions) and each.__module__ == module.__name__
        )
        assert tyro.cli(options_type, args=["--quick"]) == options_type(quick=True)


def test_examples_in_docstrings_hold():
    outcomes = [doctest.testmod(module, optionflags=doctest.ELLIPSIS) for module in experiment_modules()]
    assert sum(outcome.attempted for outcome in outcomes) > 10
    assert not sum(outcome.failed for outcome in outcomes)
