"""Runs as a person sees them: tables, pictures, and one page with all of a run."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

_DECIMALS = {"nats_per_token": 4, "perplexity": 2, "bits_per_byte": 3, "compile_seconds": 1, "train_seconds": 1}


def results_table(models: Sequence[Mapping[str, Any]]) -> Table:
    """The models of `results.json` as a table, one a row, that fits a terminal of 80 columns.

    JSON knows no inf: a figure that is None is shown as inf, but seconds that are None as "-". The figures of a
    row that has `seeds` are the means of theirs, with half of the 95 % interval's width below the perplexity; its
    seconds are those of the first.
    """
    headers = "nats/\ntoken", "perplexity", "bits/\nbyte", "compile\n(s)", "train\n(s)"
    table = _table("model", "context", "parameters\nor counts", *headers)
    for row in models:
        size = f"{row['size']:,}"
        figures = (format_cell(row, name) for name in _DECIMALS)
        table.add_row(Text(escape_unprintable(row["title"])), str(row["context_length"]), size, *figures)
    return table


def runs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Runs side by side, one a row, in the order given; a long name goes on below, nothing of it is cut.

    Names are shown as they are: no markup in them is obeyed, and control characters are made visible.

    Args:
        rows: each with `run`, `state`, `model` (text), `steps` (int), `nats_per_token`, `perplexity`,
            `bits_per_byte` and `train_seconds`; what is None is shown as "-".
    """
    headers = "nats/\ntoken", "perplexity", "bits/\nbyte", "train\n(s)"
    table = _table("run", "state", "model", "steps", *headers, num_texts=3)
    for row in rows:
        texts = ["-" if row[name] is None else escape_unprintable(row[name]) for name in ("run", "state", "model")]
        steps = "-" if row["steps"] is None else f"{row['steps']:,}"
        names = "nats_per_token", "perplexity", "bits_per_byte", "train_seconds"
        # A perplexity can pass what a float holds where its logarithm does not.
        infinite = {"perplexity"} if row["nats_per_token"] is not None else set()
        figures = ("-" if row[name] is None and name not in infinite else format_cell(row, name) for name in names)
        table.add_row(*map(Text, texts), steps, *figures)
    return table


def format_samples(samples: Mapping[str, str]) -> str:
    """Each model's sample under its title: the text of `samples.txt`."""
    return "\n".join(f"--- {title} ---\n{text}\n" for title, text in samples.items())


def show_whitespace(token: str) -> str:
    """A token as a label: white space shown, never empty.

    >>> show_whitespace(" the\\n")
    '␣the⏎'
    """
    return escape_unprintable(token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥"))


def escape_unprintable(text: str) -> str:
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def format_cell(row: Mapping[str, Any], name: str) -> str:
    several = row.get("seeds")
    value = row[name] if several is None or name.endswith("_seconds") else several[name]
    missing = "-" if name.endswith("_seconds") else "inf"
    shown = missing if value is None else format_number(value, _DECIMALS[name])
    if name == "perplexity" and several is not None:
        half_width = several["interval_half_width"]
        shown += f"\n± {'inf' if half_width is None else format_number(half_width, _DECIMALS[name])}"
    return shown


def format_number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}" if value < 1e6 else f"{value:.3g}"


def _table(*columns: str, num_texts: int = 1) -> Table:
    """A table of texts and then of figures; where the terminal is narrow, the first column folds."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column(columns[0], overflow="fold", vertical="bottom")
    for index, column in enumerate(columns[1:], start=1):
        justify: Literal["left", "right"] = "left" if index < num_texts else "right"
        table.add_column(column, justify=justify, no_wrap=True, vertical="bottom")
    return table
