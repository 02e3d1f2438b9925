"""Files that are either whole or not there, that can be checked, and that cost no more to read than they hold."""

import errno
import hashlib
import json
import os
import re
import reprlib
import shutil
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

# A BPE vocabulary of 300,000 tokens needs that. What JSON makes of it in memory can be twenty times as large.
MAX_JSON_BYTES = 16 * 2**20

_CHUNK_BYTES = 2**20
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


def publish_folder(unfinished: Path, path: Path, *, replace: bool = False) -> None:
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
    with open(_open_regular(Path(path), follow_links=follow_links), "rb") as file:
        if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
            raise ValueError(f"{path} is longer than {max_bytes:,} bytes, more than such a file ever holds")
        try:
            return file.read()
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from None


def check_regular(path: Path) -> None:
    """Raises as `read_regular` does, and reads nothing."""
    os.close(_open_regular(path, follow_links=True))


def read_json(path: str | Path, *, follow_links: bool = True) -> Any:
    """The JSON document in a file.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is no regular file, no JSON, or too large; the message names the path.
    """
    return parse_json(read_regular(path, max_bytes=MAX_JSON_BYTES, follow_links=follow_links), origin=path)


def parse_json(content: bytes | str, *, origin: str | Path) -> Any:
    """The JSON document in `content`. Raises a ValueError, which names `origin`, where it is none or too large."""
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"{origin} holds JSON longer than {MAX_JSON_BYTES:,} bytes, more than is ever written")
    try:
        text = content.decode() if isinstance(content, bytes) else content
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError(f"{origin} is damaged: it is no JSON") from None


def seal(document: Mapping[str, Any]) -> str:
    """`document` as JSON, with the sha256 of the rest as its last field, so that a changed byte is noticed.

    Raises:
        ValueError: it holds NaN or infinity, which JSON lacks, or is longer than any that is read back.
    """
    content = json.dumps({**document, "sha256": _digest(document)}, indent=2) + "\n"
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"the document has {len(content):,} bytes; no more than {MAX_JSON_BYTES:,} are read back")
    return content


def check_seal(document: Any, *, origin: str | Path) -> dict[str, Any]:
    """The fields of a sealed document, without its sha256.

    Raises:
        ValueError: the document is none, or differs from what was sealed; the message names `origin`.
    """
    if not isinstance(document, dict) or not isinstance(document.get("sha256"), str):
        raise ValueError(f"{origin} is damaged: it has no sha256")
    fields = {name: value for name, value in document.items() if name != "sha256"}
    try:
        if document["sha256"] == _digest(fields):
            return fields
    except (ValueError, RecursionError):  # numbers that JSON lacks, as 1e999 becomes; too deep to write
        pass
    raise ValueError(f"{origin} is damaged: its content is not what its sha256 says")


def check_version(document: Any, wanted: int, *, origin: str | Path, what: str) -> None:
    """Raises a ValueError unless the document says that it is of version `wanted` of `what`."""
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or version != wanted:
        raise ValueError(
            f"{origin} is not a {what} of version {wanted} (version: {reprlib.repr(version)}); "
            "if it is a later one's, use the jaxlm that wrote it"
        )


def sums_of_files(folder: Path) -> dict[str, list[Any]]:
    """Of every file below `folder`, by its name from there: how many bytes it has, and their sha256.

    Raises:
        OSError: it cannot be read.
        ValueError: there is a link, a pipe or the like among them, or `folder` is a link.
    """
    return {name: _sum_of_file(path) for name, path in _files_below(folder).items()}


def check_sums(folder: Path, sums: Mapping[str, Any]) -> None:
    """Raises a ValueError, which names the file, unless `folder` holds what `sums_of_files` said, and no more.

    A file's size is compared before it is read, so that no more is read than was written.
    """
    try:
        sizes = {name: path.lstat().st_size for name, path in _files_below(folder).items()}
        for name in sorted(sizes.keys() | sums.keys()):
            if name not in sizes:
                raise ValueError(f"{folder} is damaged: its file {name!r:.200} is missing")
            if name not in sums:
                raise ValueError(f"{folder} is damaged: it holds a file that was not saved, {name!r:.200}")
            has_grown = not isinstance(sums[name], list) or sums[name][:1] != [sizes[name]]
            if has_grown or sums[name] != _sum_of_file(folder / name):
                raise ValueError(f"{folder} is damaged: its file {name!r:.200} has changed")
    except OSError as error:
        raise ValueError(f"{folder} is damaged: {error}") from None


def cache_folder() -> Path:
    """Where corpora and compiled programs are kept: the user's cache folder, or `JAXLM_DATA_DIR`."""
    return Path(os.environ.get("JAXLM_DATA_DIR") or platformdirs.user_cache_dir("jaxlm")).expanduser()


def _files_below(folder: Path) -> dict[str, Path]:
    """All that is no folder below `folder`, by its name from there."""
    _refuse_link(folder)
    found, folders = {}, [folder]
    for each in folders:
        for path in sorted(each.iterdir()):
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
            else:
                found[path.relative_to(folder).as_posix()] = path
    return found


def _sum_of_file(path: Path) -> list[Any]:
    digest, num_bytes = hashlib.sha256(), 0
    with open(_open_regular(path, follow_links=False), "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    return [num_bytes, digest.hexdigest()]


def _open_regular(path: Path, *, follow_links: bool) -> int:
    if not follow_links:
        _refuse_link(path)
    # Without waiting: the opening of a pipe that nobody writes to would never return.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise ValueError(f"{path} is a pipe or a device; save what it gives to a file first")


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ValueError(f"{path} is a link; only what lies here itself is read")


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _digest(document: Mapping[str, Any]) -> str:
    plain = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_of(plain.encode())


def sha256_of(content: bytes) -> str:
    """The sha256 of `content`, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


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
