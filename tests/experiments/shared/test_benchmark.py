"""Contestants are timed, ratios follow from the figures, and a compiler that fails costs its contestant alone."""

import time

import pytest

from experiments.shared import benchmark as contest
from experiments.shared.benchmark import (
    Claim,
    Contestant,
    Row,
    check,
    first_call_seconds,
    measure,
    quickest,
    table_text,
)
from jaxlm.utils.timing import Measurement

FIGURES = {
    "ours": {"median_us": 2.0, "minimum_us": 1.0},
    "theirs, eager": {"median_us": 8.0, "minimum_us": 6.0},
    "theirs, compiled": {"median_us": 5.0, "minimum_us": 4.5},
}


def test_the_quickest_of_those_that_begin_so_counts():
    assert quickest(FIGURES, "theirs") == "theirs, compiled"
    assert quickest(FIGURES, "ours") == "ours"
    assert quickest(FIGURES, "nobody") is None


@pytest.mark.parametrize(
    ("bound", "at_most", "holds"), [(2.5, False, True), (2.6, False, False), (2.5, True, True), (2.4, True, False)]
)
def test_a_ratio_is_held_against_its_bound(bound, at_most, holds):
    checked = check(Claim("theirs / ours", "theirs", "ours", bound, at_most), FIGURES)
    assert checked["quickest"] == "theirs, compiled"
    assert checked["ratio"] == 2.5
    assert checked["ratio_of_minima"] == 4.5
    assert checked["holds"] is holds


def test_a_claim_about_one_who_is_missing_stays_open():
    checked = check(Claim("C / ours", "C", "ours", 2), FIGURES)
    assert checked["ratio"] is checked["ratio_of_minima"] is checked["holds"] is None


def test_figures_are_microseconds_a_unit(monkeypatch):
    timed = Measurement(median=2e-3, minimum=1e-3, spread=5e-4, repeats=7, compile_seconds=0.25)
    monkeypatch.setattr(contest, "time_interleaved", lambda calls, **options: dict.fromkeys(calls, timed))
    row = Row("step", {"ours": Contestant(int, 100)}, ())
    assert measure(row, repeats=7, rest_seconds=0.0)["contestants"]["ours"] == {
        "median_us": pytest.approx(20),
        "minimum_us": pytest.approx(10),
        "spread_us": pytest.approx(5),
        "repeats": 7,
        "units_per_call": 100,
        "compile_seconds": 0.25,
    }


def test_a_compiler_that_fails_costs_its_contestant_alone():
    def fails():
        raise RuntimeError("no C++ compiler\nsecond line")

    told = []
    row = Row(
        "call",
        {"ours": Contestant(int, 1), "theirs": Contestant(int, 1), "theirs, compiled": Contestant(fails, 1, True)},
        (Claim("theirs / ours", "theirs", "ours", 0), Claim("compiled / ours", "theirs, compiled", "ours", 0)),
    )
    measured = measure(row, repeats=1, rest_seconds=0.0, on_failure=told.append)
    assert told == ["theirs, compiled goes without: RuntimeError: no C++ compiler"]
    assert measured["contestants"]["theirs, compiled"] is None
    assert [claim["holds"] for claim in measured["claims"]] == [True, None]
    assert " - " in table_text({"job": measured})


def test_a_foreign_compiler_is_timed_by_its_first_call(monkeypatch):
    ticks, calls = iter([10.0, 13.0, 20.0, 20.5]), []
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    assert first_call_seconds(lambda: calls.append(None)) == 2.5
    assert len(calls) == 2


def test_the_tables_name_every_job_contestant_and_claim():
    row = Row(
        "call", {"ours": Contestant(int, 1), "theirs": Contestant(int, 1)}, (Claim("x", "theirs", "ours", 1e9),)
    )
    text = table_text({"fit": measure(row, repeats=1, rest_seconds=0.0)})
    assert "fit, a call" in text
    assert "theirs" in text
    assert "at least 1e+09" in text
    assert "NO" in text


def test_without_claims_there_is_no_table_of_them():
    row = Row("call", {"ours": Contestant(int, 1)}, ())
    text = table_text({"fit": measure(row, repeats=1, rest_seconds=0.0)})
    assert "ours" in text
    assert "wanted" not in text
