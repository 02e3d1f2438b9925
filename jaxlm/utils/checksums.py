"""checksums."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import CHUNK_BYTES, open_regular, refuse_link
from jaxlm.utils.json_files import MAX_JSON_BYTES


def add_checksum(document: Mapping[str, Any]) -> str:
    """`document` as JSON, with the sha256 of the rest as its last field, so that a changed byte is noticed.

    Raises:
        ValueError: it holds NaN or infinity, which JSON lacks, or is longer than any that is read back.
    """
    content = json.dumps({**document, "sha256": _digest(document)}, indent=2) + "\n"
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"the document has {len(content):,} bytes; no more than {MAX_JSON_BYTES:,} are read back")
    return content


def verify_checksum(document: Any, *, origin: str | Path) -> dict[str, Any]:
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


def file_checksums(folder: Path) -> dict[str, list[Any]]:
    """Of every file below `folder`, by its name from there: how many bytes it has, and their sha256.

    Raises:
        OSError: it cannot be read.
        ValueError: there is a link, a pipe or the like among them, or `folder` is a link.
    """
    return {name: _sum_of_file(path) for name, path in _files_below(folder).items()}


def verify_file_checksums(folder: Path, sums: Mapping[str, Any]) -> None:
    """Raises a ValueError, which names the file, unless `folder` holds what `file_checksums` said, and no more.

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


def _files_below(folder: Path) -> dict[str, Path]:
    """All that is no folder below `folder`, by its name from there."""
    refuse_link(folder)
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
    with open(open_regular(path, follow_links=False), "rb") as file:  # noqa: PTH123
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    return [num_bytes, digest.hexdigest()]


def _digest(document: Mapping[str, Any]) -> str:
    plain = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_of(plain.encode())


def sha256_of(content: bytes) -> str:
    """The sha256 of `content`, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
