"""Plot training curves and pair counts as PNG files."""

import contextlib
import io
import itertools
import math
import os
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.runs.report.tables import escape_label, format_number, is_drawable, show_whitespace
from jaxlm.utils.atomic_files import write_atomically

# Distinguishable with color blindness (Okabe & Ito 2008), and gray at the end for reference lines.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """Draw within the block with matplotlib's defaults, whatever style and backend the user has configured."""
    if "matplotlib" not in sys.modules:
        _import_matplotlib()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@default_style()
def plot_curves(
    path: Path, curves: Mapping[str, Sequence[Any]], floors: Mapping[str, float | None], vocab_size: int | None
) -> None:
    """Plot training loss and validation perplexity by step.

    Args:
        curves: title -> records of `metrics.jsonl`. A missing or infinite value leaves a gap.
        floors: title -> perplexity of a model without a curve, drawn as a horizontal line; None means infinite.
        vocab_size: perplexity of the uniform distribution, drawn as a line; None if the curves do not share one.
    """
    figure = new_figure(width=11, height=4.6)
    loss_axes, perplexity_axes = figure.subplots(1, 2)
    styles = itertools.cycle(itertools.product(("-", "--", "-.", ":"), COLORS))
    for (title, records), (style, color) in zip(curves.items(), styles, strict=False):
        for axes, name in ((loss_axes, "train_loss"), (perplexity_axes, "val_perplexity")):
            points = [(record["step"], record[name]) for record in records if is_drawable(record.get(name))]
            if points:
                (line,) = axes.plot(*zip(*points, strict=True), linestyle=style, color=color, marker=".")
                line.set_label(title)
    if not perplexity_axes.lines:
        perplexity_axes.set_xticks([])
    if vocab_size is not None:
        perplexity_axes.axhline(vocab_size, color=COLORS[-1], linestyle=":", label=f"uniform: {vocab_size:,}")
    first = len(curves) % len(COLORS)  # start with a color that no curve has
    styles = itertools.cycle(itertools.product(COLORS[first:] + COLORS[:first], ("--", "-.", "-")))
    for (title, floor), (color, style) in zip(floors.items(), styles, strict=False):
        height = floor if is_drawable(floor) else math.inf  # an infinite floor appears only in the legend
        label = f"{title}: {format_number(height, decimals=1)}"
        perplexity_axes.axhline(height, color=color, linestyle=style, label=label)
    perplexity_axes.set(title="validation perplexity (log scale)", xlabel="step")
    use_log_scale(perplexity_axes)
    loss_axes.set(title="training loss (minibatch)", xlabel="step", ylabel="nats per token")
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        say_if_empty(axes)
    _add_legend(figure)
    save_figure(figure, path)


@default_style()
def plot_counts(path: Path, table: NDArray[Any], tokens: Sequence[str], *, num_tokens: int = 24) -> None:
    """Plot the pair counts [V, V] of the most frequent tokens: row = token, column = next token."""
    from matplotlib.colors import LogNorm

    totals = table.sum(axis=1, dtype=np.int64)
    frequent = np.argsort(-totals[: len(tokens)], kind="stable")[:num_tokens]  # a padded vocabulary has no more
    counts = table[np.ix_(frequent, frequent)]
    figure = new_figure(width=10, height=9)
    axes = figure.subplots()
    norm = LogNorm(vmin=1, vmax=max(int(counts.max()), 2))
    image = axes.imshow(np.ma.masked_equal(counts, 0), norm=norm, cmap="viridis")
    labels = [show_whitespace(tokens[token]) for token in frequent]
    axes.set_xticks(range(len(labels)), labels, rotation=90, family="monospace", parse_math=False)
    axes.set_yticks(range(len(labels)), labels, family="monospace", parse_math=False)
    axes.set(title="counts of token pairs", xlabel="next token", ylabel="token")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            text = f"{count / 1000:.1f}k" if count >= 1000 else str(count)
            color = "black" if count > counts.max() ** 0.6 else "white"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(image, ax=axes, shrink=0.8, label="count")
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of this size in inches."""
    from matplotlib.figure import Figure  # not pyplot, which keeps global state

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def use_log_scale(axes: Any) -> None:
    """Show the values of the vertical axis on a log scale, as plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set(major_formatter="{x:,.6g}", minor_formatter="{x:,.6g}")
    axes.tick_params(which="minor", labelsize=7)


def say_if_empty(axes: Any) -> None:
    """Show "no data" instead of the axes if no line has a finite value."""
    if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes)


def _import_matplotlib() -> None:
    """Import matplotlib without MPLBACKEND: pictures need no backend, and one that does not exist is an error."""
    backend = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def _add_legend(figure: Any) -> None:
    """Add one legend for all axes below them, and make the figure higher by its height."""
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    ncols = max(1, min(4, 150 // (max(map(len, lines), default=0) + 8)))
    look = {"loc": "outside lower center", "frameon": False, "fontsize": 8, "handlelength": 4, "numpoints": 2}
    legend = figure.legend(lines.values(), [""] * len(lines), ncols=ncols, **look)
    for text, label in zip(legend.get_texts(), lines, strict=True):
        # Set the text afterwards: a legend drops labels that start with "_", and parses "$" as mathematics.
        text.set(parse_math=False, text=textwrap.fill(escape_label(label), 120))
    num_lines = sum(text.get_text().count("\n") + 1 for text in legend.get_texts())
    figure.set_figheight(figure.get_figheight() + 0.17 * math.ceil(num_lines / ncols))


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure to a PNG file, atomically."""
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # such a token is drawn as a box
        figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())
