"""`jaxlm runs`."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

import jaxlm
from jaxlm.cli.shared import CommandOptions, Console
from jaxlm.utils.atomic_files import expand
from jaxlm.utils.terminal import escape_controls, print_plain

_NOTES = {  # parts of a manifest, and the note if they differ
    "corpus": "these runs use different texts: their figures are not comparable",
    "tokenizer": "these runs use different tokenizers: compare bits/byte, not perplexity or nats/token",
}
_REMEDY = "jaxlm train creates runs, in runs/ or at its --out"


@dataclass(frozen=True)
class RunsOptions(CommandOptions):
    """List runs with their results, show one run, or compare several."""

    # A directory of runs to list, one run directory to show, or several to compare; other paths are skipped.
    paths: Annotated[tuple[Path, ...], Positional, arg(metavar="[RUN ...]")] = (Path("runs"),)
    plot: Path | None = None  # PNG file to write with the loss curves of several runs.


def show_runs(options: RunsOptions, console: Console) -> dict[str, Any]:
    """List the runs of a directory, show one run, or compare several."""
    from jaxlm.runs.manifest import read_manifest
    from jaxlm.runs.summary import summarize_run

    named, plot = list(dict.fromkeys(map(expand, options.paths))), options.plot
    for path in named:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; {_REMEDY}")
    paths = [path for path in named if (path / "manifest.json").exists()]
    if plot is not None and (plot.suffix.lower() != ".png" or len(paths) < 2):
        raise ValueError(f"--plot must name a .png file for two or more runs, got {plot} for {len(paths)}")
    if not paths:
        listed = jaxlm.list_runs(named[0]) if len(named) == 1 else []
        where = ", ".join(map(str, named))
        _print_runs(listed, console) if listed else print_plain(console, f"no runs in {where}; {_REMEDY}")
        return {"runs": listed}
    manifests = {str(path): read_manifest(path) for path in paths}
    rows = [summarize_run(path) | {"run": str(path)} for path in paths]
    _print_runs(rows, console)
    if len(named) > 1:
        if plot is not None:
            _plot_runs(plot, rows, manifests)
        return {"runs": rows} | _compare_runs(manifests, console)
    (manifest,) = manifests.values()
    ended = f", ended {manifest['ended']}" if manifest["ended"] else ""
    lines = [f"started {manifest['started']}{ended}; {manifest['seconds']:,.1f} s"]
    lines += [f"note: {note}" for note in manifest["notes"]]
    print_plain(console, escape_controls("\n".join(lines)))
    return {"runs": rows, "manifest": manifest}


def _print_runs(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the figures of runs; for unfinished runs, also the reason and the resume command."""
    from jaxlm.runs.directory import resume_hint
    from jaxlm.runs.report.tables import runs_table

    console.print(runs_table(rows))
    for row in rows:
        if row["state"] not in ("done", "running"):
            reason = f" ({row['why']})" if row["why"] else ""
            is_resumable = row["kind"] == "train" and row["state"] in ("interrupted", "killed")
            hint = f"; {resume_hint(row['path'])}" if is_resumable else ""
            print_plain(console, escape_controls(f"{row['run']}: {row['state']}{reason}{hint}"))


def _compare_runs(manifests: dict[str, Any], console: Console) -> dict[str, Any]:
    """Print how the options of runs, by path, differ and whether the figures are comparable."""
    configs = {path: manifest["config"] for path, manifest in manifests.items()}
    differing = {}
    for name in dict.fromkeys(itertools.chain(*configs.values())):
        by_run = {path: config.get(name) for path, config in configs.items()}
        if len(set(map(repr, by_run.values()))) > 1:
            differing[name] = by_run
            values = ", ".join(f"{value} in {path}" for path, value in by_run.items())
            print_plain(console, escape_controls(f"{name}: {values}"))
    for part, note in _NOTES.items():
        if len({manifest.get(part, {}).get("sha256") for manifest in manifests.values()}) > 1:
            print_plain(console, f"note: {note}")
            return {"differing": differing, "notes": [note]}
    return {"differing": differing, "notes": []}


def _plot_runs(plot: Path, rows: list[dict[str, Any]], manifests: dict[str, Any]) -> None:
    """Plot the loss curves. Draw a model without a curve as a horizontal line."""
    from jaxlm.runs.metrics_log import read_metrics
    from jaxlm.runs.report.plots import plot_curves

    curves, floors = dict[str, list[dict[str, Any]]](), dict[str, float]()
    for row in rows:
        records = read_metrics(Path(row["run"], "metrics.jsonl"))
        for record in records:
            curves.setdefault(f"{row['run']}: {record['model']}", []).append(record)
        if not records and row["perplexity"] is not None:
            floors[f"{row['run']}: {row['model']}"] = row["perplexity"]
    vocab_sizes = {manifest.get("tokenizer", {}).get("vocab_size") for manifest in manifests.values()}
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot_curves(plot, curves, floors, vocab_sizes.pop() if len(vocab_sizes) == 1 else None)
