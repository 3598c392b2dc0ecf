"""Theorem 4 against autodiff, enumeration of all groups, quadrature and 400-digit arithmetic.

Everything is exact up to rounding; random bandits only choose the instances.
"""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from scipy.special import expit, logit

from rlvr_lib.responses import Responses, success_rate
from rlvr_lib.testbeds.bandit import SoftmaxBandit, feature_diameter, log_odds_and_gap
from rlvr_lib.theory.advantages import power_gain
from rlvr_lib.theory.curvature import (
    best_power,
    curvature_bound,
    curvature_constant,
    gradient_cosines,
    guaranteed_gain,
    guaranteed_gain_ratio,
    optimal_group_weight,
    power_step,
    smoothness,
    two_arm_time,
    within_class_noise,
)
from rlvr_lib.theory.gap import gradient_gap

POWERS = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
seeds = st.integers(0, 2**32 - 1)
powers = st.floats(0, 2)
variances = st.floats(1e-6, 0.25)


def instances(seed, count, arms, dimension, spread):
    """``count`` bandits [count, arms, dimension] with one to arms - 1 correct arms and log-odds around +-spread."""
    rng = np.random.default_rng(seed)
    features = rng.standard_t(3, (count, arms, dimension))
    reward = (np.arange(arms) < rng.integers(1, arms, (count, 1))).astype(float)
    offset = rng.standard_normal((count, arms)) * rng.exponential(1, (count, 1))
    offset += reward * spread * rng.uniform(-1, 1, (count, 1))
    theta = rng.standard_normal((count, dimension)) * rng.exponential(1, (count, 1))
    return theta, features, reward, offset


# 4a


def hessians(theta, features, reward, offset):
    def success(theta, features, reward, offset):
        return torch.softmax(features @ theta + offset, 0) @ reward

    tensors = [torch.as_tensor(x) for x in (theta, features, reward, offset)]
    return torch.func.vmap(torch.func.jacrev(torch.func.jacrev(success)))(*tensors).numpy()


def test_hessian_stays_below_the_bound_and_a_quarter_of_it_would_not_do():
    drawn = instances(1, 500, 5, 3, spread=4.0)
    J = expit(log_odds_and_gap(*drawn)[0])
    well_conditioned = J * (1 - J) >= 1e-6  # autodiff loses the rest to rounding
    assert well_conditioned.sum() >= 400
    norm = np.linalg.norm(hessians(*drawn), 2, axis=(1, 2))
    ratio = (norm / curvature_bound(J, feature_diameter(drawn[1])))[well_conditioned]
    assert (ratio <= 1 + 1e-9).all()
    assert (ratio > 1 / 4).sum() > 10
    assert (ratio > 1 / 16).sum() > 100


def test_hessian_is_variance_times_a_difference_of_conditional_moments():
    theta, features, reward, offset = instances(2, 20, 5, 3, spread=3.0)
    for i, hessian in enumerate(hessians(theta, features, reward, offset)):
        r = SoftmaxBandit(theta[i], features[i : i + 1], reward[i : i + 1], offset[i : i + 1]).enumerate()
        J, D = success_rate(r), gradient_gap(r)
        covariances = []
        for mask in (r.reward == 1, r.reward == 0):
            covariances.append(np.cov(r.score[mask].T, aweights=r.prob[mask], ddof=0))
        expected = J * (1 - J) * (covariances[0] - covariances[1] + (1 - 2 * J) * np.outer(D, D))
        np.testing.assert_allclose(hessian, expected, atol=1e-12)


@pytest.mark.parametrize("depth", [5.0, 10.0, 20.0])
def test_bound_is_approached_by_two_arms_with_unit_features(depth):
    arms = (np.zeros((1, 2)), np.eye(2)[None], np.array([[1.0, 0.0]]), np.array([[-depth, 0.0]]))
    norm = np.linalg.norm(hessians(*arms)[0], 2)
    J = expit(-depth)
    assert norm / curvature_bound(J, math.sqrt(2)) == pytest.approx(1 - 2 * J, rel=1e-9)
    # The spectral norm X of these features is 1: the constant 2 X^2 is the bound, and 4 X^2 is not approached.
    assert curvature_bound(J, math.sqrt(2)) == pytest.approx(2 * J * (1 - J))


def line_curvature(success, correct_at_one, wrong_at_one):
    """Second derivative of J over sigma^2 for features 0 and 1 on a line, given where the two classes are."""
    difference = correct_at_one - wrong_at_one
    covariances = correct_at_one * (1 - correct_at_one) - wrong_at_one * (1 - wrong_at_one)
    return covariances + (1 - 2 * success) * difference**2


def test_constant_is_the_largest_over_features_at_two_points():
    grid = np.linspace(0, 1, 401)
    for success in (0.0, 0.03, 0.2, 0.25, 0.3, 0.45, 0.5, 0.62, 0.75, 0.9, 1.0):
        largest = np.abs(line_curvature(success, grid[:, None], grid)).max()
        assert curvature_constant(success) == pytest.approx(largest, abs=1e-5)
        assert curvature_constant(success) >= largest * (1 - 1e-12)


def test_constant_is_attained_by_the_instance_in_its_docstring():
    for success in (0.1, 0.3, 0.45):
        share = min(1.0, 1 / (4 * success))
        weight = np.array([1 - success, success * share, success * (1 - share) + 1e-300])
        case = (np.zeros((1, 1)), np.array([[[0.0], [1.0], [0.0]]]), np.array([[0.0, 1.0, 1.0]]), np.log(weight)[None])
        norm = abs(hessians(*case)[0, 0, 0])
        assert norm / curvature_bound(success, 1.0) == pytest.approx(curvature_constant(success), rel=1e-12)


def test_no_bandit_is_more_curved_than_the_sharp_constant():
    drawn = instances(5, 500, 5, 3, spread=4.0)
    J = expit(log_odds_and_gap(*drawn)[0])
    J, *drawn = (x[J * (1 - J) >= 1e-6] for x in (J, *drawn))
    norm = np.linalg.norm(hessians(*drawn), 2, axis=(1, 2))
    sharp = curvature_bound(J, feature_diameter(drawn[1])) * curvature_constant(J)
    assert (norm <= sharp * (1 + 1e-9)).all()
    assert (norm > 0.8 * sharp).any()


def test_smoothness_is_the_largest_of_the_sharp_bound_and_attained():
    grid = np.linspace(0, 1, 100_001)
    bound = curvature_constant(grid) * curvature_bound(grid, 3.0)
    assert smoothness(3.0) == pytest.approx(bound.max(), rel=1e-8)
    assert (bound <= smoothness(3.0)).all()
    assert abs(grid[bound.argmax()] - 0.5) == pytest.approx(math.sqrt(3) / 6, abs=1e-5)
    success = 0.5 - math.sqrt(3) / 6
    arms = (np.zeros((1, 1)), np.array([[[3.0], [0.0]]]), np.array([[1.0, 0.0]]), np.array([[logit(success), 0.0]]))
    assert abs(hessians(*arms)[0, 0, 0]) == pytest.approx(smoothness(3.0), rel=1e-12)


def test_no_step_loses_more_than_smoothness_allows():
    theta, features, reward, offset = instances(6, 2000, 5, 3, spread=3.0)
    rng = np.random.default_rng(7)
    step = rng.standard_normal(theta.shape) * rng.exponential(1, (len(theta), 1))
    odds, gap = log_odds_and_gap(theta, features, reward, offset)
    gradient = (expit(odds) * expit(-odds))[:, None] * gap
    after = expit(log_odds_and_gap(theta + step, features, reward, offset)[0])
    remainder = after - expit(odds) - (gradient * step).sum(1)
    share = remainder / (smoothness(feature_diameter(features)) * (step**2).sum(1) / 2)
    assert share.min() >= -1
    assert share.max() <= 1
    assert share.max() > 0.25


# 4b


def measured_gains(theta, features, reward, offset):
    """J, |grad J|, diameter [n] and gains [n, powers] of the steps; a difference of J taken without cancelling."""
    odds, gap = log_odds_and_gap(theta, features, reward, offset)
    J, variance = expit(odds), expit(odds) * expit(-odds)
    diameter = feature_diameter(features)
    step = power_step(J[:, None], POWERS, diameter[:, None])[..., None] * (variance[:, None] * gap)[:, None, :]
    after, _ = log_odds_and_gap(theta[:, None] + step, features[:, None], reward[:, None], offset[:, None])
    rise = np.expm1(after - odds[:, None])
    return J, variance * np.linalg.norm(gap, axis=1), diameter, variance[:, None] * rise / (1 + J[:, None] * rise)


@pytest.mark.parametrize(("arms", "dimension"), [(2, 1), (3, 1), (4, 2), (8, 4)])
def test_no_bandit_gains_less_than_guaranteed(arms, dimension):
    drawn = instances(3, 2000, arms, dimension, spread=5.0)
    J = expit(log_odds_and_gap(*drawn)[0])
    well_conditioned = J * (1 - J) >= 1e-3
    assert well_conditioned.mean() > 0.5
    J, norm, diameter, gain = measured_gains(*(x[well_conditioned] for x in drawn))
    bound = guaranteed_gain(J[:, None], POWERS, norm[:, None], diameter[:, None])
    rounding = 1e-14 * (J * (1 - J))[:, None]  # that of log-odds of order ten
    assert (gain >= bound * (1 - 1e-12) - rounding).all()
    assert (gain < 1.5 * bound - rounding).any(0).all()


def multiprecision_case(theta, features, reward, offset, power):
    """Gain of the step, its guarantee and the variance in the precision of mpmath, then J, |grad J|, diameter rounded.

    The float64 inputs are taken as exact. The guarantee is in the form with the difference of squares, which float64
    cannot evaluate.
    """
    theta = [mpmath.mpf(float(x)) for x in theta]
    features = [[mpmath.mpf(float(x)) for x in row] for row in features]
    offset = [mpmath.mpf(float(x)) for x in offset]

    def policy(at):
        weights = [mpmath.exp(mpmath.fdot(at, f) + o) for f, o in zip(features, offset, strict=True)]
        correct, wrong = (mpmath.fsum(w for w, r in zip(weights, reward, strict=True) if r == s) for s in (1, 0))
        return correct / (correct + wrong), wrong / (correct + wrong), [w / (correct + wrong) for w in weights]

    J, failure, weights = policy(theta)
    advantage = [failure if r else -J for r in reward]
    gradient = [
        mpmath.fsum(w * a * f[i] for w, a, f in zip(weights, advantage, features, strict=True))
        for i in range(len(theta))
    ]
    squared_norm = mpmath.fdot(gradient, gradient)
    squared_diameter = max(
        mpmath.fsum((a - b) ** 2 for a, b in zip(f, g, strict=True)) for f, g in itertools.combinations(features, 2)
    )
    x, a = 2 * mpmath.sqrt(J * failure), mpmath.mpf(power)
    step = 4 / squared_diameter * x**-a
    # The change of the smaller of success and failure, whose digits are not used up by a leading 1.
    new_success, new_failure, _ = policy([t + step * g for t, g in zip(theta, gradient, strict=True)])
    gain = new_success - J if J < 0.5 else failure - new_failure
    bound = 2 / squared_diameter * squared_norm * (x**-2 - (1 / x - x ** (1 - a)) ** 2)
    rounded = float(J), float(mpmath.sqrt(squared_norm)), float(mpmath.sqrt(squared_diameter))
    return gain, bound, J * failure, *rounded


@pytest.mark.parametrize("spread", [3.0, 30.0, 200.0])
def test_guarantee_holds_in_400_digits_however_small_the_variance(spread):
    smallest, judged = 1.0, 0
    with mpmath.workdps(400):
        for case, power in itertools.product(zip(*instances(4, 120, 4, 2, spread=spread), strict=True), POWERS):
            gain, bound, variance, J, norm, diameter = multiprecision_case(*case, power)
            if variance < 1e-100:  # relative slack may be variance^2, rounding 1e-400 / variance
                continue
            assert gain >= bound > 0
            smallest, judged = min(smallest, float(variance)), judged + 1
            if J < 1:
                # J rounds to float64, which near 1 leaves 1 - J a relative error of 1e-16 / (1 - J).
                tolerance = 1e-13 + 4e-16 / (1 - J)
                assert guaranteed_gain(J, power, norm, diameter) == pytest.approx(float(bound), rel=tolerance)
    assert judged >= 300
    assert smallest < math.exp(-spread / 3)


@given(st.floats(1e-145, 1 - 1e-16), powers, st.floats(1e-3, 1.0), st.floats(1e-2, 1e2))
def test_guarantee_against_its_definition_in_400_digits(J, power, fraction, diameter):
    norm = fraction * diameter * J * (1 - J)
    with mpmath.workdps(400):
        j, a, g, d = map(mpmath.mpf, (J, power, norm, diameter))
        x = 2 * mpmath.sqrt(j * (1 - j))
        exact = 2 / d**2 * g**2 * (x**-2 - (1 / x - x ** (1 - a)) ** 2)
        step = 4 / d**2 / x**a
    assert guaranteed_gain(J, power, norm, diameter) == pytest.approx(float(exact), rel=1e-12, abs=0)
    assert power_step(J, power, diameter) == pytest.approx(float(step), rel=1e-12, abs=0)


def test_definition_itself_cancels_in_float64():
    J = 1e-20
    x = 2 * math.sqrt(J)
    assert x**-2 - (1 / x - x) ** 2 == 0
    assert guaranteed_gain(J, 0, J, 1.0) == pytest.approx(4 * J**2, rel=1e-12)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_named_powers_have_their_closed_forms(J, norm, diameter):
    sigma = math.sqrt(J * (1 - J))
    scale = norm**2 / diameter**2
    assert guaranteed_gain(J, 0, norm, diameter) == pytest.approx(4 * scale * (1 - 2 * sigma**2), rel=1e-9)
    assert guaranteed_gain(J, 1, norm, diameter) == pytest.approx(2 * scale * (1 / sigma - 1), rel=1e-9)
    assert guaranteed_gain(J, 2, norm, diameter) == pytest.approx(scale / (2 * sigma**2), rel=1e-9)


@given(st.floats(1e-6, 1 - 1e-6), powers, powers)
def test_guarantee_grows_with_the_power(J, first, second):
    low, high = sorted((first, second))
    assert guaranteed_gain(J, high, 1.0, 1.0) >= guaranteed_gain(J, low, 1.0, 1.0) * (1 - 1e-12)


def test_two_arms_meet_the_guarantee_and_fall_short_of_nothing_larger():
    theta, features = np.zeros((2, 1)), np.array([[[0.5], [-0.5]]] * 2)
    reward, offset = np.array([[1.0, 0.0]] * 2), np.array([[-12.0, 0.0], [12.0, 0.0]])
    J, norm, diameter, gain = measured_gains(theta, features, reward, offset)
    ratio = gain / guaranteed_gain(J[:, None], POWERS, norm[:, None], diameter[:, None])
    np.testing.assert_allclose(ratio[:, 0], 1, atol=1e-4)
    np.testing.assert_allclose(ratio[1, 4], 2 * (1 - math.exp(-1)), atol=1e-4)
    np.testing.assert_allclose(ratio[0, 4], 2 * (math.e - 1), atol=1e-4)


@given(st.floats(1e-150, 0.5))
def test_ratio_in_400_digits(std):
    with mpmath.workdps(400):
        s = mpmath.mpf(std)
        exact = (1 / s - 1) / (2 * (1 - 2 * s**2))
        factored = 1 + (2 * s - 1) ** 2 * (s + 1) / (2 * s * (1 - 2 * s**2))
        assert abs(exact - factored) < mpmath.mpf(10) ** -200
    ratio = guaranteed_gain_ratio(std)
    assert ratio == pytest.approx(float(exact), rel=1e-14)
    assert ratio >= 1 - 1e-15


@given(st.floats(1e-9, 1 - 1e-9))
def test_ratio_is_that_of_the_guarantees(J):
    quotient = guaranteed_gain(J, 1, 1.0, 1.0) / guaranteed_gain(J, 0, 1.0, 1.0)
    assert guaranteed_gain_ratio(math.sqrt(J * (1 - J))) == pytest.approx(quotient, rel=1e-9)
    assert guaranteed_gain_ratio(0.5) == 1


# 4c


def squared_gradients(steps):
    """GRPO at step size 1 / (2 X^2), X = 1, from J = 1/2: squared gradient and standard deviation at each iteration."""
    theta, squared, std = np.zeros(2), [], []
    for _ in range(steps):
        J, gradient = SoftmaxBandit(theta, np.eye(2)[None], [[1, 0]]).exact()
        std.append(math.sqrt(J * (1 - J)))
        squared.append(float(gradient @ gradient))
        theta = theta + gradient / (2 * std[-1])
    return np.array(squared), np.array(std)


def test_sum_of_squared_gradients_is_not_bounded_by_the_mean_std_but_their_minimum_is():
    squared, std = squared_gradients(1000)
    for steps, printed in ((100, 0.2095), (1000, 0.0332)):
        bound = 8 / 3 * std[:steps].mean()
        assert bound == pytest.approx(printed, abs=5e-5)
        assert squared[:steps].sum() == pytest.approx(0.4404, abs=5e-5)
        assert squared[:steps].sum() > 2 * bound
        assert steps * squared[:steps].min() <= bound
        # What the descent step gives before any minimum is taken: weights, and no mean of std to shrink with.
        curvature = curvature_bound(0.5, math.sqrt(2)) / 0.25
        weighted = (squared[:steps] * (1 / std[:steps] - curvature / 4)).sum()
        assert weighted <= 2 * (1 - 0.5)


def test_counterexample_stands_at_ten_thousand_iterations():
    z, total, std = 0.0, 0.0, 0.0
    for _ in range(10_000):
        sigma = 0.5 / math.cosh(z / 2)
        total, std, z = total + 2 * sigma**4, std + sigma / 10_000, z + sigma
    assert total == pytest.approx(0.4404, abs=5e-5)
    assert 8 / 3 * std == pytest.approx(0.0045, abs=5e-5)


# Overlap


@given(seeds, st.integers(2, 7), st.integers(1, 5), st.floats(-200, 150))
def test_cosines_in_order_and_free_of_scale(seed, q, d, exponent):
    gradients = np.random.default_rng(seed).standard_normal((q, d))
    expected = [a @ b / math.sqrt(a @ a) / math.sqrt(b @ b) for a, b in itertools.combinations(gradients, 2)]
    cosines = gradient_cosines(gradients * 10.0 ** (exponent * np.linspace(0, 1, q))[:, None])
    np.testing.assert_allclose(cosines, expected, atol=1e-12)


@given(seeds, st.integers(1, 9))
def test_cosines_of_parallel_gradients_do_not_exceed_one(seed, d):
    direction = np.random.default_rng(seed).standard_normal(d)
    cosines = gradient_cosines(np.outer([1, -1, 3, 0.1, -7], direction))
    np.testing.assert_allclose(np.abs(cosines), 1, rtol=4e-15)
    assert (np.abs(cosines) <= 1).all()


# 4d


@given(st.sampled_from([0, 1, 2]), st.floats(-8, 8), st.floats(0, 8), st.floats(0.1, 10))
@settings(max_examples=60)
def test_times_are_integrals_of_the_inverse_velocity(power, start, way, rate):
    expected, _ = quad(lambda z: (expit(z) * expit(-z)) ** (power / 2 - 1) / rate, start, start + way, epsrel=1e-11)
    assert two_arm_time(power, start, start + way, rate) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(st.sampled_from([0, 1, 2]), st.floats(-40, 40), st.floats(1e-12, 40), st.floats(0.1, 10))
def test_times_in_high_precision_also_for_short_ways(power, start, way, rate):
    with mpmath.workdps(60):
        antiderivative = {0: lambda z: 2 * z + 2 * mpmath.sinh(z), 1: lambda z: 4 * mpmath.sinh(z / 2), 2: lambda z: z}
        stop = start + way
        a, b = mpmath.mpf(start), mpmath.mpf(stop)
        exact = (antiderivative[power](b) - antiderivative[power](a)) / mpmath.mpf(rate)
    assert two_arm_time(power, start, stop, rate) == pytest.approx(float(exact), rel=1e-12)


def test_times_from_even_odds_and_across():
    z = np.array([0.5, 2.0, 6.0])
    for power, expected in ((0, 2 * z + 2 * np.sinh(z)), (1, 4 * np.sinh(z / 2)), (2, z)):
        np.testing.assert_allclose(two_arm_time(power, 0.0, z, 3.0), expected / 3, rtol=1e-12)
        np.testing.assert_allclose(two_arm_time(power, -z, z, 3.0), 2 * expected / 3, rtol=1e-12)


def test_failure_tails_fall_as_one_over_t_its_square_and_exponentially():
    deep, deeper = -logit(1e-10), -logit(1e-12)
    ratio = [two_arm_time(power, 0, deeper) / two_arm_time(power, 0, deep) for power in (0, 1)]
    np.testing.assert_allclose(ratio, [100, 10], rtol=1e-4)
    assert two_arm_time(2, 0, deeper) - two_arm_time(2, 0, deep) == pytest.approx(math.log(100))


@pytest.mark.parametrize("power", [0, 1, 2])
def test_bandit_follows_the_flow(power):
    features = np.array([[[0.6, -0.2], [-0.4, 0.7]]])
    bandit = SoftmaxBandit(np.zeros(2), features, [[1, 0]], [[-2.0, 0.0]])
    time = two_arm_time(power, -2.0, 3.0, rate=((features[0, 0] - features[0, 1]) ** 2).sum())

    def velocity(_, theta):
        J, gradient = bandit.at(theta).exact()
        return gradient * (J * (1 - J)) ** (-power / 2)

    end = solve_ivp(velocity, (0, time), bandit.theta, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    assert logit(bandit.at(end).exact()[0]) == pytest.approx(3.0, abs=1e-7)


def all_groups(r, size):
    """Arms [outcomes, size] and probability [outcomes] of every ordered group."""
    arms = np.array(list(itertools.product(range(len(r)), repeat=size)))
    return arms, r.prob[arms].prod(1)


# 4e


def equal_spread_bandit(seed):
    """Two correct and two wrong arms with equal within-class variances (not covariances) of their features."""
    rng = np.random.default_rng(seed)
    centre, angle = rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
    angle /= np.linalg.norm(angle, axis=1, keepdims=True)
    features = np.concatenate([[c + 0.8 * a, c - 0.8 * a] for c, a in zip(centre, angle, strict=True)])
    return SoftmaxBandit(np.zeros(3), features[None], [[1, 1, 0, 0]], [[0.4, 0.4, 0, 0]])


@pytest.mark.parametrize("size", [2, 3, 5])
def test_best_weight_over_all_groups(size):
    r = equal_spread_bandit(size).enumerate()
    gap, noise = gradient_gap(r), within_class_noise(r)
    arms, prob = all_groups(r, size)
    reward = r.reward[arms]
    update = np.einsum("og,ogd->od", reward - reward.mean(1, keepdims=True), r.score[arms]) / size
    ratios = []
    for correct in range(1, size):
        given_correct = prob * (reward.sum(1) == correct)
        given_correct /= given_correct.sum()
        variance = correct * (size - correct) / size**2
        mean, energy = given_correct @ update, given_correct @ (update**2).sum(1)
        np.testing.assert_allclose(mean, variance * gap, atol=1e-13)
        assert energy - mean @ mean == pytest.approx(variance * noise / size * (gap @ gap), rel=1e-12)
        # w <u, D> - w^2 |u|^2 / 2 is largest in expectation at this w, for every group separately.
        ratios.append(mean @ gap / energy / optimal_group_weight(variance, noise, size))
    np.testing.assert_allclose(ratios, 1, rtol=1e-12)


@given(seeds)
def test_within_class_noise_of_unequal_classes_over_all_groups_that_match_the_success_rate(seed):
    rng = np.random.default_rng(seed)
    score = rng.standard_normal((5, 3))
    r = Responses([1, 1, 0, 0, 0], score, np.array([0.1, 0.15, 0.1, 0.3, 0.35]))
    arms, prob = all_groups(r, 4)
    matching = r.reward[arms].sum(1) == 1  # of 4, as J = 1/4
    update = np.einsum("og,ogd->od", r.reward[arms[matching]] - 0.25, r.score[arms[matching]]) / 4
    weight = prob[matching] / prob[matching].sum()
    mean = weight @ update
    spread = weight @ ((update - mean) ** 2).sum(1)
    gap = gradient_gap(r)
    assert spread == pytest.approx(3 / 16 * within_class_noise(r) / 4 * (gap @ gap), rel=1e-9)


@given(st.floats(1e-4, 0.24), st.floats(0, 10), st.integers(1, 64), st.floats(0, 10), st.floats(0, 0.25))
def test_best_power_is_the_slope_of_the_best_weight(variance, noise, size, overlap, mean_variance):
    step = 1e-5
    weights = optimal_group_weight(variance * np.exp([-step, step]), noise, size, overlap, mean_variance)
    slope = np.diff(np.log(weights))[0] / (2 * step)
    assert best_power(variance, noise, size, overlap, mean_variance) == pytest.approx(-2 * slope, abs=1e-6)


def test_best_power_runs_from_two_below_zero():
    assert best_power(0.1, 0.0, 16) == 2
    assert best_power(0.1, 1.6, 16) == pytest.approx(1)
    assert best_power(0.1, 0.0, 16, overlap=1.0, mean_variance=0.1) == pytest.approx(1)
    assert best_power(0.1, 1.6, 16, overlap=1.0, mean_variance=0.1) == pytest.approx(0)
    assert best_power(0.01, 1e6, 16, overlap=1e6, mean_variance=0.1) == pytest.approx(-2, abs=1e-4)
    assert optimal_group_weight(0.0, 2.0, 4, overlap=1.0) == 0
    assert optimal_group_weight(0.0, 2.0, 4) == pytest.approx(2.0)
    # A prompt's best weight does not depend on what other prompts do where their gradients are orthogonal.
    np.testing.assert_allclose(optimal_group_weight([0.1, 0.2], 1.0, 4, 0.0, 0.2), [1 / 0.35, 1 / 0.45])


def test_best_weights_maximise_the_second_order_gain_of_overlapping_prompts():
    rng = np.random.default_rng(0)
    variance, noise, size, overlap = rng.uniform(0.02, 0.25, 6), 1.5, 4, 0.7

    def gain(weight):
        felt = variance + overlap * variance.mean()
        return (weight * variance**2 - weight**2 * variance * (variance + noise / size) * felt / 2).sum()

    best = optimal_group_weight(variance, noise, size, overlap, variance.mean())
    for i, change in itertools.product(range(6), (-0.01, 0.01)):
        assert gain(best * (1 + change * (np.arange(6) == i))) < gain(best)


# Bad input


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (curvature_bound, (1.1, 1.0), "success"),
        (curvature_bound, (-0.1, 1.0), "success"),
        (curvature_bound, (np.nan, 1.0), "success"),
        (curvature_bound, (0.5, 0.0), "diameter"),
        (curvature_constant, ([0.2, 1.1],), "success"),
        (smoothness, (0.0,), "diameter"),
        (power_step, (0.0, 1.0, 1.0), "success"),
        (power_step, (0.5, 2.1, 1.0), "power"),
        (power_step, (0.5, 1.0, -1.0), "diameter"),
        (guaranteed_gain, (1.0, 1.0, 1.0, 1.0), "success"),
        (guaranteed_gain, (0.5, -0.1, 1.0, 1.0), "power"),
        (guaranteed_gain, (0.5, 2.1, 1.0, 1.0), "power"),
        (guaranteed_gain, (0.5, 1.0, 0.0, 1.0), "gradient_norm"),
        (guaranteed_gain, (0.5, 1.0, 1.0, 0.0), "diameter"),
        (guaranteed_gain, (0.5, 1.0, 1.0, np.inf), "diameter"),
        (guaranteed_gain_ratio, (0.0,), "std"),
        (guaranteed_gain_ratio, ([0.2, 0.51],), "std"),
        (guaranteed_gain_ratio, ("a",), "std"),
        (gradient_cosines, ([[1.0, 2.0]],), "gradients"),
        (gradient_cosines, ([1.0, 2.0],), "gradients"),
        (gradient_cosines, ([[1.0, 2.0], [0.0, 0.0]],), "gradients"),
        (gradient_cosines, ([[1.0, 2.0], [np.nan, 0.0]],), "gradients"),
        (gradient_cosines, (np.ones((2, 0)),), "gradients"),
        (two_arm_time, (0.5, 0.0, 1.0), "power"),
        (two_arm_time, (1, 1.0, 0.0), "stop"),
        (two_arm_time, (1, 0.0, 1.0, 0.0), "rate"),
        (power_gain, (1.5, 1.0), "success"),
        (power_gain, (0.5, 3.0, 4), "power"),
        (power_gain, (0.5, 1.0, 0), "group_size"),
        (within_class_noise, (Responses([1, 1], np.ones((2, 1))),), "reward"),
        (within_class_noise, (Responses([1, 0], np.ones((2, 1))),), "score"),
        (optimal_group_weight, (0.3, 1.0, 4), "variance"),
        (optimal_group_weight, (0.2, -1.0, 4), "noise"),
        (optimal_group_weight, ([0.2, 0.0], 0.0, 4), "noise"),
        (optimal_group_weight, (0.2, 1.0, 0), "group_size"),
        (optimal_group_weight, (0.2, 1.0, 4, -1.0), "overlap"),
        (optimal_group_weight, (0.2, 1.0, 4, 1.0, 0.3), "mean_variance"),
        (best_power, (0.0, 1.0, 4), "variance"),
    ],
)
def test_bad_input_is_named(function, arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        function(*arguments)
