import doctest
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_families import ESTIMATORS, FAMILIES, LENGTHS, exponent
from scipy.special import expit

import rlvr_lib.theory.threshold
from rlvr_lib import gap_alignment, group_gain, success_rate
from rlvr_lib.testbeds.bandit import SoftmaxBandit, feature_range
from rlvr_lib.testbeds.lines import CountWindow, Ridge, TokenChain, exact_critical_rate
from rlvr_lib.testbeds.token_trees import TokenTrees
from rlvr_lib.theory.threshold import (
    AlongStep,
    critical_learning_rate,
    critical_step,
    first_return_step,
    log_success_curvature,
    token_concavity_step,
    token_critical_step,
)

probabilities = st.floats(1e-3, 1 - 1e-3)
seeds = st.integers(0, 2**32 - 1)


def test_examples_in_the_documentation():
    outcome = doctest.testmod(rlvr_lib.theory.threshold)
    assert outcome.attempted > 0
    assert outcome.failed == 0


# 2a: the critical step of a curved log J


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_shorter_steps_than_the_critical_one_raise_success_on_bandits(seed):
    bandit = SoftmaxBandit.random(seed)
    direction = np.random.default_rng(seed + 1).standard_normal(4)
    r = bandit.enumerate()
    direction *= np.sign(gap_alignment(r, direction)) / np.linalg.norm(direction)
    alignment = gap_alignment(r, direction)
    # Cov(f) - Cov+(f) is the curvature of log J, and Popoviciu bounds the first term everywhere.
    largest = feature_range(bandit.features[0], direction) ** 2 / 4
    step = critical_step(success_rate(r), alignment, largest)
    for fraction in np.linspace(0, 1, 9)[1:-1]:
        moved = bandit.at(bandit.theta + fraction * step * direction).exact()[0]
        assert moved > bandit.exact()[0]


@given(st.floats(0.02, 20), st.floats(-3, -1e-2), st.integers(1, 100))
@settings(deadline=None)
def test_critical_step_never_exceeds_the_exact_one_of_the_chain(weight, position, length):
    chain = TokenChain(length, weight)
    here = chain.along(position)
    largest = chain.along(np.linspace(position, -position, 401)).curvature.max() * (1 + 1e-3)
    assert critical_step(here.success, here.gap, largest) <= 2 * abs(position)


def test_the_constant_two_cannot_be_raised():
    position = -np.array([1e-1, 1e-2, 1e-3])
    for line in (TokenChain(50, 0.3), TokenChain(5, 4.0, shared=False), CountWindow(100, 7)):
        here = line.along(position)
        largest = line.along(np.linspace(position, -position, 101)).curvature.max(0)
        step = critical_step(here.success, here.gap, largest)
        shortfall = 1 - step / (2 * -position)
        assert shortfall.max() < 0.05
        assert (np.diff(shortfall) < 0).all()
        assert shortfall[-1] < 2e-5
        assert (line.along(position + 0.999 * step).log_success > here.log_success).all()
        assert line.along(position[-1] + 1.01 * step[-1]).log_success < here.log_success[-1]


def test_tightness_of_the_guarantee_one_unit_from_the_maximum():
    weight = np.geomspace(1e-3, 1e3, 601)
    chain = TokenChain(7, weight)
    here = chain.along(-1.0)
    largest = chain.along(np.linspace(-1, 0, 1001)[:, None]).curvature.max(0)
    shortfall = 1 - critical_step(here.success, here.gap, largest) / 2
    # As the wrong tokens become rare or dominant, log J tends to a multiple of cosh or log cosh.
    assert shortfall[[0, -1]] == pytest.approx([1 - math.tanh(1)] * 2, abs=2e-3)
    assert 0 < shortfall.min() < 0.005
    assert shortfall.max() <= 1 - math.tanh(1) + 1e-3


def test_on_a_ridge_the_critical_step_is_exact_everywhere():
    ridge = Ridge(np.array([0.2, 0.999]), np.array([3.0, 0.1]))
    position = -np.array([[0.01], [1.0], [4.0]])
    here = ridge.along(position)
    step = critical_step(here.success, here.gap, here.curvature)
    np.testing.assert_allclose(step, np.broadcast_to(-2 * position, step.shape), rtol=1e-12)


def drawn_responses(seed, count, trees=5, level=0.01):
    """Sampled responses of trees whose tokens bend, with exact curvatures and how far an estimate may be from them.

    Hoeffding for the mean of ``second`` over the correct responses and for the sample variance of ``slope``, a
    U-statistic of order two with a kernel in [0, range^2 / 2]; a union over both and over all trees, at ``level``.
    """
    rng, found = np.random.default_rng(seed + 1), []
    tree = TokenTrees.random(seed, trees, 4, 3, bend=2.0)
    tree = replace(tree, reward=rng.integers(0, 2, tree.reward.shape).astype(float))
    here, exact = tree.leaves(), tree.along().curvature
    for k in range(trees):
        prob = np.exp(here.log_prob[k])
        drawn = rng.choice(len(prob), count, p=prob / prob.sum())
        reward, slope, second = (row[k] for row in (tree.reward, here.score, here.hessian))
        right = reward == 1
        correct, rate = int(reward[drawn].sum()), math.log(4 * trees / level) / 2
        slack = np.ptp(second[right]) * math.sqrt(rate / correct)
        slack += np.ptp(slope[right]) ** 2 / 2 * math.sqrt(rate / (correct // 2))
        found.append((reward[drawn], slope[drawn], second[drawn], exact[k], slack))
    return found


def test_recipe_finds_the_curvature_from_one_batch_and_its_sign_matters():
    batches = drawn_responses(3, 400_000, level=1e-6)
    wrong = {"minus the mean, plus the variance": 0, "no second derivative": 0}
    for reward, slope, second, exact, slack in batches:
        assert abs(log_success_curvature(reward, slope, second) - exact) <= slack
        wrong["minus the mean, plus the variance"] += abs(log_success_curvature(reward, slope, -second) - exact) > slack
        wrong["no second derivative"] += abs(log_success_curvature(reward, slope, 0 * second) - exact) > slack
    assert all(count == len(batches) for count in wrong.values()), wrong


def test_curvature_from_all_responses_is_exact():
    tree = TokenTrees.random(5, 20, 4, 3, bend=2.0, ending=0.1)
    here, x = tree.leaves(), 1e-4
    left, middle, right = (tree.along(t).log_success for t in (-x, 0.0, x))
    for k, reward in enumerate(tree.reward):
        found = log_success_curvature(reward, here.score[k], here.hessian[k], np.exp(here.log_prob[k]))
        assert found == pytest.approx(tree.along().curvature[k], rel=1e-9, abs=1e-12)
        assert found == pytest.approx(-(left + right - 2 * middle)[k] / x**2, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("slope", ([1, 0], [1.0], [1.0, 1.0])),
        ("prob", ([1, 0], [1.0, 1.0], [1.0, 1.0], [0.5, 0.3, 0.2])),
        ("reward", ([1, 0.5], [1.0, 1.0], [1.0, 1.0])),
        ("reward", ([1, 0], [1.0, 1.0], [1.0, 1.0])),
        ("reward", ([0, 0], [1.0, 1.0], [1.0, 1.0], [0.5, 0.5])),
        ("prob", ([1, 0], [1.0, 1.0], [1.0, 1.0], [1.5, -0.5])),
    ],
)
def test_curvature_from_responses_refuses_bad_input(name, args):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        log_success_curvature(*args)


@pytest.mark.parametrize("line", [TokenChain(50, 0.3), TokenChain(5, 4.0, shared=False), CountWindow(100, 7)])
def test_a_step_has_the_gap_curvature_and_critical_step_of_its_line(line):
    here = line.along(-0.2)
    J, slope = float(here.success), float(here.success * here.slope)
    step = AlongStep(J, slope, float(here.success * (here.slope**2 - here.curvature)))
    assert step.gap_alignment == pytest.approx(here.gap, rel=1e-12)
    assert step.curvature == pytest.approx(here.curvature, rel=1e-9)
    assert step.critical_step == pytest.approx(critical_step(here.success, here.gap, here.curvature), rel=1e-9)


def test_what_is_undefined_along_a_step_is_none():
    assert AlongStep(0.3, -0.1, -2.0).critical_step == 0
    assert AlongStep(0.3, 0.1, 3.0).critical_step is None  # every step gains
    failed, solved = AlongStep(0.0, 0.0, 0.0), AlongStep(1.0, 0.0, 0.0)
    assert (failed.gap_alignment, failed.curvature, failed.critical_step) == (None, None, None)
    assert (solved.gap_alignment, solved.critical_step) == (None, None)


@pytest.mark.parametrize("name", FAMILIES)
def test_local_log_odds_form_is_at_least_as_long(name):
    line = FAMILIES[name]
    position, h = -0.3 / np.sqrt(LENGTHS), 1e-4 / np.sqrt(LENGTHS)
    here = line.along(position)
    bend = here.curvature / here.failure - here.success * here.gap**2
    numerical = -(line.along(position + h).gap - line.along(position - h).gap) / (2 * h)
    np.testing.assert_allclose(bend, numerical, rtol=1e-5, atol=1e-6 * np.abs(bend).max())
    curved = (here.curvature > 0) & (bend > 0)
    assert curved.mean() > 0.5
    log_form = critical_step(here.success[curved], here.gap[curved], here.curvature[curved])
    assert (2 * here.gap[curved] / bend[curved] >= log_form).all()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("success", (0.0, 1.0, 1.0)),
        ("success", (1.0, 1.0, 1.0)),
        ("alignment", (0.5, np.nan, 1.0)),
        ("curvature", (0.5, 1.0, 0.0)),
        ("curvature", (0.5, 1.0, [1.0, -1.0])),
    ],
)
def test_critical_step_refuses_bad_input(name, arguments):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        critical_step(*arguments)


def test_critical_step_is_elementwise_and_zero_against_the_gap():
    np.testing.assert_allclose(critical_step([0.5, 0.75], [[1.0], [-1.0]], 0.5), [[2.0, 1.0], [0.0, 0.0]])


# 2b: token-wise policies


def test_token_steps_of_one_case_worked_out_by_hand():
    """J = 1/2, gap 3, T = 2, R = 2: 3 / (2 (2 + 2 log 4)), 3 / (2 (1 + 2 + 2 log 4)) where logits bend, 3 / (2 4)."""
    assert token_critical_step(0.5, 3.0, 2, 2.0, hessian_bound=0.0) == pytest.approx(0.3142948, rel=1e-6)
    assert token_critical_step(0.5, 3.0, 2, 2.0, hessian_bound=1.0) == pytest.approx(0.2598488, rel=1e-6)
    assert token_concavity_step(0.5, 3.0, 2, 4.0) == pytest.approx(0.375)
    assert token_critical_step(0.5, [-3.0, 0.0], 2, 2.0).tolist() == [0, 0]


def test_the_second_guarantee_is_longer_until_success_is_high():
    failure = np.linspace(0.001, 0.999, 999)
    first = token_critical_step(1 - failure, 1.0, 10, 1.0)
    second = token_concavity_step(1 - failure, 1.0, 10, 0.25)
    longer = failure[second > first]
    assert longer.min() == pytest.approx(0.115, abs=1e-3)
    assert len(longer) == (failure >= longer.min()).sum()


def test_the_guaranteed_step_shrinks_with_length_and_hardly_with_success():
    assert exponent(LENGTHS, token_critical_step(0.7, 1.0, LENGTHS, 0.4)) == pytest.approx(-1, abs=1e-12)
    failure = 10.0 ** -np.arange(2, 13)
    step = token_critical_step(1 - failure, 1.0, 8, 1.0)
    assert 0 < exponent(failure, step) < 0.2


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("success", (1.0, 1.0, 4, 1.0)),
        ("alignment", (0.5, np.inf, 4, 1.0)),
        ("horizon", (0.5, 1.0, 0, 1.0)),
        ("horizon", (0.5, 1.0, 2.5, 1.0)),
        ("score_range", (0.5, 1.0, 4, 0.0)),
        ("hessian_bound", (0.5, 1.0, 4, 1.0, -0.1)),
    ],
)
def test_token_critical_step_refuses_bad_input(name, arguments):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        token_critical_step(*arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("success", (0.0, 1.0, 4, 1.0)), ("horizon", (0.5, 1.0, 0, 1.0)), ("concavity_bound", (0.5, 1.0, 4, 0.0))],
)
def test_token_concavity_step_refuses_bad_input(name, arguments):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        token_concavity_step(*arguments)


# 2c: learning rates


def test_critical_rates_of_one_case_worked_out_by_hand():
    """J = 0.8, l = 2: gains 0.16 and 0.4, and ten tokens that the estimator divides by."""
    for length, times in ((None, 1), (10, 10)):
        assert critical_learning_rate(0.8, 2.0, "reinforce", length) == pytest.approx(1.25 * times)
        assert critical_learning_rate(0.8, 2.0, "grpo", length) == pytest.approx(0.5 * times)


@given(probabilities, st.integers(2, 64))
def test_finite_groups_change_the_rate_by_their_gain(J, group_size):
    large = critical_learning_rate(J, 1.0, "grpo")
    small = critical_learning_rate(J, 1.0, "grpo", group_size=group_size)
    assert small * group_gain(J, group_size) == pytest.approx(large * math.sqrt(J * (1 - J)))
    assert small >= large
    mean_only = critical_learning_rate(J, 1.0, group_size=group_size)
    assert mean_only == pytest.approx(2 / J * group_size / (group_size - 1))


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("success", {"success": 1.0}),
        ("curvature", {"curvature": 0.0}),
        ("estimator", {"estimator": "ppo"}),
        ("length", {"length": 0}),
        ("group_size", {"group_size": 1}),
        ("group_size", {"group_size": 2.5, "estimator": "grpo"}),
    ],
)
def test_critical_learning_rate_refuses_bad_input(name, keywords):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        critical_learning_rate(**{"success": 0.5, "curvature": 1.0} | keywords)


@pytest.mark.parametrize(("estimator", "length"), ESTIMATORS)
@pytest.mark.parametrize("name", FAMILIES)
def test_critical_rate_at_a_maximum_is_the_exact_one(name, estimator, length):
    line = FAMILIES[name]
    peak = line.along(0.0)
    predicted = critical_learning_rate(peak.success, peak.curvature, estimator, length)
    near = -1e-2 if name == "unshared" else -1e-2 / np.sqrt(LENGTHS)
    measured = exact_critical_rate(line, near, estimator, length)
    np.testing.assert_allclose(measured, predicted, rtol=2e-4)


@pytest.mark.parametrize(("estimator", "group_size"), [("reinforce", None), ("grpo", None), ("grpo", 4)])
@pytest.mark.parametrize("name", FAMILIES)
def test_maximum_is_stable_below_the_critical_rate_only(name, estimator, group_size):
    line, start = FAMILIES[name], -1e-4 / np.sqrt(LENGTHS)
    peak = line.along(0.0)
    critical = critical_learning_rate(peak.success, peak.curvature, estimator, group_size=group_size)
    final = {}
    for factor in (0.99, 1.01):
        position = np.broadcast_to(start, critical.shape)
        for _ in range(60):
            position = position + factor * critical * line.along(position).velocity(estimator, group_size=group_size)
        final[factor] = np.abs(position / start)
    # The linear map multiplies by 1 - 2 * factor: 0.98^60 = 0.30 and 1.02^60 = 3.3.
    np.testing.assert_allclose(final[0.99], 0.98**60, rtol=0.02)
    np.testing.assert_allclose(final[1.01], 1.02**60, rtol=0.02)


# The measured critical step


def test_first_return_is_found_for_every_entry():
    root = np.array([[1e-6], [0.3], [2.0], [50.0]]) * np.array([1.0, 1.37])
    found = first_return_step(lambda h: h * (root - h), 1e-4 * np.ones_like(root), 10.0)
    np.testing.assert_allclose(found[:3], root[:3], rtol=1e-11)
    assert np.isinf(found[3]).all()


def test_first_return_takes_the_first_of_several():
    assert first_return_step(np.sin, 1e-3, 100.0) == pytest.approx(math.pi, rel=1e-11)
    assert first_return_step(lambda h: 1.0 - h, 1.0, 1.0) == pytest.approx(1.0, rel=1e-11)
    assert first_return_step(lambda h: expit(-h) - expit(-2.0), 0.01, 2.5, tolerance=1e-300) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("shortest", {"shortest": 0.0}),
        ("longest", {"longest": 0.5}),
        ("growth", {"growth": 1.0}),
        ("tolerance", {"tolerance": 0.0}),
    ],
)
def test_first_return_refuses_bad_input(name, keywords):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        first_return_step(**{"gain": np.sin, "shortest": 1.0, "longest": 10.0} | keywords)
