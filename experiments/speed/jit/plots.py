"""Tables, roofline and speed-up figures of `experiments.speed.jit.compare`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.shared.benchmark import format_digits
from experiments.shared.report import format_table, new_panels
from jaxlm.runs.report.plots import COLORS

LEGEND = {  # title, color and marker
    "eager": ("eager JAX (disable_jit)", COLORS[6], "X"),
    "no jit": ("no jit", COLORS[6], "P"),
    "jit": ("jit, one call each", COLORS[4], "o"),
    "donated": ("jit, donated", COLORS[0], "o"),
    "loop": ("jit, fori_loop", COLORS[2], "s"),
    "scan": ("jit, scan", COLORS[2], "<"),
    "vmap": ("jit, vmapped", COLORS[3], "^"),
    "numpy": ("NumPy", COLORS[5], "D"),
    "torch": ("PyTorch", COLORS[1], "v"),
}

Stages = Mapping[str, Mapping[str, Mapping[str, Any]]]  # stage -> variant -> row


def group_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Group rows by size, as stage -> variant -> row."""
    grouped: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["size"], {}).setdefault(row["stage"], {})[row["variant"]] = row
    return grouped


def format_results(results: Mapping[str, Any]) -> str:
    """Return the ceiling, and a table of medians and one of all figures per size."""
    gflops, gigabytes = (results["ceiling"][f"{unit}_per_second"] / 1e9 for unit in ("flops", "bytes"))
    groups = group_rows(results["rows"])
    parts = [f"ceiling: matrix product {gflops:,.1f} GFLOP/s, copy {gigabytes:,.1f} GB/s"]
    parts += [format_medians(size, stages) for size, stages in groups.items()]
    parts += [format_figures(size, stages) for size, stages in groups.items()]
    return "\n\n".join(parts)


def format_medians(size: str, stages: Stages) -> str:
    """Return a table with a row per stage and a column per variant, followed by the errors."""
    names = [name for name in LEGEND if any(name in rows for rows in stages.values())]
    table: list[list[str]] = []
    errors: dict[str, list[str]] = {}
    for stage, rows in stages.items():
        cells = [rows.get(name, {}).get("median_us") for name in names]
        table.append([stage, *("-" if cell is None else format_digits(cell) for cell in cells)])
        for name, row in rows.items():
            if row["error"]:
                errors.setdefault(f"{stage}: {row['error']}", []).append(name)
    lines = [f"{size}: median µs per item", format_table(["stage", *names], table)]
    return "\n".join(lines + [f"{', '.join(names)} of {error}" for error, names in errors.items()])


def format_figures(size: str, stages: Stages) -> str:
    """Return a table of all figures, with a row per stage and variant."""
    headers = ["stage", "variant", "compile\n(s)", "median\n(µs)", "minimum\n(µs)", "spread\n(µs)", "times\neager"]
    headers += ["MFLOP\nper item", "MB\nper item", "share of\nceiling"]
    table = []
    for stage, rows in stages.items():
        for name, row in rows.items():
            if row["error"]:
                continue
            times = [format_digits(row[each]) for each in ("median_us", "minimum_us", "spread_us")]
            times.append("-" if row["speedup"] is None else format_digits(row["speedup"]))
            costs = ("-" if row[unit] is None else format_digits(row[unit] / 1e6) for unit in ("flops", "bytes"))
            share = "-" if row["share"] is None else f"{row['share']:.1%} {row['share_of']}"
            table.append([stage, name, f"{row['compile_seconds']:.2f}", *times, *costs, share])
    return f"{size}\n{format_table(headers, table, text_columns=2)}"


def plot_roofline(results: Mapping[str, Any]) -> Any:
    """Plot each variant's GFLOP/s over its stage's FLOPs per byte, below the ceiling (Williams et al. 2009).

    One panel per size. Stages with nearly equal FLOPs per byte are drawn side by side. Rows without FLOPs or bytes
    are left out.
    """
    groups = group_rows([row for row in results["rows"] if row.get("flops") and row.get("bytes")])
    figure, panels = _make_panels(max(len(groups), 1), height=5)
    gflops, gigabytes = (results["ceiling"][f"{unit}_per_second"] / 1e9 for unit in ("flops", "bytes"))
    ridge = gflops / gigabytes
    for axes, (size, stages) in zip(panels, groups.items(), strict=False):
        any_row = {stage: next(iter(rows.values())) for stage, rows in stages.items()}
        intensities = {stage: row["flops"] / row["bytes"] for stage, row in any_row.items()}
        low, high = min(*intensities.values(), ridge) / 3, max(*intensities.values(), ridge) * 3
        x = np.array([low, ridge, high])
        axes.plot(x, np.minimum(gflops, gigabytes * x), color="black", linewidth=1.4)
        axes.set(xscale="log", yscale="log", xlim=(low, high))
        place = 0.0
        for stage in sorted(stages, key=lambda stage: intensities[stage]):
            place = max(intensities[stage], place * (high / low) ** 0.06)
            rates = {name: row["flops"] / row["median_us"] / 1e3 for name, row in stages[stage].items()}
            for name, rate in rates.items():
                plot_point(axes, place, rate, name)
            text = stage.replace("_", " ")
            axes.text(place, min(rates.values()) / 1.6, text, rotation=90, ha="center", va="top", fontsize=8)
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom / 10 ** (0.3 * np.log10(top / bottom)), top * 2)
        axes.set(title=size, xlabel="FLOPs per byte, as XLA counts them", ylabel="GFLOP/s")
    return figure


def plot_speedups(results: Mapping[str, Any]) -> Any:
    """Plot each variant's speed-up over eager JAX by stage, one panel per size."""
    groups = group_rows([row for row in results["rows"] if row.get("speedup")])
    most = max(map(len, groups.values()), default=1)
    figure, panels = _make_panels(max(len(groups), 1), height=0.6 * most + 1.2)
    for axes, (size, stages) in zip(panels, groups.items(), strict=False):
        for place, rows in enumerate(stages.values()):
            for name, row in rows.items():
                y = place + 0.09 * (list(LEGEND).index(name) - len(LEGEND) // 2)
                plot_point(axes, row["speedup"], y, name)
        axes.set_xscale("log")
        axes.set_yticks(range(len(stages)), [stage.replace("_", " ") for stage in stages])
        axes.set_ylim(len(stages) - 0.5, -0.5)
        axes.axvline(1, color=LEGEND["eager"][1], linewidth=1.2)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set(title=size, xlabel="speed-up over eager JAX")
        axes.grid(visible=False, axis="y")
    return figure


def plot_point(axes: Any, x: float, y: float, variant: str) -> None:
    """Plot one point in the color and with the marker of the variant."""
    _, color, marker = LEGEND[variant]
    axes.plot(x, y, marker, color=color, markeredgecolor="white")


def _make_panels(count: int, *, height: float) -> tuple[Any, Any]:
    """Return a figure and its panels, with a legend of the variants below them."""
    from matplotlib.lines import Line2D

    figure, panels = new_panels(count, 3.7, height)
    width, total_height = figure.get_size_inches()
    figure.set_size_inches(max(width, 7), total_height + 0.4)
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="", label=title)
        for title, color, marker in LEGEND.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5 if count > 2 else 3, frameon=False)
    return figure, panels
