"""Advantages by their definitions; gains against sums over all groups and 60-digit arithmetic."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lib.responses import success_rate
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.advantages import (
    ESTIMATORS,
    estimator_gain,
    gain_over_variance,
    group_advantages,
    group_gain,
    power_gain,
)
from rlvr_lib.theory.gap import gradient_gap
from rlvr_lib.theory.threshold import (
    critical_learning_rate,
)

groups = st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=6)


@given(groups, st.sampled_from(ESTIMATORS[1:]))
def test_advantages_sum_to_zero_in_every_group(reward, estimator):
    np.testing.assert_allclose(group_advantages(reward, estimator).sum(-1), 0, atol=1e-12)


@given(groups, st.sampled_from(ESTIMATORS))
def test_advantages_do_not_fall_with_the_reward(reward, estimator):
    """The hypothesis without which a gain may be negative."""
    for row, advantage in zip(np.array(reward), group_advantages(reward, estimator), strict=True):
        if 0 < row.sum() < 4:
            assert advantage[row == 1].min() > advantage[row == 0].max()


@given(groups)
def test_each_estimator_against_its_definition(reward):
    x = np.array(reward, float)
    np.testing.assert_array_equal(group_advantages(x, "reinforce"), x)
    others = (x.sum(-1, keepdims=True) - x) / 3
    np.testing.assert_allclose(group_advantages(x, "rloo"), x - others, atol=1e-12)
    for row, advantage in zip(x, group_advantages(x, "grpo"), strict=True):
        expected = (row - row.mean()) / row.std() if row.std() else np.zeros(4)
        np.testing.assert_allclose(advantage, expected, atol=1e-12)
    for row, advantage in zip(x, group_advantages(x, "grpo_variance"), strict=True):
        expected = (row - row.mean()) / row.var() if row.var() else np.zeros(4)
        np.testing.assert_allclose(advantage, expected, atol=1e-12)
    pooled = np.sqrt(np.mean([row.var() for row in x]))
    expected = (x - x.mean(-1, keepdims=True)) / (pooled or 1)
    np.testing.assert_allclose(group_advantages(x, "grpo_batch"), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "reward", "estimator"),
    [
        ("estimator", [1, 0], "ppo"),
        ("reward", [1, 0.5], "grpo"),
        ("reward", 1.0, "grpo"),
        ("reward", np.ones((3, 0)), "grpo"),
        ("reward", [[1], [0]], "rloo"),
    ],
)
def test_bad_input_is_named(name, reward, estimator):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        group_advantages(reward, estimator)


@given(st.floats(0, 1), st.integers(2, 9), st.booleans(), st.booleans())
def test_group_gain_is_the_mean_over_all_groups(J, group_size, normalize, bessel):
    mean = 0.0
    for rewards in itertools.product((0, 1), repeat=group_size):
        k = sum(rewards)
        spread = np.std(rewards, ddof=int(bessel))
        sum_of_correct = k * (1 - k / group_size) / (spread if normalize and spread else 1)
        mean += J**k * (1 - J) ** (group_size - k) * sum_of_correct / group_size
    assert group_gain(J, group_size, normalize, bessel) == pytest.approx(mean, abs=1e-12)


def test_group_gain_tends_to_the_standard_deviation():
    J = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(group_gain(J, 100_000), np.sqrt(J * (1 - J)), rtol=1e-4)
    assert group_gain(0.0, 8) == group_gain(1.0, 8) == 0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("success", (1.2, 4)),
        ("success", (np.nan, 4)),
        ("group_size", (0.5, 0)),
        ("group_size", (0.5, 2.5)),
        ("group_size", (0.5, 1, True, True)),
    ],
)
def test_group_gain_refuses_bad_input(name, arguments):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        group_gain(*arguments)


POWERS = np.array([0.0, 0.5, 1.0, 1.5, 2.0])


def all_groups(r, size):
    """Arms [outcomes, size] and probability [outcomes] of every ordered group."""
    arms = np.array(list(itertools.product(range(len(r)), repeat=size)))
    return arms, r.prob[arms].prod(1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("power", POWERS)
def test_gain_of_a_power_over_all_groups(size, power):
    r = SoftmaxBandit.random(size, arms=4, dimension=3).enumerate()
    arms, prob = all_groups(r, size)
    reward = r.reward[arms]
    centred = reward - reward.mean(1, keepdims=True)
    std = reward.std(1, keepdims=True)
    advantage = centred / np.where(std > 0, std, np.inf) ** power if power else centred
    mean_update = np.einsum("o,og,ogd->d", prob / size, advantage, r.score[arms])
    gain = power_gain(success_rate(r), power, size)
    np.testing.assert_allclose(mean_update, gain * gradient_gap(r), atol=1e-13)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("power", POWERS)
def test_gain_with_the_sample_deviation_over_all_groups(size, power):
    r = SoftmaxBandit.random(size, arms=4, dimension=3).enumerate()
    arms, prob = all_groups(r, size)
    reward = r.reward[arms]
    std = reward.std(1, ddof=1, keepdims=True)
    centred = reward - reward.mean(1, keepdims=True)
    advantage = centred / np.where(std > 0, std, np.inf) ** power if power else centred
    mean_update = np.einsum("o,og,ogd->d", prob / size, advantage, r.score[arms])
    gain = power_gain(success_rate(r), power, size, bessel=True)
    np.testing.assert_allclose(mean_update, gain * gradient_gap(r), atol=1e-13)
    assert (gain == power_gain(success_rate(r), power, size)) == (power == 0)


def test_sample_deviation_asks_for_two_responses_and_does_not_matter_in_large_groups():
    with pytest.raises(ValueError, match="group_size"):
        power_gain(0.5, 1, 1, bessel=True)
    assert power_gain(0.5, 1, bessel=True) == power_gain(0.5, 1)
    assert power_gain([0.2, 0.5], POWERS[:, None], 8, bessel=True).shape == (5, 2)


@given(st.floats(0, 1), st.integers(1, 40))
def test_dividing_by_the_variance_counts_mixed_groups(J, size):
    assert power_gain(J, 2, size) == pytest.approx(1 - J**size - (1 - J) ** size, abs=1e-12)


@given(st.floats(1e-300, 1 - 1e-12), st.integers(2, 300), st.sampled_from([0, 0.5, 1, 2]))
@settings(max_examples=60, deadline=None)
def test_gain_in_60_digits(J, size, power):
    with mpmath.workdps(60):
        p, gain = mpmath.mpf(J), 0
        for k in range(1, size):
            v = mpmath.mpf(k * (size - k)) / size**2
            gain += mpmath.binomial(size, k) * p**k * (1 - p) ** (size - k) * v ** (1 - mpmath.mpf(power) / 2)
        weight = float(gain / p / (1 - p))
    assert power_gain(J, power, size) == pytest.approx(float(gain), rel=1e-12, abs=0)
    assert gain_over_variance(J, power, size) == pytest.approx(weight, rel=1e-12)


def test_gain_over_the_variance_at_the_ends():
    for power in POWERS:
        expected = ((size := 16) - 1) ** (1 - power / 2) * size ** (power - 1)
        np.testing.assert_allclose(gain_over_variance([0.0, 1.0], power, size), expected)


def test_gain_of_large_groups():
    J = np.array([0.0, 0.02, 0.3, 0.5, 1.0])
    for power in POWERS:
        np.testing.assert_allclose(power_gain(J, power, 20_000), power_gain(J, power), rtol=2e-3)
    np.testing.assert_array_equal(power_gain(J, 2), [0, 1, 1, 1, 0])
    assert power_gain(J[:, None], POWERS, 4).shape == power_gain(J[:, None], POWERS).shape == (5, 5)


@pytest.mark.parametrize("size", [2, 3])
def test_powers_are_one_algorithm_in_groups_of_two_and_three(size):
    J = np.linspace(0.01, 0.99, 50)
    for power in POWERS:
        quotient = power_gain(J, power, size) / power_gain(J, 0, size)
        np.testing.assert_allclose(quotient, (size**2 / (size - 1)) ** (power / 2), rtol=1e-12)
    quotient = power_gain(J, 1, 4) / power_gain(J, 0, 4)
    assert np.ptp(quotient) > 0.1


@pytest.mark.parametrize(("size", "printed"), [(4, 1.07), (8, 1.43), (16, 2.00)])
def test_boost_of_std_saturates_in_finite_groups(size, printed):
    even = power_gain(0.5, 1, size) / power_gain(0.5, 0, size)
    boost = [power_gain(J, 1, size) / power_gain(J, 0, size) / even for J in (1e-6, 1e-9, 1e-300)]
    np.testing.assert_allclose(boost, size / math.sqrt(size - 1) / even, rtol=1e-4)
    assert round(boost[-1], 2) == printed
    tail = power_gain(1e-8, POWERS, size) / power_gain(1e-7, POWERS, size)
    np.testing.assert_allclose(tail, 0.1, rtol=1e-5)


def test_estimator_gain_is_that_of_the_gap():
    J = np.array([0.0, 0.2, 0.5, 1.0])
    np.testing.assert_allclose(estimator_gain(J), J * (1 - J))
    np.testing.assert_allclose(estimator_gain(J, "grpo"), np.sqrt(J * (1 - J)))
    np.testing.assert_allclose(estimator_gain(J, "grpo", 100_000), np.sqrt(J * (1 - J)), rtol=1e-4)
    np.testing.assert_allclose(estimator_gain(J, group_size=2), J * (1 - J) / 2)
    np.testing.assert_allclose(estimator_gain(J, "grpo", 8, bessel=True), np.sqrt(7 / 8) * estimator_gain(J, "grpo", 8))
    for estimator, size in (("reinforce", 8), ("reinforce", None), ("grpo", None)):
        assert (estimator_gain(J, estimator, size, bessel=True) == estimator_gain(J, estimator, size)).all()
    rates = [critical_learning_rate(0.3, 1.0, "grpo", group_size=8, bessel=bessel) for bessel in (True, False)]
    np.testing.assert_allclose(rates[0] / rates[1], np.sqrt(8 / 7))
