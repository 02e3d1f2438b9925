"""Arrays on disk, by Orbax, and the checkpoints of a training run made of them. What is read was checked before.

A folder of arrays is plain Zarr without compression, a folder an array: what it holds is no larger than its files,
and any program that reads Zarr reads it. Orbax keeps no checksums, so the index that describes such a folder has
the sha256 of each of its files, and stands in a sealed JSON document beside it.
"""

import itertools
import logging
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxlm.checkpoints.arrays import first_line, named_leaves, read_arrays, signatures, write_arrays
from jaxlm.training.state import TrainState
from jaxlm.utils.atomic_files import commit_directory, remove, temporary_path, write_atomically
from jaxlm.utils.checksums import add_checksum, verify_checksum
from jaxlm.utils.json_files import check_version, read_json

_VERSION = 1
_NAME = "step-{:010d}"


class Checkpoint(NamedTuple):
    """A stopped run: its state after `state.step` steps, and what is known of that moment.

    `nats_per_token` is the validation of just this state, None where it was not validated. `metrics` are the
    bytes of the run's `metrics.jsonl` by then, and their sha256. `seconds` of training led to it.
    """

    state: TrainState
    nats_per_token: float | None
    metrics: tuple[int, str]
    seconds: float = 0.0


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Saves a checkpoint as `folder/step-NNNNNNNNNN`, which appears when it is whole and replaces one of its step.

    Raises:
        TypeError: a leaf of the state is no array of numbers, or holds none.
        OSError: it cannot be written; what was saved before stays.
    """
    path = folder / _NAME.format(int(checkpoint.state.step))
    unfinished = temporary_path(path)
    try:
        unfinished.mkdir(parents=True)
        index = write_arrays(unfinished / "arrays", named_leaves(checkpoint.state))
        step = int(checkpoint.state.step)
        document = {"version": _VERSION, "step": step, **_facts(checkpoint), **index}
        write_atomically(unfinished / "checkpoint.json", add_checksum(document))
        commit_directory(unfinished, path, replace=True)
    except OSError as error:
        raise OSError(f"cannot save {path}: {first_line(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path


def load_checkpoint(path: Path, like: TrainState) -> Checkpoint:
    """The checkpoint in the folder `path`, its state of the names, shapes and dtypes of `like`, as NumPy arrays.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another run; the message names it.
    """
    document = _read_document(path)
    wanted = signatures(like)
    arrays = dict(read_arrays(path / "arrays", document, wanted))
    state = jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name, _ in wanted])
    if int(state.step) != document["step"]:
        raise ValueError(f"{path} is damaged: its state is of step {int(state.step)}, not {document['step']}")
    return Checkpoint(state, document["nats_per_token"], tuple(document["metrics"]), document["seconds"])


def amend_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes anew what the saved checkpoint says beside its arrays, which stay.

    Raises:
        OSError, ValueError: there is none of that step, or it cannot be written; it is then as it was.
    """
    path = checkpoint_path(folder, int(checkpoint.state.step))
    write_atomically(path / "checkpoint.json", add_checksum({**_read_document(path), **_facts(checkpoint)}))


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps after which `folder` has a checkpoint, damaged ones too, in their order."""
    found = (re.fullmatch(r"step-([0-9]{10})", path.name) for path in folder.glob("step-*"))
    return sorted(int(match[1]) for match in found if match)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps is, or would be."""
    return folder / _NAME.format(step)


def latest_checkpoint(
    folder: Path, like: TrainState, check: Callable[[Checkpoint], None] | None = None
) -> Checkpoint | None:
    """The latest checkpoint of `folder` that is whole; None where there is none. A damaged one is told of.

    `check` raises a ValueError where the caller cannot use it either.
    """
    for step in reversed(checkpoint_steps(folder)):
        try:
            checkpoint = load_checkpoint(checkpoint_path(folder, step), like)
            if check is not None:
                check(checkpoint)
            return checkpoint
        except (ValueError, OSError) as error:
            logging.getLogger(__name__).warning("%s; this checkpoint is passed over", error)
    return None


def quarantine(path: Path) -> None:
    """Renames a checkpoint, so that it counts as none and stays for who wants to look."""
    names = (
        path.with_name(f"unusable-{path.name}" + f"-{number}" * (number > 1)) for number in itertools.count(1)
    )
    path.rename(next(name for name in names if not name.exists()))


def best_step(folder: Path) -> int | None:
    """The step of the checkpoint in `folder` with the lowest validation; None where none was validated."""
    nats = {step: _validation(checkpoint_path(folder, step)) for step in checkpoint_steps(folder)}
    validated = {step: each for step, each in nats.items() if each is not None}
    return min(validated, key=lambda step: (validated[step], step), default=None)


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Removes all checkpoints but the `keep` latest and the best by validation; none that cannot be read."""
    best = best_step(folder)
    for step in checkpoint_steps(folder)[:-keep]:
        if step != best and is_readable(checkpoint_path(folder, step)):
            remove(checkpoint_path(folder, step))


def is_readable(path: Path) -> bool:
    """Whether the checkpoint in the folder `path` says what it is of; its arrays are not looked at."""
    try:
        _read_document(path)
    except (ValueError, OSError):
        return False
    return True


def _validation(path: Path) -> float | None:
    try:
        nats: float | None = _read_document(path)["nats_per_token"]
    except (ValueError, OSError):
        return None
    return nats


def _facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says beside its state. A validation that is not finite counts as none."""
    nats = checkpoint.nats_per_token
    return {
        "nats_per_token": float(nats) if nats is not None and math.isfinite(nats) else None,
        "metrics": list(checkpoint.metrics),
        "seconds": float(checkpoint.seconds),
    }


def _read_document(path: Path) -> dict[str, Any]:
    origin = path / "checkpoint.json"
    document = read_json(origin, follow_links=False)
    check_version(document, _VERSION, origin=origin, what="checkpoint")
    match fields := verify_checksum(document, origin=origin):
        case {
            "step": int(),
            "nats_per_token": float() | None,
            "metrics": [int(), str()],
            "seconds": float(),
        }:
            return fields
    raise ValueError(f"{origin} is damaged: its fields are not those of a checkpoint")
