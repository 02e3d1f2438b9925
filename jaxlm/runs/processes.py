"""Runs of several processes: process 0 writes the run directory, the others only take part in the computations."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxlm.checkpoints.train_states import Checkpoint, load_checkpoint
from jaxlm.devices.mesh import max_over_processes
from jaxlm.evaluation.evaluate import evaluate
from jaxlm.models import CountsBigramLM, CountsNgramLM, init
from jaxlm.runs.setup import TrainingSetup, abstract_state, train_options
from jaxlm.training.early_stopping import stop_early
from jaxlm.training.loop import train
from jaxlm.utils.signals import catch_stop_signals

_MESSAGE_BYTES = 8192


def is_follower(mesh: Mesh | None) -> bool:
    """Return whether another process writes the run directory."""
    return mesh is not None and mesh.is_multi_process and jax.process_index() > 0


@contextmanager
def lead_followers(mesh: Mesh | None) -> Iterator[Callable[[Path, Checkpoint | None], None]]:
    """Yield a function that lets the followers start with the run in a path, from a checkpoint.

    They end if the block ends without a call.
    """
    has_followers = mesh is not None and mesh.is_multi_process

    def start(path: Path, checkpoint: Checkpoint | None) -> None:
        nonlocal has_followers
        if has_followers:
            has_followers = False
            step = None if checkpoint is None else int(checkpoint.state.step)
            _broadcast({"path": str(path), "step": step})

    try:
        yield start
    finally:
        if has_followers:
            _broadcast(None)


def receive_start() -> tuple[Path, int | None] | None:
    """In a follower, return the path of the run and the step of its checkpoint, or None if it does not start."""
    message = _broadcast(None)
    return message and (Path(message["path"]), message["step"])


def follow_run(path: Path, setup: TrainingSetup, step: int | None) -> None:
    """Make the collective computations of the run in `path`, from its checkpoint of this step, in a follower.

    Raises a KeyboardInterrupt if a process got SIGINT or SIGTERM, and a FloatingPointError if training diverged.
    """
    if isinstance(setup.model, CountsBigramLM | CountsNgramLM):
        variables = fit_counts(setup)
    else:
        like = abstract_state(setup.model, setup.optimizer, setup.config)
        checkpoint = None if step is None else load_checkpoint(path / "checkpoints", step, like)
        variables = _train_along(setup, checkpoint)
    evaluate(setup.model, variables, setup.data.val_ids, **setup.placement)
    wait_for_processes(setup.mesh)


def fit_counts(setup: TrainingSetup) -> Any:
    """Return the counts of the training ids."""
    options: Any = {"mesh": setup.mesh} if isinstance(setup.model, CountsBigramLM) else {}
    model: Any = setup.model
    return model.fit(init(model, jax.random.key(setup.config.seed)), setup.data.train_ids, **options)


def stop_together(signal: str | None, mesh: Mesh | None) -> bool:
    """Return whether any process got a signal. All processes make this call after the same step."""
    return bool(max_over_processes(float(signal is not None), mesh))


def wait_for_processes(mesh: Mesh | None) -> None:
    """Wait until all processes make this call."""
    max_over_processes(0.0, mesh)


def _train_along(setup: TrainingSetup, checkpoint: Checkpoint | None) -> Any:
    start, start_best, *_ = checkpoint or (None, None)
    training = train(setup.model, setup.data.train_ids, **train_options(setup), state=start)
    first_step = 0 if start is None else int(start.step)
    with catch_stop_signals() as stop_requested:
        try:
            for item in stop_early(training, setup.config.patience, start_best):
                state, _, best = item
                if int(state.step) != first_step and stop_together(stop_requested(), setup.mesh):
                    break
        except FloatingPointError:
            wait_for_processes(setup.mesh)
            raise
    if stop_together(stop_requested(), setup.mesh):  # after process 0 has saved the last checkpoint
        raise KeyboardInterrupt(stop_requested() or "a signal to another process")
    return (state if setup.config.patience is None else state._replace(params=best.params)).variables


def _broadcast(message: Mapping[str, Any] | None) -> Any:
    """Return the message of process 0 in every process."""
    encoded = np.frombuffer(json.dumps(message).encode(), np.uint8)
    sent = multihost_utils.broadcast_one_to_all(np.pad(encoded, (0, _MESSAGE_BYTES - len(encoded))))
    return json.loads(np.asarray(sent).tobytes().rstrip(b"\0"))
