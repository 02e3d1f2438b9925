"""Compile time is separate from run time."""

import time

import jax
import jax.numpy as jnp

from jaxlm.utils.timing import measure_time


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
    assert second.compile_seconds == 0


def test_measure_time_ends_with_its_block(monkeypatch):
    """With jax 0.5.0, which cannot unregister a listener."""
    monkeypatch.delattr(jax.monitoring, "unregister_event_duration_listener", raising=False)
    with measure_time() as timing:
        pass
    jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 1.0)
    assert timing.compile_seconds == 0


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
