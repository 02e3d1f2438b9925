"""Compilation is told apart from the rest."""

import time

import jax
import jax.numpy as jnp

from jaxlm.timing import _length_of_union, timed


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
