"""Stable rates against the roots of the recursion and against runs, 1a in any direction, the cycle of signs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.preconditioned import (
    adam_scale,
    gaining_rate,
    largest_stable_rate,
    preconditioned_curvature,
    sign_plateau,
)

seeds = st.integers(0, 2**32 - 1)


@given(st.floats(0.01, 100), st.floats(0, 0.99), st.booleans())
def test_stable_rate_is_where_a_root_meets_the_unit_circle(curvature, momentum, averaged):
    rate = largest_stable_rate(curvature, momentum, averaged)
    for factor, stable in ((0.999, True), (1.001, False)):
        c = factor * rate * curvature * ((1 - momentum) if averaged else 1)
        roots = np.roots([1, -(1 + momentum - c), momentum])
        assert (np.abs(roots).max() < 1) == stable


def test_known_factors():
    assert largest_stable_rate(1.0) == 2
    assert largest_stable_rate(4.0, 0.9) == pytest.approx(9.5)
    assert largest_stable_rate(4.0, 0.9, averaged=False) == pytest.approx(0.95)


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_a_run_with_preconditioner_and_momentum(factor):
    rng = np.random.default_rng(0)
    root = rng.standard_normal((5, 5))
    hessian, scale, momentum = -root @ root.T, np.exp(rng.standard_normal(5)), 0.7
    value = preconditioned_curvature(hessian, scale)
    assert value == pytest.approx(np.linalg.eigvals(-np.diag(scale) @ hessian).real.max(), rel=1e-12)
    rate = factor * largest_stable_rate(value, momentum)
    theta, mean = rng.standard_normal(5), np.zeros(5)
    begun = np.linalg.norm(theta)
    for _ in range(2000):
        mean = momentum * mean + (1 - momentum) * (hessian @ theta)
        theta = theta + rate * scale * mean
        if np.linalg.norm(theta) > 1e6 * begun:
            break
    assert (np.linalg.norm(theta) < 1e-3 * begun) == (factor < 1)


@given(seeds)
def test_every_direction_gains_below_its_rate(seed):
    bandit = SoftmaxBandit.random(seed)
    gap, features = bandit.log_odds_and_gap()[1], bandit.features[0]
    scale = np.exp(np.random.default_rng(seed).standard_normal(len(gap)))
    for update in (np.sign(gap), scale * gap):
        rate = gaining_rate(gap, update, features)
        spread = max(abs((a - b) @ update) for a in features for b in features)
        assert rate == pytest.approx(8 * (gap @ update) / spread**2)
        odds = bandit.odds_along(0, update, rate * np.array([0.0, 1e-3, 0.5, 0.999]))
        assert (odds[1:] > odds[0]).all()
        assert odds[2] - odds[0] >= 0.5 * rate / 2 * (gap @ update) * (1 - 1e-9)


def test_downhill_and_flat_updates():
    gap, features = np.array([1.0, 0.0]), np.eye(2)
    assert gaining_rate(gap, -gap, features) == 0
    assert gaining_rate(gap, gap, np.zeros((2, 2))) == np.inf
    assert gaining_rate(gap, np.array([0.0, 1.0]), np.zeros((2, 2))) == 0


@given(st.integers(5, 50), st.floats(0.01, 0.99), st.floats(0.01, 0.3), st.floats(0.1, 5))
def test_signs_end_in_the_cycle(steps, part, rate, curvature):
    position, losses = -rate * (steps + part), []  # a start that meets the maximum itself stays there
    for _ in range(400):
        position += rate * np.sign(-position)
        losses.append(curvature * position**2 / 2)
    low, high = sign_plateau(rate, curvature)
    assert low * (1 - 1e-6) - 1e-12 <= np.mean(losses[-2:]) <= high * (1 + 1e-6) + 1e-12


def test_adam_scale_written_out():
    np.testing.assert_allclose(adam_scale([4.0, 0.0], 0.5), [1 / 2.5, 2.0])


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="momentum must be in"):
        largest_stable_rate(1.0, 1.0)
    with pytest.raises(ValueError, match="curvature must be positive"):
        largest_stable_rate(0.0)
    with pytest.raises(ValueError, match="hessian must be of shape"):
        preconditioned_curvature(np.eye(2), np.ones(3))
    with pytest.raises(ValueError, match="scale must be at least 0"):
        preconditioned_curvature(np.eye(2), -np.ones(2))
    with pytest.raises(ValueError, match="update must be of shape"):
        gaining_rate(np.ones(2), np.ones(3), np.eye(2))
    with pytest.raises(ValueError, match="features must be of shape"):
        gaining_rate(np.ones(2), np.ones(2), np.eye(3))
    with pytest.raises(ValueError, match="rate must be at least 0"):
        sign_plateau(-1.0, 1.0)
    with pytest.raises(ValueError, match="square must be at least 0"):
        adam_scale([-1.0])
    with pytest.raises(ValueError, match="epsilon must be positive"):
        adam_scale([1.0], 0.0)
