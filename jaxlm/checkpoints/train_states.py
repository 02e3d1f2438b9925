"""Save and load the checkpoints of a training run."""

import contextlib
import itertools
import logging
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxlm.checkpoints.arrays import named_leaves, read_arrays, write_arrays
from jaxlm.training.early_stopping import EarlyStopping
from jaxlm.training.state import TrainState
from jaxlm.utils.atomic_files import commit_directory, remove, temporary_path, write_atomically
from jaxlm.utils.checksums import add_checksum, verify_checksum
from jaxlm.utils.json_files import check_version, read_json

_VERSION = 1


class Checkpoint(NamedTuple):
    """A training state, and what is needed to resume the run from it.

    Attributes:
        nats_per_token: validation loss of this state; None if it was not validated.
        log_position: length in bytes and SHA-256 of the run's `metrics.jsonl` at this step.
        seconds: training time up to this step.
        best: the best validation so far; None without early stopping.
    """

    state: TrainState
    nats_per_token: float | None
    log_position: tuple[int, str]
    seconds: float
    best: EarlyStopping | None = None

    @property
    def arrays(self) -> tuple[TrainState, EarlyStopping | None]:
        """The pytree of the saved arrays."""
        return self.state, self.best


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Atomically save a checkpoint as `directory/step-NNNNNNNNNN`, replacing one of the same step.

    Raises:
        TypeError: a leaf of the state is empty or not numeric.
        OSError: it cannot be written; all other checkpoints are unchanged.
    """
    step = int(checkpoint.state.step)
    path = checkpoint_path(directory, step)
    unfinished = temporary_path(path)
    try:
        unfinished.mkdir(parents=True)
        index = write_arrays(unfinished / "arrays", named_leaves(checkpoint.arrays))
        document = {"version": _VERSION, "step": step, **_metadata(checkpoint), **index}
        write_atomically(unfinished / "checkpoint.json", add_checksum(document))
        commit_directory(unfinished, path, replace=True)
    except OSError as error:
        raise OSError(f"cannot save {path}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path


def load_checkpoint(path: Path, like: tuple[TrainState, EarlyStopping | None]) -> Checkpoint:
    """Return the checkpoint at `path`, its state as NumPy arrays.

    Args:
        like: `Checkpoint.arrays` with the expected structure, shapes and dtypes, such as from `jax.eval_shape`.

    Raises:
        FileNotFoundError: there is no checkpoint at `path`.
        ValueError: it is damaged or does not match `like`.
    """
    document = _read_document(path)
    expected = named_leaves(like)
    arrays = dict(read_arrays(path / "arrays", document, expected))
    state, best = jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name, _ in expected])
    if int(state.step) != document["step"]:
        raise ValueError(f"{path} is damaged: its state is at step {int(state.step)}, not {document['step']}")
    return Checkpoint(state, document["nats_per_token"], tuple(document["metrics"]), document["seconds"], best)


def amend_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Replace the other fields of the saved checkpoint of this step, but not its state.

    After an OSError or a ValueError, the saved checkpoint is unchanged.
    """
    path = checkpoint_path(directory, int(checkpoint.state.step))
    write_atomically(path / "checkpoint.json", add_checksum(_read_document(path) | _metadata(checkpoint)))


def checkpoint_path(directory: Path, step: int) -> Path:
    """Return the path of the checkpoint after `step` steps."""
    return directory / f"step-{step:010d}"


def checkpoint_steps(directory: Path) -> list[int]:
    """Return the steps of all checkpoints in `directory` in ascending order, including damaged ones."""
    matches = (re.fullmatch(r"step-([0-9]{10})", path.name) for path in directory.glob("step-*"))
    return sorted(int(match[1]) for match in matches if match)


def latest_checkpoint(
    directory: Path,
    like: tuple[TrainState, EarlyStopping | None],
    check: Callable[[Checkpoint], None] | None = None,
) -> Checkpoint | None:
    """Return the latest valid checkpoint, or None. `check` can raise a ValueError to skip one.

    Log a warning for each checkpoint that is skipped.
    """
    for step in reversed(checkpoint_steps(directory)):
        try:
            checkpoint = load_checkpoint(checkpoint_path(directory, step), like)
            if check is not None:
                check(checkpoint)
            return checkpoint
        except (ValueError, OSError) as error:
            logging.getLogger(__name__).warning("%s; this checkpoint is skipped", error)
    return None


def quarantine(path: Path) -> None:
    """Rename a checkpoint to `unusable-...`, so that it is never loaded but remains for inspection."""
    suffixes = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    names = (path.with_name(f"unusable-{path.name}{suffix}") for suffix in suffixes)
    path.rename(next(name for name in names if not name.exists()))


def validation_losses(directory: Path) -> dict[int, float | None]:
    """Return the validation loss by step (None if not validated) of each checkpoint with a valid JSON file."""
    losses = {}
    for step in checkpoint_steps(directory):
        with contextlib.suppress(ValueError, OSError):
            losses[step] = _read_document(checkpoint_path(directory, step))["nats_per_token"]
    return losses


def best_step(directory: Path) -> int | None:
    """Return the first step with the lowest validation loss, or None."""
    losses = ((loss, step) for step, loss in validation_losses(directory).items() if loss is not None)
    return min(losses, default=(None, None))[1]


def prune_checkpoints(directory: Path, keep: int) -> None:
    """Remove all checkpoints except the `keep` latest, the best by validation loss, and damaged ones."""
    best, losses = best_step(directory), validation_losses(directory)
    for step in checkpoint_steps(directory)[:-keep]:
        if step != best and step in losses:
            remove(checkpoint_path(directory, step))


def _metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    nats = checkpoint.nats_per_token
    return {
        "nats_per_token": float(nats) if nats is not None and math.isfinite(nats) else None,
        "metrics": list(checkpoint.log_position),
        "seconds": float(checkpoint.seconds),
    }


def _read_document(path: Path) -> dict[str, Any]:
    origin = path / "checkpoint.json"
    document = read_json(origin, follow_links=False)
    check_version(document, _VERSION, origin=origin, what="checkpoint")
    match fields := verify_checksum(document, origin=origin):
        case {"step": int(), "nats_per_token": float() | None, "metrics": [int(), str()], "seconds": float()}:
            return fields
    raise ValueError(f"{origin} is damaged: its fields are not those of a checkpoint")
