"""Lock a run directory, so that only one process writes to it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from jaxlm.utils.json_files import read_json

LOCK_NAME = ".lock"


@contextmanager
def lock_run(path: Path, timeout: float = 1.0) -> Iterator[None]:
    """Hold the exclusive lock of a run directory. The operating system releases it when the process dies.

    Raises a BlockingIOError if another process holds the lock for `timeout` seconds, which is longer than a reader
    holds it, and a PermissionError if the directory is not writable.
    """
    try:  # poll often, to succeed between two readers
        lock = filelock.FileLock(path / LOCK_NAME).acquire(timeout=timeout, poll_interval=0.005)
    except filelock.Timeout:
        holder = f"another process{_describe_holder(path)}"
        raise BlockingIOError(f"{path} is in use by {holder}; wait, or choose another directory") from None
    with lock:
        yield


def _describe_holder(path: Path) -> str:
    """Return the process that the manifest of a running run names, or ""."""
    with suppress(OSError, ValueError):
        match read_json(path / "manifest.json"):
            case {"state": "running", "process": {"pid": pid, "host": host}}:
                return f" (process {pid} on {host})"
    return ""
