"""The coin lemma against automatic differentiation, and graded groups against the enumeration of all of them."""

import doctest
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import rlvr_lib.theory.graded
from rlvr_lib.responses import Responses, conditional_covariances, success_rate
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.advantages import group_advantages, group_gain
from rlvr_lib.theory.baseline import optimal_baseline
from rlvr_lib.theory.gap import gradient_gap
from rlvr_lib.theory.graded import (
    coin_responses,
    expected_advantages,
    noisy_gap_factor,
    noisy_rate_factor,
    noisy_success,
    true_success,
)

seeds = st.integers(0, 2**32 - 1)
rates = st.tuples(st.floats(0, 0.49), st.floats(0, 0.49))


def graded(seed, arms=6, dimension=3):
    """Features, parameters and rewards of a log-linear policy; the first two rewards are 0 and 1."""
    rng = np.random.default_rng(seed)
    reward = np.concatenate([[0.0, 1.0], rng.uniform(size=arms - 2)])
    return rng.standard_normal((arms, dimension)), rng.standard_normal(dimension), reward


def responses_of(features, theta, reward):
    prob = np.exp(features @ theta)
    prob /= prob.sum()
    return coin_responses(reward, features - prob @ features, prob)


def test_examples():
    assert doctest.testmod(rlvr_lib.theory.graded).failed == 0


@given(seeds)
def test_gap_and_curvature_of_coins_are_those_of_the_log_odds_of_the_mean_reward(seed):
    features, theta, reward = graded(seed)

    def odds(theta):
        return torch.logit(torch.softmax(torch.tensor(features) @ theta, 0) @ torch.tensor(reward))

    r, at = responses_of(features, theta, reward), torch.tensor(theta, requires_grad=True)
    (gap,) = torch.autograd.grad(odds(at), at, create_graph=True)
    curvature = torch.stack([torch.autograd.grad(slope, at, retain_graph=True)[0] for slope in gap])
    prob = np.exp(features @ theta)
    assert success_rate(r) == pytest.approx(prob @ reward / prob.sum(), rel=1e-12)
    np.testing.assert_allclose(gradient_gap(r), gap.detach(), atol=1e-10)
    right, wrong = conditional_covariances(r)
    np.testing.assert_allclose(right - wrong, curvature, atol=1e-9)


def test_coins_leave_binary_rewards_alone_and_take_the_rest_along():
    score, length = np.arange(6.0).reshape(3, 2), [4.0, 5.0, 6.0]
    r = coin_responses([1.0, 0.0, 0.25], score, [0.5, 0.25, 0.25], length)
    np.testing.assert_array_equal(r.reward, [1, 1, 0, 0])
    np.testing.assert_allclose(r.prob, [0.5, 0.0625, 0.25, 0.1875])
    np.testing.assert_array_equal(r.score, score[[0, 2, 1, 2]])
    np.testing.assert_array_equal(r.length, [4, 6, 5, 6])
    sampled = coin_responses([1.0, 0.0], score[:2])
    np.testing.assert_array_equal(sampled.prob, [0.5, 0.5])


@given(seeds)
def test_graded_rewards_are_less_noisy_than_their_coins_and_have_their_baseline(seed):
    features, theta, reward = graded(seed)
    r, prob = responses_of(features, theta, reward), np.exp(features @ theta)
    prob /= prob.sum()
    energy = ((features - prob @ features) ** 2).sum(1)
    best = prob @ (reward * energy) / (prob @ energy)
    assert optimal_baseline(r) == pytest.approx(best, rel=1e-9)
    coins = r.prob @ ((r.reward - best) ** 2 * r.energy)
    more = prob @ (reward * (1 - reward) * energy)
    assert coins == pytest.approx(prob @ ((reward - best) ** 2 * energy) + more, rel=1e-9)


@pytest.mark.parametrize("reward", [[0.5, 1.1], [-0.1, 0.5], [[0.5, 0.5]], [np.nan, 0.5], [0.5]])
def test_rewards_that_are_no_probabilities_of_coins_are_refused(reward):
    with pytest.raises(ValueError, match="^(reward|score) must be"):
        coin_responses(reward, [[1.0], [2.0]])


@given(seeds, rates)
def test_a_verifier_that_errs_shortens_the_gap_and_keeps_its_direction(seed, rates):
    features, theta, reward = graded(seed)
    b, a = rates
    right = np.round(reward)
    exact, noisy = (responses_of(features, theta, r) for r in (right, a + (1 - a - b) * right))
    J = success_rate(exact)
    assert success_rate(noisy) == pytest.approx(noisy_success(J, b, a), rel=1e-12)
    assert true_success(noisy_success(J, b, a), b, a) == pytest.approx(J, abs=1e-12)
    factor = noisy_gap_factor(J, b, a)
    assert 0 < factor <= 1 + 1e-12
    np.testing.assert_allclose(gradient_gap(noisy), factor * gradient_gap(exact), atol=1e-9)


@pytest.mark.parametrize("size", [None, 2, 8])
@pytest.mark.parametrize("estimator", ["reinforce", "grpo"])
def test_the_critical_rate_grows_as_the_update_shrinks(estimator, size):
    """By the mean advantage of a right over a wrong response, enumerated over the numbers of accepted others."""
    J, b, a, G = 0.3, 0.2, 0.1, 400 if size is None else size

    def lift(success, keep):  # of the mean advantage, by being right
        k = np.arange(G)
        chance, mean = binom.pmf(k, G - 1, success), {}
        for own in (0, 1):
            share = (k + own) / G
            spread = np.sqrt(share * (1 - share)) if estimator == "grpo" else np.ones(G)
            mean[own] = chance @ np.divide(own - share, spread, out=np.zeros(G), where=spread > 0)
        return keep * (mean[1] - mean[0])

    expected = lift(J, 1.0) / lift(a + (1 - a - b) * J, 1 - a - b)
    found = noisy_rate_factor(J, b, a, estimator, size)
    assert found == pytest.approx(expected, rel=2e-2 if size is None and estimator == "grpo" else 1e-9)
    if estimator == "reinforce":
        assert found == pytest.approx(1 / (1 - a - b))


def test_sample_deviations_cancel_in_the_rate_factor():
    assert noisy_rate_factor(0.3, 0.1, 0.1, "grpo", 4, True) == pytest.approx(
        noisy_rate_factor(0.3, 0.1, 0.1, "grpo", 4)
    )


@pytest.mark.parametrize("function", [noisy_success, true_success, noisy_gap_factor, noisy_rate_factor])
def test_a_verifier_must_do_better_than_chance(function):
    for b, a, name in (
        (0.5, 0.5, "false_negative . false_positive"),
        (-0.1, 0, "false_negative"),
        (0, 1.2, "false_pos"),
    ):
        with pytest.raises(ValueError, match=f"^{name}"):
            function(0.5, b, a)
    with pytest.raises(ValueError, match="^(success|noisy) must be"):
        function(1.5, 0.1, 0.1)


def enumerated(reward, prob, G, power, bessel):
    """Mean advantages over all n^G groups of responses, one by one."""
    total = np.zeros(len(reward))
    for group in itertools.product(range(len(reward)), repeat=G):
        drawn = reward[list(group)]
        spread = drawn.std(ddof=int(bessel)) if len(set(drawn)) > 1 else 0.0
        if spread > 0:
            advantage = (drawn - drawn.mean()) / spread**power
            np.add.at(total, list(group), prob[list(group)].prod() * advantage / G)
    return total / prob


@pytest.mark.parametrize("bessel", [False, True])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("G", [2, 3, 4])
def test_mean_advantages_are_those_of_all_groups(G, power, bessel):
    reward, prob = np.array([0.0, 0.25, 1.0, 0.25]), np.array([0.1, 0.3, 0.2, 0.4])
    found = expected_advantages(reward, prob, G, power, bessel)
    np.testing.assert_allclose(found, enumerated(reward, prob, G, power, bessel), atol=1e-12)
    if power == 0:
        np.testing.assert_allclose(found, (1 - 1 / G) * (reward - prob @ reward), atol=1e-12)


def test_mean_advantages_of_large_groups_and_of_equal_rewards():
    reward, prob = np.array([0.0, 0.5, 1.0]), np.array([0.2, 0.5, 0.3])
    limit = expected_advantages(reward, prob, None)
    assert prob @ limit == pytest.approx(0)
    assert prob @ limit**2 == pytest.approx(1)
    np.testing.assert_allclose(expected_advantages(reward, prob, 500), limit, atol=0.02)
    for G in (None, 4):
        np.testing.assert_array_equal(expected_advantages([0.5, 0.5], [0.5, 0.5], G), [0, 0])


@given(seeds, st.integers(2, 6), st.booleans())
def test_two_levels_of_reward_turn_nothing(seed, G, bessel):
    """GRPO does not see their size, so its update is the one of right and wrong answers."""
    bandit = SoftmaxBandit.random(seed)
    r = bandit.enumerate()
    update = (r.prob * expected_advantages(0.3 + 0.2 * r.reward, r.prob, G, 1.0, bessel)) @ r.score
    gain = group_gain(success_rate(r), G, bessel=bessel)
    np.testing.assert_allclose(update, gain * gradient_gap(r), atol=1e-9)


def test_binary_rewards_have_the_advantages_of_the_library():
    reward, G = np.array([0.0, 1.0]), 5
    patterns = np.array(list(itertools.product([0, 1], repeat=G)))
    chance = np.where(patterns, 0.3, 0.7).prod(1)
    for estimator, power in (("dr_grpo", 0), ("grpo", 1), ("grpo_variance", 2)):
        advantage = group_advantages(patterns, estimator)
        expected = [(chance[:, None] * advantage * (patterns == own)).sum() / G / p for own, p in ((0, 0.7), (1, 0.3))]
        np.testing.assert_allclose(expected_advantages(reward, [0.7, 0.3], G, power), expected, atol=1e-12)


def test_what_cannot_be_enumerated_is_refused():
    reward, prob = np.linspace(0, 1, 30), np.full(30, 1 / 30)
    with pytest.raises(ValueError, match="^group_size must be at most 1000000"):
        expected_advantages(reward, prob, 16)
    for arguments, name in (
        ((reward, prob, 1), "group_size"),
        ((reward, prob, 4, 3.0), "power"),
        ((reward, 2 * prob, 4), "prob"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            expected_advantages(*arguments)
    with pytest.raises(ValueError, match="^score must be"):
        Responses([1, 0], [[1.0]])
