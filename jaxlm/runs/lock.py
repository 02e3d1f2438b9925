"""Lock a run directory, so that only one process writes to it."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock

from jaxlm.utils.json_files import read_json

if sys.platform != "win32":
    import fcntl

LOCK_NAME = ".lock"
_TIMEOUT = 1.0  # seconds; longer than a reader holds the shared lock


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
def try_shared_lock(path: Path) -> Iterator[bool]:
    """Try to hold a shared lock, which excludes writers but not readers, and yield whether no process writes.

    Read permission is enough.
    """
    with ExitStack() as stack:
        try:
            if sys.platform == "win32":
                stack.enter_context(filelock.FileLock(path / LOCK_NAME, timeout=_TIMEOUT / 10))
            else:
                descriptor = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass  # a run directory copied without hidden files
        except OSError:  # held by a writer, or not readable
            yield False
            return
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
