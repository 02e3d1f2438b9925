"""Tables align their columns, and intervals are Student's."""

import math

import pytest

from experiments.shared.report import format_table, mean_and_interval


def test_format_table_aligns_text_left_and_figures_right():
    text = format_table(["a", "figure"], [["[red]", "1"], ["b", "-10"], ["c"]])
    assert [line.split() for line in text.splitlines()[-3:]] == [["[red]", "1"], ["b", "-10"], ["c"]]
    assert len({len(line) for line in text.splitlines()[:-1]}) == 1
    wide = format_table(["a"], [["word " * 60]])
    assert "word " * 59 in wide


def test_mean_and_interval_is_students():
    """12.7062 and 2.7764 are the 97.5 % quantiles of t with one and four degrees of freedom."""
    assert mean_and_interval([1.0, 4.0]) == pytest.approx((2.5, 12.7062 * 1.5), rel=1e-5)
    assert mean_and_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3, 2.7764 * 2.5**0.5 / 5**0.5), rel=1e-4)


def test_mean_and_interval_is_infinite_without_a_spread():
    assert mean_and_interval([5.0]) == (5.0, math.inf)
