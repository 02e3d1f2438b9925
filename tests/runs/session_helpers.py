"""Train, stop and compare in a run directory without the commands around it."""

import signal

import pytest
from tiny_runs import QUIET, bits, signal_when

from jaxlm.checkpoints.train_states import checkpoint_steps, load_checkpoint
from jaxlm.runs.session import latest_usable_checkpoint, return_to_checkpoint, train_with_checkpoints
from jaxlm.runs.setup import abstract_state, prepare_training

EXTENSIBLE = {"schedule": "constant"}


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
        train(run, config, signal_when(f"step {step - 1}/", signum))


def steps_kept(run):
    return checkpoint_steps(run / "checkpoints")


def outcome(run, config, console=QUIET):
    """Train to the end, and return what must not depend on interruptions."""
    variables = train(run, config, console)
    step, log = steps_kept(run)[-1], (run / "metrics.jsonl").read_bytes()
    return bits(variables), log, step, bits(load_state(run, step, config).best)


def load_state(run, step, config):
    setup = prepare_training(config, None, QUIET)
    like = abstract_state(setup.model, setup.optimizer, config)
    return load_checkpoint(run / "checkpoints", step, like)
