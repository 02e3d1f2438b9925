"""One process at a time writes to a run directory."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock

from jaxlm.utils.json_files import read_json

if sys.platform != "win32":
    import fcntl

_LOCK = ".lock"
_LOCK_SECONDS = 1.0  # a reader that looks whether a run still runs holds the lock for less


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """The one process that writes to the run's folder. A process that dies, however it does, holds it no longer.

    Raises:
        BlockingIOError: another process has it.
        OSError: the folder cannot be written.
    """
    lock = filelock.FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=_LOCK_SECONDS, poll_interval=_LOCK_SECONDS / 200)  # readers may follow one another
    except filelock.Timeout:
        raise BlockingIOError(
            f"another process works in {path}{_holder(path)}; wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Who works in the folder, once their manifest says so."""
    try:
        manifest = read_json(path / "manifest.json")
        process = manifest["process"]
        return f" (process {process['pid']} on {process['host']})" if manifest["state"] == "running" else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@contextmanager
def try_shared_lock(path: Path) -> Iterator[bool]:
    """Whether no process works in the folder, for sure; and for the block none begins to.

    The lock is shared, so that readers do not take each other for the writer, and a folder that may only be read
    will do.
    """
    with ExitStack() as lock:
        try:
            if sys.platform == "win32":
                lock.enter_context(filelock.FileLock(path / _LOCK, timeout=_LOCK_SECONDS / 10))
            else:
                descriptor = os.open(path / _LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                lock.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass  # a copy of a run's folder, made without hidden files
        except OSError:  # held by another; or it cannot be known
            yield False
            return
        yield True
