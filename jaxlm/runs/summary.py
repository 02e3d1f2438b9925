"""Summarize runs: state and headline figures."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.utils.atomic_files import expand
from jaxlm.utils.json_files import read_json

FIGURES = ("nats_per_token", "perplexity", "bits_per_byte", "train_seconds")


def summarize_run(path: Path) -> dict[str, Any]:
    """Return the options and headline figures of a run: of its best model; while unfinished, of its last record.

    Never raises: if a file is damaged, `state` is "damaged" and `why` holds the reason.
    """
    unknown = dict.fromkeys(("kind", "model", "steps", *FIGURES, "why", "started")) | {"options": {}}
    summary: dict[str, Any] = {"run": path.name, "path": str(path), **unknown}
    try:
        manifest = read_manifest(path)
        summary |= {name: manifest[name] for name in ("kind", "state", "why", "started")}
        summary |= {"options": manifest["config"]}
        if not manifest["sessions"]:  # the files are those of the run that it replaces
            return summary
        return summary | _read_figures(path, manifest.get("model", manifest["config"].get("model")))
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        return summary | {"state": "damaged", "why": str(error)}


def is_done(path: Path) -> bool:
    """Return whether the directory holds a finished run; False if its manifest is missing or damaged."""
    with suppress(OSError, ValueError):
        return bool(read_manifest(path)["state"] == "done")
    return False


def list_runs(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return `summarize_run` of every run directory in `folder`, ordered by start time.

    Raises:
        OSError: `folder` does not exist.

    >>> import tempfile
    >>> list_runs(tempfile.mkdtemp())
    []
    """
    paths = (path for path in sorted(expand(folder).iterdir()) if (path / "manifest.json").is_file())
    return sorted(map(summarize_run, paths), key=lambda summary: (summary["started"] or "", summary["run"]))


def _read_figures(path: Path, name: str) -> dict[str, Any]:
    records = read_metrics(path / "metrics.jsonl")
    steps = max((record["step"] + 1 for record in records), default=None)
    results = path / "results.json"
    rows = read_json(results).get("models", []) if results.exists() else []
    if not rows:
        last = records[-1] if records else {}
        nats, perplexity = last.get("val_nats_per_token"), last.get("val_perplexity")
        return {"model": name, "steps": steps, "nats_per_token": nats, "perplexity": perplexity}
    best = min(rows, key=lambda row: float("inf") if row["nats_per_token"] is None else row["nats_per_token"])
    if not all(isinstance(best[name], int | float | None) for name in FIGURES):
        raise ValueError(f"{results} is damaged: a figure is not a number")
    return {"model": best["name"], "steps": steps, **{name: best[name] for name in FIGURES}}
