"""Times are per unit of work, ratios compare the fastest variants, and a failed compiler excludes one variant."""

import time

import pytest

from experiments.shared.benchmark import Benchmark, Ratio, Variant, compute_ratio, format_benchmarks, run_benchmark


def test_compute_ratio_takes_the_fastest_with_the_prefix():
    variants = {
        "ours": {"median_us": 2.0},
        "theirs, eager": {"median_us": 8.0},
        "theirs, compiled": {"median_us": 5.0},
    }
    assert compute_ratio(Ratio("", "theirs", "ours"), variants) == 2.5
    assert compute_ratio(Ratio("", "theirs", "ours"), variants | {"theirs, compiled": None}) == 4
    assert compute_ratio(Ratio("", "C", "ours"), variants) is None


def test_run_benchmark_divides_by_the_units():
    benchmark = Benchmark("step", {"sleep": Variant(lambda: time.sleep(0.01), 100)})
    outcome = run_benchmark(benchmark, repeats=2)
    figures = outcome["variants"]["sleep"]
    assert 100 <= figures["minimum_us"] <= figures["median_us"] < 1e4
    assert (figures["repeats"], figures["units_per_call"]) == (2, 100)


def test_run_benchmark_skips_a_variant_that_fails_to_compile():
    def fail():
        raise RuntimeError("no C++ compiler\nsecond line")

    variants = {
        "ours": Variant(int, 1),
        "theirs": Variant(int, 1),
        "theirs, slow": Variant(lambda: time.sleep(0.01), 1, True),
        "broken": Variant(fail, 1, True),
    }
    ratios = Ratio("theirs / ours", "theirs", "ours"), Ratio("broken / ours", "broken", "ours")
    messages = []
    outcome = run_benchmark(Benchmark("call", variants, ratios), repeats=1, on_failure=messages.append)
    assert messages == ["broken skipped: RuntimeError: no C++ compiler"]
    assert outcome["variants"]["broken"] is None
    assert outcome["variants"]["theirs, slow"]["compile_seconds"] >= 0.01
    assert list(outcome["ratios"]) == ["theirs / ours", "broken / ours"]
    assert outcome["ratios"]["broken / ours"] is None
    ratio = outcome["variants"]["theirs"]["median_us"] / outcome["variants"]["ours"]["median_us"]
    assert outcome["ratios"]["theirs / ours"] == pytest.approx(ratio)
    text = format_benchmarks({"fit": outcome})
    assert all(part in text for part in ("fit, per call", "broken", "theirs / ours"))
