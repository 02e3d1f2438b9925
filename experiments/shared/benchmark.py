"""Time variants of one computation against each other."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.shared.experiment import Findings, RunContext
from experiments.shared.report import format_table
from jaxlm.utils.timing import measure_time

_MIN_SAMPLE_SECONDS = 5e-3  # long enough that the clock and the loop around the calls do not matter


class Variant(NamedTuple):
    """One implementation of the computation.

    Args:
        call: function to time, without arguments.
        units: units of work (pairs, steps, tokens, ...) in one call.
        compiles_itself: the first call runs another compiler than JAX's, which may fail on this machine.
        traces: a sample may trace and compile, as Flax and optax do under `jax.disable_jit`.
        may_fail: an exception is recorded instead of raised, as it is if `compiles_itself`.
    """

    call: Callable[[], Any]
    units: float
    compiles_itself: bool = False
    traces: bool = False
    may_fail: bool = False


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


def run_benchmarks(builders: Mapping[str, Callable[[], Benchmark]], run: RunContext, **timing: Any) -> Findings:
    """Build and time one benchmark after another; `timing`: see `time_variants`.

    A row of the results has unit, variants (see `time_variants`), and ratios of medians, None if unknown.
    """
    rows = {}
    for title, build in builders.items():
        run.log(f"timing: {title}")
        benchmark = build()
        variants = time_variants(benchmark.variants, **timing)
        for name in [name for name, row in variants.items() if "error" in row]:
            run.log(f"{name} failed: {variants[name]['error']}")
        ratios = {ratio.title: compute_ratio(ratio, variants) for ratio in benchmark.ratios}
        rows[title] = {"unit": benchmark.unit, "variants": variants, "ratios": ratios}
    return Findings({"rows": rows}, format_benchmarks(rows))


def time_variants(
    variants: Mapping[str, Variant], *, repeats: int, rest_seconds: float = 0.0
) -> dict[str, dict[str, Any]]:
    """Time the variants in turn, A B C, A B C, ..., so that other load on the machine affects all of them alike.

    Each is first called at least twice, untimed, which compiles it. A sample repeats a short call until it takes
    5 ms.

    Args:
        repeats: samples per variant.
        rest_seconds: pause before each sample, followed by an untimed call. The pause outlasts threads of other
            libraries, such as PyTorch's OpenMP, that spin after a call.

    Returns:
        name -> microseconds per unit (median, minimum, interquartile range) and compile seconds, or the `error` of
        a variant that may fail.

    Raises:
        ValueError: a call compiled within a sample.
    """
    compile_seconds, loops, rows = {}, {}, dict[str, dict[str, Any]]()
    samples: dict[str, list[float]] = {name: [] for name in variants}

    def prepare(name: str, variant: Variant) -> None:
        with measure_time() as first:
            _run(variant.call)
        compile_seconds[name] = first.compile_seconds + (first.run_seconds if variant.compiles_itself else 0)
        loops[name] = 1
        while _run(variant.call, loops[name]) < _MIN_SAMPLE_SECONDS:
            loops[name] *= 2

    def sample(name: str, variant: Variant) -> None:
        if rest_seconds:
            time.sleep(rest_seconds)
            _run(variant.call)  # after a pause, caches and clocks are cold
        with measure_time() as timing:
            seconds = _run(variant.call, loops[name])
        if timing.compile_seconds and not variant.traces:
            raise ValueError(
                f"{name} compiled for {timing.compile_seconds:.3f} s while it was timed: build its jitted "
                "function once, outside the call, and give it the same shapes and static arguments each time"
            )
        samples[name].append(seconds / loops[name] / variant.units * 1e6)

    for act in (prepare, *[sample] * repeats):
        for name in list(samples):
            try:
                act(name, variants[name])
            except Exception as error:  # a user's own variant may raise anything
                if not (variants[name].may_fail or variants[name].compiles_itself):
                    raise
                rows[name] = {"error": format_error(error)}
                del samples[name]
    for name, each in samples.items():
        lower, median, upper = np.percentile(each, [25, 50, 75]).tolist()
        figures = {"median_us": median, "minimum_us": min(each), "spread_us": upper - lower}
        rows[name] = {**figures, "repeats": repeats, "compile_seconds": compile_seconds[name]}
        rows[name]["units_per_call"] = variants[name].units
    return rows


def _run(call: Callable[[], Any], times: int = 1) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    return time.perf_counter() - begin


def compute_ratio(ratio: Ratio, variants: Mapping[str, Any]) -> float | None:
    """Return the ratio of the medians of the fastest variants, None without measurements."""
    numerator, denominator = (
        min(
            (row["median_us"] for name, row in variants.items() if name.startswith(prefix) and "error" not in row),
            default=None,
        )
        for prefix in (ratio.numerator, ratio.denominator)
    )
    return numerator / denominator if numerator and denominator else None


def format_benchmarks(benchmarks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the rows of `run_benchmarks` as a table of times and a table of ratios."""
    times, ratios = [], []
    for title, benchmark in benchmarks.items():
        for name, figure in benchmark["variants"].items():
            cells = ["-"]
            if "error" not in figure:
                cells = [format_digits(figure[each]) for each in ("median_us", "minimum_us", "spread_us")]
                cells.append(f"{figure['compile_seconds']:.1f}")
            times.append([f"{title}, per {benchmark['unit']}", name, *cells])
        ratios += [[title, name, format_digits(ratio or 0)] for name, ratio in benchmark["ratios"].items()]
    headers = ["benchmark", "variant", "median (µs)", "minimum (µs)", "quartile range (µs)", "compile (s)"]
    times_table = format_table(headers, times, text_columns=2)
    ratios_table = format_table(["benchmark", "ratio", "of medians"], ratios, text_columns=2)
    return f"{times_table}\n\n{ratios_table}"


def format_error(error: Exception) -> str:
    """Return the type of the exception and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def format_digits(number: float) -> str:
    """Return the number with three significant digits.

    >>> format_digits(0.012345), format_digits(12345.6)
    ('0.0123', '12,346')
    """
    if number <= 0:
        return "0"
    return f"{number:,.{max(2 - math.floor(math.log10(number)), 0)}f}"
