"""Intervals against the set that Fieller's theorem defines, the delta method against differences, and coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm
from scipy.stats import t as student

from rlvr_lib.theory.confidence import (
    RateInterval,
    correct_responses_needed,
    fieller_interval,
    measured_rate,
    relative_rate_error,
)
from rlvr_lib.theory.threshold import AlongStep

COVARIANCE = np.array([[0.01, 0.004], [0.004, 0.09]])


@given(st.floats(0.25, 3), st.floats(-4, 4), st.floats(0.5, 0.97))
def test_ends_are_where_the_statistic_meets_the_quantile(slope, curvature, level):
    quantile = norm.ppf((1 + level) / 2)
    interval = fieller_interval(slope, curvature, COVARIANCE, level)
    if slope**2 <= quantile**2 * 0.01:
        assert interval is None
        return
    for end in interval:
        if math.isfinite(end):
            q = 2 / end
            variance = 0.09 - 2 * q * 0.004 + q**2 * 0.01
            assert (curvature - q * slope) ** 2 == pytest.approx(quantile**2 * variance, rel=1e-6)
    if curvature > 1e-3:
        assert interval.low <= 2 * slope / curvature <= interval.high


def test_known_cases():
    exact = fieller_interval(1.0, 4.0, np.zeros((2, 2)))
    assert exact == RateInterval(0.5, 0.5)
    assert fieller_interval(1.0, -4.0, np.zeros((2, 2))) == RateInterval(math.inf, math.inf)
    assert fieller_interval(-1.0, 4.0, COVARIANCE) == RateInterval(0.0, 0.0)
    assert fieller_interval(0.0, 4.0, COVARIANCE) is None
    flat = fieller_interval(1.0, 0.1, COVARIANCE)
    assert 0 < flat.low < 20 < flat.high == math.inf
    wider = fieller_interval(1.0, 4.0, COVARIANCE, freedom=3)
    narrow = fieller_interval(1.0, 4.0, COVARIANCE)
    assert wider.low < narrow.low < narrow.high < wider.high
    level = 2 * norm.cdf(student.ppf(0.975, 3)) - 1
    assert wider == pytest.approx(fieller_interval(1.0, 4.0, COVARIANCE, level))


def test_coverage_is_the_level_where_estimates_are_normal():
    # The check fails by chance with probability 1e-9.
    rng, runs = np.random.default_rng(0), 4000
    drawn = rng.multivariate_normal([0.25, 0.5], COVARIANCE, runs)
    ruled_out = 0
    for slope, curvature in drawn:
        interval = fieller_interval(slope, curvature, COVARIANCE, 0.9)
        ruled_out += interval is not None and not interval.low <= 1.0 <= interval.high
    assert ruled_out <= binom.isf(1e-9, runs, 0.1)


def test_relative_error_is_the_spread_of_the_ratio():
    slope, curvature, small = 1.0, 4.0, 1e-6 * COVARIANCE
    drawn = np.random.default_rng(1).multivariate_normal([slope, curvature], small, 200_000)
    spread = np.std(drawn[:, 0] / drawn[:, 1]) / (slope / curvature)
    assert relative_rate_error(slope, curvature, small) == pytest.approx(spread, rel=0.02)
    both = relative_rate_error([1.0, 2.0], [4.0, 4.0], np.stack([small, small]))
    assert both.shape == (2,)


def test_measured_rate_pools_prompts():
    rng = np.random.default_rng(2)
    success, slope, second = rng.uniform(0.2, 0.6, 9), rng.normal(0.5, 0.1, 9), rng.normal(-1, 0.2, 9)
    rate = measured_rate(success, slope, second)
    pooled = AlongStep(success.mean(), slope.mean(), second.mean())
    assert rate.critical == pytest.approx(pooled.critical_step, rel=1e-12)
    assert rate.freedom == 8
    rows, moved = np.array([success, slope, second]), []

    def both(mean):
        return np.array([mean[1], mean[1] ** 2 / mean[0] - mean[2]])

    for k in range(3):
        step = 1e-6 * np.eye(3)[k]
        moved.append((both(rows.mean(1) + step) - both(rows.mean(1) - step)) / 2e-6)
    slopes = np.array(moved).T
    np.testing.assert_allclose(rate.covariance, slopes @ np.cov(rows) @ slopes.T / 9, rtol=1e-6)
    interval = rate.interval(0.9)
    assert interval == fieller_interval(rate.slope, rate.curvature, rate.covariance, 0.9, 8)
    assert interval.low < rate.critical < interval.high
    assert measured_rate(success, -slope, second).critical == 0
    assert measured_rate(success, slope, -5 * second).critical is None


def test_correct_responses_needed_for_normal_slopes():
    needed = correct_responses_needed(3.0, 1.0, 0.2)
    assert needed == pytest.approx(450)
    drawn = np.random.default_rng(3).normal(0, 3**0.5, (4000, round(float(needed))))
    error = np.std(drawn.var(axis=1, ddof=1)) / 1.0
    assert error == pytest.approx(0.2, rel=0.1)
    assert correct_responses_needed(0.0, 1.0) == 0


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="level must be strictly between"):
        fieller_interval(1.0, 1.0, COVARIANCE, 1.0)
    with pytest.raises(ValueError, match="covariance must be of shape"):
        fieller_interval(1.0, 1.0, np.eye(3))
    with pytest.raises(ValueError, match="covariance must be symmetric"):
        fieller_interval(1.0, 1.0, [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="freedom must be positive"):
        fieller_interval(1.0, 1.0, COVARIANCE, freedom=0)
    with pytest.raises(ValueError, match="success must be of at least three prompts"):
        measured_rate([0.5, 0.5], [1.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="slope must be of shape"):
        measured_rate([0.5, 0.5, 0.5], [1.0, 1.0], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="success must be above 0"):
        measured_rate(np.zeros(3), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="curvature must be not 0"):
        relative_rate_error(1.0, 0.0, COVARIANCE)
    with pytest.raises(ValueError, match="slope must be not 0"):
        relative_rate_error(0.0, 1.0, COVARIANCE)
    with pytest.raises(ValueError, match="error must be positive"):
        correct_responses_needed(1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="variance must be at least 0"):
        correct_responses_needed(-1.0, 1.0)
