"""Runs with safeguards: what a measurement reads, what it does to an update, and that a run is its seed's."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlvr_lib.studies.closed_loop import (
    Loop,
    Run,
    Safeguard,
    critical_length,
    each_along,
    halves,
    penalised,
    pooled_rate,
    run,
)
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.measured_run import along_step
from rlvr_lib.testbeds.qwen import checkpoints
from rlvr_lib.theory.threshold import AlongStep

SETTINGS = grpo.GRPO(group_size=32, learning_rate=0.05)


@pytest.fixture(scope="module")
def qwen():
    return checkpoints([0])[0]


def rollout_of(qwen, seed=0, group_size=8):
    return qwen.rollout(halves(qwen, 3, 0)[0][:4], group_size, torch.Generator().manual_seed(seed))


def test_halves_are_all_words_once(qwen):
    trained, judges = halves(qwen, 2, 1)
    assert len(trained) == len(judges) == 18
    assert len({*trained, *judges}) == 36
    assert halves(qwen, 2, 1) == (trained, judges) != halves(qwen, 2, 2)


def test_the_mean_over_prompts_is_what_the_measured_run_logs(qwen):
    rollout, direction = rollout_of(qwen), np.random.default_rng(0).standard_normal(len(qwen.theta))
    direction /= np.linalg.norm(direction)
    each = each_along(qwen, rollout, direction)
    along = along_step(qwen, rollout, direction)
    np.testing.assert_allclose([part.mean() for part in each], [along.success, along.slope, along.second], rtol=1e-5)


def test_a_reading_is_of_the_mean_or_of_the_worst_prompts():
    success, slope, second = np.full(11, 0.5), np.linspace(0.1, 1.1, 11), np.full(11, -1.0)
    each = sorted(AlongStep(0.5, x, -1.0).critical_step for x in slope)
    assert critical_length(success, slope, second, "worst") == pytest.approx(each[0])
    assert critical_length(success, slope, second, "tenth") == pytest.approx(each[1])
    mean = AlongStep(0.5, slope.mean(), -1.0).critical_step
    assert critical_length(success, slope, second, "mean") == pytest.approx(mean)


def test_prompts_without_a_signal_are_not_read():
    success, slope, second = np.array([0.0, 1.0, 0.5]), np.array([0.0, 0.0, 0.2]), np.array([0.0, 0.0, -1.0])
    alone = critical_length(success[2:], slope[2:], second[2:], "worst")
    assert critical_length(success, slope, second, "worst") == pytest.approx(alone)
    assert critical_length(success[:2], slope[:2], second[:2], "worst") is None
    assert critical_length(success[2:], -slope[2:], second[2:], "worst") == 0


def taken(qwen, rate, guard):
    """How far a step moved the policy with a safeguard, and what was measured along it."""
    policy, steps = qwen.at(qwen.theta), []
    loop = Loop(rate, guard, 1)

    def after(step):
        steps.append(step)
        loop.shorten(policy, step, SETTINGS.group_size, 3)

    grpo.train(policy, halves(qwen, 3, 0)[0][:4], replace(SETTINGS, learning_rate=loop), 1, 3, on_step=after)
    move = (steps[0].after - steps[0].before).double().numpy()
    seed = int(np.random.SeedSequence([3, 0]).generate_state(1)[0])
    fresh = qwen.rollout(steps[0].rollout.prompts, SETTINGS.group_size, torch.Generator().manual_seed(seed))
    length = np.linalg.norm(move)
    return policy.theta - qwen.theta, move, critical_length(*each_along(qwen, fresh, move / length), "mean"), loop


def test_a_step_that_is_too_long_is_cut_to_a_share_of_the_critical_one(qwen):
    moved, whole, critical, loop = taken(qwen, 50.0, Safeguard(share=0.25))
    assert np.linalg.norm(moved) == pytest.approx(0.25 * critical, rel=1e-6)
    np.testing.assert_allclose(moved, whole * 0.25 * critical / np.linalg.norm(whole), atol=1e-7)
    assert loop(0) == pytest.approx(50 * 0.25 * critical / np.linalg.norm(whole))
    assert loop.used == [loop(0)]


def test_a_short_step_is_left_alone(qwen):
    moved, whole, critical, loop = taken(qwen, 1e-6, Safeguard(share=0.25))
    assert np.linalg.norm(whole) < 0.25 * critical
    np.testing.assert_array_equal(moved, whole)
    assert loop.used == [1e-6]


def test_a_rate_warms_up_and_falls_to_nothing():
    guard = Safeguard(warm_up=0.1)
    rates = [guard.schedule(step, 100) for step in range(100)]
    assert np.argmax(rates) in (9, 10)
    assert max(rates) == 1
    assert rates[0] == pytest.approx(0.1)
    assert 0 < rates[-1] < 1e-3
    assert Safeguard().schedule(7, 100) == 1


def test_the_penalty_is_a_price_on_the_reward(qwen):
    reference, rollout = qwen.at(qwen.theta + 0.01), rollout_of(qwen)
    settings = replace(SETTINGS, estimator="dr_grpo", baseline=penalised(0.5, reference, SETTINGS))
    settings = replace(settings, baseline=penalised(0.5, reference, settings))
    with torch.no_grad():
        ratio = (qwen.token_log_probs(rollout) - reference.token_log_probs(rollout)).sum(-1).view(4, 8).numpy()
    paid = rollout.reward - 0.5 * ratio
    np.testing.assert_allclose(settings.advantages(qwen, rollout), paid - paid.mean(1, keepdims=True), atol=1e-6)


def test_a_run_is_that_of_its_seed_and_leaves_the_warm_start_alone(qwen):
    before, guard = qwen.theta, Safeguard(share=0.5, others=True)
    first, again, other = (run(qwen, 5.0, guard, SETTINGS, 2, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(qwen.theta, before)
    np.testing.assert_array_equal(first.success, again.success)
    np.testing.assert_array_equal(first.rates, again.rates)
    assert (first.rates != other.rates).any()
    assert first.success.shape == (2,)
    assert first.rates.shape == (5,)


def test_an_end_below_half_of_the_start_is_a_collapse():
    assert Run(np.array([0.5, 0.1, 0.2]), np.ones(2), 0.0).collapsed
    assert not Run(np.array([0.5, 0.1, 0.3]), np.ones(2), 0.0).collapsed
    assert Run(np.array([0.5, 0.1, 0.3]), np.ones(2), 0.0).dipped


def test_the_pooled_rate_does_not_depend_on_the_rate_in_the_settings(qwen):
    rates = [pooled_rate(qwen, replace(SETTINGS, learning_rate=rate), 2, 3, 0) for rate in (0.1, 7.0)]
    assert rates[0] == rates[1] > 0


@pytest.mark.parametrize("wrong", [{"reading": "median"}, {"every": 0}, {"share": 0.0}, {"share": 1.0, "passes": 2}])
def test_what_is_no_safeguard_is_refused(wrong):
    with pytest.raises(ValueError, match=next(name for name in reversed(wrong))):
        Safeguard(**wrong)
