"""Training that is saved while it goes on, and that goes on from there to the same bits."""

import hashlib
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
import numpy as np
from rich.console import Console

from jaxlm.checkpoints.train_states import (
    Checkpoint,
    amend_checkpoint,
    checkpoint_path,
    checkpoint_steps,
    latest_checkpoint,
    prune_checkpoints,
    quarantine,
    save_checkpoint,
)
from jaxlm.runs.config import TrainConfig
from jaxlm.runs.metrics_log import append_metrics, read_metrics, truncate_metrics
from jaxlm.runs.results import TITLES, metrics_line
from jaxlm.runs.setup import TrainingSetup, abstract_state, train_options
from jaxlm.runs.tensorboard import open_tensorboard
from jaxlm.training.loop import Record, is_recorded, train_lm
from jaxlm.training.state import TrainState, is_finished
from jaxlm.utils.atomic_files import read_regular, sync
from jaxlm.utils.checksums import sha256_of
from jaxlm.utils.signals import catch_stop_signals
from jaxlm.utils.terminal import progress


def train_with_checkpoints(
    path: Path, job: TrainingSetup, checkpoint: Checkpoint | None, console: Console
) -> tuple[Any, float]:
    """Trains the job's model from the checkpoint on, None being the start: its variables, and all seconds it took.

    Saved are, in the run's folder `path`, the state and `metrics.jsonl`: by the config's `save_every` and
    `save_seconds`, at the end, at a stop, and with them the best state by validation since the last time. The
    training waits for a copy of the state alone, not for the disk.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came, and all is saved.
        OSError: something could not be saved; what was saved before stays.
        FloatingPointError: as `train_lm`; the best state is saved.
    """
    config = job.config
    known = _known(path / "metrics.jsonl", checkpoint)
    with ExitStack() as blocks:
        requested = blocks.enter_context(catch_stop_signals())
        save = blocks.enter_context(_saving(path, config.keep))
        on_record = blocks.enter_context(_recording(path, config, checkpoint, known, console))

        def on_pause(state: TrainState) -> None:
            save()
            stop = requested()
            due = _due(known, state, config, is_last=stop is not None)
            if due:
                save(*due)
            if stop:
                save(wait=True)
                raise KeyboardInterrupt(stop)

        try:
            variables, _ = train_lm(
                job.model,
                job.data.train_ids,
                **train_options(job),
                on_record=on_record,
                state=None if checkpoint is None else checkpoint.state,
                on_pause=on_pause,
                pause_every=config.save_every,
            )
        except FloatingPointError:
            _save_after_all(save, known.unsaved_best)
            raise
        save(wait=True)
    if stop := requested():
        raise KeyboardInterrupt(stop)
    return variables, known.seconds


def latest_usable_checkpoint(path: Path, job: TrainingSetup) -> Checkpoint | None:
    """Where the run can go on: its last checkpoint that is whole, None being the start. Nothing is changed.

    Raises:
        ValueError: there are checkpoints, and none of them can be used.
        OSError: `metrics.jsonl` cannot be read.
    """
    folder, metrics = path / "checkpoints", path / "metrics.jsonl"
    content = _content(metrics)

    def check(checkpoint: Checkpoint) -> None:
        if _mark(content[: checkpoint.metrics[0]]) != checkpoint.metrics:
            raise ValueError(f"{metrics} is not what it was at step {int(checkpoint.state.step)}")

    checkpoint = latest_checkpoint(folder, abstract_state(job.model, job.optimizer, job.config), check)
    if checkpoint is None and checkpoint_steps(folder):
        raise ValueError(
            f"{path} has checkpoints, and none can be used: the warnings say why; mend that, or start another run"
        )
    return checkpoint


def restore_position(path: Path, job: TrainingSetup, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """Makes the run what it was at its `latest_usable_checkpoint`, which is returned as it then is.

    What came after it is set aside, and the lines of `metrics.jsonl` are cut, for these steps are done again.
    """
    folder, metrics = path / "checkpoints", path / "metrics.jsonl"
    if checkpoint is None:
        truncate_metrics(metrics, 0)
        return None
    for step in checkpoint_steps(folder):
        if step > int(checkpoint.state.step):
            quarantine(checkpoint_path(folder, step))
    lines = _content(metrics)[: checkpoint.metrics[0]].splitlines(keepends=True)
    # The last record of a run that has grown is none of the longer one. Its state may still be the best one kept.
    if lines and not is_recorded(json.loads(lines[-1])["step"], job.config.num_steps, job.config.log_every):
        checkpoint = checkpoint._replace(metrics=_mark(b"".join(lines[:-1])))
        amend_checkpoint(folder, checkpoint)
    truncate_metrics(metrics, checkpoint.metrics[0])
    return checkpoint


@dataclass
class _Known:
    """What a run that trains has come to."""

    seconds: float  # of training, without the compiling before the first pause of each session
    paused_at: float | None  # by the monotonic clock
    saved_at: float
    num_bytes: int  # of `metrics.jsonl`
    digest: Any  # their sha256, which goes on with them
    best: float  # nats per token
    validated: tuple[int, float] | None = None  # steps done, and nats per token then
    unsaved_best: Checkpoint | None = None


def _known(metrics: Path, checkpoint: Checkpoint | None) -> _Known:
    now = time.monotonic()
    content = _content(metrics)
    validations = [line["val_nats_per_token"] for line in read_metrics(metrics)]
    if checkpoint is not None:
        validations.append(checkpoint.nats_per_token)
    return _Known(
        seconds=0.0 if checkpoint is None else checkpoint.seconds,
        paused_at=None,
        saved_at=now,
        num_bytes=len(content),
        digest=hashlib.sha256(content),
        best=min((nats for nats in validations if nats is not None), default=math.inf),
    )


@contextmanager
def _recording(
    path: Path, config: TrainConfig, checkpoint: Checkpoint | None, known: _Known, console: Console
) -> Iterator[Callable[[Record], None]]:
    """A function that writes a record to the run's files, and says how it stands."""
    with ExitStack() as blocks:
        show = blocks.enter_context(progress(console, TITLES[config.model], config.num_steps))
        write_event: Callable[[Record], None] | None = None
        if config.tensorboard:
            first_step = 0 if checkpoint is None else int(checkpoint.state.step)
            write_event = blocks.enter_context(open_tensorboard(path / "tensorboard", first_step))

        def on_record(record: Record) -> None:
            assert record.validation is not None  # train_lm was given val_ids
            line = append_metrics(path / "metrics.jsonl", metrics_line(config.model, record))
            known.digest.update(line)
            known.num_bytes += len(line)
            known.validated = record.step + 1, record.validation.nats_per_token
            if write_event is not None:
                write_event(record)
            status = f"loss {record.train_loss:.3f}, validation perplexity {record.validation.perplexity:.1f}"
            show(record.step + 1, status)

        yield on_record


def _due(known: _Known, state: TrainState, config: TrainConfig, *, is_last: bool) -> list[Checkpoint]:
    """What is to be saved now: the state, if it is due, and before it the best one that is not saved yet."""
    step, now = int(state.step), time.monotonic()
    known.seconds += 0.0 if known.paused_at is None else now - known.paused_at
    known.paused_at = now
    nats = known.validated[1] if known.validated is not None and known.validated[0] == step else None
    is_due = is_last or is_finished(state, config.num_steps, config.patience)
    is_due = is_due or now - known.saved_at >= config.save_seconds
    is_due = is_due or (config.save_every is not None and step % config.save_every == 0)
    is_best = nats is not None and nats < known.best
    if not (is_best or is_due):
        return []
    # Copies: the next step takes the arrays over, and on the CPU what `device_get` gives are those.
    copied = jax.tree.map(np.array, jax.device_get(state))
    current = Checkpoint(copied, nats, (known.num_bytes, known.digest.hexdigest()), known.seconds)
    if is_best:
        assert nats is not None
        known.best, known.unsaved_best = nats, current
    if not is_due:
        return []
    best, known.unsaved_best, known.saved_at = known.unsaved_best, None, now
    return [current] if best is None or best is current else [best, current]


@contextmanager
def _saving(path: Path, keep: int) -> Iterator[Callable[..., None]]:
    """A function that saves checkpoints beside the training, one call after the other.

    Its next call raises what became of the one before, as soon as that is known; `wait=True` waits for it.
    """
    folder = path / "checkpoints"

    def write(checkpoints: tuple[Checkpoint, ...]) -> None:
        folder.mkdir(exist_ok=True)  # an error where the run's folder was moved away
        for written in (path / "metrics.jsonl", path):  # a checkpoint's mark is of what is on the disk
            if written.exists():
                sync(written)
        for checkpoint in checkpoints:
            save_checkpoint(folder, checkpoint)
        prune_checkpoints(folder, keep)

    with ThreadPoolExecutor(1, thread_name_prefix="checkpoints") as executor:
        pending: list[Future[None]] = []

        def save(*checkpoints: Checkpoint, wait: bool = False) -> None:
            if pending and (wait or checkpoints or pending[0].done()):
                try:
                    pending.pop().result()
                except OSError as error:
                    remedy = f"free space if the disk is full, and go on with --resume {path}"
                    raise OSError(f"{error}; {remedy}") from error
            if checkpoints:
                pending.append(executor.submit(write, checkpoints))

        yield save


def _save_after_all(save: Callable[..., None], checkpoint: Checkpoint | None) -> None:
    """Saves it, if there is one, after an error that is the news even where this fails too."""
    try:
        if checkpoint is not None:
            save(checkpoint)
        save(wait=True)
    except OSError as error:
        logging.getLogger(__name__).warning("%s", error)


def _content(metrics: Path) -> bytes:
    try:
        return read_regular(metrics, follow_links=False)
    except FileNotFoundError:
        return b""


def _mark(content: bytes) -> tuple[int, str]:
    return len(content), sha256_of(content)
