"""The bandits of chapter 4 against closed forms, enumeration, and each other."""

import numpy as np
import pytest
from scipy.special import expit

from rlvr_lib.studies.curvature import bandit
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.advantages import power_gain
from rlvr_lib.theory.curvature import curvature_bound, curvature_constant, two_arm_time

ARMS = ("none", "std", "variance", "batch", bandit.POOLED)


def test_curvature_is_that_of_the_testbed():
    one = bandit.random_bandits(1, 4, dimension=1)
    policy = SoftmaxBandit(one.theta[0], one.features, one.reward, one.offset)
    assert one.curvature[0] == pytest.approx(abs(policy.along(0, [1.0])[2]), rel=1e-9)


def test_extremal_bandits_reach_the_sharp_bound_and_random_ones_do_not_exceed_it():
    rates = np.linspace(0.001, 0.5, 60)
    for bandits, least in ((bandit.extremal_bandits(rates), 1 - 1e-9), (bandit.random_bandits(200, 1, least=1e-3), 0)):
        J = bandits.success
        share = bandits.curvature / (curvature_constant(J) * curvature_bound(J, bandits.diameter))
        assert share.max() <= 1 + 1e-9
        assert share.min() >= least
    assert np.allclose(bandit.extremal_bandits(rates).success, rates)


def test_steps_gain_what_they_guarantee_and_shorter_ones_do_not():
    drawn = bandit.random_bandits(200, 2, least=1e-3)
    assert bandit.gain_shares(drawn, [0, 1, 2]).min() > 1 - 1e-6
    certain = bandit.two_arms(np.array([1 - 1e-4]))
    assert 1 <= bandit.gain_shares(certain, [1]).min() < 1.01
    assert bandit.gain_shares(certain, [1], stretch=0.9).min() < 1
    assert bandit.gain_shares(drawn, [1], sign=-1).min() < 1


def test_two_arms_follow_the_steps_of_the_paper():
    path, z = bandit.paper_steps(bandit.two_arms(np.array([0.5])), 50), 0.0
    for k in range(50):
        std = 0.5 / np.cosh(z / 2)
        assert path.std[k, 0] == pytest.approx(std)
        assert 2 * path.squared[k, 0] == pytest.approx(2 * std**4)  # |D|^2 = C = 2
        z += std
    assert path.gained[0] == pytest.approx(expit(z) - 0.5)


@pytest.mark.parametrize("size", [2, 5, 16])
def test_gain_by_counting_groups_is_the_power_gain(size):
    J = np.array([1e-3, 0.3, 0.9])
    for power, arm in enumerate(("none", "std", "variance")):
        assert np.allclose(bandit.enumerated_gain(J, arm, size), power_gain(J, power, size), rtol=1e-12)


def test_flow_takes_the_time_of_the_closed_form_and_tails_return():
    for power, arm in enumerate(("none", "std", "variance")):
        even = 0.5 ** (2 - power)  # gain at even odds
        expected = even * two_arm_time(power, 0.0, 3.0)
        assert bandit.flow_time(3.0, arm, None) == pytest.approx(float(expected))
    assert bandit.tail_exponent("std", None) == pytest.approx(-2, abs=0.01)
    assert bandit.tail_exponent("std", 8) == pytest.approx(-1, abs=0.01)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("arm", ARMS)
def test_sampled_runs_take_the_expected_time(optimizer, arm):
    found = bandit.sampled_times(arm, 8, 6, 1, optimizer)
    assert np.median(found) == pytest.approx(bandit.expected_time(arm, 8, optimizer), rel=0.04)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_groups_of_two_know_one_algorithm(optimizer):
    none, std = (bandit.sampled_times(arm, 2, 2, 3, optimizer) for arm in ("none", "std"))
    assert np.allclose(none, std, rtol=1e-6)


def test_plain_steps_do_not_see_a_rotation_and_adam_does():
    assert bandit.expected_time("std", 8) == pytest.approx(bandit.expected_time("std", 8, own=True))
    shared, own = (bandit.expected_time("none", 16, "adam", own) for own in (False, True))
    assert abs(shared / own - 1) > 0.1


def test_best_power_is_two_without_noise_and_overlap_and_below_zero_with_both():
    tried = np.linspace(-2, 3, 51)
    assert bandit.best_powers(0.0, 0.0, 3, 0, tried).formula == pytest.approx(2)
    assert max(bandit.best_powers(16.0, 0.03, 20, 0, tried)) < 0


def test_optimizer_is_one_of_two():
    with pytest.raises(ValueError, match="optimizer"):
        bandit.initial_rate("std", 4, "momentum")
