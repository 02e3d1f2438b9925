"""Scale training curves for the SVG picture of a report, without the second that importing matplotlib takes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxlm.runs.report.tables import format_number, is_drawable

_WIDTH, _HEIGHT, _MARGIN = 500, 240, 50  # of a panel, as in page.html.jinja

_PANELS: tuple[tuple[str, str, Callable[[float], float]], ...] = (
    ("train_loss", "training loss (minibatch, nats per token)", float),
    ("val_perplexity", "validation perplexity (log scale)", math.log),
)


def scale_curves(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the panels of a picture: each the `title`, the `points` (x, y, label) and the `ticks` (y, label).

    Values that are missing, infinite or, on the log scale, not positive are left out.
    """
    return [_scale_panel(records, *panel) for panel in _PANELS]


def _scale_panel(
    records: Sequence[Mapping[str, Any]], name: str, title: str, scale: Callable[[float], float]
) -> dict[str, Any]:
    found = [(record["step"], record.get(name)) for record in records]
    known = [(step, value) for step, value in found if is_drawable(value) and value > 0]
    if not known:
        return {"title": title, "points": [], "ticks": [], "last_step": "no data"}
    last_step, values = known[-1][0] or 1, [value for _, value in known]
    ends = sorted({min(values), max(values)})
    low, high = scale(ends[0]), scale(ends[-1])

    def x_of(step: int) -> float:
        return round(_MARGIN + step / last_step * (_WIDTH - 2 * _MARGIN), 1)

    def y_of(value: float) -> float:
        share = (scale(value) - low) / (high - low) if high > low else 0.5
        return round(_HEIGHT - _MARGIN - share * (_HEIGHT - 2 * _MARGIN), 1)

    points = [(x_of(step), y_of(value), f"step {step:,}: {value:,.4g}") for step, value in known]
    ticks = [(y_of(value), format_number(value, 2)) for value in ends]
    return {"title": title, "points": points, "ticks": ticks, "last_step": f"{last_step:,}"}
