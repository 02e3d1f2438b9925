"""The log `metrics.jsonl`: one JSON object per line."""

import contextlib
import errno
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import read_regular


def append_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Append a record as one line, or raise an OSError and leave the file unchanged."""
    data = (json.dumps(replace_nonfinite(metrics), allow_nan=False) + "\n").encode()
    with path.open("ab", buffering=0) as file:  # unbuffered: readers see all of the line or none
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            file.truncate(end)
            error.filename = str(path)
            raise


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log. An incomplete last line is ignored; a missing file gives an empty list.

    Raises a ValueError that names the line of the first invalid record.
    """
    records = []
    for number, line in enumerate(read_log(path).split(b"\n")[:-1], 1):
        with contextlib.suppress(ValueError, RecursionError):
            records.append(json.loads(line))
        if len(records) < number or not _is_record(records[-1]):
            raise ValueError(f"{path} is damaged: line {number} is not a training record")
    return records


def read_log(path: Path) -> bytes:
    """Return the bytes of a log, empty if the file is missing."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        return b""


def is_number_or_null(value: Any) -> bool:
    """Return whether a parsed JSON value is null or a number within the range of a float."""
    return value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)


def replace_nonfinite(value: Any) -> Any:
    """Return a JSON-like value with None in place of inf and NaN, which JSON cannot represent."""
    if isinstance(value, dict):
        return {key: replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_record(line: Any) -> bool:
    match line:
        case {"model": str(), "step": int(step), **numbers} if 0 <= step < 2**31:
            return all(map(is_number_or_null, numbers.values()))
    return False
