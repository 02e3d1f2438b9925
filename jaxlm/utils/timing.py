"""Measure compile time and run time."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax


@dataclass
class Timing:
    """The result of `measure_time`, complete when its block ends."""

    compile_seconds: float = 0.0
    run_seconds: float = 0.0


@contextlib.contextmanager
def measure_time() -> Iterator[Timing]:
    """Measure the time that the block spends on tracing, lowering and compiling, and the remaining time."""
    timing, spans, is_finished = Timing(), list[tuple[float, float]](), False

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        if event.startswith("/jax/core/compile/") and not is_finished:
            now = time.perf_counter()
            spans.append((now - duration_secs, now))

    jax.monitoring.register_event_duration_secs_listener(listen)
    begin = time.perf_counter()
    try:
        yield timing
    finally:
        timing.run_seconds, is_finished = time.perf_counter() - begin, True
        with contextlib.suppress(AttributeError):  # jax 0.5.0 cannot unregister a listener
            jax.monitoring.unregister_event_duration_listener(listen)
        # When a jitted function calls another, their spans overlap: count these seconds once.
        reached = begin
        for start, stop in sorted(spans):
            timing.compile_seconds += max(0.0, stop - max(start, reached))
            reached = max(reached, stop)
        timing.run_seconds -= timing.compile_seconds
