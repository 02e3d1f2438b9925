"""Contestants that do one job, timed against each other, and what is claimed of their ratios."""

import io
import math
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from jaxlm.utils.timing import Measurement, benchmark_interleaved


class Contestant(NamedTuple):
    """One way to do a job, and how many of its units (pairs, steps, tokens, ...) a call does.

    `foreign_compiler`: its first call compiles by something else than JAX, which may fail on this machine.
    """

    call: Callable[[], Any]
    units: float
    foreign_compiler: bool = False


class Claim(NamedTuple):
    """`over` takes at least (or at most) `bound` times as long as `under`.

    Either may be a name, or the beginning that several names share, of which the quickest then counts.
    """

    title: str
    over: str
    under: str
    bound: float
    at_most: bool = False


class Row(NamedTuple):
    """One job."""

    unit: str
    contestants: Mapping[str, Contestant]
    claims: Sequence[Claim]


def measure(
    row: Row, *, repeats: int, rest_seconds: float, on_failure: Callable[[str], None] = print
) -> dict[str, Any]:
    """Times the row's contestants, A B A B, and checks its claims.

    Returns:
        unit; contestants: name -> its microseconds a unit, or None where its compiler failed, of which
        `on_failure` was told; claims: each with its ratio and whether it holds, None where it has no figures.
    """
    foreign: dict[str, float | None] = {}
    for name, contestant in row.contestants.items():
        if contestant.foreign_compiler:
            try:
                foreign[name] = first_call_seconds(contestant.call)
            except Exception as error:  # whatever it stumbles over, the others have their contest
                on_failure(
                    f"{name} goes without: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                )
                foreign[name] = None
    running = {name: each for name, each in row.contestants.items() if foreign.get(name, 0.0) is not None}
    calls = {name: contestant.call for name, contestant in running.items()}
    figures = benchmark_interleaved(calls, repeats=repeats, rest_seconds=rest_seconds)
    contestants = {
        name: _describe(figure, running[name].units, foreign.get(name)) for name, figure in figures.items()
    }
    return {
        "unit": row.unit,
        "contestants": {name: contestants.get(name) for name in row.contestants},
        "claims": [check(claim, contestants) for claim in row.claims],
    }


def check(claim: Claim, contestants: Mapping[str, Any]) -> dict[str, Any]:
    """The claim, its ratio by medians and by minima, and whether it holds; None where it has no figures."""
    ratios: dict[str, Any] = dict.fromkeys(("quickest", "ratio", "ratio_of_minima", "holds"))
    over, under = quickest(contestants, claim.over), quickest(contestants, claim.under)
    if over is not None and under is not None:
        ratio, ratio_of_minima = (
            contestants[over][figure] / contestants[under][figure] for figure in ("median_us", "minimum_us")
        )
        holds = ratio <= claim.bound if claim.at_most else ratio >= claim.bound
        ratios = {"quickest": over, "ratio": ratio, "ratio_of_minima": ratio_of_minima, "holds": holds}
    return {**claim._asdict(), **ratios}


def quickest(contestants: Mapping[str, Any], beginning: str) -> str | None:
    """The name of the quickest contestant whose name begins so, or None."""
    names = [name for name in contestants if name.startswith(beginning)]
    return min(names, key=lambda name: contestants[name]["median_us"], default=None)


def first_call_seconds(call: Callable[[], Any]) -> float:
    """By how many seconds a first call is slower than a second."""
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
    return max(seconds[0] - seconds[1], 0.0)


def table_text(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows as a person reads them: a table of figures, and one of claims where there are any."""
    figures = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    figures.add_column("job", no_wrap=True)
    figures.add_column("", no_wrap=True)
    for column in ("µs, median", "minimum", "spread", "compile (s)"):
        figures.add_column(column, justify="right", no_wrap=True)
    claims = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("job", "ratio"):
        claims.add_column(column, no_wrap=True)
    for column in ("by medians", "by minima", "wanted", ""):
        claims.add_column(column, justify="right", no_wrap=True)
    for title, row in rows.items():
        shown = f"{title}, a {row['unit']}"
        for name, figure in row["contestants"].items():
            if figure is None:
                figures.add_row(shown, name, "-")
            else:
                times = (_short(figure[each]) for each in ("median_us", "minimum_us", "spread_us"))
                figures.add_row(shown, name, *times, f"{figure['compile_seconds']:.1f}")
            shown = ""
        shown = title
        for claim in row["claims"]:
            missing = claim["ratio"] is None
            ratios = ("-", "-") if missing else (_short(claim["ratio"]), _short(claim["ratio_of_minima"]))
            wanted = f"{'at most' if claim['at_most'] else 'at least'} {claim['bound']:g}"
            claims.add_row(
                shown, claim["title"], *ratios, wanted, {True: "yes", False: "NO", None: "-"}[claim["holds"]]
            )
            shown = ""
    return as_text(figures, claims) if claims.row_count else as_text(figures)


def as_text(*tables: Table) -> str:
    """The tables as plain lines, whole however narrow the terminal is."""
    written = io.StringIO()
    Console(file=written, width=160).print(*tables, sep="\n\n")
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def cpu_name() -> str:
    """What the processor calls itself."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text("utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _describe(figure: Measurement, units: float, foreign_seconds: float | None) -> dict[str, Any]:
    return {
        "median_us": figure.median / units * 1e6,
        "minimum_us": figure.minimum / units * 1e6,
        "spread_us": figure.spread / units * 1e6,
        "repeats": figure.repeats,
        "units_per_call": units,
        "compile_seconds": figure.compile_seconds if foreign_seconds is None else foreign_seconds,
    }


def _short(number: float) -> str:
    """Three digits.

    >>> _short(0.012345), _short(12345.6)
    ('0.0123', '12,346')
    """
    if number <= 0:
        return "0"
    return f"{number:,.{max(2 - math.floor(math.log10(number)), 0)}f}"
