"""Stopped and resumed training ends with equal bits, also after damage and failures."""

import contextlib
import errno
import logging
import os
import signal
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from event_files import shown_values
from tiny_runs import QUIET, bits, call_when, contents, flip_bit, largest_file, signal_when, tiny_config

import jaxlm
from jaxlm.checkpoints.train_states import best_step, checkpoint_path, checkpoint_steps, load_checkpoint
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.session import latest_usable_checkpoint, return_to_checkpoint, train_with_checkpoints
from jaxlm.runs.setup import abstract_state, prepare_training, train_options

pytestmark = pytest.mark.slow  # each set of options compiles a training step

EXTENSIBLE = {"schedule": "constant"}
IMPATIENT = {"num_steps": 40, "patience": 2, "lr": 8.0, "clip_norm": None, "dropout": 0.5}
IMPATIENT |= {"direct_connections": True}


def train(run, config, console=QUIET):
    """Start or resume in the directory `run`, and return the variables."""
    run.mkdir(exist_ok=True)
    setup = prepare_training(config, None, QUIET)
    checkpoint = latest_usable_checkpoint(run, setup)
    return_to_checkpoint(run, setup, checkpoint)
    return train_with_checkpoints(run, setup, checkpoint, console)[0]


def stop(run, config, step, signum=signal.SIGINT):
    """Train, and interrupt training when the record after `step` steps is printed."""
    with pytest.raises(KeyboardInterrupt, match=signum.name):
        train(run, config, signal_when(f"step {step}/", signum))


def steps_kept(run):
    return checkpoint_steps(run / "checkpoints")


def outcome(run, variables):
    """Return what must not depend on interruptions."""
    checkpoints = run / "checkpoints"
    return bits(variables), (run / "metrics.jsonl").read_bytes(), steps_kept(run)[-1], best_step(checkpoints)


def load_state(run, step, config):
    setup = prepare_training(config, None, QUIET)
    like = abstract_state(setup.model, setup.optimizer, config)
    return load_checkpoint(run / "checkpoints", step, like)


def states_of(config):
    """Return the state after each step of a training that saves nothing."""
    setup = prepare_training(config, None, QUIET)
    options = train_options(setup) | {"yield_every": 1}
    return {int(state.step): state for state, _ in jaxlm.train(setup.model, setup.data.train_ids, **options)}


@pytest.fixture(scope="module")
def expected(text_folder, tmp_path_factory):
    """The outcome of an uninterrupted training."""
    run = tmp_path_factory.mktemp("session") / "run"
    return outcome(run, train(run, tiny_config(text_folder)))


@pytest.fixture
def config(text_folder):
    return tiny_config(text_folder)


@pytest.mark.parametrize("steps", [[6], [1, 11, 12]], ids=str)
def test_a_stopped_training_resumes_with_equal_bits(steps, config, expected, tmp_path):
    for step, signum in zip(steps, [signal.SIGTERM, signal.SIGINT] * 2, strict=False):
        stop(tmp_path, config, step, signum)
        assert steps_kept(tmp_path)[-1] == step
    assert outcome(tmp_path, train(tmp_path, config)) == expected


def test_a_signal_after_the_last_step_is_not_lost(config, expected, tmp_path):
    """It arrives when the progress bar shows the cursor again."""
    console = signal_when("\x1b[?25h", signal.SIGINT, force_terminal=True)
    with pytest.raises(KeyboardInterrupt, match="SIGINT"):
        train(tmp_path, config, console)
    assert steps_kept(tmp_path)[-1] == 12
    assert outcome(tmp_path, train(tmp_path, config)) == expected


def test_training_seconds_add_up_over_sessions(config, tmp_path):
    stop(tmp_path, config, 6)
    checkpoint = load_state(tmp_path, 6, config)._replace(seconds=1000.0)
    setup = prepare_training(config, None, QUIET)
    _, seconds = train_with_checkpoints(tmp_path, setup, checkpoint, QUIET)
    assert 1000 < seconds < 1060


def test_patience_stops_early_and_resumes_with_equal_bits(text_folder, tmp_path):
    config = tiny_config(text_folder, **IMPATIENT)
    variables = train(tmp_path / "whole", config)
    whole = outcome(tmp_path / "whole", variables)
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    nats = [line["val_nats_per_token"] for line in lines]
    best = nats.index(min(nats))
    assert best == len(nats) - 3  # two records without improvement
    assert lines[-1]["step"] < 39
    assert steps_kept(tmp_path / "whole")[-1] == lines[-1]["step"] + 1  # the last state is saved
    saved = load_state(tmp_path / "whole", lines[best]["step"] + 1, config)
    assert bits(variables["params"]) == bits(saved.state.params)
    stop(tmp_path / "stopped", config, 6)
    assert outcome(tmp_path / "stopped", train(tmp_path / "stopped", config)) == whole


def test_a_checkpoint_is_the_state_of_its_step(text_folder, tmp_path):
    config = tiny_config(text_folder, save_every=1, keep=99)
    variables, states = train(tmp_path, config), states_of(config)
    assert steps_kept(tmp_path) == [*range(1, 13)]
    for step in steps_kept(tmp_path):
        saved = load_state(tmp_path, step, config)
        assert bits(saved.state) == bits(states[step])
        assert len(saved.log.splitlines()) == sum(step > each for each in (0, 5, 10, 11))
    assert bits(variables["params"]) == bits(states[12].params)


def test_latest_and_best_checkpoints_are_kept(text_folder, tmp_path):
    config = tiny_config(text_folder, log_every=1, keep=1)
    train(tmp_path, config)
    nats = [line["val_nats_per_token"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    best = nats.index(min(nats)) + 1
    assert 1 < best < 12  # otherwise the test would show nothing
    assert steps_kept(tmp_path) == [best, 12]
    assert best_step(tmp_path / "checkpoints") == best
    assert bits(load_state(tmp_path, best, config).state) == bits(states_of(config)[best])


@pytest.mark.parametrize(("seconds", "expected_steps"), [(600.0, [12]), (0.0, [*range(1, 13)])])
def test_save_seconds(seconds, expected_steps, text_folder, tmp_path):
    train(tmp_path, tiny_config(text_folder, save_every=None, save_seconds=seconds, log_every=1, keep=99))
    best = best_step(tmp_path / "checkpoints")
    assert [step for step in steps_kept(tmp_path) if step != best or step in expected_steps] == expected_steps


def test_training_continues_while_a_checkpoint_is_written(text_folder, expected, tmp_path, monkeypatch):
    """The writing thread waits for the record of step 6, between the checkpoints after steps 4 and 8."""
    config = tiny_config(text_folder, keep=99)
    recorded, waited, fsync = threading.Event(), [], os.fsync

    def fsync_slowly(descriptor):
        if threading.current_thread().name.startswith("checkpoints"):
            waited.append(recorded.wait(60))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_slowly)
    assert outcome(tmp_path, train(tmp_path, config, call_when("step 6/", recorded.set))) == expected
    assert waited[0]
    # The state was copied before the next step took over its arrays.
    assert bits(load_state(tmp_path, 4, config).state) == bits(states_of(config)[4])


@pytest.fixture(scope="module")
def extended_expected(text_folder, tmp_path_factory):
    """The outcome of 20 steps from the start, per `log_every`."""
    outcomes = {}
    for log_every in (5, 11):
        run = tmp_path_factory.mktemp("session") / "run"
        config = tiny_config(text_folder, num_steps=20, log_every=log_every, **EXTENSIBLE)
        outcomes[log_every] = outcome(run, train(run, config))
    return outcomes


@pytest.mark.parametrize("log_every", [5, 11])
def test_an_extended_training_equals_a_long_one(log_every, text_folder, extended_expected, tmp_path):
    train(tmp_path, tiny_config(text_folder, log_every=log_every, **EXTENSIBLE))
    variables = train(tmp_path, tiny_config(text_folder, num_steps=20, log_every=log_every, **EXTENSIBLE))
    assert outcome(tmp_path, variables)[:3] == extended_expected[log_every][:3]


def test_the_best_state_survives_an_extension(text_folder, tmp_path):
    """It was validated at the end of the shorter run, where the longer one records nothing."""
    options = {"log_every": 11, "keep": 1, "seed": 0, **EXTENSIBLE}
    train(tmp_path, tiny_config(text_folder, num_steps=10, **options))
    assert steps_kept(tmp_path) == [10]
    longer = tiny_config(text_folder, num_steps=20, **options)
    stop(tmp_path, longer, 12)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0, 11]
    checkpoint = load_state(tmp_path, 12, longer)
    assert checkpoint.nats_per_token > load_state(tmp_path, 10, longer).nats_per_token
    assert (steps_kept(tmp_path), best_step(tmp_path / "checkpoints")) == ([10, 12], 10)


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
def test_a_crash_while_extending_changes_no_bit(number, text_folder, extended_expected, tmp_path, monkeypatch):
    train(tmp_path, tiny_config(text_folder, **EXTENSIBLE))
    longer = tiny_config(text_folder, num_steps=20, **EXTENSIBLE)
    with monkeypatch.context() as patch, contextlib.suppress(Crash):
        calls = crash_at(patch, number)
        train(tmp_path, longer)
    assert len(calls) >= min(number, 40)
    assert outcome(tmp_path, train(tmp_path, longer))[:3] == extended_expected[5][:3]


@pytest.mark.parametrize("number", [1, *(pytest.param(each, marks=pytest.mark.stress) for each in (2, 3, 4, 5))])
def test_a_crash_while_returning_to_a_checkpoint_changes_no_bit(number, config, expected, tmp_path, monkeypatch):
    for step in (1, 6, 11):
        stop(tmp_path, config, step)
    for step in (8, 11):
        flip_bit(largest_file(checkpoint_path(tmp_path / "checkpoints", step)))
    with monkeypatch.context() as patch:
        crash_at(patch, number)
        with pytest.raises(Crash):
            train(tmp_path, config)
    assert outcome(tmp_path, train(tmp_path, config)) == expected


def test_a_failed_save_ends_training_with_the_remedy(config, expected, tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(OSError, match=rf"free space and resume {tmp_path}"):
        train(tmp_path, config)
    (tmp_path / "checkpoints").unlink()
    assert outcome(tmp_path, train(tmp_path, config)) == expected


def disk_full(path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.mark.parametrize("full", ["log", "checkpoints"])
def test_a_disk_full_later_keeps_what_was_saved(full, config, expected, tmp_path, monkeypatch):
    stop(tmp_path, config, 6)
    open_file, fsync = Path.open, os.fsync

    def open_unless_full(path, mode="r", **options):
        return disk_full(path) if mode == "ab" else open_file(path, mode, **options)

    def fsync_unless_full(descriptor):
        return disk_full("") if threading.current_thread().name.startswith("checkpoints") else fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(*(Path, "open", open_unless_full) if full == "log" else (os, "fsync", fsync_unless_full))
        with pytest.raises(OSError, match="No space left on device"):
            train(tmp_path, config)
    assert 6 in steps_kept(tmp_path)
    assert outcome(tmp_path, train(tmp_path, config)) == expected


def diverging(folder):
    options = {"num_steps": 100, "lr": 1.0, "weight_decay": 1e4, "clip_norm": None, "save_every": None}
    return tiny_config(folder, log_every=2, **options)


def test_a_diverging_training_saves_its_best_state(text_folder, tmp_path):
    with pytest.raises(FloatingPointError, match=r"step \d+") as raised:
        train(tmp_path, diverging(text_folder))
    nats = [line["val_nats_per_token"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    best = 1 + 2 * nats.index(min(each for each in nats if each is not None))
    assert steps_kept(tmp_path) == [best]
    saved = load_state(tmp_path, best, diverging(text_folder))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.state.params))
    with pytest.raises(FloatingPointError) as again:
        train(tmp_path, diverging(text_folder))
    assert str(again.value) == str(raised.value)


def test_a_diverging_training_reports_divergence_on_a_full_disk(text_folder, tmp_path, caplog):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(FloatingPointError):
        train(tmp_path, diverging(text_folder))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_directory_that_was_moved_away_is_not_created_again(config, tmp_path):
    setup = prepare_training(config, None, QUIET)
    with pytest.raises(OSError, match="No such file"):
        train_with_checkpoints(tmp_path / "moved", setup, None, QUIET)
    assert not (tmp_path / "moved").exists()


@pytest.fixture
def setup(text_folder):
    return prepare_training(tiny_config(text_folder), None, QUIET)


def test_a_damaged_checkpoint_is_skipped_and_put_aside(stopped, setup, caplog):
    damaged = checkpoint_path(stopped / "checkpoints", 6)
    flip_bit(largest_file(damaged))
    before = contents(stopped)
    checkpoint = latest_usable_checkpoint(stopped, setup)
    assert contents(stopped) == before
    assert checkpoint.state.step == 4
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(damaged) in caplog.text
    return_to_checkpoint(stopped, setup, checkpoint)
    assert steps_kept(stopped) == [1, 4]
    assert [path.name for path in (stopped / "checkpoints").glob("unusable-*")] == [f"unusable-{damaged.name}"]
    assert [line["step"] for line in read_metrics(stopped / "metrics.jsonl")] == [0]


@pytest.mark.parametrize("damage", [lambda content: content + b"x", lambda content: content[:-9], lambda _: b""])
def test_return_to_checkpoint_restores_the_log(damage, stopped, setup):
    log = stopped / "metrics.jsonl"
    content = log.read_bytes()
    log.write_bytes(damage(content))
    return_to_checkpoint(stopped, setup, latest_usable_checkpoint(stopped, setup))
    assert log.read_bytes() == content


def test_nothing_is_changed_if_no_checkpoint_is_usable(stopped, setup):
    for step in steps_kept(stopped):
        flip_bit(largest_file(checkpoint_path(stopped / "checkpoints", step)))
    before = contents(stopped)
    with pytest.raises(ValueError, match="has no usable checkpoint to resume from; start another run"):
        latest_usable_checkpoint(stopped, setup)
    assert contents(stopped) == before


def test_tensorboard_shows_each_step_once(text_folder, tmp_path):
    pytest.importorskip("tensorboardX")
    config = tiny_config(text_folder, tensorboard=True)
    stop(tmp_path, config, 6)
    flip_bit(largest_file(checkpoint_path(tmp_path / "checkpoints", 6)))  # resume from step 4
    train(tmp_path, config)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    losses = {line["step"]: np.float32(line["train_loss"]) for line in lines}
    assert shown_values(tmp_path / "tensorboard")["train/nats_per_token"] == losses
