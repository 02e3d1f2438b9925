"""`jaxlm runs`."""

import csv
import io
import itertools
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

import jaxlm
from jaxlm.cli.shared import CommandOptions, Console
from jaxlm.utils.terminal import escape_controls, print_plain, write

_NOTES = {  # parts of a manifest, and the note if they differ
    "corpus": "these runs use different texts: their figures are not comparable",
    "tokenizer": "these runs use different tokenizers: compare bits/byte, not perplexity or nats/token",
}
_REMEDY = "jaxlm train creates runs, in runs/ or at its --out"


@dataclass(frozen=True)
class RunsOptions(CommandOptions):
    """List runs with their results, show one run or a sweep, or compare several runs."""

    # A directory of runs or a sweep to list, one run directory to show, or several to compare; others are skipped.
    paths: Annotated[tuple[Path, ...], Positional, arg(metavar="[RUN ...]")] = (Path("runs"),)
    # PNG file to write with the loss curves; those of a sweep are averaged over seeds.
    plot: Path | None = None
    # Also print the command that trains the best run again. In a sweep, seeds are averaged first.
    best: bool = False
    csv: bool = False  # Print the runs and their options as CSV instead of a table.


def show_runs(options: RunsOptions, console: Console) -> dict[str, Any]:
    """List the runs of a directory, show one run or a sweep, or compare several runs."""
    from rich.console import Console as RichConsole

    from jaxlm.runs.sweeps.run import PLAN_FILE

    named = list(dict.fromkeys(options.paths))
    for path in named:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; {_REMEDY}")
    if options.plot is not None and options.plot.suffix.lower() != ".png":
        raise ValueError(f"--plot must name a .png file, got {options.plot}")
    shown = RichConsole(quiet=True) if options.csv else console
    is_sweep = len(named) == 1 and (named[0] / PLAN_FILE).exists()
    document = show_sweep(named[0], shown) if is_sweep else _show_paths(named, shown)
    rows = document["runs"]
    if options.csv:
        write(console, _format_csv(rows))
    if options.plot is not None and rows:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        plot_settings(options.plot, rows, document["settings"]) if is_sweep else _plot_runs(options.plot, rows)
    if options.best:
        document["best"] = _find_best(document)
        print_plain(shown, document["best"]["command"])
    return document


def show_sweep(path: Path, console: Console) -> dict[str, Any]:
    """Print the figures of the settings of a sweep, the runs that failed, and how many are not done."""
    from jaxlm.runs.report.tables import sweep_table

    runs, settings = jaxlm.list_sweep_runs(path), jaxlm.summarize_sweep(path)
    console.print(sweep_table(settings))
    _print_unfinished([row for row in runs if row["state"] in ("failed", "damaged")], console)
    if unfinished := sum(row["state"] != "done" for row in runs):
        is_damaged = any(row["state"] == "damaged" for row in runs)
        remedy = f"{'remove the damaged ones, and ' if is_damaged else ''}continue with"
        command = f"jaxlm sweep --out {shlex.quote(str(path))}"
        print_plain(console, f"{unfinished} of {len(runs)} runs are not done; {remedy}: {command}")
    return {"runs": runs, "settings": settings}


def _show_paths(named: list[Path], console: Console) -> dict[str, Any]:
    """List the runs of one directory, show one run, or compare several."""
    from jaxlm.runs.manifest import read_manifest
    from jaxlm.runs.summary import summarize_run
    from jaxlm.runs.sweeps.run import PLAN_FILE

    paths = [path for path in named if (path / "manifest.json").exists()]
    if not paths:
        listed = jaxlm.list_runs(named[0]) if len(named) == 1 else []
        sweeps = sorted(plan.parent for plan in named[0].glob(f"*/{PLAN_FILE}")) if len(named) == 1 else []
        if listed:
            _print_runs(listed, console)
        elif not sweeps:
            print_plain(console, f"no runs in {', '.join(map(str, named))}; {_REMEDY}")
        for path in sweeps:
            print_plain(console, f"{path} is a sweep; show it with: jaxlm runs {shlex.quote(str(path))}")
        return {"runs": listed}
    manifests = {str(path): read_manifest(path) for path in paths}
    rows = [summarize_run(path) | {"run": str(path)} for path in paths]
    _print_runs(rows, console)
    if len(named) > 1:
        return {"runs": rows} | _compare_runs(manifests, console)
    (manifest,) = manifests.values()
    ended = f", ended {manifest['ended']}" if manifest["ended"] else ""
    lines = [f"started {manifest['started']}{ended}; {manifest['seconds']:,.1f} s"]
    lines += [f"note: {note}" for note in manifest["notes"]]
    print_plain(console, escape_controls("\n".join(lines)))
    return {"runs": rows, "manifest": manifest}


def _print_runs(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the figures of runs, and the runs that are not done."""
    from jaxlm.runs.report.tables import runs_table

    console.print(runs_table(rows))
    _print_unfinished(rows, console)


def _print_unfinished(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the reason and the resume command of each run that is not done."""
    from jaxlm.runs.directory import resume_hint

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


def _format_csv(rows: list[dict[str, Any]]) -> str:
    """Return the rows as CSV, with a column for each option."""
    flat = [row["options"] | {name: value for name, value in row.items() if name != "options"} for row in rows]
    table = io.StringIO()
    names = dict.fromkeys(itertools.chain(*flat[:1], *(row["options"] for row in rows)))
    writer = csv.DictWriter(table, list(names), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return table.getvalue()


def _find_best(document: dict[str, Any]) -> dict[str, Any]:
    """Return the best run and the command that trains it again: of a sweep, the best run of the best setting."""
    from jaxlm.runs.config import config_from_json, config_to_command
    from jaxlm.runs.sweeps.summary import best_run

    rows = document["runs"]
    for setting in document.get("settings", [])[:1]:
        rows = [row for row in rows if row["run"] in setting["runs"]]
    if (best := best_run(rows)) is None:
        raise ValueError("--best needs a finished training run")
    config = config_from_json(best["options"], origin=best["path"])
    return {"run": best["run"], "command": shlex.join(config_to_command(config))}


def plot_settings(plot: Path, rows: list[dict[str, Any]], settings: list[dict[str, Any]]) -> None:
    """Plot the curves of a sweep, averaged over seeds."""
    from jaxlm.runs.report.sweep_plot import plot_sweep
    from jaxlm.runs.sweeps.summary import read_curves

    plot_sweep(plot, read_curves(rows, settings))


def _plot_runs(plot: Path, rows: list[dict[str, Any]]) -> None:
    """Plot the loss curves. Draw a model without a curve as a horizontal line."""
    from jaxlm.runs.manifest import read_manifest
    from jaxlm.runs.metrics_log import read_metrics
    from jaxlm.runs.report.plots import plot_curves

    curves, floors, vocab_sizes = dict[str, list[dict[str, Any]]](), dict[str, float](), set()
    for row in (row for row in rows if row["state"] != "damaged"):
        records = read_metrics(Path(row["path"], "metrics.jsonl"))
        for record in records:
            curves.setdefault(f"{row['run']}: {record['model']}", []).append(record)
        if not records and row["perplexity"] is not None:
            floors[f"{row['run']}: {row['model']}"] = row["perplexity"]
        vocab_sizes.add(read_manifest(Path(row["path"])).get("tokenizer", {}).get("vocab_size"))
    plot_curves(plot, curves, floors, vocab_sizes.pop() if len(vocab_sizes) == 1 else None)
