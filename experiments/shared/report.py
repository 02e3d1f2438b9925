"""The parts of a report: text tables, and figures in the package's palette."""

import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlm.runs.report.plots import COLORS, new_figure


def format_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """Return the rows as aligned lines of text, never truncated to the width of the terminal.

    Args:
        headers: one per column; may contain line breaks.
        rows: cells; a short row is filled with empty cells.
        text_columns: number of leading columns aligned left. The others hold figures, aligned right.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, header in enumerate(headers):
        justify: Any = "left" if index < text_columns else "right"
        table.add_column(header, justify=justify, no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=1000).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def format_records(records: Iterable[Mapping[str, Any]], columns: Mapping[str, str], **options: Any) -> str:
    """Return one row per record.

    Args:
        columns: header -> format string with names of fields. A cell whose field is missing or None is empty.
        options: see `format_table`.

    >>> records = [{"model": "uniform", "loss": 8.3178}, {"model": "MLP", "loss": 4.6802, "steps": 100}]
    >>> print(format_records(records, {"model": "{model}", "nats": "{loss:.2f}", "steps": "{steps}"}))
    model     nats   steps
    ──────────────────────
    uniform   8.32
    MLP       4.68     100
    """
    rows = ([_format_cell(cell, record) for cell in columns.values()] for record in records)
    return format_table(list(columns), rows, **options)


def _format_cell(cell: str, record: Mapping[str, Any]) -> str:
    names = [name.partition("[")[0] for _, name, _, _ in Formatter().parse(cell) if name]
    return "" if any(record.get(name) is None for name in names) else cell.format(**record)


def new_panels(count: int, width: float, height: float, columns: int = 3) -> tuple[Any, Sequence[Any]]:
    """Return a figure and its panels with grids, each `width` by `height` inches, at most `columns` in a row."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = new_figure(columns * width, rows * height)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[:count]:
        axes.grid(alpha=0.25)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def plot_lines(panels: Mapping[str, Mapping[str, Sequence[Any]]], **settings: Any) -> Any:
    """Return a figure with one panel per title and one line per label, at most eight.

    The legend shows the labels of the last panel.

    Args:
        panels: title -> label -> x values, y values, and optionally the errors of y.
        settings: of every panel, such as `xlabel` and `yscale`; see `matplotlib.axes.Axes.set`.
    """
    figure, all_axes = new_panels(len(panels), 5, 4.4)
    for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
        styles = zip(lines.items(), itertools.cycle(COLORS), "osD^vXP*", strict=False)
        for (label, line), color, marker in styles:
            axes.errorbar(*line, color=color, marker=marker, markersize=5, capsize=2, label=label)
        axes.set(title=title, **settings)
    figure.legend(*all_axes[-1].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    return figure
