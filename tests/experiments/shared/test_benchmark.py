"""Variants are timed in turn, per unit of work, and never while they compile; ratios compare the fastest."""

import io
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from experiments.shared import benchmark
from experiments.shared.benchmark import (
    Benchmark,
    Ratio,
    Variant,
    compute_ratio,
    run_benchmarks,
    time_variants,
)
from experiments.shared.experiment import RunContext


def test_time_variants_takes_turns():
    order = []
    square = jax.jit(lambda x: x * x)

    def call(name):
        order.append(name)
        time.sleep(0.006)  # longer than a sample must last
        return square(jnp.float32(3))

    variants = {name: Variant(lambda name=name: call(name), 2) for name in "AB"}
    measured = time_variants(variants, repeats=3)
    assert "".join(order) == "AABB" + "AB" * 3
    assert measured["A"]["compile_seconds"] > 0 == measured["B"]["compile_seconds"]
    for each in measured.values():
        assert (each["repeats"], each["units_per_call"]) == (3, 2)
        assert 3000 <= each["minimum_us"] <= each["median_us"]
        assert each["spread_us"] >= 0
    order.clear()
    time_variants(variants, repeats=2, rest_seconds=1e-3)  # one untimed call after each rest
    assert "".join(order) == "AABB" + "AABB" * 2


def test_time_variants_repeats_short_calls(monkeypatch):
    """A sample of 5 ms has 8,192 calls of 1 us: the number is doubled until they take long enough."""
    loops = []

    def run(call, count=1):
        loops.append(count)
        return count * 1e-6

    monkeypatch.setattr(benchmark, "_run", run)
    time_variants({"next": Variant(lambda: None, 1)}, repeats=1)
    assert loops[-1] == 2**13


def test_time_variants_refuses_compilation_unless_it_traces():
    sizes = iter(range(1, 100))
    triple = jax.jit(lambda x: x * 3)
    growing = Variant(lambda: triple(jnp.ones(next(sizes))), 1)
    with pytest.raises(ValueError, match="grows compiled for"):
        time_variants({"grows": growing}, repeats=2)
    assert time_variants({"grows": growing._replace(traces=True)}, repeats=2)["grows"]["median_us"] > 0


def test_compute_ratio_takes_the_fastest_with_the_prefix():
    variants = {
        "ours": {"median_us": 2.0},
        "theirs, eager": {"median_us": 8.0},
        "theirs, compiled": {"median_us": 5.0},
    }
    assert compute_ratio(Ratio("", "theirs", "ours"), variants) == 2.5
    assert compute_ratio(Ratio("", "theirs", "ours"), variants | {"theirs, compiled": {"error": ""}}) == 4
    assert compute_ratio(Ratio("", "C", "ours"), variants) is None


def test_run_benchmarks_keeps_the_error_of_a_variant():
    def fail():
        raise RuntimeError("no C++ compiler\nsecond line")

    variants = {
        "ours": Variant(int, 1),
        "theirs": Variant(int, 1),
        "theirs, slow": Variant(lambda: time.sleep(0.01), 1, True),
        "broken": Variant(fail, 1, True),
    }
    ratios = Ratio("theirs / ours", "theirs", "ours"), Ratio("broken / ours", "broken", "ours")
    console = Console(file=io.StringIO(), width=100)
    build = partial(Benchmark, "call", variants, ratios)
    findings = run_benchmarks({"fit": build}, RunContext(Path(), jax.devices()[0], console), repeats=1)
    assert "broken failed: RuntimeError: no C++ compiler\n" in console.file.getvalue()
    outcome = findings.results["rows"]["fit"]
    assert outcome["variants"]["broken"] == {"error": "RuntimeError: no C++ compiler"}
    assert outcome["variants"]["theirs, slow"]["compile_seconds"] >= 0.01
    assert list(outcome["ratios"]) == ["theirs / ours", "broken / ours"]
    assert outcome["ratios"]["broken / ours"] is None
    ratio = outcome["variants"]["theirs"]["median_us"] / outcome["variants"]["ours"]["median_us"]
    assert outcome["ratios"]["theirs / ours"] == pytest.approx(ratio)
    assert all(part in findings.table for part in ("fit, per call", "broken", "theirs / ours"))
    variants["broken"] = Variant(fail, 1)
    with pytest.raises(RuntimeError, match="no C"):
        time_variants(variants, repeats=1)
