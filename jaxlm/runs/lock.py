"""Lock a run directory, so that only one process writes to it."""

import errno
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

LOCK_NAME = ".lock"
_SOFT_LOCK_NAME = ".lock-soft"  # exists only while it is held
LOCK_NAMES = LOCK_NAME, _SOFT_LOCK_NAME

_log = logging.getLogger(__name__)


@contextmanager
def lock_run(path: Path, timeout: float = 1.0) -> Iterator[None]:
    """Hold the exclusive lock of a run directory. The operating system releases it when the process dies.

    On a file system without such locks, such as some NFS, a file is the lock, and removed if its process is dead.
    Raises a BlockingIOError if another process holds the lock for more than `timeout` seconds (readers hold it
    only briefly), and a PermissionError if the directory is not writable.
    """
    if (path / LOCK_NAME).is_symlink():  # into a cache, such as git-annex's; filelock does not follow it
        (path / LOCK_NAME).unlink()
    lock = filelock.FileLock(path / LOCK_NAME)
    if not _has_file_locks(path):
        lock = filelock.SoftFileLock(path / _SOFT_LOCK_NAME)
        if timeout >= 1:
            _log.warning("%s has no file locks; %s is used instead", path, lock.lock_file)
        _remove_lock_of_dead_process(path)
    try:  # poll often, to succeed between two readers
        acquired = lock.acquire(timeout=timeout, poll_interval=0.005)
    except filelock.Timeout:
        holder, wait = "another process", "wait, or choose another directory"
        match _read_holder(path):
            case pid, host:
                holder += f" (process {pid} on {host})"
        if isinstance(lock, filelock.SoftFileLock):
            wait += f"; if no process uses it, remove {lock.lock_file}"
        raise BlockingIOError(f"{path} is in use by {holder}; {wait}") from None
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
    except (filelock.Timeout, NotImplementedError):  # older versions
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        return False
    finally:
        probe.unlink(missing_ok=True)


def _remove_lock_of_dead_process(path: Path) -> None:
    """Remove the soft lock that a process of this machine held when it wrote the manifest, if it is dead."""
    match _read_holder(path):
        case int(pid), host if host == socket.gethostname():
            with suppress(PermissionError):  # the process of another user
                try:
                    os.kill(pid, 0)
                except ProcessLookupError:
                    lock, manifest = path / _SOFT_LOCK_NAME, path / "manifest.json"
                    with suppress(FileNotFoundError):
                        if lock.stat().st_mtime_ns <= manifest.stat().st_mtime_ns:  # a newer lock is another's
                            lock.unlink()


def _read_holder(path: Path) -> tuple[int, str] | None:
    """Return the process and the host that the manifest of a running run names, or None."""
    with suppress(OSError, ValueError):
        match read_json(path / "manifest.json"):
            case {"state": "running", "process": {"pid": int(pid), "host": str(host)}}:
                return pid, host
    return None
