"""Seconds of wall time, with JAX's compilation apart."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax


@dataclass
class Timing:
    """What `timed` measured: filled when its block ends."""

    compile_seconds: float = 0.0
    run_seconds: float = 0.0
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


def _length_of_union(spans: list[tuple[float, float]], begin: float, end: float) -> float:
    """Tracing nests (a jitted function inside another), so its spans overlap: count each moment once."""
    length, reached = 0.0, begin
    for start, stop in sorted(spans):
        start, stop = max(start, reached), min(stop, end)
        if stop > start:
            length += stop - start
            reached = stop
    return length
