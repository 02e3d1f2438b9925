"""Calls are timed in turn, and never while they compile."""

import time

import jax
import jax.numpy as jnp
import pytest

from experiments.shared.interleaved import RecompilationError, benchmark_interleaved


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
