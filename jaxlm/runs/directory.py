"""A run's folder: one process at a time works in it, and its manifest says what it is of and how it stands."""

import itertools
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import jax

from jaxlm.runs.lock import _LOCK, lock_run
from jaxlm.runs.manifest import MANIFEST_VERSION, describe_environment, utc_now, write_json, write_manifest
from jaxlm.utils.atomic_files import is_temporary, remove
from jaxlm.utils.json_files import read_json

# All that a run writes: nothing else is ever removed. The manifest, which tells a run from others, stands last.
_ENTRIES = (
    "metrics.jsonl",
    "checkpoints",
    "model",
    "models",
    "tokenizer.json",
    "tensorboard",
    "samples.txt",
    "curves.png",
    "counts.png",
    "table.txt",
    "picture.png",
    "roofline.png",
    "speedups.png",
    "growth.png",
    "report.html",
    "results.json",
    "config.json",
    "manifest.json",
)


def new_run_path(label: str) -> Path:
    """`runs/LABEL-DATE-TIME`, made below the working directory: an empty folder, given to no other process."""
    for path in timestamped_paths(label):
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("the names do not end")


def timestamped_paths(label: str, suffix: str = "") -> Iterator[Path]:
    """`runs/LABEL-DATE-TIME`, with the suffix, and where that is taken `runs/LABEL-DATE-TIME-2` and so on."""
    name = f"{label}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        yield Path("runs") / f"{name}{f'-{number}' if number > 1 else ''}{suffix}"


def check_run_path(path: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError unless a run may be written to `path`.

    An empty folder may be written to; one that holds a run, and nothing else, only with `overwrite`; any other
    never, so that no mistyped path costs a user their files.
    """
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    entries = [name for name in names if name != _LOCK and not is_temporary(name)]
    if not entries and (path.is_dir() or not path.exists()):
        return
    if not is_run(path):
        raise FileExistsError(f"{path} exists and is no run's folder; choose another --out")
    if not overwrite:
        raise FileExistsError(
            f"{path} holds a run; choose another --out, go on with it by --resume, or replace it with --overwrite"
        )
    if foreign := [name for name in entries if name not in _ENTRIES]:
        raise FileExistsError(
            f"{path} holds {foreign[0]!r}, which no run wrote; move it away, or choose another --out"
        )


@contextmanager
def create_run(
    path: Path,
    kind: str,
    config: Mapping[str, Any],
    device: jax.Device,
    *,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Iterator[Path]:
    """A new run's folder, for the block alone, with its manifest and config: `running` until the block ends.

    How the block ends is the run's state: `done`, `interrupted` (KeyboardInterrupt), or `failed` and why.

    Args:
        kind: what wrote it, as "train".
        facts: what else the manifest says, such as the text's sha256.

    Raises:
        FileExistsError: as `check_run_path`.
        BlockingIOError: another process works in it.
        OSError: the folder cannot be written.
    """
    check_run_path(path, overwrite=overwrite)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error}); choose another --out") from None
    with lock_run(path):
        check_run_path(path, overwrite=overwrite)
        manifest = {
            "version": MANIFEST_VERSION,
            "kind": kind,
            "started": utc_now(),
            "sessions": 0,
            "seconds": 0.0,
            "notes": [],
            "config": dict(config),
            **(facts or {}),
        }
        if is_run(path):  # so that what is half removed is taken neither for the old run nor for the new one
            cleared = {"kind": "cleared", "state": "failed", "why": "it was being replaced", "ended": utc_now()}
            write_manifest(path, {**manifest, **cleared})
        for name in _ENTRIES:
            remove(path / name)
        with run_session(path, manifest, device):
            write_json(path / "config.json", config)
            yield path


@contextmanager
def run_session(path: Path, manifest: Mapping[str, Any], device: jax.Device) -> Iterator[None]:
    """Writes the manifest for the time of the block, as `running`, and after it as what came of it.

    For a process that holds the lock of the run.
    """
    begin = time.monotonic()
    process = {"pid": os.getpid(), "host": socket.gethostname()}
    running = {
        **manifest,
        "sessions": manifest["sessions"] + 1,
        "process": process,
        **describe_environment(device),
    }
    _remove_leftovers(path)
    write_manifest(path, {**running, "state": "running", "why": None, "ended": None})

    def end(state: str, why: str | None = None) -> None:
        seconds = manifest["seconds"] + time.monotonic() - begin
        write_manifest(path, {**running, "state": state, "why": why, "ended": utc_now(), "seconds": seconds})

    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        why = str(error).partition("\n")[0][:500] or type(error).__name__
        try:
            end("interrupted" if interrupted else "failed", why)
        except OSError as second:  # a full disk, say: what ended the run is the news
            logging.getLogger(__name__).warning("%s does not say how it ended: %s", path, second)
        raise
    end("done")


def is_run(path: Path) -> bool:
    """Whether a run was written to `path`, damaged or not: it has a manifest that names its kind."""
    try:
        document = read_json(path / "manifest.json")
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"kind", "state", "sessions", "config"} <= document.keys()


def _remove_leftovers(path: Path) -> None:
    """Removes what a process that died was writing: whole or not, nobody has seen it."""
    for folder in (path, path / "checkpoints"):
        for entry in folder.iterdir() if folder.is_dir() else []:
            if is_temporary(entry.name):
                remove(entry)
