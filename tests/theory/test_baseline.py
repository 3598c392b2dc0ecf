"""Theorem 5 against sums over all outcomes of a group, written-out loops and limits.

Everything is exact up to rounding; random bandits only choose the instances.
"""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from rlvr_lib.responses import Responses, score_energies, success_rate
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.baseline import (
    LaggedBaseline,
    baseline_loss,
    critical_energy_ratio,
    energy_ratio,
    gradient_variance,
    leave_one_out_baselines,
    leave_one_out_loss,
    leave_one_out_variance,
    mean_baseline_loss,
    mean_of_others,
    optimal_baseline,
    pooled_baselines,
    token_energies,
)
from rlvr_lib.theory.gap import policy_gradient
from rlvr_lib.theory.signal import squared_signal

seeds = st.integers(0, 2**32 - 1)
open_unit = st.floats(1e-6, 1 - 1e-6)
ratios = st.floats(1e-3, 1e3)


def bandit_responses(seed, arms=4, correct=2):
    return SoftmaxBandit.random(seed, arms=arms, dimension=3, correct=correct).enumerate()


def tabular(J, correct, wrong):
    """A tabular softmax with equally likely correct and equally likely wrong arms."""
    arms = correct + wrong
    reward = (np.arange(arms) < correct).astype(float)
    prob = np.where(reward == 1, J / correct, (1 - J) / wrong)
    return Responses(reward, np.eye(arms) - prob, prob)


def energies(r):
    return (r.score**2).sum(1)


def second_moment(r, baseline):
    return r.prob @ ((r.reward - baseline) ** 2 * energies(r))


class Groups:
    """Every ordered group of ``size`` responses: probability [o], reward and energy [o, size], score [o, size, d]."""

    def __init__(self, r, size):
        arms = np.array(list(itertools.product(range(len(r)), repeat=size)))
        self.prob, self.reward, self.score = r.prob[arms].prod(1), r.reward[arms], r.score[arms]
        self.energy = (self.score**2).sum(-1)

    def terms(self, baseline):
        """(r_i - b_i) s_i, [o, size, d], for baselines that broadcast to [o, size]."""
        return (self.reward - baseline)[..., None] * self.score

    def mean_and_variance(self, baseline):
        estimate = self.terms(baseline).mean(1)
        mean = self.prob @ estimate
        return mean, self.prob @ ((estimate - mean) ** 2).sum(1)

    def mean_squared_signal(self, baseline):
        """Expectation of the U-statistic over the terms of one group."""
        return self.prob @ [squared_signal(rows) for rows in self.terms(baseline)]

    def leave_one_out(self):
        return np.array([leave_one_out_baselines(*pair) for pair in zip(self.reward, self.energy, strict=True)])


# 5a


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("baseline", [-0.5, 0.0, 0.3, 1.0])
def test_mean_and_variance_over_all_groups(size, baseline):
    r = bandit_responses(size)
    mean, variance = Groups(r, size).mean_and_variance(baseline)
    np.testing.assert_allclose(mean, policy_gradient(r), atol=3e-15)
    assert variance == pytest.approx(gradient_variance(r, baseline, samples=size), rel=1e-12)


@given(seeds, st.floats(-2, 2))
def test_variance_on_samples_is_that_of_drawing_from_the_sample(seed, baseline):
    rng = np.random.default_rng(seed)
    r = Responses(rng.integers(0, 2, 9), rng.standard_normal((9, 3)))
    expected = ((r.reward - baseline)[:, None] * r.score).var(axis=0).sum()
    assert gradient_variance(r, baseline) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_variance_of_many_baselines_at_once():
    r, baseline = bandit_responses(5), np.linspace(-1, 2, 6).reshape(2, 3)
    variance = gradient_variance(r, baseline, samples=3)
    assert variance.shape == (2, 3)
    assert variance[1, 2] == gradient_variance(r, 2.0, samples=3)


@given(seeds, st.floats(-1, 2))
def test_optimal_baseline_minimises_and_the_excess_is_quadratic(seed, baseline):
    r = bandit_responses(seed)
    best = optimal_baseline(r)
    assert 0 < best < 1
    found = minimize_scalar(lambda b: gradient_variance(r, b), bracket=(-1, 2)).x
    assert best == pytest.approx(found, abs=1e-6)
    excess = gradient_variance(r, baseline, samples=3) - gradient_variance(r, best, samples=3)
    assert excess == pytest.approx((baseline - best) ** 2 * (r.prob @ energies(r)) / 3, rel=1e-9, abs=1e-14)


@given(seeds)
def test_optimal_baseline_from_success_and_energy_ratio(seed):
    r = bandit_responses(seed)
    J, x = success_rate(r), energies(r)[r.reward == 0] @ r.prob[r.reward == 0] / (1 - success_rate(r))
    x /= energies(r)[r.reward == 1] @ r.prob[r.reward == 1] / J
    assert energy_ratio(r) == pytest.approx(x, rel=1e-9)
    assert optimal_baseline(r) == pytest.approx(J / (J + (1 - J) * x), rel=1e-9)


@given(st.floats(-15, 15))
def test_two_arms_have_no_variance_at_the_optimal_baseline(log_odds):
    r = SoftmaxBandit([log_odds], [[[0.5], [-0.5]]], [[1, 0]]).enumerate()
    J = success_rate(r)
    assert optimal_baseline(r) == pytest.approx(1 - J, rel=1e-9)
    assert gradient_variance(r, 1 - J) <= 1e-15 * second_moment(r, 1 - J)


def test_optimal_baseline_where_all_rewards_agree():
    assert optimal_baseline(Responses([1, 1], [[1.0], [2.0]])) == 1
    assert optimal_baseline(Responses([0, 0], [[1.0], [0.0]])) == 0


# 5b


def test_loss_of_any_and_of_the_mean_baseline_on_three_thousand_bandits():
    rng = np.random.default_rng(0)
    worse, limit = 0, 0
    for seed in range(3000):
        arms = int(rng.integers(3, 8))
        r = bandit_responses(seed, arms, int(rng.integers(1, arms)))
        J, (correct, wrong) = success_rate(r), score_energies(r)
        ratio, b = wrong / correct, float(rng.uniform(-1, 2))
        least = second_moment(r, optimal_baseline(r))
        rounding = 1e-12 + 1e-14 / (J * (1 - J))  # that of 1 - J and of rewards minus a baseline near 0 or 1
        assert mean_baseline_loss(J, ratio) == pytest.approx(second_moment(r, J) / least, rel=rounding)
        assert baseline_loss(J, ratio, b) == pytest.approx(second_moment(r, b) / least, rel=rounding)
        assert baseline_loss(J, ratio, optimal_baseline(r)) == pytest.approx(1, abs=rounding)
        mean_is_worse = second_moment(r, J) > second_moment(r, 0)
        assert mean_is_worse == (ratio > critical_energy_ratio(J))
        worse, limit = worse + mean_is_worse, limit + (ratio > 2)
    assert 100 < worse < 2900
    assert limit != worse  # the wrong condition, without the success rate, would not have passed


@given(open_unit, ratios, st.floats(-2, 2))
def test_losses_are_ratios_of_second_moments_in_60_digits(J, ratio, baseline):
    with mpmath.workdps(60):
        j, x, b = mpmath.mpf(J), mpmath.mpf(ratio), mpmath.mpf(baseline)
        moment = lambda b: j * (1 - b) ** 2 + (1 - j) * x * b**2  # noqa: E731
        least = moment(j / (j + (1 - j) * x))
        of_any, of_the_mean = float(moment(b) / least), float(moment(j) / least)
    assert baseline_loss(J, ratio, baseline) == pytest.approx(of_any, rel=1e-9)
    assert mean_baseline_loss(J, ratio) == pytest.approx(of_the_mean, rel=1e-12)
    assert mean_baseline_loss(J, 1.0) == 1


@given(open_unit)
def test_mean_and_no_baseline_tie_at_the_critical_ratio(J):
    ratio = critical_energy_ratio(J)
    assert mean_baseline_loss(J, ratio) == pytest.approx(baseline_loss(J, ratio, 0.0), rel=1e-9)
    assert mean_baseline_loss(J, 1.01 * ratio) > baseline_loss(J, 1.01 * ratio, 0.0)
    assert mean_baseline_loss(J, 0.99 * ratio) < baseline_loss(J, 0.99 * ratio, 0.0)


@given(open_unit, st.floats(1, 1e6))
def test_the_better_of_two_has_at_most_the_second_moment_of_their_tie(J, ratio):
    better = min(mean_baseline_loss(J, ratio), baseline_loss(J, ratio, 0.0))
    assert better <= 2 / (2 - J) * (1 + 1e-9)
    assert mean_baseline_loss(J, critical_energy_ratio(J)) == pytest.approx(2 / (2 - J), rel=1e-9)


@pytest.mark.parametrize("drawn", ["independently", "without replacement"])
def test_variance_of_a_batch_of_prompts_over_all_outcomes(drawn):
    prompts = [bandit_responses(50 + k, arms=3, correct=1) for k in range(3)]
    pairs = list(
        itertools.product(range(3), repeat=2) if drawn == "independently" else itertools.permutations(range(3), 2)
    )
    total, square = 0.0, 0.0
    for one, two in pairs:
        first, second = Groups(prompts[one], 2), Groups(prompts[two], 2)
        prob = np.outer(first.prob, second.prob) / len(pairs)
        estimate = (first.terms(0.4).mean(1)[:, None] + second.terms(0.4).mean(1)[None]) / 2
        total, square = total + np.einsum("ij,ijd->d", prob, estimate), square + (prob * (estimate**2).sum(-1)).sum()
    gradients = np.array([policy_gradient(r) for r in prompts])
    between = ((gradients - gradients.mean(0)) ** 2).sum(1).mean() * (1 if drawn == "independently" else 1 / 2)
    within = np.mean([gradient_variance(r, 0.4, 2) for r in prompts])
    assert square - total @ total == pytest.approx((between + within) / 2, rel=1e-9)


@pytest.mark.parametrize("wrong", [1, 2, 7])
def test_one_correct_response_makes_the_mean_ever_worse(wrong):
    constant = []
    for failure in (1e-2, 1e-4, 1e-6):
        r = tabular(1 - failure, 1, wrong)
        correct_energy, wrong_energy = score_energies(r)
        loss = mean_baseline_loss(success_rate(r), wrong_energy / correct_energy)
        assert optimal_baseline(r) < 2 * failure
        constant.append(loss * failure)
        assert gradient_variance(r, success_rate(r)) > gradient_variance(r, 0.0)
    assert constant[-1] == pytest.approx(2 * wrong / (wrong + 1), rel=1e-4)


@pytest.mark.parametrize("wrong", [2, 3, 7])
def test_the_better_of_two_can_have_more_than_twice_the_least_variance(wrong):
    failure = 1e-5
    r = tabular(1 - failure, 1, wrong)
    correct_energy, wrong_energy = score_energies(r)
    price = baseline_loss(1 - failure, wrong_energy / correct_energy, 0.0)
    ratio = gradient_variance(r, 0.0) / gradient_variance(r, optimal_baseline(r))
    assert price == pytest.approx(1, abs=1e-4)
    assert ratio == pytest.approx(2 * wrong / (wrong - 1), rel=1e-3)


@given(seeds, st.floats(-1, 2))
def test_a_price_is_a_ratio_of_variances_once_the_signal_is_counted(seed, baseline):
    r = bandit_responses(seed)
    least = gradient_variance(r, optimal_baseline(r))
    price = second_moment(r, baseline) / second_moment(r, optimal_baseline(r))
    snr = (policy_gradient(r) ** 2).sum() / least
    ratio = gradient_variance(r, baseline) / least
    assert ratio == pytest.approx(1 + (price - 1) * (1 + snr), rel=1e-6)


@pytest.mark.parametrize("correct", [2, 3, 5])
def test_several_correct_responses_make_the_mean_optimal(correct):
    excess = []
    for failure in (1e-2, 1e-4, 1e-6):
        r = tabular(1 - failure, correct, 3)
        correct_energy, wrong_energy = score_energies(r)
        ratio = wrong_energy / correct_energy
        excess.append(mean_baseline_loss(success_rate(r), ratio) - 1)
        if failure < 1e-5:
            assert ratio == pytest.approx((correct + 1) / (correct - 1), rel=1e-4)
            assert gradient_variance(r, success_rate(r)) < 1e-3 * gradient_variance(r, 0.0)
    np.testing.assert_allclose(np.array(excess[1:]) / excess[:-1], 1e-2, rtol=0.1)


# 5c


def written_out(reward, energy):
    baselines = []
    for i in range(len(reward)):
        others = [j for j in range(len(reward)) if j != i]
        total = sum(energy[j] for j in others)
        weighted = sum(reward[j] * energy[j] for j in others)
        baselines.append(weighted / total if total > 0 else sum(reward[j] for j in others) / len(others))
    return baselines


@given(st.lists(st.tuples(st.integers(0, 1), st.just(0.0) | st.floats(1e-9, 1e9)), min_size=2, max_size=8))
def test_leave_one_out_baselines_written_out(pairs):
    reward, energy = np.array(pairs, float).T
    baselines = leave_one_out_baselines(reward, energy)
    np.testing.assert_allclose(baselines, written_out(reward, energy), rtol=1e-12)
    assert ((baselines >= 0) & (baselines <= 1)).all()
    for i, b in enumerate(baselines):
        others = np.delete(reward, i)
        if np.ptp(others) == 0:
            assert b == others[0]


def test_leave_one_out_survives_a_dominant_own_energy():
    np.testing.assert_allclose(leave_one_out_baselines([1, 1, 0], [1e20, 3.0, 1.0]), [0.75, 1, 1])
    np.testing.assert_array_equal(leave_one_out_baselines([1, 0, 1], [2.0, 0.0, 0.0]), [0.5, 1, 1])


@given(st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=5))
def test_mean_of_others_with_equal_weights_is_the_rloo_baseline(groups):
    reward = np.array(groups, float)
    advantage = reward - mean_of_others(reward, np.ones_like(reward))
    np.testing.assert_allclose(advantage, group_advantages(reward, "rloo"), atol=1e-12)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=2), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_groups_of_two_make_leave_one_out_rloo_and_grpo_coincide(reward, first, second):
    advantage = np.array(reward) - leave_one_out_baselines(reward, [first, second])
    np.testing.assert_array_equal(advantage, group_advantages(reward, "rloo"))
    np.testing.assert_array_equal(advantage, group_advantages(reward, "grpo"))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_leave_one_out_is_unbiased_and_in_sample_is_not(size):
    r = bandit_responses(2)
    groups = Groups(r, size)
    mean, _ = groups.mean_and_variance(groups.leave_one_out())
    np.testing.assert_allclose(mean, policy_gradient(r), atol=3e-15)
    in_sample = (groups.reward * groups.energy).sum(1, keepdims=True) / groups.energy.sum(1, keepdims=True)
    mean, _ = groups.mean_and_variance(in_sample)
    assert np.linalg.norm(mean - policy_gradient(r)) > 0.05 * np.linalg.norm(policy_gradient(r))


def group_pairs(first, second, size):
    """Every pair of groups of two prompts: two ``Groups`` whose rows go together, with the joint probability."""
    one, two = Groups(first, size), Groups(second, size)
    rows = np.array(list(itertools.product(range(len(one.prob)), range(len(two.prob))))).T
    joint = one.prob[rows[0]] * two.prob[rows[1]]
    for groups, row in ((one, rows[0]), (two, rows[1])):
        groups.prob, groups.reward, groups.score, groups.energy = (
            joint,
            groups.reward[row],
            groups.score[row],
            groups.energy[row],
        )
    return one, two


def test_pooled_baselines_over_all_pairs_of_groups():
    first, second = bandit_responses(3, arms=3, correct=1), bandit_responses(4, arms=3, correct=2)
    one, two = group_pairs(first, second, 2)
    reward, energy = np.stack([one.reward, two.reward], 1), np.stack([one.energy, two.energy], 1)
    baselines = np.array([pooled_baselines(*pair) for pair in zip(reward, energy, strict=True)])
    np.testing.assert_allclose(baselines[:, 0], (two.reward * two.energy).sum(1) / two.energy.sum(1), rtol=1e-12)
    for groups, r, b in ((one, first, baselines[:, :1]), (two, second, baselines[:, 1:])):
        mean, _ = groups.mean_and_variance(b)
        np.testing.assert_allclose(mean, policy_gradient(r), atol=3e-15)


@given(seeds, st.integers(2, 5), st.integers(1, 4))
def test_pooled_baselines_written_out(seed, count, size):
    rng = np.random.default_rng(seed)
    reward, energy = rng.integers(0, 2, (count, size)), rng.exponential(1, (count, size))
    energy *= rng.integers(0, 2, (count, 1))
    expected = []
    for p in range(count):
        others = np.arange(count) != p
        r, e = reward[others].ravel(), energy[others].ravel()
        expected.append((r * e).sum() / e.sum() if e.sum() > 0 else r.mean())
    np.testing.assert_allclose(pooled_baselines(reward, energy), expected, rtol=1e-12)
    twice = pooled_baselines(np.stack([1 - reward, reward]), np.stack([energy, energy]))
    np.testing.assert_allclose(twice[1], expected, rtol=1e-12)


def test_pooling_repairs_leave_one_out_where_one_response_is_almost_certain():
    r = tabular(0.95, 1, 2)
    one, two = group_pairs(r, r, 3)
    _, leave_one_out = one.mean_and_variance(one.leave_one_out())
    pooled = (two.reward * two.energy).sum(1, keepdims=True) / two.energy.sum(1, keepdims=True)
    _, from_the_other = one.mean_and_variance(pooled)
    least = gradient_variance(r, optimal_baseline(r), samples=3)
    assert gradient_variance(r, success_rate(r), samples=3) > 5 * least
    assert least < from_the_other < leave_one_out


@pytest.mark.parametrize("size", [1, 2, 3])
def test_two_gradients_of_a_batch_give_both_moments_of_the_optimal_baseline(size):
    """So that ``LaggedBaseline.count`` may be given <C, C + W> and |C + W|^2 in place of sums over norms."""
    r = bandit_responses(6)
    groups = Groups(r, size)
    correct = (groups.reward[..., None] * groups.score).sum(1)
    total = groups.score.sum(1)
    assert groups.prob @ (correct * total).sum(1) == pytest.approx(size * r.prob @ (r.reward * energies(r)), rel=1e-12)
    assert groups.prob @ (total**2).sum(1) == pytest.approx(size * r.prob @ energies(r), rel=1e-12)
    lagged = LaggedBaseline()
    lagged.count(groups.prob @ (correct * total).sum(1), groups.prob @ (total**2).sum(1))
    assert lagged.value == pytest.approx(optimal_baseline(r), rel=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("correct", [1, 2])
def test_leave_one_out_variance_over_all_groups(size, correct):
    r = bandit_responses(size, arms=3, correct=correct)
    every = Groups(r, size)
    prob, reward, score = every.prob, every.reward, every.score
    advantage = reward - mean_of_others(reward, np.ones_like(reward))
    estimate = (advantage[..., None] * score).mean(1)
    mean = prob @ estimate
    expected = prob @ ((estimate - mean) ** 2).sum(1)
    assert leave_one_out_variance(r, size) == pytest.approx(expected, rel=1e-12)
    assert gradient_variance(r, success_rate(r), samples=size) != pytest.approx(expected, rel=1e-6)


@given(seeds, st.integers(2, 9))
def test_leave_one_out_loss_is_the_second_moment_of_one_term(seed, size):
    r = bandit_responses(seed)
    J, (correct, wrong) = success_rate(r), score_energies(r)
    energy = (r.score**2).sum(1)
    least = r.prob @ ((r.reward - optimal_baseline(r)) ** 2 * energy)
    count = np.arange(size)
    weight = np.array([np.prod(range(size - k, size)) / np.prod(range(1, k + 1)) for k in count])
    law = weight * J**count * (1 - J) ** (size - 1 - count)
    terms = [r.prob @ ((r.reward - k / (size - 1)) ** 2 * energy) for k in count]
    assert leave_one_out_loss(J, wrong / correct, size) == pytest.approx(law @ terms / least, rel=1e-6)


@given(open_unit, ratios)
def test_leave_one_out_loss_tends_to_that_of_the_mean(J, ratio):
    losses = [leave_one_out_loss(J, ratio, size) for size in (2, 4, 100)]
    assert losses[0] > losses[1] > losses[2] > mean_baseline_loss(J, ratio)
    assert leave_one_out_loss(J, ratio, 10**9) == pytest.approx(mean_baseline_loss(J, ratio), rel=1e-4)


def test_rare_successes_make_leave_one_out_worse_than_no_baseline():
    assert leave_one_out_loss(1e-6, 1.0, 4) == pytest.approx(4 / 3, rel=1e-4)
    assert baseline_loss(1e-6, 1.0, 0.0) == pytest.approx(1, abs=1e-5)


@given(seeds, st.integers(2, 9), st.integers(1, 5))
def test_token_energy_is_the_squared_gradient_in_the_logits(seed, vocabulary, length):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(length, vocabulary, generator=generator, dtype=torch.float64, requires_grad=True)
    token = torch.randint(vocabulary, (length,), generator=generator)
    law = torch.log_softmax(logits, -1)
    taken = law[torch.arange(length), token]
    (gradient,) = torch.autograd.grad(taken[1:].sum(), logits)
    energy = token_energies(taken.detach(), (2 * law).exp().sum(-1).detach(), np.arange(length) >= 1)
    assert energy == pytest.approx(float(gradient.square().sum()), abs=1e-12)


def test_lagged_baseline_of_two_batches_and_of_two_runs():
    lagged = LaggedBaseline(decay=0.5, initial=0.25)
    assert lagged.value == 0.25
    reward = np.array([[[1, 0], [1, 1]], [[0, 0], [1, 0]]], float)
    energy = np.array([[[1, 2], [3, 4]], [[1, 1], [2, 4]]], float)
    lagged.update(reward, energy)
    np.testing.assert_allclose(lagged.value, [8 / 10, 2 / 8])
    lagged.update(1 - reward, energy)
    np.testing.assert_allclose(lagged.value, [(4 + 2) / 15, (1 + 6) / 12])


def test_lagged_baseline_without_energy_keeps_its_start():
    lagged = LaggedBaseline(initial=0.5)
    lagged.update(np.ones((2, 2)), np.zeros((2, 2)))
    assert lagged.value == 0.5


def test_lagged_baseline_finds_the_optimum_on_a_fixed_policy():
    r = bandit_responses(3)
    rng, lagged = np.random.default_rng(0), LaggedBaseline(decay=0.999)
    drawn = rng.choice(len(r), p=r.prob, size=(3000, 4, 8))
    for batch in drawn:
        lagged.update(r.reward[batch], (r.score**2).sum(1)[batch])
    assert lagged.value == pytest.approx(optimal_baseline(r), abs=0.02)


# 5d


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_group_statistic_is_biased_under_leave_one_out_baselines_only(size):
    r = bandit_responses(8, arms=3, correct=1)
    groups, truth = Groups(r, size), (policy_gradient(r) ** 2).sum()
    for fixed in (0.0, 0.4):
        assert groups.mean_squared_signal(fixed) == pytest.approx(truth, rel=1e-12)
    rloo = mean_of_others(groups.reward, np.ones_like(groups.reward))
    assert groups.mean_squared_signal(rloo) / truth == pytest.approx(1 + 1 / (size - 1) ** 2, rel=1e-12)
    assert abs(groups.mean_squared_signal(groups.leave_one_out()) / truth - 1) > 0.01


def signal_to_noise(r, baseline):
    return (policy_gradient(r) ** 2).sum() / gradient_variance(r, baseline)


def test_fall_of_the_snr_is_an_effect_of_the_mean_baseline_with_one_correct_response():
    low, high = tabular(0.9, 1, 3), tabular(0.999, 1, 3)
    assert signal_to_noise(high, success_rate(high)) < 0.05 * signal_to_noise(low, success_rate(low))
    assert signal_to_noise(high, optimal_baseline(high)) > signal_to_noise(low, optimal_baseline(low))


def test_snr_falls_for_every_baseline_with_several_correct_responses():
    low, high = tabular(1 - 1e-4, 2, 3), tabular(1 - 1e-6, 2, 3)
    for baseline in (success_rate, optimal_baseline):
        fall = signal_to_noise(high, baseline(high)) / signal_to_noise(low, baseline(low))
        assert fall == pytest.approx(1e-2, rel=1e-2)


# Bad input


GROUP = np.ones((2, 2))


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (gradient_variance, (bandit_responses(0), np.nan), "baseline"),
        (gradient_variance, (bandit_responses(0), 0.5, 0), "samples"),
        (gradient_variance, (bandit_responses(0), 0.5, 1.5), "samples"),
        (optimal_baseline, (Responses([1, 0], np.zeros((2, 2))),), "score"),
        (energy_ratio, (Responses([1, 0], [[0.0], [1.0]]),), "score"),
        (energy_ratio, (Responses([1, 1], [[1.0], [1.0]]),), "reward"),
        (baseline_loss, (1.0, 1.0, 0.5), "success"),
        (baseline_loss, (0.5, 0.0, 0.5), "energy_ratio"),
        (baseline_loss, (0.5, 1.0, np.inf), "baseline"),
        (mean_baseline_loss, (0.0, 1.0), "success"),
        (mean_baseline_loss, (1.0, 1.0), "success"),
        (mean_baseline_loss, (0.5, 0.0), "energy_ratio"),
        (mean_baseline_loss, (0.5, -1.0), "energy_ratio"),
        (critical_energy_ratio, (1.0,), "success"),
        (leave_one_out_variance, (bandit_responses(0), 1), "group_size"),
        (leave_one_out_loss, (0.0, 1.0, 4), "success"),
        (leave_one_out_loss, (0.5, 0.0, 4), "energy_ratio"),
        (leave_one_out_loss, (0.5, 1.0, 1), "group_size"),
        (token_energies, (np.zeros(2), np.ones(3), np.ones(2)), "collision"),
        (token_energies, (np.zeros(2), np.full(2, 1.5), np.ones(2)), "collision"),
        (token_energies, (np.zeros(2), np.ones(2), np.ones(3)), "mask"),
        (LaggedBaseline, (1.0,), "decay"),
        (LaggedBaseline, (0.9, [0.5]), "initial"),
        (LaggedBaseline().update, ([1.0], [1.0]), "score_energy"),
        (LaggedBaseline().update, ([[1.0]], [[1.0, 2.0]]), "score_energy"),
        (LaggedBaseline().update, ([[1.0]], [[-1.0]]), "score_energy"),
        (LaggedBaseline().count, (1.0, -1.0), "total"),
        (LaggedBaseline().count, ([1.0], [1.0, 1.0]), "total"),
        (mean_of_others, ([1.0, 2.0], [1.0]), "weight"),
        (mean_of_others, ([1.0, 2.0], [1.0, -1.0]), "weight"),
        (mean_of_others, ([1.0], [1.0]), "value"),
        (mean_of_others, (1.0, 1.0), "value"),
        (leave_one_out_baselines, ([1], [1.0]), "reward"),
        (leave_one_out_baselines, ([], []), "reward"),
        (leave_one_out_baselines, ([1, 0.5], [1.0, 1.0]), "reward"),
        (leave_one_out_baselines, (GROUP, GROUP), "reward"),
        (leave_one_out_baselines, ([1, 0], [1.0]), "score_energy"),
        (leave_one_out_baselines, ([1, 0], [1.0, -1.0]), "score_energy"),
        (leave_one_out_baselines, ([1, 0], [1.0, np.nan]), "score_energy"),
        (pooled_baselines, ([1, 0], [1.0, 1.0]), "reward"),
        (pooled_baselines, ([[1, 0]], [[1.0, 1.0]]), "reward"),
        (pooled_baselines, (np.ones((2, 0)), np.ones((2, 0))), "reward"),
        (pooled_baselines, (GROUP, -GROUP), "score_energy"),
        (pooled_baselines, (GROUP, np.ones((2, 3))), "score_energy"),
    ],
)
def test_bad_input_is_named(function, arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        function(*arguments)


def test_losses_of_extreme_energy_ratios_are_finite():
    assert math.isfinite(mean_baseline_loss(0.5, 1e-300))
    assert math.isfinite(baseline_loss(0.5, 1e300, 0.5))
