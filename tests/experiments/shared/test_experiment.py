"""The frame checks the options first, and writes the results last."""

import doctest
import importlib
import math
import pkgutil
import sys
from dataclasses import dataclass

import jax
import pytest
import tyro

import experiments
from experiments.shared.experiment import Experiment, Findings, main
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


def test_run_experiment_writes_results_table_and_picture(run, tmp_path):
    path, results, output = run(prepare, CoinOptions(out=tmp_path / "run"))
    assert path == tmp_path / "run"
    manifest = read_manifest(path)
    assert [manifest[name] for name in ("state", "kind", "side")] == ["done", "coin", "heads"]
    assert (path / "table.txt").read_text("utf-8") == "heads  3\n"
    assert output.startswith("tossing\n")
    assert "heads  3\n" in output
    assert (path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (results["heads"], results["share"], results["config"]["tosses"]) == (3, None, 7)
    assert results["versions"]["jax"] == jax.__version__


def test_run_experiment_uses_the_device(run, tmp_path):
    cpu = jax.devices("cpu")[0]

    def measure(run):
        return Findings({"device": str(jax.config.jax_default_device), "same": run.device == cpu})

    path, results, _ = run(lambda _: Experiment("coin", measure, device=cpu), CoinOptions(out=tmp_path / "run"))
    assert (results["device"], results["same"]) == (str(cpu), True)  # a key of the findings replaces the frame's
    assert not (path / "table.txt").exists()


def test_run_experiment_checks_before_it_writes(run, tmp_path):
    def fail(options):
        raise ValueError("--tosses must be at least 1, got 0")

    with pytest.raises(ValueError, match="--tosses"):
        run(fail, CoinOptions(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="--seed"):
        run(fail, CoinOptions(out=tmp_path / "run", seed=-1))


def test_main_exits_with_the_status(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["coin.py", "--out", "run"]
    for options, status in ([], 0), (["--overwrite"], 0), (["--overwrite", "--seed=-1"], 2):
        monkeypatch.setattr(sys, "argv", words + options)
        with pytest.raises(SystemExit) as exit_info:
            main(CoinOptions, prepare)
        assert exit_info.value.code == status
    assert capsys.readouterr().err == "error: --seed must be in [0, 2**32), got -1\n"


def test_main_with_a_closed_standard_output(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["coin.py", "--out", str(tmp_path / "run")])
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as exit_info:
        main(CoinOptions, prepare)
    sys.stdout.close()  # which `run_command` opened
    assert exit_info.value.code == 0
    assert (tmp_path / "run" / "results.json").exists()


def experiment_modules():
    """Import every module below `experiments`, except those that import PyTorch."""
    for module in pkgutil.walk_packages(experiments.__path__, "experiments."):
        if not module.name.endswith((".reference", ".workloads", ".pytorch_stages")):
            yield importlib.import_module(module.name)


def test_options_of_each_experiment_parse():
    prepared = [module for module in experiment_modules() if hasattr(module, "prepare")]
    assert len(prepared) == 19
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
