"""Lock a run directory, so that only one process writes to it."""

import errno
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import filelock

from jaxlm.utils.json_files import read_json

LOCK_NAMES = LOCK_NAME, SOFT_LOCK_NAME = ".lock", ".lock-soft"  # the second exists only while it is held
_NO_LOCKS = errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK  # of a file system without locks


@contextmanager
def lock_run(path: Path, timeout: float = 1.0) -> Iterator[None]:
    """Hold the exclusive lock of a run directory. The operating system releases it when the process dies.

    On a file system without locks, such as some NFS, the file `.lock-soft` is the lock. It is removed if the
    process that created it is dead. Raises a BlockingIOError if another process holds the lock for more than
    `timeout` seconds (readers hold it only briefly), and a PermissionError if the directory is not writable.
    """
    if (path / LOCK_NAME).is_symlink():  # into a cache, such as git-annex's; filelock does not follow it
        (path / LOCK_NAME).unlink()
    try:
        acquired = _acquire(path, timeout)
    except filelock.Timeout as error:
        remedy = "wait, or choose another directory"
        if error.lock_file == str(path / SOFT_LOCK_NAME):
            # filelock removes it only if its process ran on this machine and is dead
            remedy += f"; if no process uses it, remove {error.lock_file}"
        raise BlockingIOError(f"{path} is in use by another process{_describe_holder(path)}; {remedy}") from None
    with acquired:
        yield


def _acquire(path: Path, timeout: float) -> AbstractContextManager[object]:
    lock = filelock.FileLock(path / LOCK_NAME, fallback_to_soft=False)
    soft_lock = filelock.SoftFileLock(path / SOFT_LOCK_NAME)
    try:
        return lock.acquire(timeout, poll_interval=0.005)  # often, to succeed between two readers
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise  # such as a Timeout
        acquired = soft_lock.acquire(timeout, poll_interval=0.005)
    if timeout >= 1:  # once per writer
        logging.getLogger(__name__).warning("%s has no file locks; %s is used instead", path, soft_lock.lock_file)
    return acquired


def _describe_holder(path: Path) -> str:
    """Return the process and the host that the manifest of a running run names, or ""."""
    with suppress(OSError, ValueError):
        match read_json(path / "manifest.json"):
            case {"state": "running", "process": {"pid": int(pid), "host": str(host)}}:
                return f" (process {pid} on {host})"
    return ""
