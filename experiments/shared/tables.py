"""Tables of figures as plain text."""

import io
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def format_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1, title: str = ""
) -> str:
    """Return the rows as aligned lines of text, complete whatever the width of the terminal.

    Args:
        headers: one per column; may contain line breaks.
        rows: cells; a short row is filled with empty cells.
        text_columns: number of leading columns aligned left. The others hold figures, aligned right.
        title: a line above the table.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, header in enumerate(headers):
        justify: Any = "left" if index < text_columns else "right"
        table.add_column(header, justify=justify, no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=1000).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([title, *lines] if title else lines)


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
