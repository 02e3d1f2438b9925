"""Print what changed between two runs of `experiments.speed.jit.compare` by more than the noise.

    python -m experiments.speed.jit.diff_runs OLD.json NEW.json

Both files are the `results.json` of a run. A median changed if it differs by more than 5 % and the ranges of the
two runs, from the minimum to the median plus the spread between the quartiles, do not overlap. This covers the
noise within a run. The ceilings show whether the machine was slower during one of the runs.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from jaxlm.utils.terminal import make_console, print_plain, run_command

MIN_CHANGE = 0.05  # relative

_FIELDS = {"versions": dict, "platform": str, "devices": dict, "sizes": dict, "ceilings": dict, "rows": list}
_ROW_FIELDS = ("device", "size", "stage", "variant")  # together they identify a row


@dataclass(frozen=True)
class DiffOptions:
    """Print what changed between two runs by more than the noise."""

    old: Annotated[Path, Positional]
    """The earlier `results.json`."""
    new: Annotated[Path, Positional]
    """The later `results.json`."""


def describe_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one line per difference in environment or ceiling, one per changed figure, and a summary."""
    lines = []
    if old["platform"] != new["platform"]:
        lines.append(f"note: platform: {old['platform']} -> {new['platform']}")
    for name in ("devices", "versions", "sizes"):
        lines += [
            f"note: {name}, {key}: {old[name][key]} -> {new[name][key]}"
            for key in sorted(old[name].keys() & new[name].keys())
            if old[name][key] != new[name][key]
        ]
    for device in sorted(old["ceilings"].keys() & new["ceilings"].keys()):
        for name, before in old["ceilings"][device].items():
            after = new["ceilings"][device][name]
            if abs(change := after / before - 1) > MIN_CHANGE:
                lines.append(f"note: ceiling of {device}, {name}: {before:.3g} -> {after:.3g} ({change:+.0%})")
    old_rows, new_rows = (
        {tuple(row[name] for name in _ROW_FIELDS): row for row in results["rows"]} for results in (old, new)
    )
    if unpaired := len(old_rows.keys() ^ new_rows.keys()):
        lines.append(f"note: {unpaired} rows are in one file only")
    shared = [key for key in old_rows if key in new_rows]
    changed = [key for key in shared if has_changed(old_rows[key], new_rows[key])]
    for key in changed:
        before, after = old_rows[key]["median_us"], new_rows[key]["median_us"]
        lines.append(f"{' '.join(key)}: {before:.4g} -> {after:.4g} us ({after / before - 1:+.0%})")
    return [*lines, f"{len(changed)} of {len(shared)} figures changed by more than the noise"]


def has_changed(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether the medians of two rows differ by more than the noise."""
    fast, slow = sorted((old, new), key=lambda row: row["median_us"])
    is_apart = slow["minimum_us"] > fast["median_us"] + fast["spread_us"]
    return is_apart and abs(new["median_us"] / old["median_us"] - 1) > MIN_CHANGE


def read_results(path: Path) -> dict[str, Any]:
    """Read the `results.json` of a run.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not the `results.json` of this experiment.
    """
    try:
        results = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(results, dict):
        raise ValueError(f"{path} must be a JSON object")
    for name, kind in _FIELDS.items():
        if not isinstance(results.get(name), kind):
            raise ValueError(f"{path} is not a results.json of experiments.speed.jit.compare: {name} is missing")
    for index, row in enumerate(results["rows"]):
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in _ROW_FIELDS):
            raise ValueError(f"{path}: row {index} must have {', '.join(_ROW_FIELDS)}")
        for name in ("median_us", "minimum_us", "spread_us"):
            value, least = row.get(name), 0 if name == "spread_us" else sys.float_info.min
            if not isinstance(value, int | float) or not least <= value <= sys.float_info.max:
                raise ValueError(f"{path}: row {index}: {name} must be positive and finite, got {value!r:.99}")
    return results


def _main() -> None:
    options = tyro.cli(DiffOptions, prog="diff_runs")
    for line in describe_changes(read_results(options.old), read_results(options.new)):
        print_plain(make_console(), line)


if __name__ == "__main__":
    sys.exit(run_command(_main))
