"""Time variants of one computation against each other."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.shared.experiment import Findings, RunContext
from experiments.shared.interleaved import Measurement, benchmark_interleaved
from experiments.shared.report import format_table


class Variant(NamedTuple):
    """One implementation of the computation.

    Args:
        call: function to time, without arguments.
        units: units of work (pairs, steps, tokens, ...) in one call.
        compiles_itself: the first call compiles with a compiler other than JAX, which may fail on this machine.
    """

    call: Callable[[], Any]
    units: float
    compiles_itself: bool = False


class Ratio(NamedTuple):
    """The ratio of two variants' times. Each is the fastest variant whose name starts with the given prefix."""

    title: str
    numerator: str
    denominator: str


class Benchmark(NamedTuple):
    """Variants of one computation, the unit of their work, and ratios of their times."""

    unit: str
    variants: Mapping[str, Variant]
    ratios: Sequence[Ratio] = ()


def run_benchmark(
    benchmark: Benchmark, *, repeats: int, rest_seconds: float = 0.0, on_failure: Callable[[str], None] = print
) -> dict[str, Any]:
    """Time the variants in turn (A B A B).

    Args:
        repeats: samples per variant.
        rest_seconds: pause before each sample, see `benchmark_interleaved`.
        on_failure: called with a message when a variant that compiles itself fails to compile.

    Returns:
        unit; variants: name -> microseconds per unit, None for a variant that failed to compile; ratios: title ->
        ratio of medians, None without measurements.
    """
    first_calls: dict[str, float] = {}
    calls = {name: variant.call for name, variant in benchmark.variants.items()}
    for name, variant in benchmark.variants.items():
        if variant.compiles_itself:
            begin = time.perf_counter()
            try:
                variant.call()
            except Exception as error:  # any failure of the compiler excludes this variant alone
                reason = str(error).strip().partition("\n")[0]
                on_failure(f"{name} skipped: {type(error).__name__}: {reason}")
                del calls[name]
            first_calls[name] = time.perf_counter() - begin
    variants: dict[str, Any] = dict.fromkeys(benchmark.variants)
    for name, measurement in benchmark_interleaved(calls, repeats=repeats, rest_seconds=rest_seconds).items():
        units = benchmark.variants[name].units
        variants[name] = {"units_per_call": units, **describe_measurement(measurement, units)}
        if name in first_calls:
            variants[name]["compile_seconds"] = first_calls[name]
    ratios = {ratio.title: compute_ratio(ratio, variants) for ratio in benchmark.ratios}
    return {"unit": benchmark.unit, "variants": variants, "ratios": ratios}


def run_benchmarks(builders: Mapping[str, Callable[[], Benchmark]], run: RunContext, **timing: Any) -> Findings:
    """Build and run one benchmark after another. `timing`: see `run_benchmark`."""
    rows = {}
    for title, build in builders.items():
        run.log(f"timing: {title}")
        rows[title] = run_benchmark(build(), on_failure=run.log, **timing)
    return Findings({"rows": rows}, format_benchmarks(rows))


def describe_measurement(measurement: Measurement, units: float) -> dict[str, Any]:
    """Return the microseconds per unit, the number of samples and the compile seconds."""
    return {
        "median_us": measurement.median / units * 1e6,
        "minimum_us": measurement.minimum / units * 1e6,
        "spread_us": measurement.spread / units * 1e6,
        "repeats": measurement.repeats,
        "compile_seconds": measurement.compile_seconds,
    }


def compute_ratio(ratio: Ratio, variants: Mapping[str, Any]) -> float | None:
    """Return the ratio of the medians of the fastest variants, None without measurements."""
    numerator, denominator = (
        min((row["median_us"] for name, row in variants.items() if row and name.startswith(prefix)), default=None)
        for prefix in (ratio.numerator, ratio.denominator)
    )
    return numerator / denominator if numerator and denominator else None


def format_benchmarks(benchmarks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return results of `run_benchmark` by title as a table of times and a table of ratios."""
    times, ratios = [], []
    for title, benchmark in benchmarks.items():
        for name, figure in benchmark["variants"].items():
            cells = ["-"]
            if figure is not None:
                cells = [format_digits(figure[each]) for each in ("median_us", "minimum_us", "spread_us")]
                cells.append(f"{figure['compile_seconds']:.1f}")
            times.append([f"{title}, per {benchmark['unit']}", name, *cells])
        ratios += [[title, name, format_digits(ratio or 0)] for name, ratio in benchmark["ratios"].items()]
    headers = ["benchmark", "variant", "median (µs)", "minimum (µs)", "quartile range (µs)", "compile (s)"]
    times_table = format_table(headers, times, text_columns=2)
    ratios_table = format_table(["benchmark", "ratio", "of medians"], ratios, text_columns=2)
    return f"{times_table}\n\n{ratios_table}"


def format_digits(number: float) -> str:
    """Return the number with three significant digits.

    >>> format_digits(0.012345), format_digits(12345.6)
    ('0.0123', '12,346')
    """
    if number <= 0:
        return "0"
    return f"{number:,.{max(2 - math.floor(math.log10(number)), 0)}f}"
