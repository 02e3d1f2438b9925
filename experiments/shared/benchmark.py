"""Time variants of one computation against each other and compare the ratios with targets."""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.shared.tables import format_table
from jaxlm.utils.timing import Measurement, benchmark_interleaved


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


class RatioTarget(NamedTuple):
    """A bound on the ratio of two variants' times.

    `numerator` and `denominator` are names of variants or prefixes of names. The fastest variant with the prefix
    counts. The ratio must be at least `bound`, or at most `bound` if `at_most`.
    """

    title: str
    numerator: str
    denominator: str
    bound: float
    at_most: bool = False


class Benchmark(NamedTuple):
    """Variants of one computation, the unit of their work, and the targets for their ratios."""

    unit: str
    variants: Mapping[str, Variant]
    targets: Sequence[RatioTarget] = ()


def run_benchmark(
    benchmark: Benchmark,
    *,
    repeats: int,
    with_targets: bool = True,
    rest_seconds: float = 0.0,
    on_failure: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Time the variants in turn (A B A B) and check the targets.

    Args:
        repeats: samples per variant.
        with_targets: False ignores the targets.
        rest_seconds: pause before each sample, see `benchmark_interleaved`.
        on_failure: called with a message when a variant that compiles itself fails to compile.

    Returns:
        unit; variants: name -> microseconds per unit, None for a variant that failed to compile; targets: see
        `check_target`.
    """
    first_calls: dict[str, float] = {}
    calls = {name: variant.call for name, variant in benchmark.variants.items()}
    for name, variant in benchmark.variants.items():
        if variant.compiles_itself:
            try:
                first_calls[name] = first_call_overhead(variant.call)
            except Exception as error:  # any failure of the compiler excludes this variant alone
                reason = str(error).strip().partition("\n")[0]
                on_failure(f"{name} skipped: {type(error).__name__}: {reason}")
                del calls[name]
    measurements = benchmark_interleaved(calls, repeats=repeats, rest_seconds=rest_seconds)
    variants: dict[str, Any] = {}
    for name, measurement in measurements.items():
        units = benchmark.variants[name].units
        variants[name] = {"units_per_call": units, **describe_measurement(measurement, units)}
        if name in first_calls:
            variants[name]["compile_seconds"] = first_calls[name]
    return {
        "unit": benchmark.unit,
        "variants": {name: variants.get(name) for name in benchmark.variants},
        "targets": [check_target(target, variants) for target in benchmark.targets] if with_targets else [],
    }


def describe_measurement(measurement: Measurement, units: float) -> dict[str, Any]:
    """Return the microseconds per unit, the number of samples and the compile seconds."""
    return {
        "median_us": measurement.median / units * 1e6,
        "minimum_us": measurement.minimum / units * 1e6,
        "spread_us": measurement.spread / units * 1e6,
        "repeats": measurement.repeats,
        "compile_seconds": measurement.compile_seconds,
    }


def check_target(target: RatioTarget, variants: Mapping[str, Any]) -> dict[str, Any]:
    """Return the target, its ratio of medians and of minima, and whether it is met; None without measurements."""
    outcome: dict[str, Any] = dict.fromkeys(("fastest", "ratio", "ratio_of_minima", "met"))
    numerator, denominator = (fastest_variant(variants, each) for each in (target.numerator, target.denominator))
    if numerator is not None and denominator is not None:
        ratio, ratio_of_minima = (
            variants[numerator][figure] / variants[denominator][figure] for figure in ("median_us", "minimum_us")
        )
        met = ratio <= target.bound if target.at_most else ratio >= target.bound
        outcome = {"fastest": numerator, "ratio": ratio, "ratio_of_minima": ratio_of_minima, "met": met}
    return {**target._asdict(), **outcome}


def fastest_variant(variants: Mapping[str, Any], prefix: str) -> str | None:
    """Return the name of the variant with the prefix and the smallest median, or None."""
    names = [name for name in variants if name.startswith(prefix)]
    return min(names, key=lambda name: variants[name]["median_us"], default=None)


def first_call_overhead(call: Callable[[], Any]) -> float:
    """Return the seconds by which the first call is slower than the second."""
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
    return max(seconds[0] - seconds[1], 0.0)


def format_benchmarks(benchmarks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return results of `run_benchmark` by title as a table of times, and a table of targets if there are any."""
    times, ratios = [], []
    for title, benchmark in benchmarks.items():
        for name, figure in benchmark["variants"].items():
            cells = ["-"]
            if figure is not None:
                cells = [format_digits(figure[each]) for each in ("median_us", "minimum_us", "spread_us")]
                cells.append(f"{figure['compile_seconds']:.1f}")
            times.append([f"{title}, per {benchmark['unit']}", name, *cells])
        for target in benchmark["targets"]:
            cells = ["-"] * 2
            if target["ratio"] is not None:
                cells = [format_digits(target[each]) for each in ("ratio", "ratio_of_minima")]
            bound = f"{'at most' if target['at_most'] else 'at least'} {target['bound']:g}"
            met = {True: "yes", False: "NO", None: "-"}[target["met"]]
            ratios.append([title, target["title"], *cells, bound, met])
    headers = ["benchmark", "variant", "median (µs)", "minimum (µs)", "quartile range (µs)", "compile (s)"]
    tables = [format_table(headers, _blank_repeats(times), text_columns=2)]
    if ratios:
        headers = ["benchmark", "ratio", "of medians", "of minima", "target", "met"]
        tables.append(format_table(headers, _blank_repeats(ratios), text_columns=2))
    return "\n\n".join(tables)


def format_digits(number: float) -> str:
    """Return the number with three significant digits.

    >>> format_digits(0.012345), format_digits(12345.6)
    ('0.0123', '12,346')
    """
    if number <= 0:
        return "0"
    return f"{number:,.{max(2 - math.floor(math.log10(number)), 0)}f}"


def _blank_repeats(rows: Sequence[list[str]]) -> list[list[str]]:
    """Return the rows without a first cell that equals the one above."""
    titles = ["", *(row[0] for row in rows)]
    return [["" if row[0] == above else row[0], *row[1:]] for row, above in zip(rows, titles, strict=False)]
