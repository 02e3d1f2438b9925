"""Files that are either whole or not there, that can be checked, and that cost no more to read than they hold."""

import errno
import os
import re
import shutil
import stat
import uuid
from pathlib import Path

CHUNK_BYTES = 2**20
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of a folder, on some file systems that lie elsewhere
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}")


def temporary_path(path: Path) -> Path:
    """A new hidden name beside `path`, for what is to be renamed to `path` when it is whole."""
    return path.with_name(f".{uuid.uuid4().hex}")


def is_temporary(name: str) -> bool:
    """Whether a crash may have left an entry of this name behind: `temporary_path` makes such."""
    return _TEMPORARY.fullmatch(name) is not None


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes `content` (text as UTF-8, newlines as they are) beside `path`, syncs it, and renames it to `path`.

    A reader, or a crash, sees the old file or the new one, never a part.

    Raises:
        OSError: the folder is missing or cannot be written; what stood at `path` is untouched.
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
        error.filename = str(path)  # a full disk names no file by itself
        raise
    finally:
        temporary.unlink(missing_ok=True)


def commit_directory(unfinished: Path, path: Path, *, replace: bool = False) -> None:
    """Syncs all that `unfinished` holds, and renames it to `path`; with `replace`, in place of what stands there.

    Raises:
        OSError: it cannot be, or `path` is taken; what stood at `path` is still there.
    """
    for folder, _, names in os.walk(unfinished):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))
    replaced = temporary_path(path)
    if os.path.lexists(path):
        if not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        path.rename(replaced)
    try:
        unfinished.rename(path)
    except BaseException:
        if os.path.lexists(replaced):
            replaced.rename(path)
        raise
    sync(path.parent)
    remove(replaced)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there. A folder is gone for every reader at once."""
    if path.is_dir() and not path.is_symlink():
        hidden = temporary_path(path)
        path.rename(hidden)
        shutil.rmtree(hidden)
    else:
        path.unlink(missing_ok=True)


def read_regular(path: str | Path, *, max_bytes: int | None = None, follow_links: bool = True) -> bytes:
    """The content of a regular file. A pipe or a device, which may never end, is refused.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is no regular file (or a link, without `follow_links`), or longer than `max_bytes`.
    """
    with open(open_regular(Path(path), follow_links=follow_links), "rb") as file:
        if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
            raise ValueError(f"{path} is longer than {max_bytes:,} bytes, more than such a file ever holds")
        try:
            return file.read()
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from None


def check_regular(path: Path) -> None:
    """Raises as `read_regular` does, and reads nothing."""
    os.close(open_regular(path, follow_links=True))


def open_regular(path: Path, *, follow_links: bool) -> int:
    if not follow_links:
        refuse_link(path)
    # Without waiting: the opening of a pipe that nobody writes to would never return.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise ValueError(f"{path} is a pipe or a device; save what it gives to a file first")


def refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ValueError(f"{path} is a link; only what lies here itself is read")


def sync(path: Path) -> None:
    """Waits until what the file, or the list of names in the folder, holds is on the disk."""
    if os.name == "nt":
        return  # Windows syncs no folder, and no file that is open for reading
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _CANNOT_SYNC):
            raise
    finally:
        os.close(descriptor)
