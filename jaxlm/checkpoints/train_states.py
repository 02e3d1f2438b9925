"""Save and load the checkpoints of a run, with Orbax and a list of checksums for each.

A checkpoint is a step of Orbax's `CheckpointManager`, a directory `step_NNNNNNNNNN`: the state and the best
parameters as the items `state` and `best`, the run's log `metrics.jsonl`, and `checkpoint.json` with the SHA-256
of all files, which is written last. A checkpoint without it is incomplete.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxlm.training.early_stopping import EarlyStopping
from jaxlm.training.state import TrainState
from jaxlm.utils.atomic_files import remove, sync, write_atomically
from jaxlm.utils.checks import check_arrays, describe_tree
from jaxlm.utils.json_files import add_checksum, check_document, read_json, sha256_of

_VERSION = 2
_DOCUMENT, _LOG = "checkpoint.json", "metrics.jsonl"

Arrays = tuple[TrainState, EarlyStopping]
T = TypeVar("T")


class Checkpoint(NamedTuple):
    """A training state, and what is needed to resume the run from it."""

    state: TrainState
    best: EarlyStopping  # the parameters of the best validation so far
    log: bytes  # content of the run's `metrics.jsonl` at this step
    seconds: float  # training time up to this step


def save_checkpoint(directory: Path, checkpoint: Checkpoint, *, keep: int = 2**31) -> Path:
    """Save a checkpoint as `directory/step_NNNNNNNNNN`, unless a checkpoint of this step exists.

    Then remove all but the `keep` latest checkpoints. Raises an OSError if the checkpoint cannot be written; all
    others are unchanged.
    """
    step = int(checkpoint.state.step)
    if ((path := checkpoint_path(directory, step)) / _DOCUMENT).exists():
        return path
    # Convert to NumPy: Orbax 0.11.24 cannot save arrays of JAX 0.5.0.
    trees = jax.tree.map(np.asarray, {"state": checkpoint.state, "best": checkpoint.best})
    document = {"version": _VERSION, "seconds": checkpoint.seconds, "arrays": describe_tree(trees)}
    try:
        directory.mkdir(exist_ok=True)  # fails if the run directory was moved away
        remove(path)
        _call_in_thread(_save_trees, directory, step, trees)
        write_atomically(path / _LOG, checkpoint.log)
        files = [each for each in sorted(path.rglob("*")) if each.is_file()]
        document["files"] = {each.relative_to(path).as_posix(): sha256_of(each.read_bytes()) for each in files}
        for each in (directory, path, *path.rglob("*")):
            sync(each)
        write_atomically(path / _DOCUMENT, add_checksum(document))
        for old in checkpoint_steps(directory)[:-keep]:
            remove(checkpoint_path(directory, old))
    except (OSError, ValueError, RuntimeError) as error:
        remedy = f"if the disk is full, free space and resume {directory.parent}"
        raise OSError(f"cannot save {path}: {error!s:.300}; {remedy}") from error
    return path


def load_checkpoint(directory: Path, step: int, like: Arrays) -> Checkpoint:
    """Return the checkpoint of a step, its arrays as NumPy arrays.

    `like` has the expected structure, shapes and dtypes of the state and the best, from `jax.eval_shape`. If
    its `opt_state` is None, that of the checkpoint is not loaded. Raises a FileNotFoundError if there is none, a
    ValueError if it is damaged or does not match `like`, and an OSError if it is intact but cannot be read.
    """
    path, trees = checkpoint_path(directory, step), dict(zip(("state", "best"), like, strict=True))
    document = check_document(read_json(path / _DOCUMENT), _VERSION, origin=path / _DOCUMENT, what="checkpoint")
    for name, checksum in document["files"].items():  # additional files are ignored
        if not (path / name).is_file() or sha256_of((path / name).read_bytes()) != checksum:
            raise ValueError(f"{path} is damaged: checksum mismatch in {name}")
    found, expected = document["arrays"], describe_tree(trees)
    if like[0].opt_state is None:
        found = {name: array for name, array in found.items() if not name.startswith("['state'].opt_state")}
    check_arrays(f"{path} does not match the model and the optimizer", found, expected)
    try:
        restored = _call_in_thread(_load_trees, path, trees)
        log = (path / _LOG).read_bytes()
    except MemoryError:
        raise
    except Exception as error:  # the files are intact, and TensorStore reports failures to read as ValueErrors
        raise OSError(f"cannot read {path}: {error!s:.300}") from error
    return Checkpoint(restored["state"], restored["best"], log, document["seconds"])


def latest_checkpoint(directory: Path, like: Arrays) -> Checkpoint | None:
    """Return the latest intact checkpoint, or None. Log a warning for each damaged one.

    Raises an OSError if a checkpoint cannot be read, because it may be intact.
    """
    for step in reversed(checkpoint_steps(directory)):
        try:
            return load_checkpoint(directory, step, like)
        except (ValueError, FileNotFoundError) as error:  # a training process may have removed it
            logging.getLogger(__name__).warning("%s; this checkpoint is skipped", error)
    return None


def checkpoint_path(directory: Path, step: int) -> Path:
    """Return the path of the checkpoint after `step` steps."""
    return directory / f"step_{step:010d}"


def checkpoint_steps(directory: Path) -> list[int]:
    """Return the steps of all complete checkpoints in ascending order, including damaged ones."""
    return sorted(int(path.parent.name[5:]) for path in directory.glob(f"step_{10 * '[0-9]'}/{_DOCUMENT}"))


def quarantine_after(directory: Path, step: int) -> None:
    """Rename the checkpoints after `step` to `unusable-*`, and remove incomplete ones."""
    for path in directory.glob("step_*"):
        if not (path / _DOCUMENT).exists():
            remove(path)
        elif path > checkpoint_path(directory, step):
            unusable = path.with_name(f"unusable-{path.name}")
            remove(unusable)
            path.rename(unusable)


def _call_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that uses Orbax, which fails in a thread with an event loop, as in Jupyter."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function, *arguments).result()


def _save_trees(directory: Path, step: int, trees: dict[str, Any]) -> None:
    import orbax.checkpoint as ocp  # late, because it takes 0.5 s

    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    # Not `max_to_keep`: Orbax would remove old steps before the new one has its checksums.
    options = ocp.CheckpointManagerOptions(
        step_prefix="step",
        step_format_fixed_length=10,
        create=False,
        enable_async_checkpointing=False,
        multiprocessing_options=_only_this_process(),
    )
    with ocp.CheckpointManager(directory.absolute(), options=options) as manager:
        manager.save(step, args=ocp.args.Composite(**items), force=True)


def _load_trees(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    items = dict.fromkeys(like, ocp.args.PyTreeRestore())  # as nested dicts and lists
    alone = _only_this_process()
    # Not the manager: it reads all steps, and fails if a training process removes one of them meanwhile.
    handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=alone))
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        restored = checkpointer.restore(path.absolute(), args=ocp.args.Composite(**items))
    return {name: ocp.tree.deserialize_tree(restored[name], tree) for name, tree in like.items()}


def _only_this_process() -> Any:
    """Return Orbax's options to save or load without the other processes of a distributed run."""
    import orbax.checkpoint as ocp

    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process_{process}"
    )
