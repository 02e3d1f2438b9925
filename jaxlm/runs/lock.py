"""File lock of a run directory: one writing process at a time."""

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
    """Hold the exclusive lock of a run directory, which the operating system releases when the process dies.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The directory is not writable.
    """
    try:  # polls often, to get in between two readers
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
    """Try to hold a shared lock; yield whether no process is writing, and keep writers out within the block.

    Readers do not exclude each other, and read permission is enough.
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
            pass  # a copy of a run directory without its hidden files
        except OSError:  # held by a writer, or not readable
            yield False
            return
        yield True


def _describe_holder(path: Path) -> str:
    """Return the process that the manifest names as running, or "" if there is none."""
    try:
        manifest = read_json(path / "manifest.json")
        process = manifest["process"]
        return f" (process {process['pid']} on {process['host']})" if manifest["state"] == "running" else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
