"""page."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from jaxlm.runs.report.plots import is_drawable
from jaxlm.runs.report.tables import format_cell


def render_page(run: Path, results: Mapping[str, Any], *, title: str) -> str:
    """One self-contained HTML page: the table and samples of `results`, the pictures and settings in `run`.

    `title` is its heading. What the folder lacks of `curves.png`, `counts.png` and `config.json` the page lacks
    too. Figures that are None are shown as by `results_table`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxlm.runs.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    config = run / "config.json"
    pictures = {name: run / f"{name}.png" for name in ("curves", "counts")}
    page = environment.get_template("page.html.jinja").render(
        run=run.name,
        title=title,
        results=results,
        config=config.read_text("utf-8") if config.exists() else None,
        pictures={name: _data_uri(picture) for name, picture in pictures.items() if picture.exists()},
        rows=zip(results["models"], _bar_widths(results["models"]), strict=True),
        shown=format_cell,
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # the bytes of a path need not be text


def _bar_widths(models: Sequence[Mapping[str, Any]]) -> list[float]:
    """Each model's nats per token in percent of the largest finite one; what is not finite fills its bar."""
    nats = [row["nats_per_token"] for row in models]
    largest = max(filter(is_drawable, nats), default=0) or 1
    return [100 * each / largest if is_drawable(each) else 100.0 for each in nats]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
