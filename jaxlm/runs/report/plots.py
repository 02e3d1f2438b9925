"""plots."""

import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from jaxlm.runs.report.tables import escape_unprintable, format_number, show_whitespace
from jaxlm.utils.atomic_files import write_atomically

# Blue, orange, green, purple, grey: told apart by readers who see colours differently (Okabe & Ito 2008).
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f")
_LARGEST = 1e250  # of what is drawn; near the largest float, matplotlib's margins overflow


def plot_curves(
    path: Path,
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    floors: Mapping[str, float | None],
    vocab_size: int | None,
) -> None:
    """Draws training loss and validation perplexity by step: of a run's models, or of several runs.

    Args:
        curves: the title of a model, or of a run -> its lines of `metrics.jsonl`. Where `train_loss` or
            `val_perplexity` is None (infinite, or not measured) or missing, that curve leaves the step out.
        floors: the title of what is not trained by steps -> its perplexity, drawn as a line; None is infinite.
        vocab_size: the perplexity of a uniform guess, drawn as a line; None where there is no single one.
    """
    figure = _figure(width=11, height=4.6)
    loss_axes, perplexity_axes = figure.subplots(1, 2)
    losses: list[tuple[str, Any]] = []  # what the legend says, and the line it means
    perplexities: list[tuple[str, Any]] = []
    looks = itertools.cycle(itertools.product(("-", "--", "-.", ":"), _COLORS))
    for (title, lines), (style, color) in zip(curves.items(), looks, strict=False):
        look = {"linestyle": style, "color": color}
        losses += _plot_curve(loss_axes, title, lines, "train_loss", linewidth=1.4, **look)
        look["marker"] = "."
        perplexities += _plot_curve(perplexity_axes, title, lines, "val_perplexity", linewidth=1.6, **look)
    if not perplexities:
        perplexity_axes.set_xticks([])
    if vocab_size is not None:
        uniform = perplexity_axes.axhline(vocab_size, color=_COLORS[-1], linestyle=":")
        perplexities.append((f"uniform: {vocab_size:,}", uniform))
    first = len(curves) % len(_COLORS)  # a colour that no curve has, while there are some left
    looks = itertools.cycle(itertools.product(_COLORS[first:] + _COLORS[:first], ("--", "-.", "-")))
    for (title, floor), (color, style) in zip(floors.items(), looks, strict=False):
        height = floor if is_drawable(floor) else math.inf  # at inf the legend alone tells of it
        line = perplexity_axes.axhline(height, color=color, linestyle=style)
        perplexities.append((f"{title}: {format_number(height, decimals=1)}", line))
    perplexity_axes.set_yscale("log")
    perplexity_axes.yaxis.set_major_formatter("{x:,.6g}")
    perplexity_axes.yaxis.set_minor_formatter("{x:,.6g}")
    perplexity_axes.tick_params(which="minor", labelsize=7)
    perplexity_axes.set(title="validation perplexity (logarithmic)", xlabel="step")
    loss_axes.set(title="training loss (one minibatch)", xlabel="step", ylabel="nats per token")
    for axes in (loss_axes, perplexity_axes):
        axes.grid(alpha=0.25)
        if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
            axes.set_axis_off()
            axes.text(0.5, 0.5, "nothing to draw", ha="center", transform=axes.transAxes)
    _add_legends(figure, {loss_axes: losses, perplexity_axes: perplexities})
    _save(figure, path)


def plot_counts(path: Path, table: np.ndarray[Any, Any], tokens: Sequence[str], *, num_tokens: int = 24) -> None:
    """Draws the pair counts among the most frequent tokens: row = token, column = the token after it.

    Args:
        table: int [V, V].
        tokens: the V tokens as text.
    """
    from matplotlib.colors import LogNorm

    totals = table.sum(axis=1, dtype=np.int64)
    frequent = np.argsort(-totals, kind="stable")[: min(num_tokens, len(table))]
    counts = table[np.ix_(frequent, frequent)]
    figure = _figure(width=10, height=9)
    axes = figure.subplots()
    shown = np.ma.masked_equal(counts, 0)
    image = axes.imshow(shown, norm=LogNorm(vmin=1, vmax=max(int(counts.max()), 2)), cmap="viridis")
    labels = [show_whitespace(tokens[token]) for token in frequent]
    axes.set_xticks(range(len(labels)), labels, rotation=90, family="monospace", parse_math=False)
    axes.set_yticks(range(len(labels)), labels, family="monospace", parse_math=False)
    axes.set(title="how often the column's token follows the row's", xlabel="next token", ylabel="token")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "black" if count > counts.max() ** 0.6 else "white"
            axes.text(column, row, _short(int(count)), ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(image, ax=axes, shrink=0.8, label="pairs counted")
    _save(figure, path)


def is_drawable(value: float | None) -> TypeGuard[float]:
    return value is not None and abs(value) < _LARGEST


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def _plot_curve(
    axes: Any, title: str, lines: Sequence[Mapping[str, Any]], name: str, **look: Any
) -> list[tuple[str, Any]]:
    points = [(line["step"], line[name]) for line in lines if is_drawable(line.get(name))]
    if len(points) == 1:
        look["marker"] = "."  # for a line through one point shows nothing
    return [(title, line) for line in axes.plot(*zip(*points, strict=True), **look)]


def _add_legends(figure: Any, entries_of: Mapping[Any, Sequence[tuple[str, Any]]]) -> None:
    """A legend in each of the axes where there is room, else one for all, below them."""
    together = dict(itertools.chain.from_iterable(entries_of.values()))
    longest = max(map(len, together), default=0)
    if len(together) <= 7 and longest <= 40:
        for axes, entries in entries_of.items():
            _add_legend(axes, entries, fontsize=9, loc="upper right", bbox_to_anchor=(1, 0.95))
        return
    ncols = max(1, min(4, 150 // (longest + 8)))
    place = {"loc": "outside lower center", "ncols": ncols, "handlelength": 4, "numpoints": 2}
    legend = _add_legend(figure, list(together.items()), fontsize=8, **place)
    num_lines = sum(text.get_text().count("\n") + 1 for text in legend.get_texts())
    figure.set_figheight(figure.get_figheight() + 0.17 * math.ceil(num_lines / ncols))


def _add_legend(owner: Any, entries: Sequence[tuple[str, Any]], **look: Any) -> Any:
    legend = owner.legend([line for _, line in entries], [""] * len(entries), frameon=False, **look)
    for text, (label, _) in zip(legend.get_texts(), entries, strict=True):
        # Set afterwards, for a legend drops a label that begins with "_", and reads "$" as mathematics.
        text.set(parse_math=False, text=textwrap.fill(escape_unprintable(label), 120))
    return legend


def _save(figure: Any, path: Path) -> None:
    with warnings.catch_warnings():
        # A token in a script that the font lacks is drawn as a box; that is no news to the user.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())


def _short(count: int) -> str:
    return f"{count / 1000:.1f}k" if count >= 1000 else str(count)
