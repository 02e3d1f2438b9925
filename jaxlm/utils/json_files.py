"""Read JSON files of limited size. Check versions, and add and verify checksums."""

import contextlib
import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import open_regular
from jaxlm.utils.text_encoding import decode_text

# Enough for a BPE vocabulary of 300,000 tokens. A parsed document can take twenty times its size in memory.
MAX_JSON_BYTES = 16 * 2**20
_LACKS = "JSON has no comments, no comma before a closing bracket, and no NaN"


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: str | Path) -> Any:
    """Return the JSON document in a file.

    Raises a ValueError that names `path` if it is not a regular file, not valid JSON, or above `MAX_JSON_BYTES`.
    """
    with open_regular(Path(path)) as file:
        return parse_json(file.read(MAX_JSON_BYTES + 1), origin=path)


def parse_json(content: bytes | str, *, origin: str | Path) -> Any:
    """Return the JSON document in `content`. Raises the ValueErrors of `read_json`, which name `origin`."""
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"{origin} is larger than {MAX_JSON_BYTES:,} bytes, the limit for JSON")
    text = decode_text(content, origin=origin) if isinstance(content, bytes) else content

    def refuse(constant: str) -> None:  # Python's parser would accept NaN and Infinity
        raise json.JSONDecodeError("Expecting value", text, text.index(constant))  # the first, even in a string

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        found = repr(text[error.pos : error.pos + 20]) if text[error.pos :] else "the end of the file"
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}, found {found}; {_LACKS}"
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]
    raise ValueError(f"{origin} is not valid JSON: {reason}")


def check_version(document: Any, expected: int, *, origin: str | Path, what: str) -> None:
    """Raise a ValueError unless the field "version" of `document` is `expected`."""
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or version != expected:
        remedy = "if a later jaxlm wrote it, use that one to read it"
        found = f"version: {reprlib.repr(version)}"
        raise ValueError(f"{origin} is not a {what} of version {expected} ({found}); {remedy}")


def add_checksum(document: Mapping[str, Any]) -> str:
    """Return `document` as JSON text with an added field "sha256", the checksum of the other fields.

    Raises a ValueError if it contains NaN or infinity, or is too large for `read_json`.
    """
    content = json.dumps({**document, "sha256": _document_checksum(document)}, indent=2) + "\n"
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"the document has {len(content):,} bytes of JSON, more than {MAX_JSON_BYTES:,}")
    return content


def verify_checksum(document: Any, *, origin: str | Path) -> dict[str, Any]:
    """Return the fields of a document made by `add_checksum`, without its checksum.

    Raises a ValueError that names `origin` if the checksum is missing or does not match.
    """
    if not isinstance(document, dict) or not isinstance(document.get("sha256"), str):
        raise ValueError(f"{origin} is damaged: its sha256 is missing")
    fields = {name: value for name, value in document.items() if name != "sha256"}
    with contextlib.suppress(ValueError, RecursionError):  # infinity, parsed from 1e999; nested too deeply
        if document["sha256"] == _document_checksum(fields):
            return fields
    raise ValueError(f"{origin} is damaged: checksum mismatch")


def check_document(document: Any, version: int, *, origin: str | Path, what: str) -> dict[str, Any]:
    """Return the fields of a document after `check_version` and `verify_checksum`, with their errors."""
    check_version(document, version, origin=origin, what=what)
    return verify_checksum(document, origin=origin)


def _document_checksum(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_of(canonical.encode())
