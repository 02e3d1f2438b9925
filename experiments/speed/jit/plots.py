"""Tables, roofline and speed-up figures of `experiments.speed.jit.compare`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.shared.benchmark import format_digits
from experiments.shared.plots import new_panels
from experiments.shared.tables import format_table
from jaxlm.runs.report.plots import COLORS

TITLES = {
    "eager": "eager JAX",
    "jit": "jit, one call each",
    "loop": "jit, one loop",
    "vmap": "jit, vmapped",
    "numpy": "NumPy",
    "torch": "PyTorch",
}
VARIANTS = tuple(TITLES)
VARIANT_COLORS = dict(zip(VARIANTS, (COLORS[-1], *COLORS), strict=False))
MARKERS = dict(zip(VARIANTS, "Xos^Dv", strict=True))

Rows = Sequence[Mapping[str, Any]]
Stages = Mapping[str, Mapping[str, Mapping[str, Any]]]  # stage -> variant -> row


def group_rows(rows: Rows) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Group rows by device and size, as stage -> variant -> row."""
    grouped: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        stages = grouped.setdefault((row["device"], row["size"]), {})
        stages.setdefault(row["stage"], {})[row["variant"]] = row
    return grouped


def format_results(results: Mapping[str, Any]) -> str:
    """Return the ceilings, a table of medians and one of all figures per device and size, and the notes."""
    parts = []
    for device, ceiling in results["ceilings"].items():
        gflops, gigabytes = ceiling["flops_per_second"] / 1e9, ceiling["bytes_per_second"] / 1e9
        parts.append(f"{device}: matrix product {gflops:,.1f} GFLOP/s, copy {gigabytes:,.1f} GB/s")
    groups = {f"{device}, {size}": stages for (device, size), stages in group_rows(results["rows"]).items()}
    parts += [format_medians(title, stages) for title, stages in groups.items()]
    parts += [format_figures(title, stages) for title, stages in groups.items()]
    return "\n\n".join([*parts, *results["notes"]])


def format_medians(title: str, stages: Stages) -> str:
    """Return a table with a row per stage and a column per variant."""
    rows = [
        [stage, *(format_digits(rows[name]["median_us"]) if name in rows else "-" for name in VARIANTS)]
        for stage, rows in stages.items()
    ]
    return format_table(["stage", *VARIANTS], rows, title=f"{title}: median µs per item")


def format_figures(title: str, stages: Stages) -> str:
    """Return a table of all figures, with a row per stage and variant."""
    headers = ["stage", "variant", "compile\n(s)", "median\n(µs)", "minimum\n(µs)", "spread\n(µs)", "times\neager"]
    headers += ["MFLOP\nper item", "MB\nper item", "share of\nceiling"]
    table, repeats = [], 0
    for stage, rows in stages.items():
        for name, row in rows.items():
            repeats = row["repeats"]
            times = (format_digits(row[each]) for each in ("median_us", "minimum_us", "spread_us", "speedup"))
            costs = ("-" if row[unit] is None else format_digits(row[unit] / 1e6) for unit in ("flops", "bytes"))
            share = "-" if row["share"] is None else f"{row['share']:.1%} {row['share_of']}"
            table.append([stage, name, f"{row['compile_seconds']:.2f}", *times, *costs, share])
    return format_table(headers, table, text_columns=2, title=f"{title}: {repeats} samples per variant")


def plot_roofline(results: Mapping[str, Any]) -> Any:
    """Plot each variant's GFLOP/s over its stage's FLOPs per byte, below the ceiling (Williams et al. 2009).

    One panel per device and size. Stages with nearly equal FLOPs per byte are moved apart. A stage without a count
    of FLOPs or bytes is left out.
    """
    groups = group_rows([row for row in results["rows"] if row["flops"] and row["bytes"]])
    figure, all_axes = _make_panels(max(len(groups), 1), height=5)
    for axes, ((device, size), stages) in zip(all_axes, groups.items(), strict=False):
        any_row = {stage: next(iter(rows.values())) for stage, rows in stages.items()}
        intensities = {stage: row["flops"] / row["bytes"] for stage, row in any_row.items()}
        low, high = _plot_ceiling(axes, results["ceilings"][device], list(intensities.values()))
        places = _spread(intensities, (high / low) ** 0.035)
        labels = _spread(intensities, (high / low) ** 0.06)
        for stage, rows in stages.items():
            rates = {name: row["flops"] / row["median_us"] / 1e3 for name, row in rows.items()}
            axes.plot([places[stage]] * 2, [min(rates.values()), max(rates.values())], color="#cccccc", zorder=1)
            for name, rate in rates.items():
                style = {"color": VARIANT_COLORS[name], "markeredgecolor": "white", "zorder": 3}
                axes.plot(places[stage], rate, MARKERS[name], **style)
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
        axes.set(title=f"{device}, {size}", xlabel="FLOPs per byte, as XLA counts them", ylabel="GFLOP/s")
    return figure


def plot_speedups(results: Mapping[str, Any]) -> Any:
    """Plot each variant's speed-up over eager JAX by stage, one panel per device and size."""
    groups = group_rows(results["rows"])
    figure, all_axes = _make_panels(len(groups), height=0.62 * max(map(len, groups.values())) + 1.2)
    for axes, ((device, size), stages) in zip(all_axes, groups.items(), strict=False):
        others = VARIANTS[1:]
        for index, name in enumerate(others):
            speedups = {place: rows[name]["speedup"] for place, rows in enumerate(stages.values()) if name in rows}
            heights = [place + (index - (len(others) - 1) / 2) * 0.16 for place in speedups]
            bars = axes.barh(heights, speedups.values(), height=0.15, color=VARIANT_COLORS[name])
            axes.bar_label(bars, map(format_digits, speedups.values()), padding=2, fontsize=6)
        axes.set_xscale("log")
        axes.set_yticks(range(len(stages)), [stage.replace("_", " ") for stage in stages])
        axes.set_ylim(len(stages) - 0.5, -0.5)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.8), high * 3)
        axes.axvline(1, color=VARIANT_COLORS["eager"], linewidth=1.2)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set(title=f"{device}, {size}", xlabel="speed-up over eager JAX")
        axes.grid(visible=False, axis="y")
    return figure


def _plot_ceiling(axes: Any, ceiling: Mapping[str, float], intensities: Sequence[float]) -> tuple[float, float]:
    """Plot the ceiling and return the limits of x."""
    gflops, gigabytes = ceiling["flops_per_second"] / 1e9, ceiling["bytes_per_second"] / 1e9
    ridge = gflops / gigabytes
    low, high = min(*intensities, ridge) / 3, max(*intensities, ridge) * 3
    x = np.array([low, ridge, high])
    axes.plot(x, np.minimum(gflops, gigabytes * x), color="black", linewidth=1.4, zorder=2)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    text = f"slope: copy, {format_digits(gigabytes)} GB/s\nflat: matrix product, {format_digits(gflops)} GFLOP/s"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=8)
    return low, high


def _spread(values: Mapping[str, float], ratio: float) -> dict[str, float]:
    """Raise values where needed, so that each is at least `ratio` times the one below."""
    moved: dict[str, float] = {}
    reached = 0.0
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        moved[name] = reached = max(value, reached * ratio)
    return moved


def _make_panels(count: int, *, height: float) -> tuple[Any, Any]:
    """Return a figure and its panels, with a legend of the variants below them."""
    from matplotlib.lines import Line2D

    figure, panels = new_panels(count, 3.7, height)
    width, total_height = figure.get_size_inches()
    figure.set_size_inches(max(width, 7), total_height + 0.4)
    handles = [
        Line2D([], [], color=VARIANT_COLORS[name], marker=MARKERS[name], linestyle="", label=title)
        for name, title in TITLES.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6 if count > 2 else 3, frameon=False)
    return figure, panels
