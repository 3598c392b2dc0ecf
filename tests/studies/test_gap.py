"""The runs of chapter 1 against closed forms, enumerated groups and differences."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import expit

from rlvr_lib.responses import success_rate
from rlvr_lib.studies import gap as study
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.testbeds.qwen import QwenTestbed, WarmStart
from rlvr_lib.testbeds.transformer import AttentionPolicy, TransformerTestbed, draw_problems
from rlvr_lib.theory.advantages import group_advantages, group_gain
from rlvr_lib.theory.gap import gradient_gap, half_gain_step
from rlvr_lib.theory.groups import symmetric_group


@pytest.fixture(scope="module")
def qwen():
    return QwenTestbed(warm_start=WarmStart(clean_steps=60, noisy_steps=20, batch=64), dtype=torch.float64)


@pytest.fixture(scope="module")
def start():
    return study.instances(12, 3)


@pytest.mark.parametrize("direction", [1.0, 0.5, -0.2, "adam", lambda k: 1 / (k + 1)])
def test_steps_are_those_of_the_bandits(start, direction):
    run = study.follow(start, 5, direction, study.shrinking_length, 7)
    np.testing.assert_array_equal(run.before[1:], run.after[:-1])
    np.testing.assert_allclose(run.length[:, 0], 0.3 * np.arange(1.0, 6) ** -0.6)
    bandit = SoftmaxBandit.random(3 + 4, correct=1)
    odds, gap = bandit.log_odds_and_gap()
    assert run.before[0, 4] == pytest.approx(odds, rel=1e-12)
    cosine = run.alignment[:, 4][0] / np.linalg.norm(gap)
    if direction == "adam":
        signs = np.sign(gap) / 2  # the first step of Adam
        assert run.alignment[0, 4] == pytest.approx(signs @ gap, rel=1e-5)
    else:
        assert cosine == pytest.approx(direction(0) if callable(direction) else direction, rel=1e-9)
    np.testing.assert_allclose(run.change[-1], run.after[-1] - run.before[0])
    assert (np.abs(run.change - run.progress) <= run.band + 1e-12).all()


def test_half_gain_steps_keep_half_and_longer_ones_do_not(start):
    def longer(alignment, spread, step):
        return study.half_gain_length(alignment, spread, step, multiple=4.0)

    kept = [
        ((run.after - run.before) / (run.length * run.alignment))[:10].min()
        for run in (study.follow(start, 10, 1.0, length) for length in (study.half_gain_length, longer))
    ]
    assert kept[0] >= 0.5
    assert kept[1] < 0.5


def test_directions_are_checked(start):
    with pytest.raises(ValueError, match="direction must be adam or a cosine"):
        study.follow(start, 2, "sgd", study.shrinking_length)


@pytest.mark.parametrize("middle", [0.05, -0.3, 0.6])
def test_first_failure_of_the_extremal_policy(middle):
    """One right response and two equally likely wrong ones at +-1: the odds change by x eta - log cosh eta."""
    found = study.first_failures(np.array([middle, 1.0, -1.0]), np.array([1.0, 0.0, 0.0]), np.zeros(3))
    eta = brentq(lambda x: np.log(np.cosh(x)) - abs(middle) * x / 2, 1e-9, 60)
    assert found == pytest.approx(eta / abs(middle), rel=1e-3)


def test_a_policy_that_never_fails_and_random_ones():
    right_outside = np.array([1.0, -1.0, -1.0])
    assert study.first_failures(right_outside, np.array([1.0, 0.0, 0.0]), np.zeros(3)) == study.POINTS[-1]
    assert (study.unit_ball_failures(20, 1) > 1).all()
    assert round(1 / study.PRINTED_STEP) == 66


def test_the_search_ends_above_one_and_close_to_it():
    found = study.shortest_failure(5, generations=60)
    assert 1 - 1e-6 < found < 1.05


def test_shared_steps():
    found = study.shared_steps(400, 1)
    assert found.overlap.shape == found.change.shape == (400,)
    first = found.length * found.alignment
    assert (np.abs(found.change - first) <= found.length**2 * found.spread**2 / 8 + 1e-12).all()
    assert (found.alignment[found.overlap < 1 / 15] > 0).all()  # fifteen others cannot outweigh the prompt then
    agreed = study.shared_steps(400, 1, signed=False)
    np.testing.assert_allclose(agreed.overlap, found.overlap)
    assert (agreed.alignment > 0).all()
    assert (study.shared_steps(400, 1, weighted=False).overlap <= 15).all()


@pytest.mark.parametrize("estimator", ["reinforce", "rloo", "dr_grpo", "grpo"])
def test_group_moments_over_all_groups(estimator):
    r, G = SoftmaxBandit.random(2, arms=5).enumerate(), 3
    w = np.array([0.5, -0.5, 0.5, 0.5])
    groups = np.array(list(itertools.product(range(len(r)), repeat=G)))
    weight = r.prob[groups].prod(1)
    update = (group_advantages(r.reward[groups], estimator) * (r.score @ w)[groups]).mean(1)
    variance, largest = study.group_moments(r, w, estimator, G)
    assert variance == pytest.approx(weight @ update**2 - (weight @ update) ** 2, rel=1e-9)
    assert largest >= np.abs(update).max()


@pytest.fixture(scope="module")
def chain():
    policy = AttentionPolicy(4)
    problems = draw_problems(symmetric_group(3), (2,), 1, 4, names=4)
    return TransformerTestbed(policy, problems, policy.initial(1.0))


@pytest.mark.parametrize("estimator", ["reinforce", "rloo", "dr_grpo", "grpo"])
def test_the_loop_steps_by_gain_times_gap(chain, estimator):
    assert study.sampled_update_error(chain, 0, estimator, 1500, 1, 1e-6) <= 1


def test_another_gain_or_other_weights_are_noticed(chain):
    sizes = (chain, 0, "grpo", 1500, 1, 1e-6)
    assert study.sampled_update_error(*sizes, power=0.0) > 1
    assert study.sampled_update_error(*sizes, length_normalize=True) > 1
    r = chain.enumerate(0)
    assert group_gain(success_rate(r), 8) > 1.2 * group_gain(success_rate(r), 8, normalize=False)
    assert np.linalg.norm(gradient_gap(r)) > 0


def test_steps_of_the_transformer():
    steps = study.transformer_steps(2, 3, 5)
    again = study.transformer_steps(1, 3, 6)  # a run owes nothing to the others
    for whole, alone in zip(steps, again, strict=True):
        np.testing.assert_allclose(whole[:, 1], alone[:, 0], rtol=1e-9)
    assert steps.before.shape == (3, 2)
    np.testing.assert_allclose(steps.before[1:], steps.after[:-1], rtol=1e-9)
    assert (np.abs(steps.cosine) <= 1).all()
    small = study.transformer_steps(1, 2, 5, rate=1e-3)
    np.testing.assert_allclose(small.curved, 1.0, atol=0.01)
    assert small.foreseen().all()
    assert not small.foreseen(2.1).any()
    assert not small.foreseen(0.6).any()
    assert not small.foreseen(sign=-1.0).any()


def test_curved_and_foreseen_by_hand():
    """Before, after, <step, gap>, curvature and cosine of four steps; the last does not move."""
    rows = [[0, 0, 0, 0], [0.3, 0.2, -0.3, 0], [0.1, 0.1, 0.1, 0], [0.2, 0.2, -0.4, 0], [0.5, 0.5, 0.5, 0]]
    steps = study.Steps(*np.array(rows, float))
    np.testing.assert_allclose(steps.curved, [2, 1, 2, 0])
    np.testing.assert_array_equal(steps.moved, [True, True, True, False])
    np.testing.assert_array_equal(steps.foreseen(), [False, True, False, False])
    np.testing.assert_array_equal(steps.foreseen(1.9), [True, True, True, False])
    assert steps.share_foreseen() == pytest.approx(1 / 3)
    np.testing.assert_array_equal(steps.foreseen(4.0, sign=-1.0), [True, True, False, False])


@pytest.mark.parametrize("name", study.VARIANTS)
def test_steps_of_the_qwen(qwen, name):
    prompts = [qwen.task.prompt(word) for word in ((1, 2), (3, 4))]
    theta = qwen.theta
    steps = study.qwen_steps(qwen, prompts, study.VARIANTS[name], 2, 1, tracked=2)
    np.testing.assert_array_equal(qwen.theta, theta)
    assert steps.before.shape == (2, 2)
    np.testing.assert_allclose(steps.before[0], [qwen.log_odds_and_gap(p)[0] for p in prompts], rtol=1e-9)
    np.testing.assert_allclose(steps.before[1], steps.after[0], rtol=1e-9)
    rows = []
    grpo.train(qwen.at(theta), prompts, study.VARIANTS[name], 1, 1, on_step=rows.append)
    u = (rows[0].after - rows[0].before).numpy()
    gap = qwen.log_odds_and_gap(prompts[1])[1]
    assert steps.gained[0, 1] == pytest.approx(u @ gap, rel=1e-9)
    assert steps.cosine[0, 1] == pytest.approx(u @ gap / np.linalg.norm(u) / np.linalg.norm(gap), rel=1e-9)
    assert steps.curvature[0, 1] == pytest.approx(qwen.along(prompts[1], u, "log_odds")[2], rel=1e-9)


def test_careful_steps(qwen):
    prompt = qwen.task.prompt((1, 2))
    odds, progress = study.careful_ascent(qwen, prompt, 2, 2.0)
    value, gap = qwen.log_odds_and_gap(prompt)
    size = float(np.linalg.norm(gap))
    curvature = abs(qwen.along(prompt, gap / size, "log_odds")[2])
    eta = min(size / (2 * curvature), 1 / size)
    assert odds[0] == pytest.approx(value)
    assert progress[1] == pytest.approx(eta * size)
    assert odds[1] == pytest.approx(qwen.odds_along(prompt, gap / size, eta), rel=1e-9)
    assert len(odds) == len(progress) == 3
    assert expit(odds[-1]) > expit(odds[0])
    assert (np.diff(progress) <= 1 + 1e-12).all()
    with pytest.raises(ValueError, match="steps must be"):
        study.careful_ascent(qwen, prompt, 0)


def test_lengths():
    assert study.half_gain_length(2.0, 4.0, 0) == half_gain_step(2.0, 4.0) == 0.5
    assert study.shrinking_length(np.ones(3), np.ones(3), 31).tolist() == [0.3 * 32**-0.6] * 3
    assert math.isclose(float(np.linalg.norm(study.unit(np.array([3.0, 4.0])))), 1.0)
