"""Figures of experiments, with the palette and the PNG writer of the package."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxlm.runs.report.plots import _COLORS, _make_figure as new_figure, _save as save_figure

__all__ = ["COLORS", "new_figure", "new_panels", "plot_lines", "save_figure"]

# The package's palette, with two more of its colors (Okabe & Ito 2008) for experiments with many models.
COLORS = (*_COLORS[:-1], "#56b4e9", "#e69f00", _COLORS[-1])


def new_panels(num_panels: int, width: float, height: float) -> tuple[Any, Sequence[Any]]:
    """Return a figure, and its panels side by side, each with a grid."""
    figure = new_figure(width, height)
    panels = figure.subplots(1, num_panels, squeeze=False)[0]
    for axes in panels:
        axes.grid(alpha=0.25)
    return figure, panels


def plot_lines(axes: Any, lines: Mapping[str, Sequence[Any]], markers: str = "osD^vXP") -> None:
    """Plot a line for each title: its x values, its y values, and optionally the errors of y."""
    for (title, line), color, marker in zip(lines.items(), COLORS, markers, strict=False):
        axes.errorbar(*line, color=color, marker=marker, markersize=5, capsize=2, label=title)
