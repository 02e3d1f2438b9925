"""Add checksums to JSON documents and directories, and verify them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import open_regular, refuse_link
from jaxlm.utils.json_files import MAX_JSON_BYTES


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def add_checksum(document: Mapping[str, Any]) -> str:
    """Return `document` as JSON text with one more field, "sha256", the checksum of the others.

    Raises a ValueError if it contains NaN or infinity, or is too large for `read_json`.
    """
    content = json.dumps({**document, "sha256": _document_checksum(document)}, indent=2) + "\n"
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(
            f"the document has {len(content):,} bytes, but at most {MAX_JSON_BYTES:,} can be read back"
        )
    return content


def verify_checksum(document: Any, *, origin: str | Path) -> dict[str, Any]:
    """Return the fields of a document made by `add_checksum`, without its checksum.

    Raises a ValueError that names `origin` if the checksum is missing or does not match.
    """
    if not isinstance(document, dict) or not isinstance(document.get("sha256"), str):
        raise ValueError(f"{origin} is damaged: it has no sha256")
    fields = {name: value for name, value in document.items() if name != "sha256"}
    try:
        if document["sha256"] == _document_checksum(fields):
            return fields
    except (ValueError, RecursionError):  # JSON such as 1e999 parses to infinity; or it is nested too deeply
        pass
    raise ValueError(f"{origin} is damaged: checksum mismatch")


def file_checksums(folder: Path) -> dict[str, list[Any]]:
    """Return `[number of bytes, SHA-256]` of every file below `folder`, by relative path.

    Raises a ValueError if `folder` is a link, or contains a link, pipe or device.
    """
    return {name: _file_checksum(path) for name, path in _files_below(folder).items()}


def verify_file_checksums(folder: Path, checksums: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the file unless `folder` holds exactly the files of `checksums`.

    The size is compared before the content, so a file that grew is not read.
    """
    try:
        paths = _files_below(folder)
        for name in sorted(paths.keys() | checksums.keys()):
            if name not in paths:
                raise ValueError(f"{folder} is damaged: file {name!r:.200} is missing")
            if name not in checksums:
                raise ValueError(f"{folder} is damaged: unexpected file {name!r:.200}")
            expected = checksums[name]
            has_size = isinstance(expected, list) and expected[:1] == [paths[name].lstat().st_size]
            if not has_size or expected != _file_checksum(paths[name]):
                raise ValueError(f"{folder} is damaged: checksum mismatch in file {name!r:.200}")
    except OSError as error:
        raise ValueError(f"{folder} is damaged: {error}") from None


def _files_below(folder: Path) -> dict[str, Path]:
    """Return everything below `folder` that is not a directory. A link to a directory is not followed."""
    refuse_link(folder)
    found, folders = {}, [folder]
    for each in folders:
        for path in sorted(each.iterdir()):
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
            else:
                found[path.relative_to(folder).as_posix()] = path
    return found


def _file_checksum(path: Path) -> list[Any]:
    with open(open_regular(path, follow_links=False), "rb") as file:  # noqa: PTH123
        digest = hashlib.file_digest(file, "sha256")
        return [file.tell(), digest.hexdigest()]


def _document_checksum(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_of(canonical.encode())
