import doctest
import itertools
import math
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

import rlvr_lib.testbeds.collapse
import rlvr_lib.theory.threshold
from rlvr_lib import Responses, gap_alignment, group_gain, success_rate
from rlvr_lib.testbeds.bandit import SoftmaxBandit, feature_range, token_bandit
from rlvr_lib.testbeds.collapse import Ridge, Sawtooth
from rlvr_lib.testbeds.lines import CountWindow, TokenChain, exact_critical_rate
from rlvr_lib.testbeds.token_trees import TokenTrees
from rlvr_lib.theory.threshold import (
    critical_learning_rate,
    critical_step,
    estimator_gain,
    failure_energy_bound,
    first_return_step,
    log_success_curvature,
    token_concavity_step,
    token_critical_step,
)

probabilities = st.floats(1e-3, 1 - 1e-3)
seeds = st.integers(0, 2**32 - 1)
LENGTHS = np.array([16, 64, 256, 1024])
LEVELS = np.array([0.1, 0.5, 0.9, 0.99])[:, None]
ESTIMATORS = [("reinforce", None), ("grpo", None), ("grpo", LENGTHS)]

FAMILIES = {
    "aggregate": CountWindow(LENGTHS, np.array([0.25, 0.5, 0.75, 1.0])[:, None] * np.sqrt(LENGTHS)),
    "shared": TokenChain.with_peak(LENGTHS, LEVELS),
    "fixed token error": TokenChain.with_token_error(LENGTHS, np.array([1e-6, 1e-5, 1e-4, 1e-3])[:, None]),
    "unshared": TokenChain.with_peak(LENGTHS, LEVELS, shared=False),
}


def exponent(length, value):
    return np.polyfit(np.log(length), np.log(value), 1)[0]


@pytest.mark.parametrize("module", [rlvr_lib.theory.threshold, rlvr_lib.testbeds.collapse])
def test_examples_in_the_documentation(module):
    outcome = doctest.testmod(module)
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


def token_trees():
    """Random and adversarial trees, turned so that the gap points along the line, with their positions' data."""
    kinds = [
        (TokenTrees.random(1, 100, 6), 1.0),
        (TokenTrees.random(2, 60, 4, 4, ending=0.2), 1.0),
        (TokenTrees.random(3, 60, 5, 3, bend=0.7, ending=0.1), 0.5),
        (TokenTrees.random(4, 60, 5, 3, bend=0.2, spread=0.2).failing_at_extremes(0.03), 0.5),
        *((TokenTrees.random(5, 50, 10, spread=0.1).failing_at_extremes(mass), 8.0) for mass in (0.1, 0.01, 0.002)),
        *((TokenTrees.random(6, 30, 9, spread=s, ending=0.05).failing_at_extremes(0.01), 8.0) for s in (0.02, 0.5)),
    ]
    return [(trees.reversed(trees.along().slope < 0), longest) for trees, longest in kinds]


def losing(trees, step, start):
    """Trees on which some step of up to this length does not raise success."""
    fractions = np.linspace(0, 1, 17)[1:, None] * (1 - 1e-9)
    return (trees.along(fractions * step).log_success <= start.log_success).any(0)


@pytest.fixture(scope="module")
def attacked():
    totals = {"trees": 0, "guaranteed": 0, "concave": 0, "no logarithm": 0, "lemma": 0, "lemma without": 0}
    tightest = 0.0
    for trees, longest in token_trees():
        horizon, start, energy = len(trees.offset), trees.along(), trees.failure_energy()
        here, along = trees.score_range(0.0), trees.score_range(longest)
        bend = trees.hessian_range()
        J, gap = start.success, start.gap
        steps = {
            "guaranteed": token_critical_step(J, gap, horizon, along, bend),
            "concave": token_concavity_step(J, gap, horizon, bend + along**2 / 4),
            "no logarithm": 2 * J * gap / (horizon * (bend + along**2 / 2)),
        }
        bound = failure_energy_bound(J, horizon, here)
        totals["trees"] += len(gap)
        for name, step in steps.items():
            totals[name] += int(losing(trees, np.minimum(step, longest), start).sum())
        totals["lemma"] += int((energy > bound).sum())
        totals["lemma without"] += int((energy > horizon * here**2 / 2).sum())
        tightest = max(tightest, float((energy / bound).max()))
    return totals, tightest


def test_both_token_guarantees_hold_on_every_tree(attacked):
    totals, tightest = attacked
    assert totals["trees"] == 490
    assert totals["guaranteed"] == totals["concave"] == totals["lemma"] == 0
    assert 0.5 < tightest < 1


def test_without_the_logarithm_the_guarantee_and_its_lemma_fail(attacked):
    totals, _ = attacked
    assert totals["no logarithm"] > 100
    assert totals["lemma without"] > 100


def test_trees_have_the_moments_of_their_derivatives():
    trees = TokenTrees.random(7, 20, 4, 3, bend=0.8, ending=0.2)
    h = 1e-3
    leaves = trees.leaves(0.4)
    np.testing.assert_allclose(np.exp(leaves.log_prob).sum(-1), 1, rtol=1e-12)
    before, after = trees.leaves(0.4 - h), trees.leaves(0.4 + h)
    np.testing.assert_allclose(leaves.score, (after.log_prob - before.log_prob) / (2 * h), atol=1e-5)
    np.testing.assert_allclose(leaves.hessian, (after.score - before.score) / (2 * h), atol=1e-5)
    here, left, right = (trees.along(0.4 + d) for d in (0, -h, h))
    np.testing.assert_allclose(here.slope, (right.log_success - left.log_success) / (2 * h), atol=1e-5)
    np.testing.assert_allclose(here.curvature, -(right.slope - left.slope) / (2 * h), atol=1e-5)
    r = Responses(trees.reward[3], leaves.score[3][:, None], np.exp(leaves.log_prob[3]))
    assert here.gap[3] == pytest.approx(gap_alignment(r, [1.0]), rel=1e-10)
    wrong = r.reward == 0
    energy = r.prob[wrong] @ r.score[wrong, 0] ** 2 / r.prob[wrong].sum()
    assert trees.failure_energy(0.4)[3] == pytest.approx(energy, rel=1e-12)


def test_ended_responses_carry_no_score_and_bounds_cover_the_segment():
    trees = TokenTrees.random(8, 10, 5, 3, bend=2.0, ending=0.5)
    ended = [np.ptp(v, axis=-1) == 0 for v in trees.velocity]
    assert not ended[0].any()
    assert all(flags.any() for flags in ended[1:])
    assert all((np.repeat(a, 3, axis=1) <= b).all() for a, b in itertools.pairwise(ended))
    wide, concave = trees.score_range(1.5), trees.hessian_range() + trees.score_range(1.5) ** 2 / 4
    for x in np.linspace(0, 1.5, 7):
        for offset, v, a in zip(trees.offset, trees.velocity, trees.acceleration, strict=True):
            logits = offset + v * x + a * x * x / 2
            p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            steep = v + a * x
            mean = (p * steep).sum(-1, keepdims=True)
            hessian = a - (p * (a + (steep - mean) ** 2)).sum(-1, keepdims=True)
            assert (np.ptp(steep, axis=-1).max(-1) <= wide + 1e-12).all()
            assert (hessian.max((-1, -2)) <= trees.hessian_range() + 1e-12).all()
            assert (-hessian.min((-1, -2)) <= concave + 1e-12).all()


def test_the_adversary_takes_extremes_up_to_its_mass():
    trees = TokenTrees.random(9, 5, 6).failing_at_extremes(0.2)
    leaves = trees.leaves()
    wrong = trees.reward == 0
    mass = (np.exp(leaves.log_prob) * wrong).sum(-1)
    size = np.abs(leaves.score)
    largest_single = np.exp(leaves.log_prob).max(-1)
    assert (mass <= np.maximum(0.2, largest_single)).all()
    assert wrong.any(-1).all()
    assert (~wrong).any(-1).all()
    assert (np.where(wrong, size, np.inf).min(-1) >= np.where(wrong, 0, size).max(-1)).all()


@given(probabilities, st.floats(0.01, 10), st.integers(1, 5000), st.floats(0.01, 10), st.floats(0, 5))
def test_token_critical_step_follows_its_formula(J, gap, horizon, spread, bend):
    expected = 2 * J * gap / horizon / (bend + spread * spread / 2 * (1 + math.log(2 / (1 - J))))
    assert token_critical_step(J, gap, horizon, spread, bend) == pytest.approx(expected, rel=1e-9)
    assert token_critical_step(J, -gap, horizon, spread, bend) == 0
    assert token_concavity_step(J, gap, horizon, spread) == pytest.approx(2 * (1 - J) * gap / (horizon * spread))


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
    np.testing.assert_allclose(step * (1 + np.log(2 / failure)), (1 - failure) / 2, rtol=1e-4)
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


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("bend", {"bend": -1.0}),
        ("spread", {"spread": np.nan}),
        ("ending", {"ending": 1.0}),
        ("horizon", {"horizon": 17}),
        ("vocabulary", {"vocabulary": 1}),
        ("trees", {"trees": 0}),
    ],
)
def test_impossible_trees_are_refused(name, keywords):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        TokenTrees.random(**{"seed": 0, "trees": 2, "horizon": 3} | keywords)
    with pytest.raises(ValueError, match="^mass must be"):
        TokenTrees.random(0, 2, 3).failing_at_extremes(1.0)


# 2c: learning rates


@given(probabilities, st.floats(1e-3, 1e3), st.integers(1, 5000))
def test_critical_rates_of_reinforce_and_grpo(J, curvature, length):
    reinforce, grpo = 2 / (J * curvature), 2 * math.sqrt((1 - J) / J) / curvature
    assert critical_learning_rate(J, curvature) == pytest.approx(reinforce)
    assert critical_learning_rate(J, curvature, "grpo") == pytest.approx(grpo)
    assert critical_learning_rate(J, curvature, "grpo", length) == pytest.approx(length * grpo)
    assert critical_learning_rate(J, curvature, "reinforce", length) == pytest.approx(length * reinforce)


@given(probabilities, st.integers(2, 64))
def test_finite_groups_change_the_rate_by_their_gain(J, group_size):
    large = critical_learning_rate(J, 1.0, "grpo")
    small = critical_learning_rate(J, 1.0, "grpo", group_size=group_size)
    assert small * group_gain(J, group_size) == pytest.approx(large * math.sqrt(J * (1 - J)))
    assert small >= large
    mean_only = critical_learning_rate(J, 1.0, group_size=group_size)
    assert mean_only == pytest.approx(2 / J * group_size / (group_size - 1))


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


# 2d: four families


@pytest.mark.parametrize(
    ("line", "exponents", "within"),
    [
        (CountWindow(LENGTHS, np.sqrt(LENGTHS) / 2), (-1, -1, 0), 0.03),
        (TokenChain.with_peak(LENGTHS, 0.5), (0, 0, 1), 0.01),
        (TokenChain.with_token_error(LENGTHS, 1e-6), (-1, -0.5, 0.5), 0.002),
        (TokenChain.with_peak(LENGTHS, 0.5, shared=False), (1, 1, 2), 0.01),
    ],
)
def test_exponents_of_the_length(line, exponents, within):
    near = -1e-2 / (1.0 if getattr(line, "shared", True) is False else np.sqrt(LENGTHS))
    for (estimator, length), expected in zip(ESTIMATORS, exponents, strict=True):
        measured = exponent(LENGTHS, exact_critical_rate(line, near, estimator, length))
        assert measured == pytest.approx(expected, abs=within)


def test_length_normalisation_flattens_reinforce_where_the_token_error_is_fixed():
    line = TokenChain.with_token_error(LENGTHS, 1e-6)
    rate = exact_critical_rate(line, -1e-2 / np.sqrt(LENGTHS), "reinforce", LENGTHS)
    assert exponent(LENGTHS, rate) == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("name", FAMILIES)
def test_from_any_level_the_exact_step_is_the_mirror_image(name):
    line = FAMILIES[name]
    start = line.start(0.6 * line.along(0.0).success)
    np.testing.assert_allclose(line.along(start).success, 0.6 * line.along(0.0).success, rtol=1e-9)
    assert (start < 0).all()
    for estimator, length in ESTIMATORS:
        exact = exact_critical_rate(line, start, estimator, length, group_size=8)
        moved = start + exact * line.along(start).velocity(estimator, length, group_size=8)
        np.testing.assert_allclose(moved, -start, rtol=1e-9)


def test_starts_at_one_level_have_the_same_exponents():
    line = CountWindow(LENGTHS, np.sqrt(LENGTHS) / 2)
    rate = exact_critical_rate(line, line.start(0.5))
    assert exponent(LENGTHS, rate) == pytest.approx(-1, abs=0.05)


def signed_tokens(horizon, weight, shared):
    """Every response of the chain as a bandit: tokens 0 right, +1 and -1 wrong."""
    tokens = np.array(np.meshgrid(*[[0, 1, -1]] * horizon)).reshape(horizon, -1).T
    features = tokens.sum(1, keepdims=True) if shared else tokens
    offset = math.log(weight) * (tokens != 0).sum(1)
    theta = np.zeros(features.shape[1])
    return SoftmaxBandit(theta, features[None].astype(float), (tokens == 0).all(1)[None].astype(float), offset[None])


@pytest.mark.parametrize("shared", [True, False])
def test_chain_is_the_policy_it_says(shared):
    horizon, weight, x = 4, 0.3, -0.7
    bandit = signed_tokens(horizon, weight, shared)
    diagonal = np.ones(1 if shared else horizon) / math.sqrt(1 if shared else horizon)
    r = bandit.at(x * diagonal).enumerate()
    here = TokenChain(horizon, weight, shared).along(x)
    assert here.success == pytest.approx(success_rate(r), rel=1e-12)
    assert here.gap == pytest.approx(gap_alignment(r, diagonal), rel=1e-12)
    gradient = bandit.at(x * diagonal).exact()[1]
    np.testing.assert_allclose(gradient, here.success * here.slope * diagonal, rtol=1e-12)
    assert here.velocity("reinforce") == pytest.approx(here.success * here.slope)


@pytest.mark.parametrize(("horizon", "half_width"), [(8, 1.0), (7, 1.5), (6, 0.0)])
def test_count_window_is_the_policy_it_says(horizon, half_width):
    bandit = token_bandit(
        [0.4], [[0.0], [1.0]], horizon, lambda tokens: np.abs(tokens.sum(1) - horizon / 2) <= half_width
    )
    here = CountWindow(horizon, half_width).along(0.4)
    assert here.success == pytest.approx(bandit.exact()[0], rel=1e-12)
    assert here.gap == pytest.approx(gap_alignment(bandit.enumerate(), [1.0]), rel=1e-12)


def precise(log_success, position):
    """log J, slope and curvature with 90 digits."""
    with mpmath.workdps(90):
        x, h = mpmath.mpf(position), mpmath.mpf(10) ** -15
        left, here, right = (log_success(x + d) for d in (-h, 0, h))
        return [float(v) for v in (here, (right - left) / (2 * h), -(right - 2 * here + left) / h**2)]


@pytest.mark.parametrize("position", [-40.0, -3.0, -1e-3, 0.5])
@pytest.mark.parametrize("weight", [1e-12, 1e-3, 0.5, 1e6])
@pytest.mark.parametrize("length", [1, 1024])
def test_chain_is_accurate_near_both_ends(length, weight, position):
    here = TokenChain(length, weight).along(position)
    expected = precise(lambda x: -length * mpmath.log1p(2 * mpmath.mpf(weight) * mpmath.cosh(x)), position)
    np.testing.assert_allclose(here, expected, rtol=1e-11)


@pytest.mark.parametrize("position", [-6.0, -0.4, -0.01])
@pytest.mark.parametrize(("length", "half_width"), [(3, 0.5), (1024, 0), (1024, 16), (1024, 150), (1023, 511)])
def test_count_window_is_accurate_near_both_ends(length, half_width, position):
    counts = [n for n in range(length + 1) if abs(n - Fraction(length, 2)) <= half_width]
    missed = sorted(set(range(length + 1)) - set(counts))

    def log_success(x):
        few = min(counts, missed, key=len)
        total = mpmath.fsum(math.comb(length, n) * mpmath.exp(n * x) for n in few) / (1 + mpmath.exp(x)) ** length
        return mpmath.log(total) if few == counts else mpmath.log1p(-total)

    here = CountWindow(length, half_width).along(position)
    expected = precise(log_success, position)
    np.testing.assert_allclose(here[:2], expected[:2], rtol=1e-9)
    # The curvature is a difference of conditional variances.
    np.testing.assert_allclose(here.curvature, expected[2], rtol=1e-6)


def test_success_and_failure_rates_are_accurate_beyond_rounding():
    here = TokenChain(10, 1e-30).along(0.0)
    assert here.success == 1
    assert here.failure == pytest.approx(2e-29, rel=1e-12, abs=0)
    tilted = TokenChain(10, 1e-30).along(-1.0)
    assert tilted.gap == pytest.approx(math.tanh(1), rel=1e-9, abs=0)
    assert tilted.velocity("grpo") == pytest.approx(math.sqrt(2e-29 * math.cosh(1)) * math.tanh(1), rel=1e-9, abs=0)
    assert tilted.velocity("grpo", group_size=4) == pytest.approx(2e-29 * math.sqrt(3) * math.sinh(1), rel=1e-9, abs=0)


def test_families_broadcast_over_lengths_levels_and_positions():
    x = np.linspace(-1, 1, 5)[:, None, None]
    for line in FAMILIES.values():
        assert {v.shape for v in line.along(x)} == {(5, 4, 4)}
    assert np.ndim(TokenChain(3, 0.5).along(0.1).success) == 0
    assert np.ndim(CountWindow(4, 1).along(0.1).curvature) == 0
    np.testing.assert_allclose(TokenChain.with_peak(LENGTHS, LEVELS).along(0.0).success, LEVELS * np.ones(4))
    np.testing.assert_allclose(TokenChain.with_token_error(LENGTHS, 0.01).along(0.0).success, 0.99**LENGTHS)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("length", lambda: TokenChain(0, 0.5)),
        ("wrong_weight", lambda: TokenChain(3, 0.0)),
        ("success", lambda: TokenChain.with_peak(3, 1.0)),
        ("error", lambda: TokenChain.with_token_error(3, 0.0)),
        ("success", lambda: TokenChain.with_peak(3, 0.5).start(0.5)),
        ("success", lambda: CountWindow(16, 2).start(0.9)),
        ("half_width", lambda: CountWindow(16, 8)),
        ("half_width", lambda: CountWindow(15, 0.25)),
        ("length", lambda: CountWindow(2.5, 1)),
        ("position", lambda: exact_critical_rate(CountWindow(16, 2), 0.0)),
        ("position", lambda: TokenChain(3, 0.5).along(np.nan)),
        ("estimator", lambda: TokenChain(3, 0.5).along(0.1).velocity("ppo")),
        ("length", lambda: TokenChain(3, 0.5).along(0.1).velocity(length=0)),
    ],
)
def test_families_refuse_bad_input(name, make):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        make()


# 2e: collapse


@pytest.mark.parametrize(("multiple", "collapses"), [(1.9, False), (2.1, True), (3.5, True)])
def test_aligned_steps_on_a_ridge_collapse_above_two(multiple, collapses):
    ridge, x, levels = Ridge(0.9, 2.0), 1e-2, []
    for _ in range(80):
        here = ridge.along(x)
        levels.append(float(here.log_success))
        x += multiple * (here.failure * here.gap) / here.curvature
    assert (np.diff(levels) < 0).all() == collapses
    assert (levels[-1] < -100) == collapses
    assert np.sign(x) == (1.0 if multiple < 1 else np.sign((1 - multiple) ** 80))


def march(line, steps):
    x, points = 0.0, []
    for _ in range(steps):
        points.append(line.along(x))
        x += line.multiple * points[-1].slope / line.curvature
    return points


SAWTEETH = [
    Sawtooth(2.05),
    Sawtooth(3.0, curvature=0.2, slopes=[0.1, 0.4, 0.05]),
    Sawtooth(4.1, kinks=False, initial_success=0.05),
    Sawtooth(3.05, kinks=False, slopes=1e-3 * 4.05 ** np.arange(5), initial_success=0.4),
]


@pytest.mark.parametrize("line", SAWTEETH)
def test_steps_in_one_direction_and_always_uphill_can_end_at_zero(line):
    points = march(line, 500 * len(line.slopes))
    slopes = np.array([p.slope for p in points])
    np.testing.assert_allclose(slopes.reshape(-1, len(line.slopes)), line.slopes[None] * np.ones((500, 1)), rtol=1e-7)
    levels = np.array([p.log_success for p in points[:: len(line.slopes)]])
    np.testing.assert_allclose(np.diff(levels), -line.tooth.fall, rtol=1e-6)
    assert levels[-1] < levels[0] - 490 * line.tooth.fall


@pytest.mark.parametrize("line", SAWTEETH)
def test_sawteeth_keep_to_their_curvature_and_below_one(line):
    x = np.linspace(0, 3 * line.tooth.width, 60_001)
    here, h = line.along(x), x[1]
    assert (here.log_success < 0).all()
    np.testing.assert_allclose(np.diff(here.log_success), (here.slope[1:] + here.slope[:-1]) / 2 * h, atol=2 * h)
    change = np.diff(here.slope) / h
    assert change.min() >= -line.curvature * (1 + 1e-6)
    if line.kinks:
        assert change.max() > 10 * line.curvature
    else:
        assert change.max() <= line.curvature * (1 + 1e-6)
    assert np.ptp(here.log_success[:20_000:2] - line.along(x[:20_000:2] + line.tooth.width).log_success) < 1e-9


@given(st.floats(0.1, 3.0), st.lists(st.floats(-8, 0), min_size=1, max_size=12))
def test_without_kinks_no_slopes_collapse_up_to_three(multiple, logarithms):
    slopes = np.exp(logarithms)
    for k in range(2 * len(slopes)):  # as much growth as can be reached, once more round for the step that closes
        slopes[k % len(slopes)] = min(slopes[k % len(slopes)], (1 + multiple) * slopes[k % len(slopes) - 1])
    with pytest.raises(ValueError, match="^multiple must be"):
        Sawtooth(multiple, initial_success=1e-9, slopes=slopes, kinks=False)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("multiple", {"multiple": 2.0}),
        ("multiple", {"multiple": 3.9, "kinks": False}),
        ("multiple", {"multiple": np.nan}),
        ("curvature", {"curvature": 0.0}),
        ("slopes", {"slopes": [0.1, -0.1]}),
        ("slopes", {"slopes": []}),
        ("slopes", {"slopes": [0.1, 0.36], "kinks": False}),
        ("initial_success", {"initial_success": 0.9}),
        ("initial_success", {"initial_success": 1.0}),
    ],
)
def test_sawteeth_that_would_not_collapse_are_refused(name, keywords):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Sawtooth(**{"multiple": 2.5} | keywords)
    for bad in ((1.0, 1.0), (0.5, 0.0)):
        with pytest.raises(ValueError, match=r"^(peak|curvature) must be"):
            Ridge(*bad)
    with pytest.raises(ValueError, match="^position must be"):
        Sawtooth(2.5).along(-1.0)


# 2f: stagnation in a two-cycle


@pytest.mark.parametrize("name", FAMILIES)
def test_fixed_steps_end_in_a_two_cycle_and_the_even_one_is_best(name):
    line = FAMILIES[name]
    step = 0.2 if name == "unshared" else 0.2 / np.sqrt(LENGTHS)
    floor = {}
    for share in (0.5, 0.3, 0.05):
        position, trace = -(20 + share) * step * np.ones((4, 4)), []
        for _ in range(40):
            position = position + step * np.sign(line.along(position).slope)
            trace.append(position)
        np.testing.assert_allclose(trace[-1], trace[-3], atol=1e-12)
        np.testing.assert_allclose(np.abs(trace[-1] - trace[-2]), step * np.ones((4, 4)), rtol=1e-9)
        floor[share] = np.minimum(*(line.along(x).log_success for x in trace[-2:]))
    np.testing.assert_allclose(floor[0.5], line.along(step / 2).log_success, rtol=1e-9)
    assert (floor[0.5] > floor[0.3]).all()
    assert (floor[0.3] > floor[0.05]).all()


def test_the_level_of_the_even_two_cycle_and_its_deficit():
    chain = TokenChain(12, 0.4)
    step = np.array([0.1, 0.05, 0.025])
    level = chain.along(step / 2).success
    np.testing.assert_allclose(level, (1 + 0.8 * np.cosh(step / 2)) ** -12, rtol=1e-12)
    deficit = 1.8**-12 - level
    assert exponent(step, deficit) == pytest.approx(2, abs=0.02)
    peak = chain.along(0.0)
    np.testing.assert_allclose(deficit, peak.success * peak.curvature * step**2 / 8, rtol=0.02)


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
