"""Tables of models and runs for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard

from rich import box
from rich.table import Table
from rich.text import Text

from jaxlm.utils.terminal import escape_controls

_HEADERS = "nats/\ntoken", "perplexity", "bits/\nbyte"
_DECIMALS = {"nats_per_token": 4, "perplexity": 2, "bits_per_byte": 3, "compile_seconds": 1, "train_seconds": 1}


def results_table(models: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the `models` of `results.json`, at most 80 columns wide.

    None is shown as "-" for seconds, and otherwise as "inf", which JSON cannot represent. A row with `seeds` shows
    their means, the half-width of the 95 % interval of the perplexity, and the seconds of the first seed.
    """
    table = _make_table("model", "context", "parameters\nor counts", *_HEADERS, "compile\n(s)", "train\n(s)")
    for row in models:
        figures = (format_cell(row, name) for name in _DECIMALS)
        title = Text(escape_label(row["title"]))
        table.add_row(title, str(row["context_length"]), f"{row['size']:,}", *figures)
    return table


def runs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of several summaries from `summarize_run`. None is shown as "-"; long names are wrapped."""
    table = _make_table("run", "state", "model", "steps", *_HEADERS, "train\n(s)", num_texts=3)
    for row in rows:
        texts = ["-" if row[name] is None else escape_label(row[name]) for name in ("run", "state", "model")]
        steps = "-" if row["steps"] is None else f"{row['steps']:,}"
        names = "nats_per_token", "perplexity", "bits_per_byte", "train_seconds"
        infinite = () if row["nats_per_token"] is None else ("perplexity",)  # JSON stores it as null
        cells = ["-" if row[name] is None and name not in infinite else format_cell(row, name) for name in names]
        table.add_row(*map(Text, texts), steps, *cells)
    return table


def sweep_table(settings: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the rows of `summarize_sweep`: the means, ± the half-width of their 95 % interval."""
    varied = list(settings[0]["options"]) or ["setting"]
    figures = "nats_per_token", "perplexity", "bits_per_byte"
    table = _make_table(*varied, "runs\ndone", *_HEADERS, "train\n(s)", num_texts=len(varied))
    for row in settings:
        options = [escape_label(str(value)) for value in row["options"].values()] or ["all"]
        cells = [format_number(row[name], _DECIMALS[name]) if row["num_done"] else "-" for name in figures]
        for index, name in enumerate(figures):
            if (half_width := row[f"{name}_half_width"]) is not None:
                cells[index] += f" ± {format_number(half_width, _DECIMALS[name])}"
        seconds = "-" if row["train_seconds"] is None else format_number(row["train_seconds"], 1)
        table.add_row(*map(Text, options), f"{row['num_done']}/{len(row['runs'])}", *cells, seconds)
    return table


def format_samples(samples: Mapping[str, str]) -> str:
    """Return the text of `samples.txt`: each model's sample below its title."""
    return "\n".join(f"--- {title} ---\n{text}\n" for title, text in samples.items())


def show_whitespace(token: str) -> str:
    """Return a token as a label with visible white space."""
    return escape_label(token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥"))


def escape_label(text: str) -> str:
    """Return `text` as one line, with escapes such as `\\x1b` in place of control characters."""
    return escape_controls(text).replace("\n", r"\n").replace("\t", r"\t")


def format_cell(row: Mapping[str, Any], name: str) -> str:
    """Format a figure of `results.json` as `results_table` shows it."""
    seeds, is_seconds = row.get("seeds"), name.endswith("_seconds")
    value = row[name] if seeds is None or is_seconds else seeds[name]
    if value is None and is_seconds:
        return "-"
    cell = format_number(value, _DECIMALS[name])
    if name == "perplexity" and seeds is not None:
        cell += f"\n± {format_number(seeds['interval_half_width'], _DECIMALS[name])}"
    return cell


def format_number(value: float | None, decimals: int) -> str:
    """Return a number for a table, or "inf" for None."""
    if value is None:
        return "inf"
    return f"{value:,.{decimals}f}" if value < 1e6 else f"{value:.3g}"


def is_drawable(value: float | None) -> TypeGuard[float]:
    """Return whether a plot can show the number."""
    return value is not None and abs(value) < 1e250  # above, matplotlib's margins overflow


def _make_table(*columns: str, num_texts: int = 1) -> Table:
    """Return a table whose first `num_texts` columns are text. The first column folds in a narrow terminal."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column(columns[0], overflow="fold", vertical="bottom")
    for index, column in enumerate(columns[1:], start=1):
        justify: Literal["left", "right"] = "left" if index < num_texts else "right"
        table.add_column(column, justify=justify, no_wrap=True, vertical="bottom")
    return table
