"""Add checksums to JSON documents, and verify them."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def _document_checksum(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_of(canonical.encode())
