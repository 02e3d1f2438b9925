"""Add checksums to JSON documents and directories, and verify them."""

import contextlib
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
    """Return `document` as JSON text with an added field "sha256", the checksum of the other fields.

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
    with contextlib.suppress(ValueError, RecursionError):  # infinity, parsed from 1e999; nested too deeply
        if document["sha256"] == _document_checksum(fields):
            return fields
    raise ValueError(f"{origin} is damaged: checksum mismatch")


def file_checksums(folder: Path) -> dict[str, list[Any]]:
    """Return `[number of bytes, SHA-256]` of every file below `folder`, by relative path.

    Raises a ValueError if `folder` is a symbolic link, or contains a link, pipe or device.
    """
    return {name: _file_checksum(path) for name, path in _files_below(folder).items()}


def verify_file_checksums(folder: Path, checksums: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the file unless `folder` contains exactly the files of `checksums`.

    A file of another size is not read.
    """
    try:
        paths = _files_below(folder)
        for name in sorted(paths.keys() | checksums.keys()):
            if name not in paths:
                raise ValueError(f"{folder} is damaged: file {name!r:.200} is missing")
            if name not in checksums:
                raise ValueError(f"{folder} is damaged: unexpected file {name!r:.200}")
            expected = checksums[name]
            same_size = isinstance(expected, list) and expected[:1] == [paths[name].lstat().st_size]
            if not same_size or expected != _file_checksum(paths[name]):
                raise ValueError(f"{folder} is damaged: checksum mismatch in file {name!r:.200}")
    except OSError as error:
        raise ValueError(f"{folder} is damaged: {error}") from None


def _files_below(folder: Path) -> dict[str, Path]:
    """Return everything below `folder` except directories, by relative path. Links are not followed."""
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
    with open_regular(path, follow_links=False) as file:
        digest = hashlib.file_digest(file, "sha256")
        return [file.tell(), digest.hexdigest()]


def _document_checksum(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_of(canonical.encode())
