import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from rlvr_lib.responses import score_energies, success_rate
from rlvr_lib.studies.baseline import bandit
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.baseline import (
    energy_ratio,
    gradient_variance,
    leave_one_out_variance,
    mean_of_others,
    optimal_baseline,
)
from rlvr_lib.theory.gap import policy_gradient

failures = st.floats(0.01, 0.99)


# Exact variances


@given(failures)
@settings(max_examples=20)
def test_tabular_responses_have_the_laws_they_are_made_of(failure):
    r = bandit.tabular(np.array([0.7, 0.3]), np.array([0.5, 0.4, 0.1]), failure)
    assert success_rate(r) == pytest.approx(1 - failure)
    np.testing.assert_allclose(r.prob @ r.score, 0, atol=1e-15)
    np.testing.assert_allclose(r.prob[:2], (1 - failure) * np.array([0.7, 0.3]))


@pytest.mark.parametrize(("right", "wrong", "size"), [(1, 3, 2), (1, 3, 3), (2, 2, 3)])
def test_variances_over_patterns_are_those_over_all_groups(right, wrong, size):
    r = bandit.even(right, wrong, 0.3)
    groups, found = bandit.all_groups(r, size), bandit.group_variances(right, wrong, 0.3, size)
    for name, advantage in {
        "zero baseline": groups.reward,
        "RLOO": group_advantages(groups.reward, "rloo"),
        "leave-one-out b*": groups.reward - mean_of_others(groups.reward, groups.energy),
        "b*": groups.reward - optimal_baseline(r),
    }.items():
        mean, variance = groups.moments(groups.reward - advantage)
        np.testing.assert_allclose(mean, policy_gradient(r), atol=1e-14)
        assert found[name] == pytest.approx(variance, rel=1e-9), name
    assert found["RLOO"] == pytest.approx(leave_one_out_variance(r, size), rel=1e-9)


def test_an_estimate_from_others_is_a_sum_over_their_right_responses():
    r, others = bandit.even(1, 4, 0.4), 28
    plus, minus = score_energies(r)
    total = 0.0
    for k in range(others + 1):
        b = k * plus / (k * plus + (others - k) * minus)
        total += binom.pmf(k, others, 0.6) * gradient_variance(r, b, 4)
    found = bandit.group_variances(1, 4, 0.4)
    assert found["pooled b*"] == pytest.approx(total, rel=1e-9)
    assert found["b*"] < found["lagged b*"] < found["pooled b*"]


def test_one_number_is_the_best_of_all_numbers_and_free_where_prompts_are_alike():
    prompts = [bandit.even(3, 5, 1 / (1 + np.exp(odds))) for odds in np.linspace(-3, 3, 13)]
    least = sum(gradient_variance(r, optimal_baseline(r), 4) for r in prompts)
    of_any = [sum(gradient_variance(r, b, 4) for r in prompts) / least for b in np.linspace(0, 1, 101)]
    found = bandit.one_number_prices(3)["one b* for all"]
    assert found <= min(of_any) < 1.001 * found
    assert bandit.one_number_prices(3, 0.0)["one b* for all"] == pytest.approx(1)


# Training


def by_loops(features, right, rates, drawn, baseline):
    """One instance, one rate, step by step and response by response; the baseline gets rewards and energies."""
    theta, past = np.zeros(features.shape[-1]), [0.0, 0.0]
    for chosen, noise in zip(drawn.chosen[0], drawn.noise[0], strict=True):
        batch = []
        for prompt, numbers in zip(chosen, noise, strict=True):
            logits = features[prompt] @ theta
            law = np.exp(logits - logits.max())
            law /= law.sum()
            arms = [int((number > law.cumsum()[:-1]).sum()) for number in numbers]
            scores = [features[prompt, arm] - law @ features[prompt] for arm in arms]
            batch.append(([float(arm < right) for arm in arms], scores))
        reward = np.array([rewards for rewards, _ in batch])
        score = np.array([scores for _, scores in batch])
        energy = (score**2).sum(-1)
        b = baseline(reward, energy, past)
        past = [0.9 * past[0] + (reward * energy).sum(), 0.9 * past[1] + energy.sum()]
        theta = theta + rates * np.einsum("pg,pgd->d", reward - b, score) / reward.size
    logits = np.einsum("pad,d->pa", features, theta)
    law = np.exp(logits - logits.max(1, keepdims=True))
    return (law[:, :right].sum(1) / law.sum(1)).mean()


@pytest.mark.parametrize(
    ("method", "baseline"),
    [
        ("zero baseline", lambda r, e, past: 0.0),
        ("RLOO", lambda r, e, past: mean_of_others(r, np.ones_like(r))),
        ("leave-one-out b*", lambda r, e, past: mean_of_others(r, e)),
        ("lagged b*", lambda r, e, past: past[0] / past[1] if past[1] else 0.0),
        ("sign flipped", lambda r, e, past: -past[0] / past[1] if past[1] else 0.0),
    ],
)
def test_training_is_what_loops_make_of_it(method, baseline):
    features, drawn = bandit.instances(2, 5), bandit.draws(2, 7, 5, 1)
    rates = np.array([[1.0, 4.0], [2.0, 8.0]])
    found = bandit.train(features, 3, method, rates, drawn)[-1]
    for one, k in itertools.product(range(2), range(2)):
        mine = bandit.Draws(drawn.chosen[one : one + 1], drawn.noise[one : one + 1])
        assert found[one, k] == pytest.approx(by_loops(features[one], 3, rates[one, k], mine, baseline), rel=1e-9)


def test_moments_are_those_of_enumerated_responses():
    features = bandit.instances(1, 3)[:, :2]
    theta = np.random.default_rng(0).standard_normal(bandit.DIMENSION) / 5
    policy = SoftmaxBandit(theta, features[0], np.tile((np.arange(8) < 3).astype(float), (2, 1)))
    responses = [policy.enumerate(prompt) for prompt in range(2)]
    law = np.array([r.prob for r in responses])[None, None]
    found = bandit.moments(features, law, 3)
    for k, r in enumerate(responses):
        plus, minus = score_energies(r)
        J = success_rate(r)
        assert found.success[0, 0, k] == pytest.approx(J)
        assert found.weighted[0, 0, k] == pytest.approx(J * plus)
        assert found.total[0, 0, k] == pytest.approx(J * plus + (1 - J) * minus)
        assert found.total[0, 0, k] - found.weighted[0, 0, k] == pytest.approx((1 - J) * plus * energy_ratio(r))
        np.testing.assert_allclose(found.gradient[0, 0, k], policy_gradient(r), atol=1e-12)


def test_the_exact_snr_of_a_step_is_that_of_many_draws():
    features = bandit.instances(1, 3)
    law = np.full((1, 1, bandit.PROMPTS, bandit.ARMS), 1 / bandit.ARMS)
    factor = bandit.rloo_shrinkage(bandit.moments(features, law, 2))[0, 0]
    drawn, steps = bandit.draws(1, 4000, 3, 1), []
    arms = (drawn.noise[0] * bandit.ARMS).astype(int)
    score = features[0] - features[0].mean(1, keepdims=True)
    for chosen, arm in zip(drawn.chosen[0], arms, strict=True):
        reward = (arm < 2).astype(float)
        advantage = reward - mean_of_others(reward, np.ones_like(reward))
        steps.append(np.einsum("pg,pgd->d", advantage, score[chosen[:, None], arm]) / arm.size)
    noise = np.var(steps, axis=0).sum()
    gradient = np.mean([(1 / 8) * rows[:2].sum(0) for rows in score], axis=0)
    signal = gradient @ gradient
    assert factor == pytest.approx(signal / (signal + noise), rel=0.05)


def test_a_rate_is_tuned_where_it_is_no_end_of_the_grid():
    found = bandit.tuned("RLOO", 1, 3, 4, 0)
    ends = [bandit.RATES[0], bandit.RATES[-1]]
    np.testing.assert_array_equal(found.tuned, ~np.isin(found.rate, ends))
    assert found.curve.shape == (2, 3)
    assert set(found.rate) <= set(bandit.RATES)
    assert set(bandit.tuned("RLOO, estimated SNR", 1, 3, 4, 0).rate) <= set(4 * bandit.RATES)


def test_an_instance_keeps_its_draws_when_others_join():
    few, many = bandit.tuned("lagged b*", 1, 2, 5, 9), bandit.tuned("lagged b*", 1, 4, 5, 9)
    np.testing.assert_allclose(few.curve, many.curve[:, :2])


def test_wins_and_likeness_count_instances():
    curve = np.array([[0.0, 0.0, 0.0, 0.0], [0.50, 0.60, 0.71, 0.9]])
    other = np.array([[0.0, 0.0, 0.0, 0.0], [0.40, 0.61, 0.70, 0.8]])
    a = bandit.Tuned(curve, np.ones(4), np.array([True, True, True, False]))
    b = bandit.Tuned(other, np.ones(4), np.ones(4, dtype=bool))
    assert (a.wins(b), b.wins(a)) == (2, 1)
    assert (a.alike(b, 0.02), a.alike(b, 0.2), b.alike(a, 0.02)) == (2, 4, 2)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("failure", lambda: bandit.even(1, 2, 0.0)),
        ("size", lambda: bandit.group_variances(1, 2, 0.5, 1)),
        ("size", lambda: bandit.all_groups(bandit.even(1, 2, 0.5), 0)),
        ("count", lambda: bandit.instances(0, 1)),
        ("method", lambda: bandit.train(bandit.instances(1, 0), 1, "luck", np.ones((1, 1)), bandit.draws(1, 2, 0, 0))),
    ],
)
def test_bad_input_is_refused(name, call):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()
