"""`metrics.jsonl`: one JSON object a line, only ever added to, and whole lines only."""

import errno
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import read_regular, write_atomically


def append_metrics(path: Path, metrics: dict[str, Any]) -> bytes:
    """Appends one line, and returns it. A line that does not fit on the disk is taken back.

    Raises:
        OSError: it cannot be written; the message names the path, which holds what it held before.
    """
    line = (json.dumps(replace_nonfinite(metrics), allow_nan=False) + "\n").encode()
    try:
        # One write: another process sees all of the line or nothing.
        if path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link, which would lead out of the run's folder")
        with path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        error.filename = str(path)
        raise
    return line


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects of all whole lines; none where there is no file. A last line that is torn is left out.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no record of a model, a step and figures; the message names path and line.
    """
    try:
        content = read_regular(path)
    except FileNotFoundError:
        return []
    metrics = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            metrics.append(json.loads(line))
        except (ValueError, RecursionError):
            metrics.append(None)
        if not _is_record(metrics[-1]):
            raise ValueError(f"{path} is damaged: line {number} is no record of training")
    return metrics


def is_number_or_null(value: Any) -> bool:
    """Whether a value from JSON is a number that a float can hold, or null."""
    return value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)


def _is_record(line: Any) -> bool:
    match line:
        case {"model": str(), "step": int(step), **figures} if 0 <= step < 2**31:
            return all(map(is_number_or_null, figures.values()))
    return False


def truncate_metrics(path: Path, num_bytes: int) -> None:
    """Leaves the first `num_bytes` of the file alone; a reader sees it before or after, never between."""
    content = read_regular(path) if path.exists() else b""
    if len(content) != num_bytes:
        write_atomically(path, content[:num_bytes])


def replace_nonfinite(value: Any) -> Any:
    """`value` with null for each number that JSON lacks: inf and NaN."""
    if isinstance(value, dict):
        return {key: replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
