"""Sweeps: packed runs equal single ones, and interruptions change nothing."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from itertools import product

import numpy as np
import pytest
from rich.console import Console
from tiny_runs import assert_same_run, bits, contents, signal_when, tiny_config

from jaxlm.runs.load import load_model
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.sweeps.plan import plan_sweep, run_names
from jaxlm.runs.sweeps.run import run_sweep
from jaxlm.runs.sweeps.summary import list_sweep_runs, summarize_sweep
from jaxlm.runs.train import resume_run, start_run

slow = pytest.mark.slow
GRID = {"lr": [0.5, 2], "momentum": [0.5, 0.9], "warmup_steps": [1, 3]}


@pytest.fixture(scope="module")
def configs(text_folder):
    return plan_sweep(tiny_config(text_folder, save_every=None, val_windows=30), {**GRID, "seed": [3, 10]})


@pytest.fixture(scope="module")
def sweep(configs, tmp_path_factory):
    """A finished sweep of one pack; do not modify it."""
    return run_sweep(tmp_path_factory.mktemp("sweeps") / "sweep", configs)


def runs_of(sweep):
    return sorted(path for path in sweep.iterdir() if path.is_dir())


@slow
def test_a_packed_run_equals_its_single_run(sweep, configs, tmp_path):
    runs = runs_of(sweep)
    assert len(runs) == len(configs) == 16
    for index in (0, 7, 13):
        alone = start_run(configs[index], tmp_path / str(index))
        for checkpoint in ("final", "last", "best"):
            trained, expected = (load_model(run, checkpoint).variables for run in (runs[index], alone))
            for leaf, other in zip(bits(trained), bits(expected), strict=True):
                values = [np.frombuffer(each[2], np.float32) for each in (leaf, other)]
                np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)
        for line, other in zip(
            *(read_metrics(each / "metrics.jsonl") for each in (runs[index], alone)), strict=True
        ):
            assert line.pop("model") == other.pop("model")
            assert line == pytest.approx(other, rel=1e-6)
        row, other = (
            json.loads((each / "results.json").read_text())["models"][0] for each in (runs[index], alone)
        )
        assert row["nats_per_token"] == pytest.approx(other["nats_per_token"], rel=1e-6)
        assert row["num_tokens"] == other["num_tokens"] == 38  # the results use all windows


@slow
def test_a_packed_run_can_be_extended(sweep, configs, tmp_path, text_folder):
    options = {"schedule": "constant", "num_steps": 6, "save_every": None}
    config = tiny_config(text_folder, **options)
    run = runs_of(run_sweep(tmp_path / "sweep", plan_sweep(config, {"seed": [1, 2]})))[1]
    longer = dataclasses.replace(config, num_steps=12, seed=2)
    alone = start_run(longer, tmp_path / "alone")
    variables = load_model(resume_run(run, longer)).variables
    expected = load_model(alone).variables
    for leaf, other in zip(bits(variables), bits(expected), strict=True):
        np.testing.assert_allclose(
            *(np.frombuffer(each[2], np.float32) for each in (leaf, other)), rtol=1e-4, atol=1e-6
        )


@slow
def test_an_interrupted_sweep_continues_to_the_same_bits(sweep, configs, tmp_path):
    path = tmp_path / "sweep"
    for trigger, signum in (("step 0/", signal.SIGINT), ("step 5/", signal.SIGTERM)):
        hint = f"^{signum.name}; continue with: jaxlm sweep --out {path}$"
        with pytest.raises(KeyboardInterrupt, match=hint):
            run_sweep(path, configs, console=signal_when(trigger, signum))
        assert not list(path.glob("0*"))
    console = signal_when("step 0/", signal.SIGINT)  # which would stop it, if it started again
    assert run_sweep(path, console=console) == path
    assert [run.name for run in runs_of(path)] == [run.name for run in runs_of(sweep)]
    for run, other in zip(runs_of(path), runs_of(sweep), strict=True):
        assert_same_run(run, other)
    before = contents(path)
    run_sweep(path, configs)
    assert contents(path) == before


@slow
def test_a_run_that_diverges_does_not_stop_the_others(text_folder, tmp_path):
    sizes = {"model": "bigram", "context_length": None, "hidden_dim": None}
    config = tiny_config(text_folder, clip_norm=None, **sizes)
    sweep = run_sweep(tmp_path / "sweep", plan_sweep(config, {"lr": [0.1, 1e9]}))
    states = {row["run"]: (row["state"], row["why"]) for row in list_sweep_runs(sweep)}
    with pytest.raises(FloatingPointError) as error:
        start_run(dataclasses.replace(config, lr=1e9), tmp_path / "alone")
    assert states == {"0-lr=0.1": ("done", None), "1-lr=1000000000.0": ("failed", str(error.value))}


@slow
def test_a_run_that_cannot_be_trained_does_not_stop_the_others(text_folder, tmp_path, capsys):
    config = tiny_config(text_folder, save_every=None)
    configs = plan_sweep(config, {"context_length": [10_000, 2], "seed": [0, 1]})
    configs += plan_sweep(config, {"context_length": [10_000, 3], "optimizer": ["adam"]})
    damaged = tmp_path / "sweep" / run_names(configs)[2]
    run_sweep(tmp_path / "sweep", configs, index=2)
    (damaged / "manifest.json").write_text("{")
    console = Console(width=200)
    run_sweep(tmp_path / "sweep", configs, console=console)
    names, lines = run_names(configs), capsys.readouterr().out.splitlines()
    for failed in (f"{names[0]} to {names[1]}", names[4]):
        assert sum(line.startswith(f"{failed}: ") and "use a longer text" in line for line in lines) == 1, lines
    assert (
        sum(line.startswith(f"{names[2]}: {damaged / 'manifest.json'} is not valid JSON") for line in lines) == 1
    )
    states = [row["state"] for row in list_sweep_runs(tmp_path / "sweep")]
    assert states == ["planned", "planned", "damaged", "done", "planned", "done"]


@slow
def test_a_pack_does_not_replace_a_damaged_run(configs, tmp_path):
    sweep = tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, configs[:3], console=signal_when("step 5/", signal.SIGINT))
    damaged = sweep / run_names(configs[:3])[0]
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{")
    run_sweep(sweep)
    assert [row["state"] for row in list_sweep_runs(sweep)] == ["damaged", "done", "done"]
    assert not list(sweep.glob("pack-*"))


def test_run_sweep_refuses_a_damaged_pack(text_folder, tmp_path):
    configs = plan_sweep(tiny_config(text_folder), {"seed": [0, 1]})
    with pytest.raises(ValueError, match="index"):
        run_sweep(tmp_path, configs, index=9)  # which writes the plan
    (tmp_path / "pack-0").mkdir()
    for content in ("{", "3", "[]", "[3]", '["another"]'):
        (tmp_path / "pack-0" / "runs.json").write_text(content)
        with pytest.raises(ValueError, match=r"pack-0.runs\.json is damaged; remove .*pack-0, so that"):
            run_sweep(tmp_path)


@slow
def test_the_index_trains_one_run_in_any_order(text_folder, tmp_path):
    configs = plan_sweep(tiny_config(text_folder), {"optimizer": ["sgd", "adam"], "seed": [0]})
    configs += plan_sweep(tiny_config(text_folder), {"seed": [1]})
    paths = [tmp_path / "up", tmp_path / "down"]
    for path, order in zip(paths, ([0, 1, 2], [2, 0, 1]), strict=True):
        for index in order:
            run_sweep(path, configs, index=index)
    for index, (run, other) in enumerate(zip(*map(runs_of, paths), strict=True)):
        assert_same_run(run, other)
        assert_same_run(run, start_run(configs[index], tmp_path / str(index)))
    with pytest.raises(ValueError, match=r"index must be in \[0, 3\), got 3"):
        run_sweep(paths[0], index=3)


@slow
def test_a_run_started_by_its_index_continues_alone(configs, tmp_path):
    sweep, three = tmp_path / "sweep", configs[:3]
    with pytest.raises(KeyboardInterrupt, match=f"continue with: jaxlm sweep --out {sweep} --index 1"):
        run_sweep(sweep, three, index=1, console=signal_when("step 5/", signal.SIGINT))
    run_sweep(sweep, three)
    runs = runs_of(sweep)
    assert [read_manifest(run)["sessions"] for run in runs] == [1, 2, 1]
    assert_same_run(runs[1], start_run(configs[1], tmp_path / "alone"))


@slow
def test_a_signal_outside_of_training_names_how_to_continue(configs, tmp_path):
    with pytest.raises(KeyboardInterrupt, match=r"^SIGTERM; continue with: jaxlm sweep --out "):
        run_sweep(tmp_path / "sweep", configs, console=signal_when("as one program", signal.SIGTERM))


@pytest.mark.stress
def test_workers_train_in_processes(text_folder, tmp_path):
    config = tiny_config(text_folder, model="counts", context_length=None, embedding_dim=None, hidden_dim=None)
    sweep = run_sweep(tmp_path / "sweep", plan_sweep(config, {"smoothing": [0.1, 0.5, 1]}), workers=2)
    assert [row["state"] for row in list_sweep_runs(sweep)] == ["done"] * 3


@slow
def test_a_sweep_gets_more_seeds(text_folder, tmp_path):
    sizes = {"model": "counts", "context_length": None, "embedding_dim": None, "hidden_dim": None}
    config = tiny_config(text_folder, smoothing=None, **sizes)
    sweep, grid = tmp_path / "sweep", {"smoothing": [0.1, 1.0]}
    run_sweep(sweep, plan_sweep(config, {**grid, "seed": [10]}))
    before = contents(sweep / "0-smoothing=0.1")
    run_sweep(sweep, plan_sweep(config, {**grid, "seed": range(9, 12)}))
    names = ["0-smoothing=0.1", "1-smoothing=1.0"]
    names += [f"{2 + i}-smoothing={k},seed={seed}" for i, (k, seed) in enumerate(product([0.1, 1.0], [9, 11]))]
    assert [(row["run"], row["state"]) for row in list_sweep_runs(sweep)] == [(name, "done") for name in names]
    assert contents(sweep / names[0]) == before
    assert [row["num_done"] for row in summarize_sweep(sweep)] == [3, 3]
    for other in ({"seed": range(9, 12)}, {"smoothing": [0.1, 1.0, 2.0], "seed": range(9, 12)}):
        with pytest.raises(ValueError, match="is a sweep of other runs; repeat its options, with the same"):
            run_sweep(sweep, plan_sweep(config, {"smoothing": [0.1], **other}))


@pytest.mark.stress
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_workers_end_with_their_parent(text_folder, tmp_path):
    sweep = tmp_path / "sweep"
    configs = plan_sweep(tiny_config(text_folder, num_steps=10**7), {"optimizer": ["adam", "muon"]})
    with pytest.raises(ValueError, match="index"):
        run_sweep(sweep, configs, index=9)  # which writes the plan
    command = [sys.executable, "-m", "jaxlm", "sweep", f"--out={sweep}", "--workers=2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as parent:
        while len(list(sweep.glob("*/metrics.jsonl"))) < 2:
            assert parent.poll() is None
            time.sleep(0.1)
        parent.kill()
    deadline = time.monotonic() + 60
    while {row["state"] for row in list_sweep_runs(sweep)} != {"interrupted"}:
        assert time.monotonic() < deadline, list_sweep_runs(sweep)
        time.sleep(0.2)


def test_run_sweep_refuses_other_directories(text_folder, tmp_path):
    configs = [tiny_config(text_folder)]
    with pytest.raises(FileNotFoundError, match=r"is not a sweep: sweep\.json is missing"):
        run_sweep(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is not empty and not a sweep"):
        run_sweep(tmp_path, configs)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_sweep(tmp_path / "none", configs, workers=0)
    with pytest.raises(ValueError, match="index must be in"):
        run_sweep(tmp_path / "sweep", configs, index=9)  # writes the plan
    with pytest.raises(ValueError, match="is a sweep of other runs"):
        run_sweep(tmp_path / "sweep", [tiny_config(text_folder, seed=1)])
    (tmp_path / "sweep" / "sweep.json").write_text('{"version": 1}')
    with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
        run_sweep(tmp_path / "sweep")
