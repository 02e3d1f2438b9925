"""Train with checkpoints, and find the checkpoint to resume from."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxlm.checkpoints import train_states
from jaxlm.checkpoints.train_states import Checkpoint
from jaxlm.devices.mesh import to_local
from jaxlm.runs.metrics_log import append_metrics, read_log
from jaxlm.runs.processes import stop_together, wait_for_processes
from jaxlm.runs.results import metrics_line
from jaxlm.runs.setup import TrainingSetup, abstract_state, train_options
from jaxlm.runs.tensorboard import open_tensorboard
from jaxlm.training.early_stopping import stop_early
from jaxlm.training.loop import next_record, train
from jaxlm.training.state import Record
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.signals import catch_stop_signals
from jaxlm.utils.terminal import progress


def train_with_checkpoints(
    path: Path, setup: TrainingSetup, checkpoint: Checkpoint | None, console: Console
) -> tuple[Any, float]:
    """Train from a checkpoint, or from the start, and return the variables and the total training seconds.

    Append the records to `metrics.jsonl` in the run directory `path`. Save the state at the configured
    intervals, at the end, on a signal, and if training diverged.
    Raises a KeyboardInterrupt on SIGINT or SIGTERM, and a FloatingPointError if training diverged.
    """
    config, saved_at = setup.config, time.monotonic()
    latest: Any = checkpoint  # None before the first chunk of a new run
    save = partial(train_states.save_checkpoint, path / "checkpoints", keep=config.keep)
    saving: Future[Path] | None = None  # the last save
    with ExitStack() as stack:
        stop_requested = stack.enter_context(catch_stop_signals())
        executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="checkpoints"))
        show = stack.enter_context(progress(console, setup.title, config.num_steps - 1))
        first_step = 0 if checkpoint is None else int(checkpoint.state.step)
        events = open_tensorboard(path / "tensorboard", first_step) if config.tensorboard else nullcontext()
        write_events = stack.enter_context(events)
        try:
            for latest, record in _make_checkpoints(path / "metrics.jsonl", setup, checkpoint):
                if record is not None:
                    perplexity = metrics_line(setup.name, record)["val_perplexity"]
                    show(record.step, f"loss {record.train_loss:.3f}, validation perplexity {perplexity:.1f}")
                    if write_events is not None:
                        write_events(record)
                is_due = config.save_every is not None and int(latest.state.step) % config.save_every == 0
                is_due = is_due or time.monotonic() - saved_at >= config.save_seconds
                if saving is not None and (is_due or saving.done()):
                    saving.result()  # raises the error of a failed save
                if is_due:
                    saving, saved_at = executor.submit(save, latest), time.monotonic()
                if stop_together(stop_requested(), setup.mesh):
                    break
            if saving is not None:
                saving.result()
            executor.submit(save, latest).result()
        except FloatingPointError:
            if latest is not None:
                with suppress(OSError):  # raise the first error, not this one
                    executor.submit(save, latest).result()
            wait_for_processes(setup.mesh)
            raise
    if stop_together(stop_requested(), setup.mesh):
        raise KeyboardInterrupt(stop_requested() or "a signal to another process")
    state, best, _, seconds = latest
    return to_local((state if config.patience is None else state._replace(params=best.params)).variables), seconds


def _make_checkpoints(
    log: Path, setup: TrainingSetup, start: Checkpoint | None
) -> Iterator[tuple[Checkpoint, Record | None]]:
    """Train from `start`; after each chunk, append its record to the log, and yield the state and the record."""
    start_state, start_best, _, seconds = start or (None, None, b"", 0.0)
    first_step, begin, content = 0 if start is None else int(start.state.step), None, read_log(log)
    training = train(setup.model, setup.data.train_ids, **train_options(setup), state=start_state)
    for state, record, best in stop_early(training, setup.config.patience, start_best):
        if int(state.step) == first_step:
            continue  # before the first chunk
        now = time.monotonic()
        seconds += 0.0 if begin is None else now - begin  # the first chunk compiles
        begin = now
        if record is not None:
            metrics = setup.compute_metrics(to_local(state.variables), setup.record_ids)
            append_metrics(log, metrics_line(setup.name, record) | metrics)
            content = read_log(log)
        yield Checkpoint(state, best, content, seconds), record


def latest_usable_checkpoint(path: Path, setup: TrainingSetup) -> Checkpoint | None:
    """Return the latest intact checkpoint, or None if the run has no checkpoint.

    Log a warning for each checkpoint that is skipped. Raise a ValueError if checkpoints exist but none is usable.
    """
    if setup.optimizer is None:  # counts have no checkpoints
        return None
    folder = path / "checkpoints"
    like = abstract_state(setup.model, setup.optimizer, setup.config)
    checkpoint = train_states.latest_checkpoint(folder, like)
    if checkpoint is None and (train_states.checkpoint_steps(folder) or (path / "model").exists()):
        raise ValueError(f"{path} has no usable checkpoint to resume from; start another run")
    return checkpoint


def return_to_checkpoint(path: Path, setup: TrainingSetup, checkpoint: Checkpoint | None) -> None:
    """Quarantine later checkpoints, and restore the log of the checkpoint (empty without one)."""
    train_states.quarantine_after(path / "checkpoints", -1 if checkpoint is None else int(checkpoint.state.step))
    lines = [] if checkpoint is None else checkpoint.log.splitlines(keepends=True)
    # An extended run does not record the last step of the shorter run, although that state may remain the best.
    step = json.loads(lines[-1])["step"] if lines else 0
    if step != next_record(step, setup.config.num_steps, setup.config.log_every):
        lines.pop()
    # A link into a cache becomes a file, because the run appends to it.
    write_atomically(path / "metrics.jsonl", b"".join(lines))
