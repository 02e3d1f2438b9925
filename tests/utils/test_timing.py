"""Compile time is separate from run time, and calls are timed in turn."""

import time

import jax
import jax.numpy as jnp
import pytest

from jaxlm.utils.timing import RecompilationError, benchmark_interleaved, measure_time


def test_measure_time_separates_compiling_from_running():
    function = jax.jit(lambda x: jax.jit(jnp.sin)(x) @ x)
    x = jnp.ones((7, 7))
    with measure_time() as first:
        time.sleep(0.05)
        function(x).block_until_ready()
    with measure_time() as second:
        function(x).block_until_ready()
    jax.jit(lambda x: x * 5)(x).block_until_ready()  # after the blocks
    assert first.compile_seconds > 0
    assert first.run_seconds >= 0.05
    assert first.num_programs == 1
    assert (second.compile_seconds, second.num_programs) == (0, 0)


def test_measure_time_counts_overlapping_spans_once(monkeypatch):
    """The block is 1..10. Spans: -3..2 began before it, 2..4, 3..4 nested, 3.5..6 overlapping, 7..8."""
    clock = iter([1.0, 2.0, 4.0, 4.0, 6.0, 8.0, 10.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    with measure_time() as timing:
        for seconds in (5.0, 2.0, 1.0, 2.5, 1.0):
            jax.monitoring.record_event_duration_secs("/jax/core/compile/some_step", seconds)
        jax.monitoring.record_event_duration_secs("/jax/elsewhere", 100.0)
    assert timing.compile_seconds == (6 - 1) + (8 - 7)
    assert timing.run_seconds == 9 - 6


def test_benchmark_interleaved_takes_turns():
    order = []
    square = jax.jit(lambda x: x * x)

    def call(name):
        order.append(name)
        time.sleep(0.006)  # longer than a sample must last
        return square(jnp.float32(3))

    calls = {name: lambda name=name: call(name) for name in "AB"}
    measured = benchmark_interleaved(calls, repeats=3)
    assert "".join(order) == "AABB" + "AB" * 3
    assert measured["A"].compile_seconds > 0 == measured["B"].compile_seconds
    for each in measured.values():
        assert each.repeats == 3
        assert 0.006 <= each.minimum <= each.median
        assert each.spread >= 0
    order.clear()
    benchmark_interleaved(calls, repeats=2, rest_seconds=1e-3)  # one untimed call after each rest
    assert "".join(order) == "AABB" + "AABB" * 2


def test_benchmark_interleaved_repeats_short_calls():
    count = iter(range(10**9))
    measured = benchmark_interleaved({"next": lambda: next(count)}, repeats=1)["next"]
    assert next(count) > 1000
    assert measured.median < 1e-3


@pytest.mark.parametrize("tracing", [[], ["grows"]])
def test_benchmark_interleaved_refuses_recompilation(tracing):
    sizes = iter(range(1, 100))
    triple = jax.jit(lambda x: x * 3)
    with pytest.raises(RecompilationError, match="grows compiled for"):
        benchmark_interleaved({"grows": lambda: triple(jnp.ones(next(sizes)))}, repeats=2, tracing=tracing)


def test_benchmark_interleaved_allows_tracing():
    def trace():
        time.sleep(0.006)
        jax.jit(lambda x: x + 1).trace(1.0)

    assert benchmark_interleaved({"traces": trace}, repeats=1, tracing=["traces"])["traces"].minimum >= 0.006
    with pytest.raises(RecompilationError, match="traces compiled for"):
        benchmark_interleaved({"traces": trace}, repeats=1)
