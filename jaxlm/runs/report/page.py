"""Render the report of a run as one HTML page."""

import base64
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.report.curves import scale_curves
from jaxlm.runs.report.tables import format_cell, is_drawable


def render_page(run: Path, results: Mapping[str, Any], *, title: str) -> str:
    """Return a self-contained HTML page with the results, the plots and, if present, the options of a run."""
    nats = [row["nats_per_token"] for row in results["models"]]
    largest = max(filter(is_drawable, nats), default=0) or 1
    widths = [100 * each / largest if is_drawable(each) else 100.0 for each in nats]  # percent; infinite: full
    pictures = run / "curves.png", run / "counts.png"
    config, records = run / "config.json", read_metrics(run / "metrics.jsonl")
    page = _load_template().render(
        run=run.name,
        title=title,
        results=results,
        config=config.read_text("utf-8") if config.exists() else None,
        pictures={each.stem: base64.b64encode(each.read_bytes()).decode() for each in pictures if each.exists()},
        panels=scale_curves(records) if records else [],
        rows=zip(results["models"], widths, strict=True),
        format_cell=format_cell,
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # a path may contain undecodable bytes


@functools.cache  # compiling it takes 20 ms, for each run of a sweep
def _load_template() -> jinja2.Template:
    loader = jinja2.PackageLoader("jaxlm.runs.report", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html.jinja")
