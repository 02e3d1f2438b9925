"""Compilation is told apart from the rest, and calls are timed against each other."""

import time

import jax
import jax.numpy as jnp
import pytest

from jaxlm.utils.timing import RecompilationError, _length_of_union, benchmark_interleaved, timed


def test_a_first_call_compiles_and_a_second_does_not():
    function = jax.jit(lambda x: jax.jit(jnp.sin)(x) @ x)
    x = jnp.ones((7, 7))
    with timed() as first:
        function(x).block_until_ready()
    with timed() as second:
        function(x).block_until_ready()
    assert first.compile_seconds > 0
    assert second.compile_seconds == 0


def test_the_parts_sum_to_the_wall_time():
    with timed() as timing:
        time.sleep(0.05)
        jax.jit(lambda x: x * 3)(jnp.ones(3)).block_until_ready()
    assert timing.run_seconds >= 0.05
    assert timing.compile_seconds > 0


def test_nothing_is_added_after_the_block():
    with timed() as timing:
        pass
    jax.jit(lambda x: x * 5)(jnp.ones(3)).block_until_ready()
    assert timing.compile_seconds == 0


def test_spans_that_overlap_count_once():
    spans = [(1.0, 2.0), (1.5, 3.0), (1.6, 1.7), (5.0, 6.0), (9.0, 12.0)]
    assert _length_of_union(spans, 0.0, 10.0) == 2.0 + 1.0 + 1.0
    assert _length_of_union([], 0.0, 10.0) == 0


def test_calls_take_turns_and_compiling_stands_apart():
    order = []
    square = jax.jit(lambda x: x * x)

    def call(name):
        order.append(name)
        time.sleep(0.006 if name == "slow" else 0.005)
        return square(jnp.float32(3))

    figures = benchmark_interleaved({name: lambda name=name: call(name) for name in ("slow", "quick")}, repeats=3)
    assert order == ["slow", "slow", "quick", "quick"] + ["slow", "quick"] * 3
    assert figures["slow"].compile_seconds > 0 == figures["quick"].compile_seconds
    for each in figures.values():
        assert each.repeats == 3
        assert 0.005 <= each.minimum <= each.median
        assert each.spread >= 0


def test_short_calls_are_repeated_within_a_sample():
    count = iter(range(10**9))
    benchmark_interleaved({"next": lambda: next(count)}, repeats=1)
    assert next(count) > 1000


def test_compiling_while_timed_is_an_error():
    sizes = iter(range(1, 100))
    triple = jax.jit(lambda x: x * 3)
    with pytest.raises(RecompilationError, match="grows compiled for"):
        benchmark_interleaved({"grows": lambda: triple(jnp.ones(next(sizes)))}, repeats=2)


def test_after_a_rest_a_call_is_made_untimed():
    order = []
    calls = {name: lambda name=name: (order.append(name), time.sleep(0.005)) for name in "AB"}
    benchmark_interleaved(calls, repeats=2, rest_seconds=1e-3)
    assert "".join(order) == "AABB" + "AABB" * 2
