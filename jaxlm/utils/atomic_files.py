"""Write files and directories atomically, and read regular files only."""

import errno
import os
import re
import shutil
import stat
import uuid
from pathlib import Path

_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)  # some file systems cannot sync a directory
_TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{32}")


def temporary_path(path: Path) -> Path:
    """Return a new hidden path in the same directory, to write to and then rename to `path`."""
    return path.with_name(f".{uuid.uuid4().hex}")


def is_temporary(name: str) -> bool:
    """Return whether `temporary_path` makes such names. A crash can leave files with them behind."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write and sync a temporary file, then rename it to `path`. Text is encoded as UTF-8, its line ends kept.

    A reader sees the old file or the new one, never a part of either, also after a crash or an OSError.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = temporary_path(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        error.filename = str(path)  # a failing write or fsync does not set it
        raise
    finally:
        temporary.unlink(missing_ok=True)


def commit_directory(unfinished: Path, path: Path, *, replace: bool = False) -> None:
    """Sync everything below `unfinished`, then rename it to `path`.

    If `path` exists, it is replaced, or without `replace` a FileExistsError is raised. After an OSError the old
    `path` is still there.
    """
    for folder, _, names in os.walk(unfinished):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))
    exists, replaced = os.path.lexists(path), temporary_path(path)
    if exists and not replace:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if exists:
        path.rename(replaced)
    try:
        unfinished.rename(path)
    except BaseException:
        if exists:
            replaced.rename(path)
        raise
    sync(path.parent)
    remove(replaced)


def remove(path: Path) -> None:
    """Remove a file, link or directory if it exists. A directory is first renamed, so it disappears at once."""
    if path.is_dir() and not path.is_symlink():
        hidden = temporary_path(path)
        path.rename(hidden)
        shutil.rmtree(hidden)
    else:
        path.unlink(missing_ok=True)


def read_regular(path: str | Path, *, max_bytes: int | None = None, follow_links: bool = True) -> bytes:
    """Return the content of a regular file. Pipes and devices are refused because they may never end.

    Raises:
        ValueError: not a regular file, a link although `follow_links` is false, or larger than `max_bytes`.
    """
    with open(open_regular(Path(path), follow_links=follow_links), "rb") as file:
        if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
            raise ValueError(f"{path} is larger than {max_bytes:,} bytes, the limit for such a file")
        try:
            return file.read()
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from None


def check_regular(path: Path) -> None:
    """Raise the errors of `read_regular` without reading the file."""
    os.close(open_regular(path, follow_links=True))


def open_regular(path: Path, *, follow_links: bool) -> int:
    """Open a regular file for reading and return its descriptor. Raises as `read_regular`."""
    if not follow_links:
        refuse_link(path)
    # O_NONBLOCK: opening a pipe without a writer would block forever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise ValueError(f"{path} is a pipe or a device; save its output to a file first")


def refuse_link(path: Path) -> None:
    """Raise a ValueError if `path` is a symbolic link."""
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link; replace it by a copy of its target")


def sync(path: Path) -> None:
    """Wait until the content of a file, or the list of names in a directory, is on the disk."""
    if os.name == "nt":
        return  # Windows cannot sync a directory, nor a file opened for reading
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _CANNOT_SYNC):
            raise
    finally:
        os.close(descriptor)
