"""Tables of figures as plain text."""

import io
from collections.abc import Iterable, Sequence

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

    >>> print(format_table(["model", "perplexity"], [["uniform", "4,096.00"], ["MLP", "107.80"]]))
    model    perplexity
    ───────────────────
    uniform    4,096.00
    MLP          107.80
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, header in enumerate(headers):
        table.add_column(
            header, justify="left" if index < text_columns else "right", no_wrap=True, vertical="bottom"
        )
    for row in rows:
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=1000).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([title, *lines] if title else lines)
