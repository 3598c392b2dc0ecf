import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lib import (
    Responses,
    gap_alignment,
    gradient_gap,
    half_gain_step,
    log_odds,
    policy_gradient,
    success_lower_bound,
    success_rate,
)
from rlvr_lib.responses import conditional_covariances
from rlvr_lib.testbeds.bandit import SoftmaxBandit

probabilities = st.floats(1e-6, 1 - 1e-6)
seeds = st.integers(0, 2**32 - 1)


def responses(seed, n=7, d=3, exact=True):
    rng = np.random.default_rng(seed)
    reward = rng.permutation(np.arange(n) < rng.integers(1, n))
    return Responses(reward, rng.standard_normal((n, d)), rng.dirichlet(np.ones(n)) if exact else None)


@given(seeds, st.booleans())
def test_gradient_is_variance_times_gap_on_populations_and_samples(seed, exact):
    r = responses(seed, exact=exact)
    J = success_rate(r)
    np.testing.assert_allclose(policy_gradient(r), J * (1 - J) * gradient_gap(r), atol=1e-12)


def test_policy_gradient_vanishes_without_mixed_rewards():
    np.testing.assert_array_equal(policy_gradient(Responses([1, 1], [[1.0], [3.0]])), [0.0])


@given(seeds, st.floats(1e-150, 1e150))
def test_alignment_is_free_of_the_length_of_the_direction(seed, length):
    r = responses(seed)
    direction = np.random.default_rng(seed + 1).standard_normal(3)
    unit = direction / math.sqrt(sum(x * x for x in direction))
    assert gap_alignment(r, length * direction) == pytest.approx(float(unit @ gradient_gap(r)), rel=1e-9, abs=1e-12)


@given(seeds)
def test_curvature_of_the_log_odds_is_a_difference_of_covariances(seed):
    """Of a log-linear policy, by differences of the gap in every direction."""
    bandit, h = SoftmaxBandit.random(seed), 1e-5
    right, wrong = conditional_covariances(bandit.enumerate())
    gaps = [[bandit.at(bandit.theta + s * e).log_odds_and_gap()[1] for s in (-h, h)] for e in np.eye(4)]
    np.testing.assert_allclose(right - wrong, [(b - a) / (2 * h) for a, b in gaps], atol=1e-6)


@pytest.mark.parametrize("direction", [[0.0, 0.0, 0.0], [1.0, 0.0], [np.nan, 0, 1], [[1.0, 0, 0]]])
def test_bad_directions_are_refused(direction):
    with pytest.raises(ValueError, match="^direction must be"):
        gap_alignment(responses(0), direction)


@given(probabilities)
def test_log_odds_inverts_the_logistic_function(p):
    assert 1 / (1 + math.exp(-log_odds(p))) == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("p", [0, 1, -0.1, 1.1, np.nan, [0.5, 1.0]])
def test_log_odds_refuses_what_is_no_open_probability(p):
    with pytest.raises(ValueError, match="^p must be"):
        log_odds(p)


@given(seeds)
def test_half_gain_step_keeps_half_of_the_gain(seed):
    bandit = SoftmaxBandit.random(seed)
    direction = np.random.default_rng(seed + 1).standard_normal(4)
    alignment = gap_alignment(bandit.enumerate(), direction)
    if alignment <= 0:
        direction, alignment = -direction, -alignment
    unit = direction / np.linalg.norm(direction)
    diameter = max(np.linalg.norm(a - b) for a in bandit.features[0] for b in bandit.features[0])
    eta = half_gain_step(alignment, diameter)
    assert eta == pytest.approx(4 * alignment / diameter**2)
    gain = log_odds(bandit.at(bandit.theta + eta * unit).exact()[0]) - log_odds(bandit.exact()[0])
    assert gain >= eta * alignment / 2 - 1e-9


def test_half_gain_step_is_zero_against_the_gap_and_elementwise():
    np.testing.assert_allclose(half_gain_step([-1.0, 0.0, 3.0], 2.0), [0, 0, 3])
    for diameter in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="^diameter must be"):
            half_gain_step(1.0, diameter)


@given(probabilities, st.floats(0, 50))
def test_lower_bound_moves_the_log_odds_by_half_of_the_progress(initial, progress):
    bound = success_lower_bound(initial, progress)
    odds = bound / (1 - bound) if bound < 1 else math.inf
    assert bound >= initial * (1 - 1e-12)
    if bound < 1 - 1e-9:
        assert odds == pytest.approx(initial / (1 - initial) * math.exp(progress / 2), rel=1e-6)


@pytest.mark.parametrize(("name", "arguments"), [("initial_success", (0.0, 1.0)), ("progress", (0.5, -1.0))])
def test_lower_bound_refuses_what_the_theorem_does_not_cover(name, arguments):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        success_lower_bound(*arguments)
