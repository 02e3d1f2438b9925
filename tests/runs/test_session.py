"""Stopped and resumed training ends with equal bits."""

import os
import signal
import threading

import numpy as np
import pytest
from event_files import shown_values
from session_helpers import EXTENSIBLE, load_state, outcome, steps_kept, stop, train
from tiny_runs import QUIET, bits, call_when, flip_bit, largest_file, signal_when, tiny_config

import jaxlm
from jaxlm.checkpoints.train_states import checkpoint_path
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.session import train_with_checkpoints
from jaxlm.runs.setup import prepare_training, train_options

pytestmark = pytest.mark.slow  # each set of options compiles a training step
IMPATIENT = {"num_steps": 40, "patience": 2, "lr": 8.0, "clip_norm": None, "dropout": 0.5}
IMPATIENT |= {"direct_connections": True}


def states_of(config):
    """Return the state after each step of a training that saves nothing."""
    setup = prepare_training(config, None, QUIET)
    options = train_options(setup) | {"yield_every": 1}
    return {int(state.step): state for state, _ in jaxlm.train(setup.model, setup.data.train_ids, **options)}


def test_a_stopped_training_resumes_with_equal_bits(config, session_outcome, tmp_path):
    for step, signum in [(1, signal.SIGTERM), (11, signal.SIGINT), (12, signal.SIGTERM)]:
        stop(tmp_path, config, step, signum)
        assert steps_kept(tmp_path)[-1] == step
    assert outcome(tmp_path, config) == session_outcome


def test_a_signal_after_the_last_step_is_not_lost(config, session_outcome, tmp_path):
    """It arrives when the progress bar shows the cursor again."""
    console = signal_when("\x1b[?25h", signal.SIGINT, force_terminal=True)
    with pytest.raises(KeyboardInterrupt, match="SIGINT"):
        train(tmp_path, config, console)
    assert steps_kept(tmp_path)[-1] == 12
    assert outcome(tmp_path, config) == session_outcome


def test_records_use_the_first_windows(text_folder, tmp_path):
    config = tiny_config(text_folder, val_windows=7)
    variables = train(tmp_path, config)
    setup = prepare_training(config, None, QUIET)
    expected = jaxlm.perplexity(setup.model, variables, setup.data.val_ids[: 7 + setup.model.context_length])
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["val_perplexity"] == expected


def test_training_seconds_add_up_over_sessions(config, tmp_path):
    stop(tmp_path, config, 6)
    checkpoint = load_state(tmp_path, 6, config)._replace(seconds=1000.0)
    setup = prepare_training(config, None, QUIET)
    _, seconds = train_with_checkpoints(tmp_path, setup, checkpoint, QUIET)
    assert 1000 < seconds < 1060


def test_patience_stops_early_and_resumes_with_equal_bits(text_folder, tmp_path):
    config = tiny_config(text_folder, **IMPATIENT)
    whole = outcome(tmp_path / "whole", config)
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    nats = [line["val_nats_per_token"] for line in lines]
    best = nats.index(min(nats))
    assert best == len(nats) - 3  # two records without improvement
    assert lines[-1]["step"] < 39
    assert steps_kept(tmp_path / "whole")[-1] == lines[-1]["step"] + 1  # the last state is saved
    assert whole[0] == bits(states_of(config)[lines[best]["step"] + 1].params)
    stop(tmp_path / "stopped", config, 6)
    assert outcome(tmp_path / "stopped", config) == whole


def test_a_checkpoint_is_the_state_of_its_step(text_folder, tmp_path):
    config = tiny_config(text_folder, save_every=1, keep=99)
    variables, states = train(tmp_path, config), states_of(config)
    assert steps_kept(tmp_path) == [*range(1, 13)]
    for step in steps_kept(tmp_path):
        saved = load_state(tmp_path, step, config)
        assert bits(saved.state) == bits(states[step])
        assert len(saved.log.splitlines()) == sum(step > each for each in (0, 5, 10, 11))
    assert bits(variables["params"]) == bits(states[12].params)


def test_save_seconds_saves_more_often(text_folder, tmp_path):
    train(tmp_path, tiny_config(text_folder, save_every=None, save_seconds=0.0, log_every=1, keep=99))
    assert steps_kept(tmp_path) == [*range(1, 13)]


def test_training_continues_while_a_checkpoint_is_written(text_folder, session_outcome, tmp_path, monkeypatch):
    """The writing thread waits for the record of step 6, between the checkpoints after steps 4 and 8."""
    config = tiny_config(text_folder, keep=99)
    recorded, waited, fsync = threading.Event(), [], os.fsync

    def fsync_slowly(descriptor):
        if threading.current_thread().name.startswith("checkpoints"):
            waited.append(recorded.wait(60))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_slowly)
    assert outcome(tmp_path, config, call_when("step 5/", recorded.set)) == session_outcome
    assert waited[0]
    # The state was copied before the next step took over its arrays.
    assert bits(load_state(tmp_path, 4, config).state) == bits(states_of(config)[4])


@pytest.mark.parametrize("log_every", [5, 11])
def test_an_extended_training_equals_a_long_one(log_every, text_folder, extended_outcomes, tmp_path):
    train(tmp_path, tiny_config(text_folder, log_every=log_every, **EXTENSIBLE))
    longer = tiny_config(text_folder, num_steps=20, log_every=log_every, **EXTENSIBLE)
    assert outcome(tmp_path, longer)[:3] == extended_outcomes[log_every][:3]


def test_the_best_state_survives_an_extension(text_folder, tmp_path):
    """It was validated at the end of the shorter run, where the longer one records nothing."""
    options = {"log_every": 11, "keep": 1, "seed": 0, **EXTENSIBLE}
    train(tmp_path, tiny_config(text_folder, num_steps=10, **options))
    assert steps_kept(tmp_path) == [10]
    shorter = load_state(tmp_path, 10, tiny_config(text_folder, num_steps=10, **options)).best
    longer = tiny_config(text_folder, num_steps=20, **options)
    stop(tmp_path, longer, 12)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0, 11]
    best = load_state(tmp_path, 12, longer).best
    assert (bits(best[:2]), best.records_since) == (bits(shorter[:2]), 1)


def test_tensorboard_shows_each_step_once(text_folder, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr("time.time", lambda: 2e9)  # both sessions start in the same second
    config = tiny_config(text_folder, tensorboard=True)
    stop(tmp_path, config, 6)
    flip_bit(largest_file(checkpoint_path(tmp_path / "checkpoints", 6)))  # resume from step 4
    train(tmp_path, config)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    names = {"train/nats_per_token": "train_loss", "validation/nats_per_token": "val_nats_per_token"}
    names |= {"validation/perplexity": "val_perplexity"}
    expected = {tag: {line["step"]: np.float32(line[name]) for line in lines} for tag, name in names.items()}
    assert shown_values(tmp_path / "tensorboard") == expected
