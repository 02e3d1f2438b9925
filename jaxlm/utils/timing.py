"""Seconds of wall time, with JAX's compilation apart, and calls timed against each other."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

# What one sample should last at least, so that the clock and the loop around the calls weigh nothing.
_SAMPLE_SECONDS = 5e-3


@dataclass
class Timing:
    """What `timed` measured: filled when its block ends."""

    compile_seconds: float = 0.0
    run_seconds: float = 0.0
    programs: int = 0  # that the compiler was given
    _spans: list[tuple[float, float]] = field(default_factory=list, repr=False)


@contextlib.contextmanager
def timed() -> Iterator[Timing]:
    """Measures its block: seconds spent in tracing, lowering and compiling, and all other seconds.

    >>> with timed() as timing:
    ...     _ = jax.jit(lambda x: x + 1)(1)
    >>> timing.compile_seconds > 0
    True
    """
    timing = Timing()

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            timing._spans.append((now - duration_secs, now))
            timing.programs += event.endswith("/backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(listen)
    begin = time.perf_counter()
    try:
        yield timing
    finally:
        end = time.perf_counter()
        timing.compile_seconds = _length_of_union(timing._spans, begin, end)
        timing.run_seconds = end - begin - timing.compile_seconds
        # Before it could be unregistered (jax 0.5), a listener stayed: it only appends to a list that is not read.
        with contextlib.suppress(AttributeError):
            jax.monitoring.unregister_event_duration_listener(listen)


@dataclass(frozen=True)
class Measurement:
    """Steady seconds a call, over `repeats` samples; `compile_seconds` of its first call stand apart."""

    median: float
    minimum: float
    spread: float  # between the quartiles
    repeats: int
    compile_seconds: float


class RecompilationError(RuntimeError):
    """Something was compiled while it was being timed, so that the figures would mean nothing."""


def benchmark_interleaved(
    calls: Mapping[str, Callable[[], Any]],
    *,
    repeats: int = 7,
    rest_seconds: float = 0.0,
    tracing: Collection[str] = (),
) -> dict[str, Measurement]:
    """Times the calls against each other: A B C, A B C, ..., so that a noisy moment falls on all of them.

    Each call is first made at least twice, which compiles it; what it returns is waited for. Short calls are
    repeated until a sample lasts 5 ms.

    Args:
        calls: what to time, by name; functions without arguments.
        repeats: samples of each.
        rest_seconds: slept before each sample, after which one call is made untimed. The threads of another
            library (PyTorch's OpenMP) may go on spinning for a while after its last call, and would be timed as
            the next one's slowness.
        tracing: names of calls that trace each time by their nature, as Flax does under `jax.disable_jit` to
            check shapes: their time includes that, and only a program given to the compiler is an error.

    Raises:
        RecompilationError: a call traced or compiled something in a timed sample; the message names it.

    >>> figures = benchmark_interleaved({"sum": lambda: sum(range(1000)), "min": lambda: min(range(1000))}, repeats=3)
    >>> sorted(figures), figures["sum"].repeats
    (['min', 'sum'], 3)
    """
    compile_seconds, loops = {}, {}
    for name, call in calls.items():
        with timed() as first:
            _finish(call)
        compile_seconds[name] = first.compile_seconds
        loops[name] = 1
        while _seconds(call, loops[name]) < _SAMPLE_SECONDS:
            loops[name] *= 2
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if rest_seconds:
                time.sleep(rest_seconds)
                _finish(call)  # not timed: after a rest caches and clocks are cold
            with timed() as timing:
                seconds = _seconds(call, loops[name])
            if timing.programs or (timing.compile_seconds and name not in tracing):
                raise RecompilationError(
                    f"{name} compiled for {timing.compile_seconds:.3f} s while it was timed: build its jitted "
                    "function once, outside the call, and give it the same shapes and static arguments each time"
                )
            samples[name].append(seconds / loops[name])
    return {
        name: Measurement(
            median=float(np.median(each)),
            minimum=min(each),
            spread=float(np.subtract(*np.percentile(each, [75, 25]))),
            repeats=repeats,
            compile_seconds=compile_seconds[name],
        )
        for name, each in samples.items()
    }


def _seconds(call: Callable[[], Any], loops: int) -> float:
    begin = time.perf_counter()
    for _ in range(loops):
        _finish(call)
    return time.perf_counter() - begin


def _finish(call: Callable[[], Any]) -> None:
    jax.block_until_ready(call())  # type: ignore[no-untyped-call]


def _length_of_union(spans: list[tuple[float, float]], begin: float, end: float) -> float:
    """Tracing nests (a jitted function inside another), so its spans overlap: count each moment once."""
    length, reached = 0.0, begin
    for start, stop in sorted(spans):
        start, stop = max(start, reached), min(stop, end)
        if stop > start:
            length += stop - start
            reached = stop
    return length
