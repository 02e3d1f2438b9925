"""json_files."""

import json
import reprlib
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import read_regular

# A BPE vocabulary of 300,000 tokens needs that. What JSON makes of it in memory can be twenty times as large.
MAX_JSON_BYTES = 16 * 2**20


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


def check_version(document: Any, wanted: int, *, origin: str | Path, what: str) -> None:
    """Raises a ValueError unless the document says that it is of version `wanted` of `what`."""
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or version != wanted:
        raise ValueError(
            f"{origin} is not a {what} of version {wanted} (version: {reprlib.repr(version)}); "
            "if it is a later one's, use the jaxlm that wrote it"
        )


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
