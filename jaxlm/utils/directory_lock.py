"""Lock a directory, so that only one process writes to it."""

import errno
import functools
import logging
from contextlib import AbstractContextManager
from pathlib import Path

import filelock

LOCK_NAMES = LOCK_NAME, SOFT_LOCK_NAME = ".lock", ".lock-soft"  # the second exists only while it is held
# Of a file system without locks. 524 is the ENOTSUPP of Linux, which some NFS returns and `errno` lacks.
_NO_LOCKS = errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, 524


def lock_directory(path: Path, timeout: float = 1.0) -> AbstractContextManager[object]:
    """Acquire the exclusive lock of a directory. The operating system releases it when the process dies.

    On a file system without locks, such as some NFS, the file `.lock-soft` is the lock. It is removed if the
    process that created it is dead. Raises a BlockingIOError if another process holds the lock for more than
    `timeout` seconds, and a PermissionError if the directory is not writable.

    Returns:
        The acquired lock, which the end of a `with` block releases.
    """
    if (path / LOCK_NAME).is_symlink():  # into a cache, such as git-annex's; filelock does not follow it
        (path / LOCK_NAME).unlink()
    lock = filelock.FileLock(path / LOCK_NAME, fallback_to_soft=False)
    soft_lock = filelock.SoftFileLock(path / SOFT_LOCK_NAME)
    try:
        try:
            return lock.acquire(timeout, poll_interval=0.005)  # often, to succeed between two readers
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise  # such as a Timeout
            acquired = soft_lock.acquire(timeout, poll_interval=0.005)
    except filelock.Timeout as error:
        remedy = "wait, or choose another directory"
        if error.lock_file == soft_lock.lock_file:
            # filelock removes it only if its process ran on this machine and is dead
            remedy += f"; if no process uses it, remove {error.lock_file}"
        raise BlockingIOError(f"{path} is in use by another process; {remedy}") from None
    if timeout >= 1:  # a writer
        _warn(path.absolute().parent)
    return acquired


@functools.lru_cache(maxsize=128)  # once for all runs in a directory, such as those of a sweep
def _warn(folder: Path) -> None:
    logging.getLogger(__name__).warning("%s has no file locks; files %s are used instead", folder, SOFT_LOCK_NAME)
