"""`jaxlm train`."""

import io
import math
from pathlib import Path

import pytest
from cli_helpers import pipe, shown, train
from rich.console import Console

from jaxlm.runs.load import open_run


def test_train_returns_and_prints_results_and_a_sample(trained):
    options, document, printed = trained
    (row,) = document["results"]["models"]
    assert (document["state"], document["path"]) == ("done", str(options.out))
    assert document["perplexity"] == row["perplexity"] == pytest.approx(math.exp(row["nats_per_token"]))
    assert f"\n{row['title']} " in printed
    assert document["results"]["samples"][row["title"]] in printed
    assert f"{options.out / 'report.html'}; for more samples: jaxlm sample {options.out}\n" in printed


def test_train_resume_of_a_finished_run_shows_it(run):
    console = pipe()
    document = train(open_run(run).config, resume=run, console=console)
    assert document["state"] == "done"
    assert str(run) in shown(console)
    with pytest.raises(ValueError, match="remove --out and --overwrite"):
        train(resume=run, out=Path("elsewhere"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_train_on_a_full_disk_drops_its_output(run):
    with Path("/dev/full").open("wb", buffering=0) as file:
        console = Console(file=io.TextIOWrapper(file, write_through=True))
        assert train(open_run(run).config, resume=run, console=console)["state"] == "done"
