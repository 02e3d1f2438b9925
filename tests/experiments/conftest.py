"""Fixtures that run an experiment in the frame."""

import io
import json

import pytest
from rich.console import Console

from experiments.shared.experiment import Experiment, run_experiment
from experiments.shared.options import RunOptions


@pytest.fixture(scope="session")
def run():
    """Return a function that runs an experiment and returns its directory, its results, and what it prints."""

    def run(prepare, options):
        console = Console(file=io.StringIO(), width=200)
        path = run_experiment(prepare, options, console)
        return path, json.loads((path / "results.json").read_text("utf-8")), console.file.getvalue()

    return run


@pytest.fixture
def run_measure(run, tmp_path):
    """Return a function that runs a `measure` with a plan of the test and returns its results and its table."""

    def run_measure(measure):
        _, *outcome = run(lambda _: Experiment("test", measure), RunOptions(out=tmp_path / "run"))
        return outcome

    return run_measure
