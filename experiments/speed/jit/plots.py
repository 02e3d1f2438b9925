"""The figures of `experiments.speed.jit.compare` as tables, as a roofline, and as bars."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from jaxlm.utils.atomic_files import write_atomically

WAYS = ("eager", "jit", "loop", "vmap", "numpy", "torch")
TITLES = {
    "eager": "eager JAX",
    "jit": "jit, a call each",
    "loop": "jit, one loop",
    "vmap": "jit, vmapped",
    "numpy": "NumPy",
    "torch": "PyTorch",
}
# Told apart by readers who see colours differently (Okabe & Ito 2008); the markers, by everybody.
COLORS = dict(zip(WAYS, ("#7f7f7f", "#56b4e9", "#0072b2", "#009e73", "#e69f00", "#d55e00"), strict=True))
MARKERS = dict(zip(WAYS, "Xos^Dv", strict=True))

Rows = Sequence[Mapping[str, Any]]


def summary_tables(rows: Rows) -> Iterator[Table]:
    """Median microseconds an item, for each device and size: a row for each stage, a column for each way."""
    for (device, size), stages in panels(rows):
        table = _table(f"{device}, {size}: median us an item", "stage", WAYS)
        for stage, by_way in stages.items():
            table.add_row(stage, *(number(by_way[way]["median_us"]) if way in by_way else "-" for way in WAYS))
        yield table


def detail_table(stages: Mapping[str, Mapping[str, Mapping[str, Any]]], title: str) -> Table:
    """All figures of one device and size: a row for each way of each stage."""
    columns = (
        "compile\ns",
        "median\nus",
        "minimum\nus",
        "spread\nus",
        "x eager",
        "MFLOP\nan item",
        "MB\nan item",
        "share of\nceiling",
    )
    table = _table(title, "stage and way", columns)
    for stage, by_way in stages.items():
        for way in WAYS:
            row = by_way.get(way)
            if row is None:
                table.add_row(f"{stage} {way}", *["-"] * len(columns))
                continue
            table.add_row(
                f"{stage} {way}",
                f"{row['compile_seconds']:.2f}",
                number(row["median_us"]),
                number(row["minimum_us"]),
                number(row["spread_us"]),
                number(row["speedup"]),
                *("-" if row[unit] is None else number(row[unit] / 1e6) for unit in ("flops", "bytes")),
                "-" if row["share"] is None else f"{row['share']:.1%} {row['share_of']}",
            )
        table.add_section()
    return table


def table_text(results: Mapping[str, Any]) -> str:
    """The text of `table.txt`."""
    console = Console(file=io.StringIO(), width=120, color_system=None)
    for device, ceiling in results["ceilings"].items():
        gflops, gigabytes = ceiling["flops_per_second"] / 1e9, ceiling["bytes_per_second"] / 1e9
        console.print(f"{device}: matrix product {gflops:,.1f} GFLOP/s, copy {gigabytes:,.1f} GB/s")
    for table in summary_tables(results["rows"]):
        console.print(table)
    for (device, size), stages in panels(results["rows"]):
        some_row = next(iter(next(iter(stages.values())).values()))
        console.print(detail_table(stages, f"{device}, {size}: {some_row['repeats']} interleaved samples of each"))
    for note in results["notes"]:
        console.print(note)
    return console.file.getvalue()  # type: ignore[attr-defined]


def plot_roofline(path: Path, results: Mapping[str, Any]) -> None:
    """Draws each way's GFLOP/s over its stage's FLOPs a byte, under the ceiling (Williams et al. 2009).

    One panel for each device and size. Stages of nearly the same FLOPs a byte are moved apart so far that they can
    be told; a stage without FLOPs or bytes has no place here.
    """
    drawn = list(panels([row for row in results["rows"] if row["flops"] and row["bytes"]]))
    figure, all_axes = _panels(max(len(drawn), 1), height=5)
    for axes, ((device, size), stages) in zip(all_axes, drawn, strict=False):
        some_row = {stage: next(iter(by_way.values())) for stage, by_way in stages.items()}
        intensities = {stage: row["flops"] / row["bytes"] for stage, row in some_row.items()}
        low, high = _draw_roof(axes, results["ceilings"][device], list(intensities.values()))
        places = _apart(intensities, (high / low) ** 0.035)
        labels = _apart(intensities, (high / low) ** 0.06)
        for stage, by_way in stages.items():
            rates = {way: row["flops"] / row["median_us"] / 1e3 for way, row in by_way.items()}
            axes.plot([places[stage]] * 2, [min(rates.values()), max(rates.values())], color="#cccccc", zorder=1)
            for way, rate in rates.items():
                axes.plot(places[stage], rate, MARKERS[way], color=COLORS[way], markeredgecolor="white", zorder=3)
            axes.annotate(
                stage.replace("_", " "),
                (places[stage], min(rates.values())),
                (labels[stage], 0.02),
                textcoords=("data", "axes fraction"),
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=8,
                arrowprops={"arrowstyle": "-", "color": "#cccccc", "shrinkB": 4},
            )
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom / 10 ** (0.3 * np.log10(top / bottom)), top * 4)
        axes.set(title=f"{device}, {size}", xlabel="FLOPs a byte, as XLA counts them", ylabel="GFLOP/s")
    _save(figure, path)


def plot_speedups(path: Path, results: Mapping[str, Any]) -> None:
    """Draws how many times faster than eager JAX each way is, by stage: one panel for each device and size."""
    drawn = list(panels(results["rows"]))
    figure, all_axes = _panels(len(drawn), height=0.62 * max(len(stages) for _, stages in drawn) + 1.2)
    for axes, ((device, size), stages) in zip(all_axes, drawn, strict=False):
        others = WAYS[1:]
        for place, by_way in enumerate(stages.values()):
            for index, way in enumerate(others):
                if way not in by_way:
                    continue
                speedup = by_way[way]["speedup"]
                y = place + (index - (len(others) - 1) / 2) * 0.16
                axes.barh(y, speedup, height=0.15, color=COLORS[way])
                axes.annotate(
                    number(speedup), (speedup, y), (2, 0), textcoords="offset points", va="center", fontsize=6
                )
        axes.set_xscale("log")
        axes.set_yticks(range(len(stages)), [stage.replace("_", " ") for stage in stages])
        axes.set_ylim(len(stages) - 0.5, -0.5)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.8), high * 3)
        axes.axvline(1, color=COLORS["eager"], linewidth=1.2)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set(title=f"{device}, {size}", xlabel="times as fast as eager JAX")
        axes.grid(axis="x", alpha=0.25)
    _save(figure, path)


def panels(
    rows: Rows | Iterator[Mapping[str, Any]],
) -> Iterator[tuple[tuple[str, str], dict[str, dict[str, Any]]]]:
    """The rows of each (device, size), as stage -> way -> row."""
    grouped: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        stages = grouped.setdefault((row["device"], row["size"]), {})
        stages.setdefault(row["stage"], {})[row["way"]] = row
    yield from grouped.items()


def number(value: float) -> str:
    """Three significant digits, and no exponent.

    >>> number(12345.6), number(3.14159), number(0.001234)
    ('12,346', '3.14', '0.00123')
    """
    if value == 0 or abs(value) >= 99.95:
        return f"{value:,.0f}"
    digits = 2 - int(np.floor(np.log10(abs(value))))
    return f"{value:.{digits}f}"


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _draw_roof(axes: Any, ceiling: Mapping[str, float], intensities: Sequence[float]) -> tuple[float, float]:
    """Draws the ceiling and returns the limits of x."""
    gflops, gigabytes = ceiling["flops_per_second"] / 1e9, ceiling["bytes_per_second"] / 1e9
    ridge = gflops / gigabytes
    low, high = min(*intensities, ridge) / 3, max(*intensities, ridge) * 3
    x = np.array([low, ridge, high])
    axes.plot(x, np.minimum(gflops, gigabytes * x), color="black", linewidth=1.4, zorder=2)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    text = f"slope: copy, {number(gigabytes)} GB/s\nflat: matrix product, {number(gflops)} GFLOP/s"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=8)
    axes.grid(alpha=0.25)
    return low, high


def _apart(values: Mapping[str, float], ratio: float) -> dict[str, float]:
    """The values, the next above raised where it is not `ratio` times the one below."""
    moved: dict[str, float] = {}
    reached = 0.0
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        moved[name] = reached = max(value, reached * ratio)
    return moved


def _panels(count: int, *, height: float) -> tuple[Any, Any]:
    """A figure with `count` pairs of axes, three at most in a row, and a legend of the ways below them."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window
    from matplotlib.lines import Line2D

    columns = min(count, 3)
    lines = -(-count // columns)
    figure = Figure(figsize=(max(3.7 * columns, 7), height * lines + 0.4), dpi=130, layout="constrained")
    all_axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in all_axes[count:]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=COLORS[way], marker=MARKERS[way], linestyle="", label=TITLES[way]) for way in WAYS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6 if columns > 1 else 3, frameon=False)
    return figure, all_axes


def _save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())
