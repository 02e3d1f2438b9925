"""What moved between two runs of `experiments.speed.jit.compare`, beyond the noise."""

import json
import sys
from pathlib import Path
from typing import Any

KIND, SCHEMA_VERSION = "jit_comparison", 1

LEAST_CHANGE = 0.05  # medians nearer than this are the same, whatever their spreads

_FIELDS = {
    "versions": dict,
    "platform": str,
    "cores": int,
    "devices": dict,
    "sizes": dict,
    "ceilings": dict,
    "rows": list,
}
_ROW_TEXTS = ("device", "size", "stage", "way")
_ROW_NUMBERS = ("median_us", "minimum_us", "spread_us")


def describe_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines that say what moved between two runs' results, and first what makes the two hard to compare.

    A median moved where it differs by more than 5 %, and the spans of the two runs, from the minimum to the median
    plus the spread (between the quartiles), do not meet. That is the noise within a run; whether the machine was
    busier during one of the two, its ceiling says.
    """
    lines = []
    for name in ("platform", "cores"):
        if old[name] != new[name]:
            lines.append(f"note: {name}: {old[name]} -> {new[name]}")
    for name in ("devices", "versions", "sizes"):
        for key in sorted(old[name].keys() & new[name].keys()):
            if old[name][key] != new[name][key]:
                lines.append(f"note: {name}, {key}: {old[name][key]} -> {new[name][key]}")
    for device in sorted(old["ceilings"].keys() & new["ceilings"].keys()):
        for name, before in old["ceilings"][device].items():
            after = new["ceilings"][device].get(name)
            if after and abs(after / before - 1) > LEAST_CHANGE:
                lines.append(
                    f"note: ceiling of {device}, {name}: {before:.3g} -> {after:.3g} ({after / before - 1:+.0%})"
                )
    old_rows, new_rows = ({_key(row): row for row in results["rows"]} for results in (old, new))
    shared = [key for key in old_rows if key in new_rows]
    if alone := len(old_rows) + len(new_rows) - 2 * len(shared):
        lines.append(f"note: rows that only one of the files has: {alone}")
    moved = [key for key in shared if has_moved(old_rows[key], new_rows[key])]
    for key in moved:
        before, after = old_rows[key]["median_us"], new_rows[key]["median_us"]
        lines.append(f"{' '.join(key)}: {before:.4g} -> {after:.4g} us ({after / before - 1:+.0%})")
    return [*lines, f"{len(moved) or 'nothing'} of {len(shared)} figures moved beyond the noise"]


def has_moved(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the medians of two rows differ beyond the noise."""
    fast, slow = sorted((old, new), key=lambda row: row["median_us"])
    apart = slow["minimum_us"] > fast["median_us"] + fast["spread_us"]
    return apart and abs(new["median_us"] / old["median_us"] - 1) > LEAST_CHANGE


def read_results(path: Path) -> dict[str, Any]:
    """The `results.json` of a run.

    Raises:
        OSError: there is no such file.
        ValueError: it is none of this experiment, or of another schema.
    """
    try:
        results = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(results, dict) or results.get("kind") != KIND:
        raise ValueError(f"{path} is no results.json of a jit comparison")
    if results.get("schema_version") != SCHEMA_VERSION:
        version = results.get("schema_version")
        raise ValueError(f"{path} has schema_version {version}; this program reads {SCHEMA_VERSION}")
    for name, kind in _FIELDS.items():
        if not isinstance(results.get(name), kind):
            raise ValueError(f"{path}: {name} must be a {kind.__name__}, got {results.get(name)!r}")
    for device, ceiling in results["ceilings"].items():
        if not isinstance(ceiling, dict) or not all(map(_is_positive, ceiling.values())):
            raise ValueError(f"{path}: ceilings of {device} must be positive, finite numbers, got {ceiling!r:.99}")
    seen: set[tuple[str, ...]] = set()
    for index, row in enumerate(results["rows"]):
        where = f"{path}: row {index}"
        _check_row(where, row)
        if _key(row) in seen:
            raise ValueError(f"{where}: {' '.join(_key(row))} is there already")
        seen.add(_key(row))
    return results


def _check_row(where: str, row: Any) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be an object, got {row!r}")
    for name in _ROW_TEXTS:
        if not isinstance(row.get(name), str):
            raise ValueError(f"{where}: {name} must be a text, got {row.get(name)!r}")
    for name in _ROW_NUMBERS:
        if not (_is_positive(row.get(name)) or (name == "spread_us" and row.get(name) == 0)):
            raise ValueError(f"{where}: {name} must be a positive, finite number, got {row.get(name)!r:.99}")


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value <= sys.float_info.max  # a whole number of JSON can be larger than any float


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["device"], row["size"], row["stage"], row["way"]
