"""`jaxlm sweep`, and `jaxlm runs` of its directory."""

import csv
import functools
import io
import math
import os
import shlex
import signal
import subprocess
import sys

import pytest
from cli_helpers import SMALL, call, make_run, pipe, shown

from jaxlm.cli import main
from jaxlm.cli.sweep import SweepOptions, plan
from jaxlm.runs.config import TrainConfig, config_to_json
from jaxlm.runs.manifest import write_json
from jaxlm.runs.sweeps.run import run_sweep

sweep, runs = (functools.partial(call, name) for name in ("sweep", "runs"))
FIGURES = ("nats_per_token", "perplexity", "bits_per_byte", "train_seconds")


@pytest.fixture
def planned(tmp_path):
    """A sweep of two rates and three seeds, without any training."""
    grid = {"lr": [0.5, 0.1], "seed": [0, 1, 2]}
    options = SweepOptions(TrainConfig(device="cpu"), out=tmp_path / "sweep", grid=("lr=0.5,0.1", "seed=0..2"))
    with pytest.raises(ValueError, match="index"):
        run_sweep(options.out, plan(options), index=len(grid) * 99)  # which writes the plan
    return options.out


def finish(path, nats, **options):
    """Write a finished run with this validation loss."""
    run = make_run(path, config=config_to_json(TrainConfig(device="cpu", **options)), losses=[4.0, nats])
    row = dict(zip(FIGURES, (nats, math.exp(nats), nats / math.log(2), 1.0), strict=True)) | {"name": "mlp"}
    write_json(run / "results.json", {"models": [row]})


def test_plan_combines_grid_and_random_draws(tmp_path):
    options = SweepOptions(
        TrainConfig(model="bigram"),
        out=tmp_path,
        grid=("seed=0..1",),
        random=("3", "lr=log:0.1..1", "--batch-size=4..8"),
    )
    configs = plan(options)
    assert [config.seed for config in configs] == [0, 1] * 3
    assert len({(config.lr, config.batch_size) for config in configs}) == 3
    assert {config.model for config in configs} == {"bigram"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": ("lr",)}, "--grid must be NAME=VALUES such as lr=0.1,0.3, got 'lr'"),
        ({"grid": ("lr=1", "lr=2")}, "--grid names an option twice, got 'lr=2'"),
        ({"random": ("lr=1..2",)}, "--random must be a number of runs and ranges, got lr=1..2"),
        ({"random": ("5",)}, "--random must be a number of runs and ranges, got 5"),
        (
            {"training": TrainConfig(lr=3), "grid": ("lr=1,2",)},
            "--lr 3 and --grid lr exclude each other; remove one",
        ),
        ({"training": TrainConfig(lr=3), "random": ("5", "lr=1..2")}, "--lr 3 and --random lr exclude each other"),
        ({"training": TrainConfig(lr=1.0)}, "the options are those of the sweep in --out; remove the others"),
    ],
)
def test_sweep_refuses_other_words(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sweep(**options, out=tmp_path / "sweep")


def test_runs_pools_the_seeds_of_a_sweep(planned):
    for name, nats, lr, seed in [("0-lr=0.5,seed=0", 2.7, 0.5, 0), ("1-lr=0.5,seed=1", 3.0, 0.5, 1)]:
        finish(planned / name, nats, lr=lr, seed=seed)
    for seed, nats in enumerate([2.0, 3.0, 4.0]):
        finish(planned / f"{3 + seed}-lr=0.1,seed={seed}", nats, lr=0.1, seed=seed)
    console = pipe()
    document = runs((planned,), best=True, plot=planned.parent / "x" / "plot.png", console=console)
    best, other = document["settings"]  # the finished setting first, although its mean is higher
    assert (best["options"], best["num_done"], best["nats_per_token"]) == ({"lr": 0.1}, 3, 3.0)
    half_width = 4.3027 / math.sqrt(3)  # the quantile of t with 2 degrees of freedom, and a deviation of 1
    assert best["nats_per_token_half_width"] == pytest.approx(half_width, rel=1e-4)
    assert (other["options"], other["num_done"], len(other["runs"])) == ({"lr": 0.5}, 2, 3)
    lines = shown(console).splitlines()
    assert any(" ".join(line.split()).startswith("0.1 3/3 3.0000 ± 2.4841 ") for line in lines), lines
    assert f"1 of 6 runs are not done; continue with: jaxlm sweep --out {planned}" in lines
    assert lines[-1] == document["best"]["command"] == "jaxlm train --lr 0.1 --device cpu"
    assert document["best"]["run"] == "3-lr=0.1,seed=0"
    assert [row["state"] for row in document["runs"]] == ["done"] * 2 + ["planned"] + ["done"] * 3
    assert (planned.parent / "x" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_runs_prints_csv_with_options(planned):
    finish(planned / "4-lr=0.1,seed=1", 2.5, lr=0.1, seed=1)
    console = pipe()
    runs((planned,), csv=True, best=True, console=console)
    rows = list(csv.DictReader(io.StringIO(shown(console))))
    assert [(row["run"], row["lr"], row["seed"], row["state"]) for row in rows[3:5]] == [
        ("3-lr=0.1,seed=0", "0.1", "0", "planned"),
        ("4-lr=0.1,seed=1", "0.1", "1", "done"),
    ]
    assert (rows[4]["nats_per_token"], rows[3]["nats_per_token"]) == ("2.5", "")


def test_runs_of_a_sweep_names_the_remedy_for_damaged_runs(planned):
    finish(planned / "3-lr=0.1,seed=0", 2.5, lr=0.1)
    damaged = planned / "0-lr=0.5,seed=0"
    finish(damaged, 2.5, lr=0.5)
    (damaged / "metrics.jsonl").write_text("x\n")
    console = pipe()
    runs((planned,), plot=planned.parent / "plot.png", console=console)
    remedy = f"remove the damaged ones, and continue with: jaxlm sweep --out {planned}"
    assert shown(console).splitlines()[-1] == f"5 of 6 runs are not done; {remedy}"


def test_runs_ranks_zero_bits_first(planned):
    for number in range(6):
        lr, seed = (0.5, 0.1)[number // 3], number % 3
        finish(planned / f"{number}-lr={lr},seed={seed}", 1.0 if lr == 0.5 else 0.0, lr=lr, seed=seed)
    assert [row["options"]["lr"] for row in runs((planned,))["settings"]] == [0.1, 0.5]


def test_runs_of_a_directory_names_its_sweeps(planned):
    console = pipe()
    assert runs((planned.parent,), console=console) == {"runs": []}
    assert shown(console) == f"{planned} is a sweep; show it with: jaxlm runs {planned}\n"


def test_runs_best_needs_a_finished_run(planned):
    with pytest.raises(ValueError, match="--best needs a finished training run"):
        runs((planned,), best=True)


@pytest.mark.slow
def test_sweep_trains_and_best_trains_again(text, tmp_path):
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in SMALL.items())
    command = (
        f"sweep --grid lr=0.1,1 --grid seed=0,1 {options} --text {text} --device cpu --out {tmp_path / 'sweep'}"
    )
    assert main(command.split()) == 0
    best = runs((tmp_path / "sweep",), best=True)["best"]
    assert main([*shlex.split(best["command"])[1:], "--out", str(tmp_path / "again")]) == 0
    again = runs((tmp_path / "again",))["runs"][0]
    expected = next(row for row in runs((tmp_path / "sweep",))["runs"] if row["run"] == best["run"])
    assert again["nats_per_token"] == pytest.approx(expected["nats_per_token"], rel=1e-6)
    assert again["options"] == expected["options"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM handler")
def test_sweep_index_has_exit_code_75_after_a_signal(text, tmp_path):
    command = [sys.executable, "-m", "jaxlm", "sweep", "--out", str(tmp_path / "sweep"), "--index=1"]
    grid = ["--grid", "lr=0.1,1", "--text", str(text), "--tokenizer", "char", "--device", "cpu"]
    grid += ["--num-steps", "400000", "--log-every", "1000"]
    with subprocess.Popen([*command, *grid], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any(": step 1000/" in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors.splitlines()[-1].endswith(f"continue with: jaxlm sweep --out {tmp_path / 'sweep'} --index 1")
