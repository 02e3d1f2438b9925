"""Lock a run directory, so that only one process writes to it."""

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from jaxlm.utils.atomic_files import temporary_path
from jaxlm.utils.json_files import read_json

LOCK_NAMES = LOCK_NAME, SOFT_LOCK_NAME = ".lock", ".lock-soft"  # the second exists only while it is held


@contextmanager
def lock_run(path: Path, timeout: float = 1.0) -> Iterator[None]:
    """Hold the exclusive lock of a run directory. The operating system releases it when the process dies.

    On a file system without such locks, such as some NFS, a file is the lock, and removed if its process is dead.
    Raises a BlockingIOError if another process holds the lock for more than `timeout` seconds (readers hold it
    only briefly), and a PermissionError if the directory is not writable.
    """
    if (path / LOCK_NAME).is_symlink():  # into a cache, such as git-annex's; filelock does not follow it
        (path / LOCK_NAME).unlink()
    holder, remedy, has_locks = _read_holder(path), "wait, or choose another directory", _has_file_locks(path)
    lock = filelock.FileLock(path / LOCK_NAME) if has_locks else filelock.SoftFileLock(path / SOFT_LOCK_NAME)
    if not has_locks:
        remedy += f"; if no process uses it, remove {lock.lock_file}"
        _remove_dead_lock(path, *holder)
    try:  # poll often, to succeed between two readers
        acquired = lock.acquire(timeout=timeout, poll_interval=0.005)
    except filelock.Timeout:
        process = " (process {} on {})".format(*holder) if holder else ""
        raise BlockingIOError(f"{path} is in use by another process{process}; {remedy}") from None
    if not has_locks and timeout >= 1:  # once per writer
        logging.getLogger(__name__).warning("%s has no file locks; %s is used instead", path, lock.lock_file)
    with acquired:
        yield


def _has_file_locks(folder: Path) -> bool:
    """Return whether the file system of a directory has locks, by locking a new file."""
    probe = temporary_path(folder / LOCK_NAME)
    lock = filelock.FileLock(probe)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of filelock warn, and turn it into a soft lock
            with lock.acquire(timeout=0):
                return not isinstance(lock, filelock.SoftFileLock)
    except (OSError, NotImplementedError):  # older versions; a Timeout is an OSError
        return False
    finally:
        with suppress(OSError):
            probe.unlink()


def _remove_dead_lock(path: Path, pid: int = 0, host: str = "") -> None:
    """Remove the soft lock if its process, which ran on this machine and wrote the manifest, is dead."""
    lock = path / SOFT_LOCK_NAME
    with suppress(OSError):  # there is no lock, or it is another user's
        wrote_manifest = lock.stat().st_mtime_ns <= (path / "manifest.json").stat().st_mtime_ns
        if wrote_manifest and host == socket.gethostname():
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                lock.unlink()


def _read_holder(path: Path) -> tuple[int, str] | tuple[()]:
    """Return the process and the host that the manifest of a running run names, or ()."""
    with suppress(OSError, ValueError):
        match read_json(path / "manifest.json"):
            case {"state": "running", "process": {"pid": int(pid), "host": str(host)}}:
                return pid, host
    return ()
