"""Plot the validation curves of a sweep, with the seeds of a setting pooled."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.runs.report.plots import COLORS, default_style, new_figure, save_figure, say_if_empty, use_log_scale
from jaxlm.runs.report.tables import escape_label, is_drawable

_MAX_NAMED = len(COLORS) - 1  # the last color is gray, for all other settings


@default_style()
def plot_sweep(path: Path, curves: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """Plot the mean validation perplexity by step of each setting, in a band from the lowest to the highest seed.

    Args:
        curves: title of a setting -> the records of each of its runs, the best setting first. The first 6 have a
            color and a name in the legend, and the others are gray.
    """
    figure = new_figure(width=9, height=5)
    axes = figure.subplots()
    for number, (title, runs) in reversed(list(enumerate(curves.items()))):  # the best on top
        by_step = defaultdict[int, list[float]](list)
        for record in (record for records in runs for record in records):
            if is_drawable(record.get("val_perplexity")):
                by_step[record["step"]].append(record["val_perplexity"])
        steps = sorted(by_step)
        values = [by_step[step] for step in steps]
        is_named = number < _MAX_NAMED
        label = f"{number + 1}. {escape_label(title)}" if is_named else None
        look: dict[str, Any] = {"color": COLORS[number if is_named else -1], "zorder": 2.0 + is_named}
        axes.plot(steps, list(map(np.mean, values)), linewidth=1.5 if is_named else 0.5, label=label, **look)
        axes.fill_between(
            steps, list(map(min, values)), list(map(max, values)), alpha=0.2 if is_named else 0.05, **look
        )
    axes.set(title="validation perplexity (log scale): mean and range over seeds", xlabel="step")
    axes.grid(alpha=0.25)
    say_if_empty(axes)
    if axes.axison:
        use_log_scale(axes)
    handles, labels = axes.get_legend_handles_labels()
    others = max(0, len(curves) - _MAX_NAMED)
    title = f"best settings; {others} others in gray" if others else None
    axes.legend(handles[::-1], labels[::-1], title=title, fontsize=8)
    save_figure(figure, path)
