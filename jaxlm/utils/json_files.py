"""Read JSON files with limits, and check their version."""

import json
import reprlib
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import read_regular

# Enough for a BPE vocabulary of 300,000 tokens. A parsed document can take twenty times its size in memory.
MAX_JSON_BYTES = 16 * 2**20


def read_json(path: str | Path) -> Any:
    """Return the JSON document in a file.

    Raises a ValueError that names `path` if it is not a regular file, not valid JSON, or above `MAX_JSON_BYTES`.
    """
    return parse_json(read_regular(path, max_bytes=MAX_JSON_BYTES), origin=path)


def parse_json(content: bytes | str, *, origin: str | Path) -> Any:
    """Return the JSON document in `content`. Raises the ValueErrors of `read_json`, which name `origin`."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not valid JSON")  # Python's parser would accept NaN and Infinity

    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"{origin}: the JSON is larger than {MAX_JSON_BYTES:,} bytes, the limit for a document")
    try:
        text = content.decode() if isinstance(content, bytes) else content
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise ValueError(f"{origin} is damaged: it is not valid JSON") from None


def check_version(document: Any, expected: int, *, origin: str | Path, what: str) -> None:
    """Raise a ValueError unless the field "version" of `document` is `expected`."""
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or version != expected:
        remedy = "if a later jaxlm wrote it, use that one to read it"
        found = f"version: {reprlib.repr(version)}"
        raise ValueError(f"{origin} is not a {what} of version {expected} ({found}); {remedy}")
