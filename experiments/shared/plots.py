"""Figures of experiments: the palette, a new figure, and the PNG writer of the package."""

from jaxlm.runs.report.plots import _COLORS, _make_figure as new_figure, _save as save_figure

__all__ = ["COLORS", "new_figure", "save_figure"]

# The package's palette, with two more of its colors (Okabe & Ito 2008) for experiments with many models.
COLORS = (*_COLORS[:-1], "#56b4e9", "#e69f00", _COLORS[-1])
