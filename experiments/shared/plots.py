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


def plot_lines(axes: Any, lines: Mapping[str, Sequence[Any]], markers: str = "osD^vXP") -> None:
    """Plot a line for each title: its x values, its y values, and optionally the errors of y."""
    for (title, line), color, marker in zip(lines.items(), COLORS, markers, strict=False):
        axes.errorbar(*line, color=color, marker=marker, markersize=5, capsize=2, label=title)
