"""Compare the run times of functions."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxlm.utils.timing import measure_time

_MIN_SAMPLE_SECONDS = 5e-3  # long enough that the clock and the loop around the calls do not matter


@dataclass(frozen=True)
class Measurement:
    """Seconds per call over `repeats` samples, and the seconds that the first call spent compiling."""

    median: float
    minimum: float
    spread: float  # interquartile range
    repeats: int
    compile_seconds: float


class RecompilationError(RuntimeError):
    """A call compiled while it was timed, so the time is not that of running."""


def benchmark_interleaved(
    calls: Mapping[str, Callable[[], Any]],
    *,
    repeats: int = 7,
    rest_seconds: float = 0.0,
    tracing: Collection[str] = (),
) -> dict[str, Measurement]:
    """Time functions in turn, A B C, A B C, ..., so that noise of the machine affects all of them.

    Each function is first called at least twice, untimed, which compiles it. A sample repeats a short call for
    5 ms. Raises a RecompilationError if a call compiles within a sample.

    Args:
        calls: functions without arguments, by name.
        repeats: number of samples per function.
        rest_seconds: pause before each sample, followed by an untimed call. Threads of another library, such as
            OpenMP in PyTorch, can spin after a call and slow down the next.
        tracing: names of functions that may trace within a sample, as Flax does under `jax.disable_jit`.
    """
    compile_seconds, loops = {}, {}
    for name, call in calls.items():
        with measure_time() as first:
            _run(call)
        compile_seconds[name] = first.compile_seconds
        loops[name] = 1
        while _run(call, loops[name]) < _MIN_SAMPLE_SECONDS:
            loops[name] *= 2
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if rest_seconds:
                time.sleep(rest_seconds)
                _run(call)  # after a pause, caches and clocks are cold
            with measure_time() as timing:
                seconds = _run(call, loops[name])
            if timing.num_programs or (timing.compile_seconds and name not in tracing):
                raise RecompilationError(
                    f"{name} compiled for {timing.compile_seconds:.3f} s while it was timed: build its jitted "
                    "function once, outside the call, and give it the same shapes and static arguments each time"
                )
            samples[name].append(seconds / loops[name])
    results = {}
    for name, each in samples.items():
        lower, median, upper = np.percentile(each, [25, 50, 75]).tolist()
        results[name] = Measurement(median, min(each), upper - lower, repeats, compile_seconds[name])
    return results


def _run(call: Callable[[], Any], times: int = 1) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    return time.perf_counter() - begin
