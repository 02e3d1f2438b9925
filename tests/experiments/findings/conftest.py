"""A fixture that runs an experiment's `measure` in the frame, with a plan small enough for a test."""

import io
import json

import pytest
from rich.console import Console

from experiments.shared.experiment import Experiment, run_experiment
from experiments.shared.options import RunOptions


@pytest.fixture
def run_measure(tmp_path):
    def run(measure):
        console = Console(file=io.StringIO(), width=200)
        path = run_experiment(lambda _: Experiment("test", measure), RunOptions(out=tmp_path / "run"), console)
        table = (path / "table.txt").read_text("utf-8")
        assert table in console.file.getvalue()
        return json.loads((path / "results.json").read_text("utf-8")), table

    return run
