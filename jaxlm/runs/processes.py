"""Runs of several processes: process 0 writes the run directory, the others only take part in the computations."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.checkpoints.train_states import Checkpoint, load_checkpoint
from jaxlm.devices.mesh import gather_from_processes, max_over_processes
from jaxlm.evaluation.evaluate import evaluate
from jaxlm.models import CountsBigramLM, CountsNgramLM, init
from jaxlm.runs.config import config_to_json
from jaxlm.runs.own import tokenizer_checksum
from jaxlm.runs.setup import TrainingSetup, abstract_state, train_options
from jaxlm.training.early_stopping import stop_early
from jaxlm.training.loop import train
from jaxlm.utils.json_files import sha256_of
from jaxlm.utils.signals import catch_stop_signals

_MESSAGE_BYTES = 8192


class Start(NamedTuple):
    """How process 0 starts a run."""

    path: str  # the run directory
    step: int | None  # of the checkpoint, if there is one
    checksum: str  # of `checksum_inputs`


def is_follower(mesh: Mesh | None) -> TypeGuard[Mesh]:
    """Return whether another process writes the run directory."""
    return mesh is not None and mesh.is_multi_process and jax.process_index() > 0


@contextmanager
def lead_followers(mesh: Mesh | None) -> Iterator[Callable[[Path, TrainingSetup, Checkpoint | None], None]]:
    """Yield a function that lets the followers start with the run in a path, from a checkpoint.

    If the block ends without a call, they end as well, with an error if there is one.
    """
    tell = functools.partial(_broadcast, mesh=mesh) if mesh is not None and mesh.is_multi_process else None

    def start(path: Path, setup: TrainingSetup, checkpoint: Checkpoint | None) -> None:
        nonlocal tell
        if tell is not None:
            step = None if checkpoint is None else int(checkpoint.state.step)
            message, send, tell = Start(str(path), step, checksum_inputs(setup)), tell, None
            send({"start": message})

    try:
        yield start
    except BaseException as error:
        if tell is not None:
            with suppress(RuntimeError):  # raise the first error, not that of a follower that has ended
                tell({"interrupted": isinstance(error, KeyboardInterrupt), "error": f"{error!s:.500}"})
        raise
    if tell is not None:
        tell({})


def receive_start(mesh: Mesh) -> Start | None:
    """In a follower, return how the run starts, or None if it is done.

    Raises an OSError or a KeyboardInterrupt if process 0 does not start it.
    """
    message = _broadcast({}, mesh)
    if "error" in message:
        if message["interrupted"]:
            raise KeyboardInterrupt(message["error"])
        raise OSError(f"process 0 did not start the run: {message['error']}")
    return Start(*message["start"]) if message else None


def checksum_inputs(setup: TrainingSetup) -> str:
    """Return a checksum of the options and of the text, which all processes must share. Its path may differ."""
    config, data = config_to_json(setup.config), setup.data
    options = {name: value for name, value in config.items() if name not in ("text", "tokens", "tokenizer")}
    inputs = options, data.corpus.sha256, tokenizer_checksum(data)
    return sha256_of(json.dumps(inputs, sort_keys=True).encode())


def follow_run(setup: TrainingSetup, start: Start) -> None:
    """Make the collective computations of a run in a follower.

    Raises a ValueError if the setup is not that of process 0, a KeyboardInterrupt if a process got SIGINT or
    SIGTERM, and a FloatingPointError if training diverged.
    """
    if checksum_inputs(setup) != start.checksum:
        number, remedy = jax.process_index(), "start all with the same command and the same files"
        raise ValueError(f"process {number} must have the options and the text of process 0, got others; {remedy}")
    if isinstance(setup.model, CountsBigramLM | CountsNgramLM):
        variables = fit_counts(setup)
    else:
        like = abstract_state(setup.model, setup.optimizer, setup.config)
        folder = Path(start.path, "checkpoints")
        checkpoint = None if start.step is None else load_checkpoint(folder, start.step, like)
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


def _broadcast(message: Mapping[str, Any], mesh: Mesh) -> Any:
    """Return the message of process 0 in every process."""
    encoded = np.frombuffer(json.dumps(message, ensure_ascii=False).encode(), np.uint8)
    messages = gather_from_processes(np.pad(encoded, (0, _MESSAGE_BYTES - len(encoded))), mesh)
    sender = [device.process_index for device in mesh.devices.flat].index(0)
    return json.loads(messages[sender].tobytes().rstrip(b"\0"))
