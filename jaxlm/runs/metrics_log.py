"""The log `metrics.jsonl`: one JSON object per line."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import add_filename, read_regular


def append_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Append a record as one line. If writing fails, the last line may be incomplete."""
    with add_filename(path), path.open("a", encoding="utf-8") as file:
        file.write(format_metrics(metrics))


def format_metrics(metrics: dict[str, Any]) -> str:
    """Return a record as one line of the log."""
    return json.dumps(replace_nonfinite(metrics), allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log. An incomplete last line is ignored; a missing file gives an empty list.

    Raises a ValueError that names the line of the first invalid record.
    """
    records = []
    for number, line in enumerate(read_log(path).split(b"\n")[:-1], 1):
        with contextlib.suppress(ValueError, RecursionError):
            match record := json.loads(line):
                case {"model": str(), "step": int(), **numbers} if all(
                    isinstance(value, int | float | None) for value in numbers.values()
                ):
                    records.append(record)
        if len(records) < number:
            raise ValueError(f"{path} is damaged: line {number} is not a training record")
    return records


def read_log(path: Path) -> bytes:
    """Return the bytes of a log, empty if the file is missing."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        return b""


def replace_nonfinite(value: Any) -> Any:
    """Return a JSON-like value with None in place of inf and NaN, which JSON cannot represent."""
    if isinstance(value, dict):
        return {key: replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
