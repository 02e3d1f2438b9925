"""Summarize a sweep: its runs, and the mean over the seeds of each setting."""

import math
import os
from pathlib import Path
from typing import Any

from jaxlm.runs.config import config_to_json
from jaxlm.runs.metrics_log import read_metrics, replace_nonfinite
from jaxlm.runs.summary import FIGURES, summarize_run
from jaxlm.runs.sweeps.plan import varied_options
from jaxlm.runs.sweeps.run import open_sweep
from jaxlm.utils.atomic_files import expand
from jaxlm.utils.statistics import mean_and_interval


def list_sweep_runs(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return a row for each run of a sweep, as `list_runs` does, in the order of the plan.

    The state of a run without a directory is "planned".

    Raises:
        FileNotFoundError: `path` is not a sweep.

    >>> import tempfile, jaxlm
    >>> config = jaxlm.TrainConfig(model="counts", tokenizer="byte", text=Path(__file__))
    >>> sweep = jaxlm.run_sweep(tempfile.mkdtemp(), jaxlm.plan_sweep(config, {"smoothing": [0.1, 1.0]}))
    >>> [(row["run"], row["state"], row["options"]["smoothing"]) for row in list_sweep_runs(sweep)]
    [('0-smoothing=0.1', 'done', 0.1), ('1-smoothing=1.0', 'done', 1.0)]
    """
    path, rows = expand(path), []
    for name, config in open_sweep(path).items():
        row = summarize_run(path / name)
        if not (path / name).exists():
            row |= {"state": "planned", "why": None, "options": config_to_json(config)}
        rows.append(row)
    return rows


def summarize_sweep(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return a row for each setting of a sweep, that is, the runs that differ only in the seed. The best is first.

    Each row has `options` (those that vary), `runs` (their names), `num_done`, and for each figure, such as
    `perplexity`, the mean over the finished runs, and as `perplexity_half_width` that of its 95 % interval by
    Student's t. A value is None if it is infinite or unknown.

    Settings are ordered by bits per byte, those with an unfinished run last.

    Raises:
        FileNotFoundError: `path` is not a sweep.

    >>> import tempfile, jaxlm
    >>> config = jaxlm.TrainConfig(model="counts", tokenizer="byte", text=Path(__file__))
    >>> sweep = jaxlm.run_sweep(tempfile.mkdtemp(), jaxlm.plan_sweep(config, {"smoothing": [0.1, 1.0]}))
    >>> [(row["options"], row["num_done"]) for row in summarize_sweep(sweep)]
    [({'smoothing': 0.1}, 1), ({'smoothing': 1.0}, 1)]
    """
    path = expand(path)
    plan = open_sweep(path)
    varied = [name for name in varied_options(list(plan.values())) if name != "seed"]
    settings: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row, config in zip(list_sweep_runs(path), plan.values(), strict=True):
        options = config_to_json(config)
        settings.setdefault(tuple(options[name] for name in varied), []).append(row)
    rows = [_pool(dict(zip(varied, values, strict=True)), runs) for values, runs in settings.items()]

    def rank(row: dict[str, Any]) -> tuple[bool, float]:
        bits = row["bits_per_byte"]
        return row["num_done"] < len(row["runs"]), math.inf if bits is None else bits

    return sorted(rows, key=rank)


def best_run(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the finished training run with the fewest bits per byte, or None."""
    done = [row for row in rows if (row["kind"], row["state"]) == ("train", "done")]
    known = [row for row in done if row["bits_per_byte"] is not None]
    return min(known, key=lambda row: row["bits_per_byte"], default=None)


def read_curves(
    rows: list[dict[str, Any]], settings: list[dict[str, Any]]
) -> dict[str, list[list[dict[str, Any]]]]:
    """Return the records of the runs of each setting, except damaged ones, by a title such as "lr=0.3"."""
    paths = {row["run"]: Path(row["path"]) for row in rows if row["state"] != "damaged"}
    return {
        ", ".join(f"{name}={value}" for name, value in setting["options"].items()) or "all seeds": [
            read_metrics(paths[name] / "metrics.jsonl") for name in setting["runs"] if name in paths
        ]
        for setting in settings
    }


def _pool(options: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    done = [row for row in runs if row["state"] == "done"]
    row: dict[str, Any] = {"options": options, "runs": [each["run"] for each in runs], "num_done": len(done)}
    for name in FIGURES:
        values = [math.inf if each[name] is None else each[name] for each in done]
        mean, half_width = mean_and_interval(values) if values else (math.inf, math.inf)
        row |= replace_nonfinite({name: mean, f"{name}_half_width": half_width})
    return row
