"""Lock a run directory, so that only one process writes to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from jaxlm.utils.json_files import read_json

LOCK_NAME = ".lock"
_TIMEOUT = 1.0  # seconds; longer than a reader holds the lock


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of a run directory. The operating system releases it when the process dies.

    Raises a BlockingIOError if another process holds the lock, and an OSError if the directory is not writable.
    """
    try:  # poll often, to succeed between two readers
        lock = filelock.FileLock(path / LOCK_NAME).acquire(timeout=_TIMEOUT, poll_interval=_TIMEOUT / 200)
    except filelock.Timeout:
        raise BlockingIOError(
            f"{path} is in use by another process{_describe_holder(path)}; wait, or choose another directory"
        ) from None
    except OSError as error:
        raise OSError(f"{path} is not writable ({error.strerror or error})") from None
    with lock:
        yield


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold the lock of a run directory if that is possible, and yield whether it is.

    It is not if another process holds the lock, or if the directory is not writable.
    """
    try:
        lock = filelock.FileLock(path / LOCK_NAME).acquire(timeout=_TIMEOUT / 10, poll_interval=_TIMEOUT / 200)
    except (filelock.Timeout, OSError):
        yield False
        return
    with lock:
        yield True


def _describe_holder(path: Path) -> str:
    """Return the process that the manifest names if the run is running, else ""."""
    try:
        match read_json(path / "manifest.json"):
            case {"state": "running", "process": {"pid": pid, "host": host}}:
                return f" (process {pid} on {host})"
    except (OSError, ValueError):
        pass
    return ""
