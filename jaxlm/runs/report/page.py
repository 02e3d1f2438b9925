"""Render the report of a run as one HTML page."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from jaxlm.runs.report.plots import is_drawable
from jaxlm.runs.report.tables import format_cell


def render_page(run: Path, results: Mapping[str, Any], *, title: str) -> str:
    """Return a self-contained HTML page with the results, the plots and, if present, the options of a run."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxlm.runs.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    nats = [row["nats_per_token"] for row in results["models"]]
    largest = max(filter(is_drawable, nats), default=0) or 1
    widths = [100 * each / largest if is_drawable(each) else 100.0 for each in nats]  # percent; infinite: full
    pictures = {name: run / f"{name}.png" for name in ("curves", "counts")}
    config = run / "config.json"
    page = environment.get_template("page.html.jinja").render(
        run=run.name,
        title=title,
        results=results,
        config=config.read_text("utf-8") if config.exists() else None,
        pictures={name: _data_uri(picture) for name, picture in pictures.items() if picture.exists()},
        rows=zip(results["models"], widths, strict=True),
        format_cell=format_cell,
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # a path may contain undecodable bytes


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
