"""Does the cost of each workload grow in proportion to its work?

    python -m experiments.speed.scaling           # about 2 min on 2 CPU cores with nothing else running
    python -m experiments.speed.scaling --quick   # two sizes per panel, one sample, about a minute

One dimension at a time varies: vocabulary, batch, context, width, text, streams or length. The others are those of
an MLP with V=4096, N=3, D=32, H=64 and batches of 64. All sizes of a dimension are timed in turn. The slope is
that of a straight line through the three largest sizes on logarithmic axes: 1 is linear, 0 is constant. The table
also shows the slope of the work, which is the number of operations in the matrix products. It is 0 where a unit of
work is constant, such as a counted pair in a text of any length.

Expected: no slope exceeds that of its work by more than 0.2, except that of a counted pair by vocabulary (0.54
against 0), because a larger table misses the cache more often. Many are below it, since a constant part dominates
small sizes. Compile time does not depend on the number of steps, tokens or windows; memory beyond the ids and the
variables does not depend on the number of ids. Memory is that of the process, measured on a CPU under Linux only.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.shared.benchmark import Variant, time_variants
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import BenchmarkOptions
from experiments.shared.report import format_table, new_panels
from experiments.speed.scaling_workloads import PANELS, WORKLOADS, Panel, Shape, constant_work
from jaxlm.runs.report.plots import COLORS
from jaxlm.utils.timing import measure_time

_CLEAR_REFS = Path("/proc/self/clear_refs")
_UNITS = {"time": "µs per", "compile": "s to compile", "memory": "MiB beyond ids and variables"}


@dataclass(frozen=True, kw_only=True)
class ScalingOptions(BenchmarkOptions):
    """Measure how time, compile time and memory grow, one dimension at a time."""

    panels: str = ""
    """Only the panels whose title contains this text."""


def prepare(options: ScalingOptions) -> Experiment:
    """Check the options and select the panels that this machine can measure."""
    chosen = [panel for panel in PANELS if options.panels in panel.title]
    if not chosen:
        titles = "; ".join(panel.title for panel in PANELS)
        raise ValueError(f"no panel's title contains {options.panels!r}; the panels are {titles}")
    return Experiment("scaling", partial(measure, options, chosen))


def measure(options: ScalingOptions, panels: Sequence[Panel], run: RunContext) -> Findings:
    """Measure each panel. Memory is measured only on a CPU under Linux, where the peak can be reset."""
    can_measure_memory = run.device.platform == "cpu" and _CLEAR_REFS.exists()
    described = []
    for panel in panels:
        if panel.cost == "memory" and not can_measure_memory:
            run.log(f"{panel.title}: skipped, because memory is measured only on a CPU under Linux")
            continue
        values = panel.values[:2] if options.quick else panel.values
        costs = measure_panel(panel, values, 1 if options.quick else options.repeats)
        described.append(describe(panel, values, costs))
        run.log(f"{panel.title}: slope {described[-1]['slope']:.2f}, work {described[-1]['work_slope']:.2f}")
    results = {"shape": asdict(Shape()), "panels": described}
    return Findings(results, format_slopes(described), {"growth": plot(described)})


def measure_panel(panel: Panel, values: Sequence[int], repeats: int) -> list[float]:
    """Return the cost at each value: microseconds per unit, seconds to compile, or MiB."""
    build = WORKLOADS[panel.workload].build
    shapes = [replace(Shape(), **{panel.field: value}) for value in values]
    if panel.cost == "compile":
        return [measure_compilation(build(shape)[0]) for shape in shapes]
    if panel.cost == "memory":
        return [measure_memory(build(shape)[0]) for shape in shapes]
    variants = {str(value): Variant(*build(shape)) for value, shape in zip(values, shapes, strict=True)}
    return [row["minimum_us"] for row in time_variants(variants, repeats=repeats).values()]


def measure_compilation(call: Callable[[], Any]) -> float:
    """Return the compile seconds of a call with empty caches."""
    jax.clear_caches()  # type: ignore[no-untyped-call]
    with measure_time() as timing:
        jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    return timing.compile_seconds


def measure_memory(call: Callable[[], Any]) -> float:
    """Return the MiB by which a second call raises the peak memory of the process, at least 1."""
    jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    gc.collect()
    _CLEAR_REFS.write_text("5")  # reset the peak
    before = _read_status_mebibytes("VmRSS")
    jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    return max(_read_status_mebibytes("VmHWM") - before, 1.0)


def describe(panel: Panel, values: Sequence[int], costs: Sequence[float]) -> dict[str, Any]:
    """Return a panel's figures and slopes."""
    workload = WORKLOADS[panel.workload]
    per_unit = ("num_tokens", "num_windows", "corpus_length", "num_streams")
    count_work = constant_work if panel.cost != "time" or panel.field in per_unit else workload.work
    work = [count_work(replace(Shape(), **{panel.field: value})) for value in values]
    slope, work_slope = fit_slope(values, costs), fit_slope(values, work)
    return {
        **panel._asdict(),
        "measure": f"{_UNITS[panel.cost]} {workload.unit}" if panel.cost == "time" else _UNITS[panel.cost],
        "values": list(values),
        "costs": list(costs),
        "work": work,
        "slope": slope,
        "work_slope": work_slope,
        "grows_as_work": slope <= work_slope + 0.2,
    }


def fit_slope(values: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope of log cost over log value, by least squares through the three largest values.

    >>> round(fit_slope([1, 10, 20, 40], [7, 100, 400, 1600]), 6)
    2.0
    """
    return float(np.polyfit(np.log(values[-3:]), np.log(costs[-3:]), 1)[0])


def format_slopes(panels: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of slopes, one row per panel."""
    rows = []
    for panel in panels:
        ends = (f"{panel['costs'][end]:.3g} at {panel['values'][end]:,}" for end in (0, -1))
        slopes = (f"{panel[name]:.2f}" for name in ("slope", "work_slope"))
        rows.append([panel["workload"], panel["measure"], panel["field"], *ends, *slopes])
    return format_table(["workload", "cost", "by", "from", "to", "slope", "work"], rows, text_columns=5)


def plot(panels: Sequence[Mapping[str, Any]]) -> Any:
    """Plot every panel: the measured cost, and a line proportional to the work through the last point."""
    figure, grid = new_panels(len(panels), 3.6, 2.9, columns=4)
    figure.set_dpi(70)
    for axes, panel in zip(grid, panels, strict=True):
        values, costs, work = (np.asarray(panel[name], float) for name in ("values", "costs", "work"))
        color = COLORS[0] if panel["grows_as_work"] else COLORS[1]
        axes.plot(values, costs, color=color, marker="o", label=f"measured, slope {panel['slope']:.2f}")
        ideal = work / work[-1] * costs[-1]
        style = {"color": COLORS[-1], "linestyle": "--"}
        axes.plot(values, ideal, label=f"work, slope {panel['work_slope']:.2f}", **style)
        axes.set(xscale="log", yscale="log", title=panel["workload"])
        axes.set(xlabel=panel["field"], ylabel=panel["measure"])
        shown = values[:: max(1, len(values) // 2)]
        axes.set_xticks(shown, [f"{value:,.0f}" for value in shown])
        axes.minorticks_off()
        low, high = min(costs.min(), ideal.min()), max(costs.max(), ideal.max())
        middle = (low * high) ** 0.5  # show at least two decades, so that noise does not look like growth
        axes.set_ylim(min(low / 1.5, middle / 10), max(high * 1.5, middle * 10))
        axes.legend(frameon=False, fontsize=8)
    return figure


def _read_status_mebibytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main(ScalingOptions, prepare)
