"""Write files and directories atomically, and read regular files only."""

import contextlib
import errno
import io
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path


def expand(path: str | os.PathLike[str]) -> Path:
    """Return the path with the home folder in place of a leading `~`."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  which raises an error for an unknown user


def check_absent(path: Path, *, overwrite: bool) -> None:
    """Raise a FileExistsError if the path exists, unless `overwrite` is True."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another path, or pass overwrite=True (--overwrite)")


def temporary_path(path: Path) -> Path:
    """Return a unique hidden path in the directory of `path`, for a file that is then renamed to `path`."""
    return path.with_name(f".{uuid.uuid4().hex}")


def is_temporary(name: str) -> bool:
    """Return whether `name` has the form of a `temporary_path`. A crash can leave such files behind."""
    return re.fullmatch(r"\.[0-9a-f]{32}", name) is not None


@contextlib.contextmanager
def add_filename(path: Path) -> Iterator[None]:
    """Set the file name of an OSError within the block. A failed write or sync does not set it."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextlib.contextmanager
def make_parents(path: Path) -> Iterator[None]:
    """Create the missing parent folders of `path`. Remove them after an exception within the block."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # it was not created, or has a file of another program
                folder.rmdir()
        raise


def write_atomically(path: str | Path, content: str | bytes | Iterable[str], *, parents: bool = False) -> None:
    """Write and sync a temporary file, then rename it to `path`. Text, or parts of a text, are encoded as UTF-8.

    Readers see the complete old or new file, even after a crash or an OSError. `parents` creates missing folders.
    """
    path = Path(path)
    temporary = temporary_path(path)
    with make_parents(path) if parents else contextlib.nullcontext(), add_filename(path):
        try:
            with temporary.open("xb") as file:
                for part in [content] if isinstance(content, str | bytes) else content:
                    file.write(part.encode() if isinstance(part, str) else part)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, link or directory if it exists. A directory is renamed first, to vanish atomically."""
    if path.is_dir() and not path.is_symlink():
        hidden = temporary_path(path)
        path.rename(hidden)
        shutil.rmtree(hidden)
    else:
        path.unlink(missing_ok=True)


def read_regular(path: Path) -> bytes:
    """Return the content of a file. Raise the errors of `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading. Raise a ValueError for a pipe or a device, because reading it may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is a pipe or a device; save its output to a file first")
    return path.open("rb")


def sync(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to disk."""
    if os.name == "nt":
        return  # Windows cannot sync a directory, nor a file opened for reading
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems cannot sync a directory
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
