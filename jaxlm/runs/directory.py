"""Create run directories, and record the outcome of a run in the manifest."""

import itertools
import os
import shlex
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import jax

from jaxlm.runs.lock import lock_run
from jaxlm.runs.manifest import describe_environment, read_manifest, utc_now, write_json, write_manifest
from jaxlm.text.tokenizer_files import TOKENIZER_FILE
from jaxlm.utils.atomic_files import is_temporary, remove
from jaxlm.utils.directory_lock import LOCK_NAMES

# Entries that a run may write, besides its manifest. Nothing else is ever removed.
_ENTRIES = (
    *("metrics.jsonl", "checkpoints", "model", "models", TOKENIZER_FILE, "tensorboard", "samples.txt"),
    *("curves.png", "counts.png", "table.txt", "picture.png", "roofline.png", "speedups.png", "growth.png"),
    *("report.html", "play.html", "results.json", "config.json"),
    "tokenizer.json",  # of earlier versions
)


def new_run_path(label: str) -> Path:
    """Create an empty directory `runs/LABEL-DATE-TIME` below the working directory and return its path."""
    path = first = Path("runs") / f"{label}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(2):
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            break
        path = first.with_name(f"{first.name}-{number}")
    return path


def check_run_path(path: Path, *, overwrite: bool) -> None:
    """Raise a FileExistsError unless a new run may be written to `path`.

    `path` may be new, an empty directory, or, with `overwrite`, a run directory without foreign files.
    """
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    ignored = *LOCK_NAMES, ".DS_Store"  # macOS adds that file, and to copies a file `._x` beside each x
    entries = [name for name in names if not (name in ignored or name.startswith("._") or is_temporary(name))]
    if not path.exists() or (path.is_dir() and not entries):
        return
    try:
        read_manifest(path)
    except (OSError, ValueError):
        raise FileExistsError(f"{path} exists and is not a run directory; choose another path") from None
    if not overwrite:
        raise FileExistsError(f"{path} contains a run; pass overwrite=True (--overwrite), or choose another path")
    if foreign := sorted(set(entries) - {*_ENTRIES, "manifest.json"}):
        remedy = "move it, or choose another path"
        raise FileExistsError(f"{path} contains {foreign[0]!r}, which no run wrote; {remedy}")


@contextmanager
def create_run(
    path: Path,
    kind: str,
    config: Mapping[str, Any],
    device: jax.Device,
    *,
    overwrite: bool = False,
    **details: Any,
) -> Iterator[Path]:
    """Create a run directory with manifest and `config.json`, and hold its lock within the block.

    `kind` says what the run does, such as "train"; `details` are further fields of the manifest.
    Raises the errors of `check_run_path` and `lock_run`.
    """
    check_run_path(path, overwrite=overwrite)  # before the lock, which is a file in the directory
    path.mkdir(parents=True, exist_ok=True)
    with lock_run(path):
        check_run_path(path, overwrite=overwrite)
        manifest = {"kind": kind, "started": utc_now(), "sessions": 0, "seconds": 0.0, "notes": []}
        with run_session(path, {**manifest, "config": dict(config), **details}, device):
            yield path


@contextmanager
def run_session(path: Path, manifest: Mapping[str, Any], device: jax.Device) -> Iterator[None]:
    """Set the state in the manifest to "running" within the block, and to the outcome afterwards.

    The first session removes what the run replaces. The caller must hold the lock of the run.
    """
    begin = time.monotonic()
    session = {**manifest, **describe_environment(device)}
    session["process"] = {"pid": os.getpid(), "host": socket.gethostname()}

    def write_state(state: str, why: str | None = None) -> None:
        outcome: dict[str, Any] = {"state": state, "why": why, "ended": None}
        if state != "running":
            outcome |= {"ended": utc_now(), "seconds": manifest["seconds"] + time.monotonic() - begin}
        write_manifest(path, session | outcome)

    try:
        if not manifest["sessions"]:  # until all is removed, no session has started, and nothing is loaded
            write_state("running")
            for name in _ENTRIES:
                remove(path / name)
        for folder in (path, path / "checkpoints"):  # temporary files of a killed process
            for entry in folder.iterdir() if folder.is_dir() else []:
                if is_temporary(entry.name):
                    remove(entry)
        session["sessions"] += 1
        write_state("running")
        write_json(path / "config.json", manifest["config"])
        yield
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        why = str(error).partition("\n")[0][:500] or type(error).__name__
        with suppress(OSError):  # raise the first error, not this one
            write_state(state, why)
        raise
    write_state("done")


def resume_hint(path: Path | str) -> str:
    """Return the command that resumes a run, quoted for a shell."""
    return f"resume with: jaxlm train --resume {shlex.quote(str(path))}"
