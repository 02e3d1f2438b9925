"""Crashes, full disks, divergence and damaged checkpoints lose nothing that was saved."""

import contextlib
import errno
import os
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from session_helpers import EXTENSIBLE, load_state, outcome, steps_kept, stop, train
from tiny_runs import QUIET, call_when, contents, flip_bit, largest_file, tiny_config

from jaxlm.checkpoints.train_states import checkpoint_path
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.session import latest_usable_checkpoint, return_to_checkpoint
from jaxlm.runs.setup import prepare_training

pytestmark = pytest.mark.slow  # each set of options compiles a training step


class Crash(BaseException):
    """Stands for the death of the process."""


def crash_at(patch, number):
    """Make every call that syncs or renames a file raise Crash, from the call of this number on."""
    calls = []

    def count(call):
        def counted(*arguments, **options):
            calls.append(call)
            if len(calls) >= number:
                raise Crash
            return call(*arguments, **options)

        return counted

    for name in ("fsync", "rename", "replace"):
        patch.setattr(os, name, count(getattr(os, name)))
    return calls


@pytest.mark.parametrize(
    "number", [3, *(pytest.param(each, marks=pytest.mark.stress) for each in (1, 2, *range(4, 60)))]
)
def test_a_crash_while_extending_changes_no_bit(number, text_folder, extended_outcomes, tmp_path, monkeypatch):
    train(tmp_path, tiny_config(text_folder, **EXTENSIBLE))
    longer = tiny_config(text_folder, num_steps=20, **EXTENSIBLE)
    with monkeypatch.context() as patch, contextlib.suppress(Crash):
        calls = crash_at(patch, number)
        train(tmp_path, longer)
    assert len(calls) >= min(number, 40)
    assert outcome(tmp_path, longer)[:3] == extended_outcomes[5][:3]


@pytest.mark.stress
@pytest.mark.parametrize("number", range(1, 6))
def test_a_crash_while_returning_changes_no_bit(number, config, session_outcome, tmp_path, monkeypatch):
    for step in (1, 6, 11):
        stop(tmp_path, config, step)
    for step in (8, 11):
        flip_bit(largest_file(checkpoint_path(tmp_path / "checkpoints", step)))
    with monkeypatch.context() as patch:
        crash_at(patch, number)
        with pytest.raises(Crash):
            train(tmp_path, config)
    assert outcome(tmp_path, config) == session_outcome


def disk_full(path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.mark.parametrize("full", ["log", "checkpoints"])
def test_a_disk_full_later_keeps_what_was_saved(full, config, session_outcome, tmp_path, monkeypatch):
    stop(tmp_path, config, 6)
    open_file, fsync = Path.open, os.fsync

    def open_unless_full(path, mode="r", **options):
        return disk_full(path) if mode == "a" else open_file(path, mode, **options)

    def fsync_unless_full(descriptor):
        return disk_full("") if threading.current_thread().name.startswith("checkpoints") else fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(*(Path, "open", open_unless_full) if full == "log" else (os, "fsync", fsync_unless_full))
        remedy = "" if full == "log" else f"; if the disk is full, free space and resume {tmp_path}"
        with pytest.raises(OSError, match=f"No space left on device.*{remedy}"):
            train(tmp_path, config)
    assert 6 in steps_kept(tmp_path)
    assert outcome(tmp_path, config) == session_outcome


def test_a_failed_save_ends_training_at_the_next_record(text_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxlm.checkpoints.train_states.save_checkpoint", Mock(side_effect=OSError("no space")))
    with pytest.raises(OSError, match="no space"):  # of the save after step 4, and before the one after step 8
        train(tmp_path, tiny_config(text_folder, log_every=1), call_when("step 4/", lambda: time.sleep(1)))
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 4


def diverging(folder):
    options = {"num_steps": 100, "lr": 1.0, "weight_decay": 1e4, "clip_norm": None, "save_every": None}
    return tiny_config(folder, log_every=2, **options)


def test_a_diverging_training_saves_its_last_state(text_folder, tmp_path):
    with pytest.raises(FloatingPointError, match=r"step \d+") as raised:
        train(tmp_path, diverging(text_folder))
    nats = [line["val_nats_per_token"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    (step,) = steps_kept(tmp_path)
    saved = load_state(tmp_path, step, diverging(text_folder))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((saved.state.params, saved.best)))
    assert saved.best.nats_per_token == np.float32(min(each for each in nats if each is not None))
    with pytest.raises(FloatingPointError) as again:
        train(tmp_path, diverging(text_folder))
    assert str(again.value) == str(raised.value)


def test_a_diverging_training_reports_divergence_on_a_full_disk(text_folder, tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(FloatingPointError):
        train(tmp_path, diverging(text_folder))


@pytest.fixture
def setup(text_folder):
    return prepare_training(tiny_config(text_folder), None, QUIET)


def test_return_to_checkpoint_restores_the_log(stopped, setup):
    log = stopped / "metrics.jsonl"
    content = log.read_bytes()
    log.write_bytes(content[:-9])
    return_to_checkpoint(stopped, setup, latest_usable_checkpoint(stopped, setup))
    assert log.read_bytes() == content


def test_nothing_is_changed_if_no_checkpoint_is_usable(stopped, setup):
    for step in steps_kept(stopped):
        flip_bit(largest_file(checkpoint_path(stopped / "checkpoints", step)))
    before = contents(stopped)
    with pytest.raises(ValueError, match="has no usable checkpoint to resume from; start another run"):
        latest_usable_checkpoint(stopped, setup)
    assert contents(stopped) == before
    (stopped / "checkpoints").rename(stopped / "model")  # of a finished run whose checkpoints are lost
    with pytest.raises(ValueError, match="has no usable checkpoint to resume from"):
        latest_usable_checkpoint(stopped, setup)
