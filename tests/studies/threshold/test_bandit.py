import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom

from rlvr_lib import Responses, gap_alignment, gradient_gap, success_rate
from rlvr_lib.studies.threshold import (
    bandit,
    power_law,
    sampled_slope_error,
    sampled_slope_radius,
    training_boundary,
)
from rlvr_lib.testbeds.bandit import SoftmaxBandit, log_odds_and_gap, token_bandit
from rlvr_lib.testbeds.lines import CountWindow, TokenChain, exact_critical_rate
from rlvr_lib.theory.threshold import estimator_gain, log_success_curvature

seeds = st.integers(0, 2**32 - 1)

# What the testbeds share


def test_a_power_is_found_exactly_and_a_logarithm_is_seen_to_be_none():
    x = np.array([2.0, 3.0, 10.0, 40.0])
    fit = power_law(x, 7 * x**-1.5)
    assert fit.exponent == pytest.approx(-1.5, abs=1e-12)
    assert fit.half_width < 1e-6
    x = np.geomspace(1e-12, 1e-2, 30)
    curved = power_law(x, 1 / np.log(1 / x))
    assert 0 < curved.exponent - curved.half_width < curved.exponent < 0.2
    assert curved.half_width > 1e-3


def test_the_training_boundary_is_at_the_first_rate_that_fails():
    rates = np.array([1.0, 2.0, 4.0, 8.0])
    final = np.array(
        [
            [0.9, 0.8, 0.79, 0.1],
            [0.9, 0.7, 0.9, 0.9],  # recovers beyond: counted from below all the same
            [0.9, 0.9, 0.9, 0.9],
            [0.1, 0.9, 0.9, 0.9],
        ]
    )
    np.testing.assert_allclose(training_boundary(rates, final), [math.sqrt(8), math.sqrt(2), np.inf, 0])
    np.testing.assert_allclose(training_boundary(rates, 0.5 * final, best=0.5), training_boundary(rates, final))
    np.testing.assert_allclose(training_boundary(rates, final, best=[[0.9], [0.8], [2.0], [0.1]])[[1, 2]], [np.inf, 0])
    assert training_boundary(rates, final[0]) == pytest.approx(math.sqrt(8))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("argument", lambda: power_law([1, 0, 2], [1, 1, 1])),
        ("value", lambda: power_law([1, 2], [1, 1])),
        ("rates", lambda: training_boundary([1, 1, 2], [1, 1, 1])),
        ("final", lambda: training_boundary([1, 2, 3], [1, 1])),
        ("false_alarm", lambda: sampled_slope_radius(SoftmaxBandit.random(0).enumerate(0), np.ones(4), 9, 0.0)),
        ("n", lambda: sampled_slope_radius(SoftmaxBandit.random(0).enumerate(0), np.ones(4), 0, 0.1)),
        ("J", lambda: bandit.peak_curvature("aggregate", 16, 1.0)),
        ("kind", lambda: bandit.peak_curvature("counting", 16, 0.5)),
        ("T", lambda: bandit.peak_curvature("aggregate", 0, 0.5)),
        ("lengths", lambda: bandit.rates_by_length([16, 0, 3])),
        ("instances", lambda: bandit.losing_steps(0, 0)),
        ("trees", lambda: bandit.lost_trees(0, 0)),
        ("by", lambda: bandit.lost_trees(2, 0, by="luck")),
        ("rates", lambda: bandit.phase_diagram(2, 1, 8, 0)),
        ("seeds", lambda: bandit.phase_diagram(0, 3, 8, 0)),
        ("runs", lambda: bandit.anneal_rises(0.1, 0, 8, 0)),
        ("slopes", lambda: bandit.fixed_direction_loss(3.1, slopes=0)),
        ("count", lambda: bandit.random_batches(0, 0)),
    ],
)
def test_bad_input_is_refused(name, call):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()


def test_sampled_slopes_stay_within_their_radius_and_others_do_not():
    policy, n = SoftmaxBandit.random(11), 4000
    w = np.eye(4)[1]
    errors = np.array([sampled_slope_error(policy, w, n, seed, 0.2) for seed in range(300)])
    assert binom.sf((errors > 1).sum() - 1, 300, 0.2) > 1e-6  # misses are no more frequent than allowed
    assert errors.max() > 0.3  # and the radius is not idle
    gap = gradient_gap(policy.enumerate(0))
    gap /= np.linalg.norm(gap)
    assert sampled_slope_error(policy, gap, 20_000, 1, 1e-6) < 1
    assert sampled_slope_error(policy, gap, 20_000, 1, 1e-6, shuffled=True) > 1
    assert sampled_slope_error(policy, gap, 20_000, 1, 1e-6, sampler=policy.at(-policy.theta)) > 1


def test_the_radius_covers_every_sample_of_a_small_policy():
    exact = Responses([1, 0, 0], [[2.0], [-1.0], [0.5]], [0.2, 0.5, 0.3])
    exact = Responses(exact.reward, exact.score - exact.prob @ exact.score, exact.prob)
    slope = (exact.prob * (exact.reward - 0.2)) @ exact.score[:, 0]
    for false_alarm in (0.9, 0.3):
        radius, missed = sampled_slope_radius(exact, np.ones(1), 6, false_alarm), 0.0
        for drawn in itertools.product(range(3), repeat=6):
            drawn = list(drawn)
            reward, score = exact.reward[drawn], exact.score[drawn, 0]
            estimate = (reward * score).mean() - reward.mean() * score.mean()
            missed += exact.prob[drawn].prod() * (abs(estimate - slope) > radius)
        assert missed <= false_alarm


# 2a: the curvature, and steps judged by it


@given(seeds, st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_the_curvature_of_log_success_is_that_of_the_complex_step(seed, correct):
    policy = SoftmaxBandit.random(seed, correct=correct)
    w = np.random.default_rng(seed + 1).standard_normal(4)
    w /= np.linalg.norm(w)
    along = policy.features[0] @ w

    def slope(shift):
        weight = np.exp(policy.features[0] @ policy.theta + shift * along)
        right = weight * policy.reward[0]
        return right @ along / right.sum() - weight @ along / weight.sum()

    r = policy.enumerate(0)
    score = r.score @ w
    found = log_success_curvature(r.reward, score, np.full(8, -(r.prob @ score**2)), r.prob)
    assert found == pytest.approx(-np.imag(slope(1e-30j)) / 1e-30, rel=1e-9, abs=1e-12)
    J, first, second = policy.along(0, w)
    assert (first / J) ** 2 - second / J == pytest.approx(found, rel=1e-9, abs=1e-12)


def test_steps_below_eight_alignments_gain_and_some_below_sixteen_lose():
    assert bandit.losing_steps(30, 41) == 0
    assert bandit.losing_steps(30, 41, multiple=16.0) > 30


def test_tabular_softmax_gains_by_steps_of_any_length_along_its_gap():
    rng = np.random.default_rng(5)
    logits, right = rng.standard_normal((50, 8)), (np.arange(8) < 1 + np.arange(50)[:, None] % 7).astype(float)
    odds, gap = log_odds_and_gap(logits, np.eye(8), right)
    for step in np.geomspace(1e-3, 30, 20):
        assert (log_odds_and_gap(logits + step * gap, np.eye(8), right)[0] > odds).all()
        if step > 1:  # the sign on the wrong answers matters
            upward = np.where(right == 1, gap, -gap)
            assert (log_odds_and_gap(logits + step * upward, np.eye(8), right)[0] < odds).any()


# 2c and 2d: learning rates


def enumerated(name, position, T=6):
    """Success, gap and curvature by all responses of six tokens: counting, every token right, own parameters."""
    if name == "counting":
        policy = token_bandit([position], [[0.0], [1.0]], T, lambda o: abs(o.sum(1) - T / 2) <= 1)
        w = np.ones(1)
    else:
        tokens = np.array(list(itertools.product((0, 1, -1), repeat=T)), float)
        f = tokens.sum(1, keepdims=True) if name == "shared" else tokens
        w = np.ones(f.shape[1]) / np.sqrt(f.shape[1])
        right = (tokens == 0).all(1)[None].astype(float)
        policy = SoftmaxBandit(position * w, f[None], right, np.log(0.3) * (tokens != 0).sum(1)[None])
    r = policy.enumerate(0)
    along = r.score @ w
    curvature = log_success_curvature(r.reward, along, np.full(len(along), -(r.prob @ along**2)), r.prob)
    return success_rate(r), gap_alignment(r, w), curvature


@pytest.mark.parametrize("position", [-1.2, -0.4, 0.7])
@pytest.mark.parametrize("name", ["counting", "shared", "own"])
def test_closed_forms_are_the_enumerated_policies(name, position):
    counting, shared, _, own = bandit.four_rewards(6, (1 + 2 * 0.3) ** -6, half_width=1)
    here = {"counting": counting, "shared": shared, "own": own}[name].along(position)
    np.testing.assert_allclose((here.success, here.gap, here.curvature), enumerated(name, position), rtol=1e-9)


def test_predicted_rates_are_measured_near_the_maximum_and_guaranteed_ones_safe():
    near = bandit.predicted_shares()
    assert near.shape == (4, 4, 2, 4, 7)
    assert np.abs(near - 1).max() < 1e-4
    assert np.abs(bandit.predicted_shares(exchanged=True) - 1).max() > 1
    plain, divided = np.moveaxis(bandit.predicted_shares(normalised=False), 2, 0)
    np.testing.assert_allclose(plain, near[:, :, 0])
    np.testing.assert_allclose(divided * bandit.LENGTHS, near[:, :, 1], rtol=1e-12)
    for share in (0.3, 0.9):
        assert 0 < bandit.predicted_shares(share).min() < bandit.predicted_shares(share).max() <= 1 + 1e-3


@pytest.mark.parametrize(("success", "error"), [(0.5, 1e-6), (0.2, 1e-7)])
def test_the_exponents_of_the_length_are_those_of_the_reward(success, error):
    lengths = np.array([64, 256, 1024])
    rates = bandit.rates_by_length(lengths, success=success, error=error)
    found = [[power_law(lengths, rate).exponent for rate in rates_of] for rates_of in rates]
    np.testing.assert_allclose(found, [[-1, -1], [0, 0], [-1, -0.5], [1, 1]], atol=0.03)


def test_length_normalisation_adds_one_to_every_exponent():
    lengths = np.array([16, 64, 256])
    for line in bandit.four_rewards(lengths):
        for kind in ("reinforce", "grpo"):
            plain = exact_critical_rate(line, -0.01, kind)
            np.testing.assert_allclose(exact_critical_rate(line, -0.01, kind, lengths) / plain, lengths, rtol=1e-12)


def test_curvatures_at_the_maximum():
    T, J = np.array([[16], [256], [4096]]), np.array([0.1, 0.5, 0.9])
    for kind, shared in (("every token", True), ("own parameters", False)):
        exact = TokenChain.with_peak(T, J, shared).along(0.0).curvature
        np.testing.assert_allclose(bandit.peak_curvature(kind, T, J), exact, rtol=1e-9)
    exact = CountWindow(1024, np.array([4, 10, 20])).along(0.0)
    np.testing.assert_allclose(bandit.peak_curvature("aggregate", 1024, exact.success), exact.curvature, rtol=0.002)


# 2b: what tokens alone guarantee


def test_attacks_on_the_token_guarantees_fail_unless_they_are_weakened():
    honest, weak = (bandit.lost_trees(12, 7, logarithm=flag) for flag in (True, False))
    assert honest.shape == weak.shape == (9 * 12,)
    assert not honest.any()
    assert weak.sum() > 30
    assert not bandit.lost_trees(12, 7, by="concavity").any()
    assert bandit.lost_trees(12, 7, by="concavity", share=1 / 16).any()


def test_the_energy_of_the_failures_keeps_to_its_lemma():
    shares, plain = (bandit.failure_energy_shares(12, 7, flag) for flag in (True, False))
    assert 0.3 < shares.max() <= 1
    assert plain.max() > 1
    assert (plain > shares).all()


# 2e and 2f: past the threshold


def test_the_ridge_multiplies_the_distance_by_one_minus_c():
    for c in (1.5, 2.3):
        heights = bandit.ridge_run(c, 20)
        x = 1e-2 * (1 - c) ** np.arange(20)
        np.testing.assert_allclose(heights, np.log(0.9) - x**2 / 2, rtol=1e-9)
    assert (np.diff(bandit.ridge_run(2.01, 30)) < 0).all()
    assert (np.diff(bandit.ridge_run(1.99, 30)) > 0).all()


@pytest.mark.parametrize(
    ("threshold", "kinks", "slopes", "within"), [(2, True, 1, 1e-9), (4, False, 1, 1e-9), (3, False, 12, 1e-4)]
)
def test_cycles_in_one_direction_lose_beyond_their_threshold(threshold, kinks, slopes, within):
    assert bandit.cycle_loss(threshold, kinks, slopes) == pytest.approx(0, abs=within)
    assert bandit.fixed_direction_loss(threshold - 0.1, kinks, slopes) < 0
    cycles, c = 40, threshold + 0.2
    lost = bandit.fixed_direction_loss(c, kinks, slopes, cycles)
    whole = cycles * bandit.cycle_loss(c, kinks, slopes)  # the run ends before the last step of its last cycle
    assert lost > 0
    assert abs(lost - whole) < 2 * 0.3**2 * (1 + c) ** 2


def test_steps_of_fixed_length_end_in_a_two_cycle():
    chain = TokenChain(9, 0.2)
    for share in (0.5, 0.2):
        last = bandit.two_cycle(chain, 0.3, share)[-2:]
        np.testing.assert_allclose(np.sort(last), [-0.3 * share, 0.3 * (1 - share)], atol=1e-9)
    held = chain.along(bandit.two_cycle(chain, 0.3)[-1]).success
    assert held == pytest.approx((1 + 0.4 * math.cosh(0.15)) ** -9, rel=1e-9)


def test_fixed_steps_stagnate_only_below_a_finite_optimum():
    assert bandit.failure_after_fixed_steps(np.eye(6), 3).max() < 1e-30
    assert bandit.failure_after_fixed_steps([[0.0], [1.0], [-1.0]], 3, right=1).min() > 2 / 3


# Sampled groups


@pytest.mark.parametrize(("kind", "estimator"), [("dr_grpo", "reinforce"), ("grpo", "grpo")])
def test_a_sampled_step_has_the_mean_of_theorem_2c(kind, estimator):
    line, x, rng = CountWindow(16, 2), -0.4, np.random.default_rng(2)
    moved = bandit.sampled_positions(line, np.full(40_000, x), 0.1, 1, 1, rng, kind)[0] - x
    here = line.along(x)
    expected = 0.1 * estimator_gain(here.success, estimator, bandit.GROUP) * here.gap
    assert abs(moved.mean() - expected) < 6 * moved.std() / 200
    assert expected > 12 * moved.std() / 200


def test_the_phase_diagram_works_below_the_prediction_and_fails_far_above():
    diagram = bandit.phase_diagram(4, 11, 60, 9)
    assert diagram.final.shape == (4, 4, 11)
    assert diagram.boundary.shape == (4, 4)
    assert diagram.final[:, :, (diagram.multiples > 0.3) & (diagram.multiples < 0.6)].min() > 0.8
    assert diagram.final[:, :, -1].max() < 0.5
    ratio = diagram.boundary / diagram.predicted[:, None]
    assert ((ratio > 0.5) & (ratio < 4)).all()
    np.testing.assert_array_equal(bandit.phase_diagram(4, 11, 60, 9).final, diagram.final)
    assert (bandit.phase_diagram(4, 11, 60, 10).final != diagram.final).any()


def test_exponents_of_a_diagram():
    lengths = np.array([16.0, 64.0, 256.0, 1024.0])
    boundary = lengths[:, None] ** -np.array([1.0, 0.5, 2.0]) * [3.0, 1.0, 5.0]
    diagram = bandit.Diagram(lengths, np.ones(4), np.ones(2), np.ones((4, 3, 2)), boundary)
    np.testing.assert_allclose(diagram.exponents, [-1, -0.5, -2], rtol=1e-12)
    boundary[1, 0], boundary[0, 1] = np.inf, 0.0
    assert not np.isfinite(diagram.exponents[:2]).any()


def test_a_cut_frees_stalled_runs_and_not_locked_ones():
    stalled = bandit.anneal_rises(0.05, 30, 80, 3)
    assert len(stalled) > 20
    assert (stalled > 0).mean() > 0.8
    assert 0.1 < (bandit.anneal_rises(0.05, 30, 80, 3, cut=1.0) > 0).mean() < 0.9
    locked = bandit.anneal_rises(0.6, 30, 80, 3, locked=True)
    assert len(locked) > 20
    assert np.abs(locked).max() < 1e-3


# Several prompts


def test_batches_are_the_testbed_they_say():
    batches = bandit.random_batches(3, 8)
    for k in range(3):
        policy = SoftmaxBandit(batches.theta[k, 0], batches.features[k], batches.reward[k])
        exact = [policy.exact(q) for q in range(4)]
        np.testing.assert_allclose(expit(batches.odds[k]), [J for J, _ in exact], rtol=1e-12)
        np.testing.assert_allclose(batches.gradients[k] * 4, [g for _, g in exact], atol=1e-12)
        update = batches.gradients[k].sum(0)
        for q in range(4):
            gap = gradient_gap(policy.enumerate(q))
            assert batches.inner()[k, q] == pytest.approx(gap @ update, rel=1e-9)
            assert batches.inner(alone=True)[k, q] == pytest.approx(gap @ exact[q][1], rel=1e-9)
        moved = policy.at(policy.theta + 0.7 * update)
        change = batches.change(np.full((3, 4), 0.7))[k]
        np.testing.assert_allclose(expit(batches.odds[k] + change), [moved.exact(q)[0] for q in range(4)], rtol=1e-9)
        own = batches.change(np.full((3, 4), 0.7), shared=False)[k, 2]
        alone = policy.at(policy.theta + 0.7 * batches.gradients[k, 2]).exact(2)[0]
        assert expit(batches.odds[k, 2] + own) == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("shared", [True, False])
def test_usable_rates_are_first_returns(shared):
    batches = bandit.random_batches(40, 12)
    usable = bandit.usable_rates(batches, shared)
    opposed = batches.inner() < 0
    if shared:
        assert (usable.each[opposed] == 0).all()
        assert (batches.change(np.full((40, 4), 1e-6))[opposed] < 0).all()
    found = np.isfinite(usable.each) & (usable.each > 0)
    assert found.mean() > 0.2
    rates = np.where(found, usable.each, 1.0)
    assert (batches.change(0.99 * rates, shared)[found] > 0).all()
    assert (batches.change(1.01 * rates, shared)[found] < 0).all()
    back = np.isfinite(usable.mean)
    for factor, sign in ((0.99, 1), (1.01, -1)):
        rates = np.where(back, factor * usable.mean, 1.0)[:, None] * np.ones(4)
        gain = (expit(batches.odds + batches.change(rates, shared)) - expit(batches.odds)).mean(1)
        assert (sign * gain[back] > 0).all()


def test_prompts_fall_only_beyond_their_own_threshold():
    batches = bandit.random_batches(60, 21)
    assert bandit.lowered_prompts(batches) == 0
    assert bandit.lowered_prompts(batches, constant=32.0) > 0
    assert bandit.lowered_prompts(batches, alone=True) > 0
