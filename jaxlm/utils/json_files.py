"""Read JSON files with limits, and check their version."""

import json
import reprlib
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import open_regular
from jaxlm.utils.text_encoding import decode_text

# Enough for a BPE vocabulary of 300,000 tokens. A parsed document can take twenty times its size in memory.
MAX_JSON_BYTES = 16 * 2**20
_LACKS = "JSON has no comments, no comma before a closing bracket, and no NaN"


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
        raise json.JSONDecodeError("Expecting value", text, text.rindex(constant))

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
