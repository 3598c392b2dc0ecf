"""What is said about one step, against the theorem functions on the gradients themselves."""

import math

import numpy as np
import pytest

from rlvr_lib import gradient_cosines, gradient_snr, group_gain, squared_signal
from rlvr_lib.theory.baseline import pooled_baselines
from rlvr_lib.theory.threshold import AlongStep
from rlvr_lib.trl.step import Along, Groups, Scores, jackknife

RNG = np.random.default_rng(0)


def scores(prompts=6, dim=20, dead=()):
    gradients = RNG.standard_normal((prompts, dim)) + 0.7
    used = 2 * gradients
    used[list(dead)] = 0
    count = np.full(prompts, 8.0)
    correct = RNG.integers(1, 8, prompts).astype(float)
    energies = RNG.random((3, prompts)) + 0.5
    return gradients, used, Scores(Groups(count, correct), *energies, gradients @ gradients.T, used @ used.T)


def test_values_are_those_of_the_theorem_functions():
    gradients, used, parts = scores(dead=[2])
    values = parts.values()
    success = (parts.groups.correct / 8).mean()
    assert values["gradient_snr"] == pytest.approx(gradient_snr(used), rel=1e-9)
    assert values["noise_scale"] == pytest.approx(6 / gradient_snr(used), rel=1e-9)
    cosines = gradient_cosines(np.delete(used, 2, 0))
    assert values["cosine_mean"] == pytest.approx(cosines.mean(), rel=1e-9)
    assert values["cosine_std"] == pytest.approx(cosines.std(ddof=1), rel=1e-9)
    gap = math.sqrt(squared_signal(gradients)) / (success * (1 - success))
    assert values["gap_norm"] == pytest.approx(gap, rel=1e-9)


def test_baseline_loss_compares_with_the_best_of_other_groups():
    """From single responses: sum of (r - b)^2 |s|^2 with the mean of the others over that with pooled b*."""
    reward, energy = RNG.integers(0, 2, (5, 8)).astype(float), RNG.random((5, 8)) + 0.1
    others = (reward.sum(1, keepdims=True) - reward) / 7
    best = pooled_baselines(reward, energy)[:, None]
    parts = Scores(
        Groups(np.full(5, 8.0), reward.sum(1)), (reward * energy).sum(1), ((1 - reward) * energy).sum(1),
        ((reward - others) ** 2 * energy).sum(1), np.eye(5), np.eye(5),
    )  # fmt: skip
    expected = ((reward - others) ** 2 * energy).sum() / ((reward - best) ** 2 * energy).sum()
    assert parts.values()["baseline_loss"] == pytest.approx(expected, rel=1e-12)
    assert parts.values()["optimal_baseline"] == pytest.approx((reward * energy).sum() / energy.sum(), rel=1e-12)


def test_spread_is_the_gain_of_grpo_on_average():
    """I6: the mean of sqrt(phat (1 - phat)) is what ``group_gain`` predicts; 6 standard errors, 20,000 groups."""
    correct = RNG.binomial(5, 0.3, 20_000).astype(float)
    spread = np.sqrt(correct * (5 - correct)) / 5
    measured = Groups(np.full(20_000, 5.0), correct).values()["success_std"]
    error = spread.std() / math.sqrt(20_000)
    assert abs(measured - group_gain(0.3, 5)) < 6 * error
    assert abs(measured - math.sqrt(0.21)) > 6 * error


@pytest.mark.parametrize("correct", [np.zeros(4), np.full(4, 8.0)])
def test_solved_and_failed_steps_are_undefined_and_not_zero(correct):
    parts = Scores(Groups(np.full(4, 8.0), correct), *np.zeros((3, 4)), np.zeros((4, 4)), np.zeros((4, 4)))
    values = parts.values() | Along(parts.groups, *np.zeros((2, 4)), np.zeros((3, 3)), 0.1, 0.01).values()
    undefined = {name for name, value in values.items() if value is None}
    assert undefined == {
        "gap_norm", "gradient_snr", "noise_scale", "cosine_mean", "cosine_std", "optimal_baseline", "baseline_loss",
        "gap_alignment", "critical_learning_rate", "learning_rate_ratio",
    }  # fmt: skip
    assert parts.groups.values()["dead_groups"] == 1
    assert all(error is None for name, error in jackknife(parts, 4).items())


def test_one_prompt_has_no_signal():
    one = scores()[2].part(np.array([0]))
    assert one.values()["gradient_snr"] is None
    assert one.values()["optimal_baseline"] is not None
    assert all(error is None for error in jackknife(one, 1).values())


def test_jackknife_error_of_a_mean_is_its_standard_error():
    groups = Groups(np.full(9, 4.0), RNG.integers(0, 5, 9).astype(float))
    rates = groups.correct / 4
    assert jackknife(groups, 9)["success_rate"] == pytest.approx(rates.std(ddof=1) / 3, rel=1e-9)


def along(slope, second, length=0.2, rate=0.01, noise=0.001):
    same = np.full(12, slope), np.full(12, second)
    return Along(Groups(np.full(12, 10.0), np.full(12, 3.0)), *same, noise**2 * np.eye(3), length, rate)


def test_the_excess_is_positive_exactly_beyond_the_critical_rate():
    measured, exact = along(0.3, -1.2), AlongStep(0.3, 0.3, -1.2)
    assert measured.values()["critical_learning_rate"] == pytest.approx(exact.critical_step * 0.01 / 0.2)
    ratio = measured.values()["learning_rate_ratio"]
    assert ratio == pytest.approx(0.2 / exact.critical_step)
    assert measured.excess(0.99 * ratio)[0] > 0 > measured.excess(1.01 * ratio)[0]
    assert measured.beyond(0.5 * ratio, 2.0)
    assert not measured.beyond(2 * ratio, 2.0)
    assert not along(0.3, -1.2, noise=3.0).beyond(0.9 * ratio, 2.0)


def test_error_of_the_excess_is_that_of_its_linear_part():
    """Against 200,000 draws of success, slope and second with a small covariance."""
    root = 1e-3 * RNG.standard_normal((3, 3))
    measured = along(0.3, -1.2)
    measured = Along(measured.groups, measured.slope, measured.second, root @ root.T, 0.2, 0.01)
    success, slope, second = (np.array([0.3, 0.3, -1.2]) + RNG.standard_normal((200_000, 3)) @ root.T).T
    drawn = 0.2 / 1.5 / 2 * (slope**2 / success - second) - slope
    assert measured.excess(1.5)[0] == pytest.approx(drawn.mean(), abs=1e-4)
    assert measured.excess(1.5)[1] == pytest.approx(drawn.std(), rel=0.02)


def test_a_step_downhill_is_beyond_any_rate_and_a_bending_upward_within():
    assert along(-0.3, 1.0).beyond(1e6, 2.0)
    assert along(-0.3, 1.0).values()["learning_rate_ratio"] is None
    assert not along(0.3, 2.0).beyond(1e-6, 2.0)
    assert along(0.3, 2.0).values()["critical_learning_rate"] is None
    nothing = Along(Groups(np.full(3, 4.0), np.zeros(3)), np.zeros(3), np.zeros(3), np.zeros((3, 3)), 0.1, 0.01)
    assert not nothing.beyond(1.0, 2.0)
