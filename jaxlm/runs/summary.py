"""summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.metrics_log import is_number_or_null, read_metrics
from jaxlm.utils.json_files import read_json


def summarise_run(path: Path) -> dict[str, Any]:
    """A run's headline figures: those of its best model, or, until it is done, of its last record.

    Nothing raises: where a file is damaged, `state` and `why` say so.
    """
    summary: dict[str, Any] = dict.fromkeys(
        ("model", "steps", "nats_per_token", "perplexity", "bits_per_byte", "train_seconds", "why", "started")
    )
    summary |= {"run": path.name, "path": str(path), "kind": None}
    try:
        manifest = read_manifest(path)
        summary |= {name: manifest[name] for name in ("kind", "state", "why", "started")}
        return summary | _figures(path, manifest)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        return summary | {"state": "damaged", "why": str(error)}


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """`summarise_run` of each run in `folder`, in the order in which they were started.

    Raises:
        OSError: there is no such folder.
    """
    paths = (path for path in sorted(folder.iterdir()) if (path / "manifest.json").is_file())
    return sorted(map(summarise_run, paths), key=lambda summary: (summary["started"] or "", summary["run"]))


def _figures(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    metrics = read_metrics(path / "metrics.jsonl")
    steps = {"steps": max((line["step"] + 1 for line in metrics), default=None)}
    try:
        rows = read_json(path / "results.json").get("models", [])
    except FileNotFoundError:
        rows = []
    if rows:
        unknown = float("inf")
        best = min(rows, key=lambda row: unknown if row["nats_per_token"] is None else row["nats_per_token"])
        named = ("nats_per_token", "perplexity", "bits_per_byte", "train_seconds")
        figures = {name: best[name] for name in named}
        if not isinstance(best["title"], str) or not all(map(is_number_or_null, figures.values())):
            raise ValueError(f"{path / 'results.json'} is damaged: its figures are no numbers")
        return {"model": best["title"], **steps, **figures}
    last: dict[str, Any] = metrics[-1] if metrics else {}
    figures = {"nats_per_token": last.get("val_nats_per_token"), "perplexity": last.get("val_perplexity")}
    return {"model": manifest["config"].get("model"), **steps, **figures}
