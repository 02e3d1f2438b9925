"""Training that stops and goes on ends with the same bits, whatever stopped it and whatever was damaged since."""

import contextlib
import errno
import importlib
import json
import logging
import os
import shutil
import struct
import threading

import jax
import numpy as np
import pytest
from rich.console import Console
from tiny_runs import assert_same, bits, make_quick, stopped_at, tiny_config

from jaxlm.checkpoints.train_states import (
    Checkpoint,
    best_step,
    checkpoint_path,
    checkpoint_steps,
    load_checkpoint,
)
from jaxlm.runs import session as saved_training
from jaxlm.runs.load import load_run
from jaxlm.runs.manifest import read_manifest, write_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.session import latest_usable_checkpoint, restore_position, train_with_checkpoints
from jaxlm.runs.setup import abstract_state, prepare_training, train_key
from jaxlm.runs.train import resume_run, start_run
from jaxlm.training.loop import train_lm
from jaxlm.utils.checksums import file_checksums

_PATIENCE = 60  # seconds, for a machine that does much else


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the text lies."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(folder):
    """A run that nobody stopped."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        return start_run(tiny_config(folder), folder / "finished")


@pytest.fixture(scope="module")
def cosine(folder):
    """Another, whose learning rate falls."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        return start_run(tiny_config(folder, schedule="cosine"), folder / "cosine")


@pytest.fixture(scope="module")
def stopped_after_eight(folder):
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        with stopped_at(patch, 8):
            start_run(tiny_config(folder), folder / "stopped")
    return folder / "stopped"


@pytest.fixture
def stopped(stopped_after_eight, tmp_path):
    """A run that was stopped after step 8, with checkpoints after steps 4, 6 and 8."""
    return shutil.copytree(stopped_after_eight, tmp_path / "run")


def job_of(config):
    return prepare_training(config, None, Console(quiet=True))


def steps_kept(run):
    return checkpoint_steps(run / "checkpoints")


def checkpoint_of(run, step):
    return checkpoint_path(run / "checkpoints", step)


def states_of(config):
    """The state after each step of a run that saves nothing."""
    job, states = job_of(config), {}

    def keep(state):
        states[int(state.step)] = jax.tree.map(lambda leaf: np.array(leaf), state)

    train_lm(
        job.model,
        job.data.train_ids,
        key=train_key(config),
        batch_size=config.batch_size,
        num_steps=config.num_steps,
        optimizer=job.optimizer,
        device=job.device,
        on_pause=keep,
        pause_every=1,
    )
    return states


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "arrays")


# Stopped, and gone on with.


@pytest.mark.parametrize("step", [1, 4, 6, 8, 11, 12])
def test_a_run_that_was_stopped_ends_with_the_same_bits(step, folder, finished, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with stopped_at(monkeypatch, step, "SIGTERM"):
        start_run(tiny_config(folder), run)
    manifest = read_manifest(run)
    assert (manifest["state"], manifest["why"]) == ("interrupted", "SIGTERM")
    assert steps_kept(run)[-1] == step  # saved before it ended
    resume_run(run)
    assert_same(run, finished)
    assert read_manifest(run)["sessions"] == 2


def test_a_run_that_was_stopped_again_and_again_ends_with_the_same_bits(cosine, folder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with stopped_at(monkeypatch, 1):
        start_run(tiny_config(folder, schedule="cosine"), run)
    for step in (4, 6, 8, 11, 12):
        with stopped_at(monkeypatch, step):
            resume_run(run)
    resume_run(run)
    assert_same(run, cosine)


@pytest.fixture(scope="module")
def impatient(folder):
    """A run with dropout that ends before its last step, for the validation grew worse."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        return start_run(tiny_config(folder, **IMPATIENT), folder / "impatient")


IMPATIENT = {
    "num_steps": 40,
    "patience": 2,
    "lr": 8.0,
    "clip_norm": None,
    "dropout": 0.5,
    "direct_connections": True,
}


def test_a_run_with_patience_ends_early_with_the_best(impatient):
    lines = read_metrics(impatient / "metrics.jsonl")
    nats = [line["val_nats_per_token"] for line in lines]
    best = nats.index(min(nats))
    assert best == len(nats) - 3  # two records without a better one
    assert lines[-1]["step"] < 39
    assert bits(load_run(impatient)[1]) == bits(load_run(impatient, "best")[1])
    results = json.loads((impatient / "results.json").read_text("utf-8"))
    assert results["models"][0]["nats_per_token"] == pytest.approx(nats[best])


@pytest.mark.parametrize("step", [4, 6])
def test_a_run_with_patience_that_was_stopped_ends_with_the_same_bits(
    step, folder, impatient, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with stopped_at(monkeypatch, step):
        start_run(tiny_config(folder, **IMPATIENT), run)
    resume_run(run)
    for name in ("metrics.jsonl", "samples.txt"):
        assert (run / name).read_bytes() == (impatient / name).read_bytes()
    assert bits(load_run(run)[1]) == bits(load_run(impatient)[1])


def test_a_run_with_patience_cannot_grow(folder, impatient):
    with pytest.raises(ValueError, match="has --patience 2, and cannot grow: start another run"):
        resume_run(impatient, tiny_config(folder, **(IMPATIENT | {"num_steps": 50})))


def test_a_signal_after_the_last_pause_is_heard(folder, finished, tmp_path, monkeypatch):
    came = []

    @contextlib.contextmanager
    def heard_at_the_end():
        yield lambda: came[0] if came else None
        came.append("SIGINT")

    with monkeypatch.context() as patch:
        patch.setattr(saved_training, "interruptible", heard_at_the_end)
        with pytest.raises(KeyboardInterrupt, match="SIGINT"):
            start_run(tiny_config(folder), tmp_path / "run")
    assert read_manifest(tmp_path / "run")["state"] == "interrupted"
    assert steps_kept(tmp_path / "run")[-1] == 12
    resume_run(tmp_path / "run")
    assert_same(tmp_path / "run", finished)


# What is saved, and when.


def test_a_checkpoint_is_the_state_of_its_step(folder, tmp_path, monkeypatch):
    """And no later one: the next step takes the arrays over while they are written."""
    config, save = tiny_config(folder, save_every=1, keep=99), saved_training.save_checkpoint

    def save_what_is_its_own(path, checkpoint):
        assert all(leaf.flags.owndata for leaf in jax.tree.leaves(checkpoint.state))
        return save(path, checkpoint)

    monkeypatch.setattr(saved_training, "save_checkpoint", save_what_is_its_own)
    run = start_run(config, tmp_path / "run")
    states, job = states_of(config), job_of(config)
    assert steps_kept(run) == [*range(1, 13)]
    for step in steps_kept(run):
        saved = load_checkpoint(checkpoint_of(run, step), abstract_state(job.model, job.optimizer, config))
        assert bits(saved.state) == bits(states[step])
        lines = (run / "metrics.jsonl").read_bytes()[: saved.metrics[0]].splitlines()
        assert len(lines) == sum(step > recorded for recorded in (0, 5, 10, 11))
    assert bits(load_run(run)[1]["params"]) == bits(states[12].params)


def test_the_last_ones_are_kept_and_the_best_one(folder, tmp_path):
    config = tiny_config(folder, num_steps=40, save_every=10, log_every=1, keep=1)
    run = start_run(config, tmp_path / "run")
    nats = [line["val_nats_per_token"] for line in read_metrics(run / "metrics.jsonl")]
    best = nats.index(min(nats)) + 1
    assert 1 < best < 40  # or the test would show nothing
    assert steps_kept(run) == [best, 40]
    assert best_step(run / "checkpoints") == best
    assert bits(load_run(run, "best")[1]["params"]) == bits(states_of(config)[best].params)


@pytest.mark.parametrize(("seconds", "expected"), [(600.0, [12]), (0.0, [*range(1, 13)])])
def test_a_checkpoint_is_due_after_some_seconds(seconds, expected, folder, tmp_path):
    config = tiny_config(folder, save_every=None, save_seconds=seconds, log_every=1, keep=99)
    run = start_run(config, tmp_path / "run")
    best = best_step(run / "checkpoints")
    assert [step for step in steps_kept(run) if step != best or step in expected] == expected


def test_the_training_goes_on_while_a_checkpoint_is_written(folder, finished, tmp_path, monkeypatch):
    recorded, waited = threading.Event(), []
    save, append = saved_training.save_checkpoint, saved_training.append_metrics

    def save_slowly(*arguments):
        waited.append(recorded.wait(_PATIENCE))
        return save(*arguments)

    def append_and_tell(path, line):
        if line["step"] == 5:  # between the checkpoints after steps 4 and 8
            recorded.set()
        return append(path, line)

    monkeypatch.setattr(saved_training, "save_checkpoint", save_slowly)
    monkeypatch.setattr(saved_training, "append_metrics", append_and_tell)
    run = start_run(tiny_config(folder), tmp_path / "run")
    assert waited[0]
    assert_same(run, finished)


# Growth.


def grown(folder, **options):
    return tiny_config(folder, num_steps=20, **options)


@pytest.fixture(scope="module")
def long(folder):
    """A run of 20 steps from its start, in which the last record of one of 12 is none."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        return start_run(grown(folder), folder / "long")


@pytest.mark.parametrize("log_every", [4, 5, 11])
def test_a_run_that_grew_has_the_bits_of_a_long_one(log_every, folder, tmp_path):
    long = start_run(grown(folder, log_every=log_every), tmp_path / "long")
    run = start_run(tiny_config(folder, log_every=log_every), tmp_path / "run")
    resume_run(run, grown(folder, log_every=log_every))
    assert (run / "metrics.jsonl").read_bytes() == (long / "metrics.jsonl").read_bytes()
    assert (run / "samples.txt").read_bytes() == (long / "samples.txt").read_bytes()
    assert bits(load_run(run)[1]) == bits(load_run(long)[1])
    assert read_manifest(run)["notes"] == ["--num-steps raised from 12 to 20"]
    assert json.loads((run / "config.json").read_text())["num_steps"] == 20


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize(
    ("module", "name", "before"),
    [
        ("training_runs", "remove", True),
        ("training_runs", "write_json", True),
        ("training_runs", "restore_position", True),
        ("saved_training", "amend_checkpoint", True),
        ("saved_training", "amend_checkpoint", False),
        ("saved_training", "truncate_metrics", False),
    ],
)
def test_a_crash_while_a_run_grows_changes_no_bit(
    module, name, before, folder, finished, long, tmp_path, monkeypatch
):
    run = shutil.copytree(finished, tmp_path / "run")
    call = getattr(importlib.import_module(f"jaxlm.{module}"), name)

    def crash(*arguments):
        if not before:
            call(*arguments)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(f"jaxlm.{module}.{name}", crash)
        with pytest.raises(Crash):
            resume_run(run, grown(folder))
    resume_run(run)
    assert (run / "metrics.jsonl").read_bytes() == (long / "metrics.jsonl").read_bytes()
    assert bits(load_run(run)[1]) == bits(load_run(long)[1])
    assert read_manifest(run)["config"]["num_steps"] == 20


def test_the_best_state_outlives_the_growth_of_its_run(folder, tmp_path, monkeypatch):
    """It was validated at the end of the shorter run, where the longer one records nothing."""
    options = {"log_every": 11, "keep": 1}
    run = start_run(tiny_config(folder, num_steps=10, **options), tmp_path / "run")
    assert steps_kept(run) == [10]
    with stopped_at(monkeypatch, 11):
        resume_run(run, tiny_config(folder, **options))
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [0]
    assert steps_kept(run) == [10, 11]
    assert best_step(run / "checkpoints") == 10


def test_a_cosine_that_ended_is_told_of(folder, cosine, tmp_path):
    run = shutil.copytree(cosine, tmp_path / "run")
    resume_run(run, grown(folder, schedule="cosine"))
    assert read_manifest(run)["notes"] == [
        "--num-steps raised from 12 to 20; the learning rate's cosine ends there now"
    ]
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [0, 5, 10, 15, 19]


# Faults.


def test_a_full_disk_is_told_with_the_remedy_and_left_behind(folder, finished, tmp_path, monkeypatch):
    run, save = tmp_path / "run", saved_training.save_checkpoint

    def save_or_fail(path, checkpoint):
        return (full_disk if checkpoint.state.step == 8 else save)(path, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(saved_training, "save_checkpoint", save_or_fail)
        with pytest.raises(OSError, match=rf"No space left on device.*free space.*--resume {run}"):
            start_run(tiny_config(folder), run)
    assert read_manifest(run)["state"] == "failed"
    assert "No space left" in read_manifest(run)["why"]
    assert 4 in steps_kept(run)
    resume_run(run)
    assert_same(run, finished)


@pytest.mark.parametrize("name", ["save_checkpoint", "prune_checkpoints", "append_metrics", "sync"])
def test_a_disk_that_is_full_at_the_end_loses_nothing_that_was_saved(name, stopped, finished, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(saved_training, name, full_disk)
        with pytest.raises(OSError, match="No space left on device"):
            resume_run(stopped)
    assert read_manifest(stopped)["state"] == "failed"
    resume_run(stopped)
    assert_same(stopped, finished)


def diverging(folder, **options):
    return tiny_config(
        folder, num_steps=100, lr=1.0, weight_decay=1e4, clip_norm=None, save_every=None, log_every=2, **options
    )


def test_a_run_that_diverges_keeps_its_best_state_and_names_the_step(folder, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(FloatingPointError, match=r"step \d+; lower the learning rate") as raised:
        start_run(diverging(folder), run)
    manifest = read_manifest(run)
    assert (manifest["state"], manifest["why"]) == ("failed", str(raised.value))
    nats = [line["val_nats_per_token"] for line in read_metrics(run / "metrics.jsonl")]
    best = 1 + 2 * nats.index(min(each for each in nats if each is not None))
    assert steps_kept(run) == [best]
    _, variables, _ = load_run(run, "best")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    with pytest.raises(FloatingPointError) as again:
        resume_run(run)
    assert str(again.value) == str(raised.value)


def test_a_run_that_diverges_says_so_on_a_full_disk_too(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(saved_training, "save_checkpoint", full_disk)
    with pytest.raises(FloatingPointError):
        start_run(diverging(folder), tmp_path / "run")
    assert read_manifest(tmp_path / "run")["why"].startswith("the ")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No space left on device" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="there, a folder with an open file cannot be moved")
def test_a_run_that_is_moved_away_is_not_begun_anew_where_it_was(folder, tmp_path):
    job = job_of(tiny_config(folder))
    with pytest.raises(OSError, match="No such file"):
        train_with_checkpoints(tmp_path / "moved away", job, None, Console(quiet=True))
    (tmp_path / "run").mkdir()
    with saved_training._saving(tmp_path / "run", keep=1) as save:
        shutil.move(tmp_path / "run", tmp_path / "moved")
        save(Checkpoint(states_of(job.config)[1], None, (0, "")))
        with pytest.raises(OSError, match="No such file"):
            save(wait=True)
    assert not (tmp_path / "run").exists()


def largest_file(run, step):
    return max(checkpoint_of(run, step).rglob("*"), key=lambda path: path.stat().st_size * path.is_file())


def flip(path, position=3):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def cut(tenths):
    def damage(run):
        path = largest_file(run, 8)
        os.truncate(path, path.stat().st_size * tenths // 10)

    return damage


DAMAGES = {f"cut to {tenths} tenths": cut(tenths) for tenths in range(10)} | {
    "a flipped byte": lambda run: flip(largest_file(run, 8)),
    "a missing file": lambda run: largest_file(run, 8).unlink(),
    "a flipped byte in its index": lambda run: flip(checkpoint_of(run, 8) / "checkpoint.json", 20),
    "no index": lambda run: (checkpoint_of(run, 8) / "checkpoint.json").unlink(),
    "no arrays": lambda run: shutil.rmtree(checkpoint_of(run, 8) / "arrays"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, stopped, folder, caplog):
    damage(stopped)
    job = job_of(tiny_config(folder))
    checkpoint = latest_usable_checkpoint(stopped, job)
    assert checkpoint.state.step == 6
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(checkpoint_of(stopped, 8)) in caplog.text
    assert steps_kept(stopped) == [4, 6, 8]
    restore_position(stopped, job, checkpoint)
    assert steps_kept(stopped) == [4, 6]
    assert [line["step"] for line in read_metrics(stopped / "metrics.jsonl")] == [0, 5]


@pytest.mark.parametrize("damaged", [[8], [6, 8], [4]])
def test_damaged_checkpoints_change_no_bit(damaged, stopped, finished, caplog):
    for step in damaged:
        flip(largest_file(stopped, step))
    resume_run(stopped)
    assert len(caplog.records) == (0 if damaged == [4] else len(damaged))
    assert_same(stopped, finished)


METRICS_DAMAGES = {
    "whole": (lambda content: content, 8),
    "a torn line more": (lambda content: content + b'{"model": "ml', 8),
    "a line more": (lambda content: content + b'{"step": 7}\n', 8),
    "the last line torn": (lambda content: content[:-9], 4),
    "the last line lost": (lambda content: content.splitlines(keepends=True)[0], 4),
    "the last line flipped": (lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], 4),
}


@pytest.mark.parametrize(("damage", "step"), METRICS_DAMAGES.values(), ids=METRICS_DAMAGES.keys())
def test_damaged_metrics_change_no_bit(damage, step, stopped, folder, finished, caplog):
    metrics = stopped / "metrics.jsonl"
    metrics.write_bytes(damage(metrics.read_bytes()))
    assert latest_usable_checkpoint(stopped, job_of(tiny_config(folder))).state.step == step
    assert len(caplog.records) == sum(each > step for each in (4, 6, 8))
    assert all("metrics.jsonl is not what it was at step" in record.message for record in caplog.records)
    resume_run(stopped)
    assert_same(stopped, finished)


@pytest.mark.parametrize(
    "damage",
    [lambda content: bytes([content[0] ^ 1]) + content[1:], lambda content: b""],
    ids=["flipped", "empty"],
)
def test_where_no_checkpoint_knows_the_metrics_nothing_is_changed(damage, stopped):
    metrics = stopped / "metrics.jsonl"
    metrics.write_bytes(damage(metrics.read_bytes()))
    before = file_checksums(stopped)
    with pytest.raises(ValueError, match="has checkpoints, and none can be used: the warnings say why"):
        resume_run(stopped)
    assert file_checksums(stopped) == before


def test_metrics_that_are_a_pipe_are_an_error_and_no_wait(stopped):
    (stopped / "metrics.jsonl").unlink()
    os.mkfifo(stopped / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is a pipe or a device"):
        resume_run(stopped)


def test_a_crash_while_a_run_goes_back_changes_no_bit(stopped, finished, monkeypatch):
    """Whatever is taken away of what came later, the rest still is of one run."""
    for step in (6, 8):
        flip(largest_file(stopped, step))
    with monkeypatch.context() as patch:
        for name in ("set_aside", "set_aside", "truncate_metrics"):
            call = getattr(saved_training, name)

            def crash(*arguments, call=call):
                call(*arguments)
                raise Crash

            patch.setattr(saved_training, name, crash)
            with pytest.raises(Crash):
                resume_run(stopped)
            patch.setattr(saved_training, name, call)
    resume_run(stopped)
    assert_same(stopped, finished)


# TensorBoard.


def events_in(folder):
    """The events of all files, in the order in which TensorBoard reads them."""
    tensorboard = pytest.importorskip("tensorboardX")
    for path in sorted(folder.iterdir()):
        content, position = path.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            yield tensorboard.proto.event_pb2.Event.FromString(content[position + 12 : position + 12 + length])
            position += length + 16


def test_tensorboard_is_told_each_step_once(folder, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    config, run = tiny_config(folder, tensorboard=True), tmp_path / "run"
    with stopped_at(monkeypatch, 6):
        start_run(config, run)
    flip(largest_file(run, 6))  # what came of it is void, as is what was recorded after step 5
    resume_run(run)
    told = {}
    for event in events_in(run / "tensorboard"):
        if event.HasField("session_log"):
            told = {key: value for key, value in told.items() if key[0] < event.step}
        for value in event.summary.value:
            assert (event.step, value.tag) not in told
            told[event.step, value.tag] = value.simple_value
    lines = read_metrics(run / "metrics.jsonl")
    assert told == {
        (line["step"], tag): np.float32(line[name])
        for line in lines
        for tag, name in (
            ("train/nats_per_token", "train_loss"),
            ("validation/nats_per_token", "val_nats_per_token"),
            ("validation/perplexity", "val_perplexity"),
        )
    }


def test_a_run_that_lost_patience_ends_with_its_last_state_saved(folder, tmp_path):
    """By its seconds and steps between two checkpoints none is due."""
    path = start_run(tiny_config(folder, **IMPATIENT), tmp_path / "run")
    (last,) = read_metrics(path / "metrics.jsonl")[-1:]
    assert max(checkpoint_steps(path / "checkpoints")) == last["step"] + 1
    (path / "model" / "model.json").unlink()
    resume_run(path)
    assert load_run(path)


def test_a_run_of_before_an_option_goes_on_with_its_default(folder, tmp_path, monkeypatch, caplog):
    run = tmp_path / "run"
    with stopped_at(monkeypatch, 4):
        start_run(tiny_config(folder), run)
    later = {"dropout", "direct_connections", "warmup_steps", "decoupled_decay", "patience"}
    manifest = read_manifest(run)
    options = {name: value for name, value in manifest["config"].items() if name not in later}
    write_manifest(run, manifest | {"config": options})
    (run / "config.json").write_text(json.dumps(options), "utf-8")
    assert load_run(run, "last")
    resume_run(run)
    assert read_manifest(run)["state"] == "done"
    assert not caplog.records


def test_decay_that_is_none_cannot_be_decoupled_in_a_new_run_but_an_old_one_is_read(folder, finished, tmp_path):
    with pytest.raises(ValueError, match="--decoupled-decay needs a --weight-decay above 0"):
        start_run(tiny_config(folder, decoupled_decay=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    old = shutil.copytree(finished, tmp_path / "old")
    manifest = read_manifest(old)
    write_manifest(old, manifest | {"config": manifest["config"] | {"decoupled_decay": True}})
    assert load_run(old, "last")
