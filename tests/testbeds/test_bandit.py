import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rlvr_lib.responses import success_rate
from rlvr_lib.testbeds.bandit import (
    SoftmaxBandit,
    feature_diameter,
    feature_range,
    log_odds_and_gap,
    log_policy,
    token_bandit,
)
from rlvr_lib.theory.gap import gradient_gap, log_odds, policy_gradient

seeds = st.integers(0, 2**32 - 1)


@given(seeds)
@settings(deadline=None)
def test_scores_average_to_zero_and_enumeration_agrees_with_the_exact_gradient(seed):
    bandit = SoftmaxBandit.random(seed, prompts=3)
    for prompt in range(3):
        r = bandit.enumerate(prompt)
        success, gradient = bandit.exact(prompt)
        np.testing.assert_allclose(r.prob @ r.score, 0, atol=1e-12)
        assert success_rate(r) == pytest.approx(success, rel=1e-12)
        np.testing.assert_allclose(policy_gradient(r), gradient, atol=1e-13)


def test_scores_are_finite_differences_of_log_probabilities():
    bandit, step = SoftmaxBandit.random(5), 1e-6
    r = bandit.enumerate()
    for k, e in enumerate(np.eye(4)):
        up, down = (log_policy(bandit.theta + sign * step * e, bandit.features[0]) for sign in (1, -1))
        np.testing.assert_allclose(r.score[:, k], (up - down) / (2 * step), atol=1e-8)


@given(seeds)
@settings(deadline=None)
def test_kernels_broadcast_over_instances_and_parameters(seed):
    rng = np.random.default_rng(seed)
    features, theta = rng.standard_normal((5, 6, 2)), rng.standard_normal((3, 1, 2))
    reward = np.tile([1.0, 1, 0, 0, 0, 0], (5, 1))
    odds, gap = log_odds_and_gap(theta, features, reward)
    assert odds.shape == (3, 5)
    assert gap.shape == (3, 5, 2)
    one = SoftmaxBandit(theta[2, 0], features[4:5], reward[4:5]).enumerate()
    assert odds[2, 4] == pytest.approx(float(log_odds(success_rate(one))), rel=1e-9)
    np.testing.assert_allclose(gap[2, 4], gradient_gap(one), atol=1e-10)


def test_gap_stays_exact_when_success_rounds_to_one():
    features, reward = np.array([[1.0], [0.0], [-1.0]]), np.array([1.0, 0, 0])
    odds, gap = log_odds_and_gap(np.array([800.0]), features, reward)
    assert odds == pytest.approx(800.0)
    np.testing.assert_allclose(gap, [1.0])


def test_ranges_never_exceed_the_diameter():
    features = np.random.default_rng(0).standard_normal((7, 9, 3))
    diameter = feature_diameter(features)
    brute = [max(np.linalg.norm(a - b) for a in f for b in f) for f in features]
    np.testing.assert_allclose(diameter, brute)
    directions = np.random.default_rng(1).standard_normal((7, 3))
    assert (feature_range(features, directions) <= diameter + 1e-12).all()
    np.testing.assert_allclose(feature_range(features, directions), feature_range(features, 5 * directions))


def test_token_sequences_have_the_product_probability():
    token_features, theta = np.random.default_rng(2).standard_normal((3, 2)), np.array([0.4, -1.0])
    bandit = token_bandit(theta, token_features, 4, lambda o: o[:, 0] == 0)
    token = np.exp(token_features @ theta) / np.exp(token_features @ theta).sum()
    r = bandit.enumerate()
    assert len(r) == 3**4
    assert set(r.length) == {4.0}
    assert success_rate(r) == pytest.approx(token[0])
    assert r.prob[0] == pytest.approx(token[0] ** 4)


def test_sample_frequencies_follow_the_policy():
    """A chi-square test over the responses; false-alarm rate 1e-6."""
    bandit, n = SoftmaxBandit.random(8), 40_000
    exact, sample = bandit.enumerate(), bandit.sample(n=n, seed=3)
    counts = [(sample.score == row).all(1).sum() for row in exact.score]
    assert sum(counts) == n
    assert chisquare(counts, n * exact.prob).pvalue > 1e-6
    np.testing.assert_array_equal(sample.prob, np.full(n, 1 / n))


def test_samples_repeat_for_a_seed_and_differ_between_seeds():
    bandit = SoftmaxBandit.random(8)
    draws = [bandit.sample(n=50, seed=seed).score for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


GOOD = {"theta": np.zeros(2), "features": np.ones((1, 3, 2)), "reward": [[1, 0, 0]]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("theta", np.zeros(3)),
        ("theta", [np.nan, 0]),
        ("features", np.ones((3, 2))),
        ("reward", [[1, 0]]),
        ("reward", [[1, 1, 1]]),
        ("reward", [[0.5, 0, 0]]),
        ("offset", [[0.0, 1.0]]),
        ("length", 0),
    ],
)
def test_bad_bandits_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        SoftmaxBandit(**{**GOOD, name: value})


def test_bad_calls_are_named():
    bandit = SoftmaxBandit(**GOOD)
    for prompt in (1, -1, 0.0):
        with pytest.raises(ValueError, match="^prompt must be"):
            bandit.enumerate(prompt)
    with pytest.raises(ValueError, match="^n must be"):
        bandit.sample(n=0)
    with pytest.raises(ValueError, match="^correct must be"):
        SoftmaxBandit.random(0, correct=8)
    with pytest.raises(ValueError, match="^horizon must be"):
        token_bandit(np.zeros(2), np.ones((4, 2)), 12, lambda o: o[:, 0] == 0)
    with pytest.raises(ValueError, match="^reward must be mixed"):
        token_bandit(np.zeros(2), np.ones((4, 2)), 2, lambda o: o[:, 0] >= 0)
