"""Times are per unit of work, ratios meet their targets or not, and a compiler that fails excludes one variant."""

import time

import pytest

from experiments.shared.benchmark import (
    Benchmark,
    RatioTarget,
    Variant,
    check_target,
    first_call_overhead,
    format_benchmarks,
    run_benchmark,
)

VARIANTS = {
    "ours": {"median_us": 2.0, "minimum_us": 1.0},
    "theirs, eager": {"median_us": 8.0, "minimum_us": 6.0},
    "theirs, compiled": {"median_us": 5.0, "minimum_us": 4.5},
}


@pytest.mark.parametrize(
    ("bound", "at_most", "met"), [(2.5, False, True), (2.6, False, False), (2.5, True, True), (2.4, True, False)]
)
def test_check_target_compares_the_ratio_of_medians(bound, at_most, met):
    outcome = check_target(RatioTarget("theirs / ours", "theirs", "ours", bound, at_most), VARIANTS)
    assert (outcome["fastest"], outcome["ratio"], outcome["ratio_of_minima"]) == ("theirs, compiled", 2.5, 4.5)
    assert outcome["met"] is met


def test_check_target_without_measurement_is_none():
    outcome = check_target(RatioTarget("C / ours", "C", "ours", 2), VARIANTS)
    assert outcome["ratio"] is outcome["ratio_of_minima"] is outcome["met"] is None


def test_run_benchmark_divides_by_the_units():
    benchmark = Benchmark("step", {"sleep": Variant(lambda: time.sleep(0.01), 100)})
    figures = run_benchmark(benchmark, repeats=2)["variants"]["sleep"]
    assert 100 <= figures["minimum_us"] <= figures["median_us"] < 1e4
    assert (figures["repeats"], figures["units_per_call"]) == (2, 100)


def test_run_benchmark_skips_a_variant_that_fails_to_compile():
    def fail():
        raise RuntimeError("no C++ compiler\nsecond line")

    variants = {"ours": Variant(int, 1), "theirs": Variant(int, 1), "theirs, compiled": Variant(fail, 1, True)}
    targets = RatioTarget("theirs / ours", "theirs", "ours", 0), RatioTarget("x", "theirs, compiled", "ours", 0)
    messages = []
    outcome = run_benchmark(Benchmark("call", variants, targets), repeats=1, on_failure=messages.append)
    assert messages == ["theirs, compiled skipped: RuntimeError: no C++ compiler"]
    assert outcome["variants"]["theirs, compiled"] is None
    assert [target["met"] for target in outcome["targets"]] == [True, None]
    assert " - " in format_benchmarks({"fit": outcome})


def test_first_call_overhead_is_the_difference_of_two_calls(monkeypatch):
    ticks, calls = iter([10.0, 13.0, 20.0, 20.5]), []
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    assert first_call_overhead(lambda: calls.append(None)) == 2.5
    assert len(calls) == 2


def test_format_benchmarks_lists_variants_and_targets():
    variants = {"ours": Variant(int, 1), "theirs": Variant(int, 1)}
    with_target = Benchmark("call", variants, (RatioTarget("theirs / ours", "theirs", "ours", 1e9),))
    text = format_benchmarks({"fit": run_benchmark(with_target, repeats=1)})
    for part in ("fit, per call", "theirs", "at least 1e+09", "NO"):
        assert part in text
    assert "target" not in format_benchmarks({"fit": run_benchmark(Benchmark("call", variants), repeats=1)})
