"""`jaxlm runs`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

import jaxlm
from jaxlm.cli.options import Console, JsonFlag, OptionalPath
from jaxlm.cli.shared import make_cell, make_table, resume_hint
from jaxlm.runs.config import format_flag
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.utils.terminal import escape_controls, print_plain

_Rows = Sequence[Mapping[str, Any]]  # of `summarise_run`
_Manifests = Mapping[str, Mapping[str, Any]]  # by path of the run


@dataclass(frozen=True)
class RunsOptions:
    """List runs with their results, show one run, or compare several in one table and one plot."""

    paths: Annotated[tuple[Path, ...], Positional, arg(metavar="[RUN ...]")] = (Path("runs"),)
    """A directory of runs to list, one run directory to show, or several to compare."""
    plot: OptionalPath = None
    """PNG file for the plot of a comparison. None means runs/comparison-DATE-TIME.png."""
    json: JsonFlag = False


def show_runs(options: RunsOptions, console: Console) -> dict[str, Any]:
    """List the runs of a directory, show one run, or compare several."""
    from jaxlm.runs.manifest import read_manifest
    from jaxlm.runs.report.tables import runs_table
    from jaxlm.runs.summary import summarise_run

    paths, plot = list(dict.fromkeys(options.paths)), options.plot
    if plot is not None and len(paths) == 1:
        raise ValueError(f"--plot {plot} needs two or more runs to compare, got only {paths[0]}")
    if plot is not None and (plot.suffix.lower() != ".png" or plot.is_dir()):
        raise ValueError(f"--plot must name a .png file, got {plot}")
    if len(paths) == 1 and not (paths[0] / "manifest.json").exists():
        return {"runs": _list_runs(paths[0], console)}
    manifests = {str(path): read_manifest(path) for path in paths}
    rows = [summarise_run(path) | {"run": str(path)} for path in paths]
    console.print(runs_table(rows))
    if len(paths) > 1:
        details = _compare_runs(plot, rows, manifests, console)
    else:
        manifest = manifests[str(paths[0])]
        ended = f", ended {manifest['ended']}" if manifest["ended"] else ""
        times = f"started {manifest['started']}{ended}; {manifest['seconds']:,.1f} s"
        for line in (times, *(f"note: {note}" for note in manifest["notes"])):
            print_plain(console, escape_controls(line))
        details = {"manifest": manifest}
    _print_problems(rows, console)
    return {"runs": rows, **details}


def _list_runs(directory: Path, console: Console) -> list[dict[str, Any]]:
    from jaxlm.runs.report.tables import runs_table

    remedy = "jaxlm train creates runs, in runs/ or at its --out"
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} does not exist; {remedy}")
    rows = jaxlm.list_runs(directory)
    if rows:
        console.print(runs_table(rows))
    else:
        print_plain(console, f"no runs in {directory}; {remedy}")
    _print_problems(rows, console)
    return rows


def _print_problems(rows: _Rows, console: Console) -> None:
    """Print why runs ended before they were done, and how to resume them."""
    for row in rows:
        if row["state"] not in ("done", "running"):
            reason = f" ({row['why']})" if row["why"] else ""
            is_resumable = row["kind"] == "train" and row["state"] in ("interrupted", "killed")
            hint = f"; {resume_hint(row['path'])}" if is_resumable else ""
            print_plain(console, escape_controls(f"{row['run']}: {row['state']}{reason}{hint}"))


def _compare_runs(plot: Path | None, rows: _Rows, manifests: _Manifests, console: Console) -> dict[str, Any]:
    """Print how the options differ and whether the figures are comparable, and plot the curves."""
    from jaxlm.runs.directory import timestamped_paths

    configs = {path: manifest["config"] for path, manifest in manifests.items()}
    names = dict.fromkeys(name for config in configs.values() for name in config)
    values = {name: {path: config.get(name) for path, config in configs.items()} for name in names}
    differing = {name: by_run for name, by_run in values.items() if len(set(map(repr, by_run.values()))) > 1}
    if differing:
        table = make_table("", *configs)
        for name, by_run in differing.items():
            table.add_row(format_flag(name), *map(make_cell, by_run.values()))
        console.print("", table, sep="\n")
    notes = []
    if _differ(manifests, "corpus"):
        notes = ["these runs use different texts: their figures are not comparable"]
    elif _differ(manifests, "tokenizer"):
        notes = ["these runs use different tokenizers: compare bits/byte, not perplexity or nats/token"]
    if plot is None:
        plot = next(path for path in timestamped_paths("comparison", ".png") if not path.exists())
    plot.parent.mkdir(parents=True, exist_ok=True)
    _plot_runs(plot, rows, manifests)
    print_plain(console, "\n" + "".join(f"note: {note}\n" for note in notes) + f"plot: {plot}")
    return {"differing": differing, "notes": notes, "plot": str(plot)}


def _differ(manifests: _Manifests, name: str) -> bool:
    return len({repr(manifest.get(name, {}).get("sha256")) for manifest in manifests.values()}) > 1


def _plot_runs(plot: Path, rows: _Rows, manifests: _Manifests) -> None:
    from jaxlm.runs.report.plots import plot_curves

    curves: dict[str, list[dict[str, Any]]] = {}
    floors: dict[str, float] = {}  # models without a curve, drawn as horizontal lines
    for row in rows:
        records = read_metrics(Path(row["run"], "metrics.jsonl"))
        for record in records:
            curves.setdefault(f"{row['run']}: {record['model']}", []).append(record)
        if not records and row["perplexity"] is not None:
            floors[f"{row['run']}: {row['model']}"] = row["perplexity"]
    vocab_sizes = {manifest.get("tokenizer", {}).get("vocab_size") for manifest in manifests.values()}
    plot_curves(plot, curves, floors, vocab_sizes.pop() if len(vocab_sizes) == 1 else None)
