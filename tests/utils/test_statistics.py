"""Intervals are Student's."""

import math

import pytest

from jaxlm.utils.statistics import mean_and_interval


def test_mean_and_interval_is_students():
    """12.7062 and 2.7764 are the 97.5 % quantiles of t with one and four degrees of freedom."""
    assert mean_and_interval([1.0, 4.0]) == pytest.approx((2.5, 12.7062 * 1.5), rel=1e-5)
    assert mean_and_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3, 2.7764 * 2.5**0.5 / 5**0.5), rel=1e-4)


def test_mean_and_interval_is_infinite_without_a_spread():
    assert mean_and_interval([5.0]) == (5.0, math.inf)
    assert mean_and_interval([1e200, 3e200]) == (2e200, math.inf)  # without a warning
