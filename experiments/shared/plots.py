"""Panels and lines of figures, in the package's palette."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlm.runs.report.plots import COLORS, new_figure


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
    """Return a figure with one panel per title and one line per label.

    Args:
        panels: title -> label -> x values, y values, and optionally the errors of y.
        settings: of every panel, such as `xlabel` and `yscale`; see `matplotlib.axes.Axes.set`.
    """
    figure, all_axes = new_panels(len(panels), 5, 4.4)
    for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
        for (label, line), color, marker in zip(lines.items(), COLORS, "osD^vXP", strict=False):
            axes.errorbar(*line, color=color, marker=marker, markersize=5, capsize=2, label=label)
        axes.set(title=title, **settings)
        axes.legend(fontsize=8)
    return figure
