"""Train with checkpoints, and find the checkpoint to resume from."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from jaxlm.checkpoints import train_states
from jaxlm.checkpoints.train_states import Checkpoint
from jaxlm.runs.config import TrainConfig
from jaxlm.runs.metrics_log import append_metrics, read_log, read_metrics, truncate_metrics
from jaxlm.runs.results import TITLES, metrics_line
from jaxlm.runs.setup import TrainingSetup, abstract_state, train_options
from jaxlm.runs.tensorboard import open_tensorboard
from jaxlm.training.early_stopping import EarlyStopping, stop_early
from jaxlm.training.loop import Record, is_recorded, train
from jaxlm.training.state import TrainState
from jaxlm.utils.atomic_files import sync
from jaxlm.utils.checksums import sha256_of
from jaxlm.utils.signals import catch_stop_signals
from jaxlm.utils.terminal import progress


def train_with_checkpoints(
    path: Path, setup: TrainingSetup, checkpoint: Checkpoint | None, console: Console
) -> tuple[Any, float]:
    """Train from a checkpoint, or from the start, and return the variables and the total training seconds.

    Append the records to `metrics.jsonl` in the run directory `path`. Save the state at the intervals of the
    config, at the end and on a signal, together with the best state by validation since the last save. Training
    waits only for a copy of the state; a thread writes it to disk.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM arrived; the current state is saved.
        FloatingPointError: Training diverged; the best state is saved.
        OSError: A file cannot be written.
    """
    config, log = setup.config, path / "metrics.jsonl"
    session = _begin_session(log, checkpoint)
    start, start_best = (None, None) if checkpoint is None else (checkpoint.state, checkpoint.best)
    first_step = 0 if start is None else int(start.step)
    with ExitStack() as stack:
        stop_signal = stack.enter_context(catch_stop_signals())
        save = stack.enter_context(_save_in_background(path, config.keep))
        show = stack.enter_context(progress(console, TITLES[config.model], config.num_steps))
        write_event: Callable[[Record], None] | None = None
        if config.tensorboard:
            write_event = open_tensorboard(path / "tensorboard", first_step)
        training = train(setup.model, setup.data.train_ids, **train_options(setup), state=start)
        try:
            for state, record, best in stop_early(training, config.patience, start_best):
                if record is None and int(state.step) == first_step:
                    continue  # before the first chunk
                if record is not None:
                    assert record.validation is not None  # train_options has val_ids
                    append_metrics(log, metrics_line(config.model, record))
                    session.nats = record.validation.nats_per_token
                    if write_event is not None:
                        write_event(record)
                    perplexity = record.validation.perplexity
                    show(record.step + 1, f"loss {record.train_loss:.3f}, validation perplexity {perplexity:.1f}")
                save()
                stop = stop_signal()
                if due := _collect_due(session, state, best, config, log, is_last=stop is not None):
                    save(*due)
                if stop:
                    break
        except FloatingPointError:
            try:
                save(*session.unsaved_best)
                save(wait=True)
            except OSError as error:  # raise the first error, not this one
                logging.getLogger(__name__).warning("%s", error)
            raise
        save(wait=True)
    if stop := stop_signal():
        raise KeyboardInterrupt(stop)
    return (state if best is None else state._replace(params=best.params)).variables, session.seconds


def latest_usable_checkpoint(path: Path, setup: TrainingSetup) -> Checkpoint | None:
    """Return the latest intact checkpoint that matches `metrics.jsonl`, or None if the run has not saved anything.

    Log a warning for each checkpoint that is skipped. Raise a ValueError if none of several is usable.
    """
    if setup.optimizer is None:  # counts have no checkpoints
        return None
    folder, log = path / "checkpoints", path / "metrics.jsonl"
    content = read_log(log, follow_links=False)

    def check(checkpoint: Checkpoint) -> None:
        if _log_position(content[: checkpoint.log_position[0]]) != checkpoint.log_position:
            raise ValueError(f"{log} has changed since step {int(checkpoint.state.step)}")

    like = abstract_state(setup.model, setup.optimizer, setup.config)
    checkpoint = train_states.latest_checkpoint(folder, like, check)
    if checkpoint is None and (train_states.checkpoint_steps(folder) or (path / "model").exists()):
        raise ValueError(f"{path} has no usable checkpoint to resume from; start another run (--config)")
    return checkpoint


def restore_position(path: Path, setup: TrainingSetup, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """Quarantine the checkpoints after `checkpoint`, and truncate the log to its position.

    Return the checkpoint, without the log's last record if a run of the new length does not have that record.
    """
    folder, log = path / "checkpoints", path / "metrics.jsonl"
    if checkpoint is None:
        truncate_metrics(log, 0)
        return None
    for step in train_states.checkpoint_steps(folder):
        if step > int(checkpoint.state.step):
            train_states.quarantine(train_states.checkpoint_path(folder, step))
    lines = read_log(log)[: checkpoint.log_position[0]].splitlines(keepends=True)
    # An extended run does not record the last step of the shorter run. Its state may still be the best one.
    if lines and not is_recorded(json.loads(lines[-1])["step"], setup.config.num_steps, setup.config.log_every):
        checkpoint = checkpoint._replace(log_position=_log_position(b"".join(lines[:-1])))
        train_states.amend_checkpoint(folder, checkpoint)
    truncate_metrics(log, checkpoint.log_position[0])
    return checkpoint


@dataclass
class _Session:
    """What a training session remembers between two pauses."""

    seconds: float  # of training in all sessions, without compilation before the first pause of each
    saved_at: float  # monotonic time
    best_nats: float
    paused_at: float | None = None  # monotonic time
    nats: float | None = None  # validation loss of the current state
    unsaved_best: tuple[Checkpoint, ...] = ()  # none or one


def _begin_session(log: Path, checkpoint: Checkpoint | None) -> _Session:
    losses = [record["val_nats_per_token"] for record in read_metrics(log)]
    best = min((nats for nats in losses if nats is not None), default=math.inf)
    return _Session(0.0 if checkpoint is None else checkpoint.seconds, time.monotonic(), best)


def _collect_due(
    session: _Session,
    state: TrainState,
    best: EarlyStopping | None,
    config: TrainConfig,
    log: Path,
    *,
    is_last: bool,
) -> tuple[Checkpoint, ...]:
    """Return the checkpoints to save now: none, or the current state and, if it is not saved yet, the best."""
    now = time.monotonic()
    session.seconds += 0.0 if session.paused_at is None else now - session.paused_at
    session.paused_at = now
    nats, session.nats = session.nats, None
    is_best = nats is not None and nats < session.best_nats
    is_due = (
        is_last
        or int(state.step) >= config.num_steps
        or (best is not None and config.patience is not None and best.records_since >= config.patience)
        or now - session.saved_at >= config.save_seconds
        or (config.save_every is not None and int(state.step) % config.save_every == 0)
    )
    if not (is_best or is_due):
        return ()
    state, best = jax.device_get((state, best))
    current = Checkpoint(state, nats, _log_position(read_log(log)), session.seconds, best)
    if nats is not None and is_best:
        session.best_nats, session.unsaved_best = nats, (current,)
    if not is_due:
        return ()
    due = session.unsaved_best if is_best else (*session.unsaved_best, current)
    session.unsaved_best, session.saved_at = (), now
    return due


@contextmanager
def _save_in_background(path: Path, keep: int) -> Iterator[Callable[..., None]]:
    """Yield `save(*checkpoints, wait=False)`, which writes checkpoints in a thread, one call after another.

    A later call raises the error of an earlier one.
    """
    folder = path / "checkpoints"

    def write(checkpoints: tuple[Checkpoint, ...]) -> None:
        folder.mkdir(exist_ok=True)  # fails if the run directory was moved away
        sync(path / "metrics.jsonl")  # before the checkpoint, which contains its checksum
        sync(path)
        for checkpoint in checkpoints:
            train_states.save_checkpoint(folder, checkpoint)
        train_states.prune_checkpoints(folder, keep)

    with ThreadPoolExecutor(1, thread_name_prefix="checkpoints") as executor:
        pending: list[Future[None]] = []

        def save(*checkpoints: Checkpoint, wait: bool = False) -> None:
            if pending and (wait or checkpoints or pending[0].done()):
                try:
                    pending.pop().result()
                except OSError as error:
                    remedy = f"if the disk is full, free space and continue with --resume {path}"
                    raise OSError(f"{error}; {remedy}") from error
            if checkpoints:
                pending.append(executor.submit(write, checkpoints))

        yield save


def _log_position(content: bytes) -> tuple[int, str]:
    return len(content), sha256_of(content)
