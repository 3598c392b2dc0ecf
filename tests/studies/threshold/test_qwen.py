"""The runs of chapter 2 on a Qwen, against exact references: a ridge in one dimension, enumerated bandits."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, logit

from rlvr_lib.studies.threshold import qwen as study
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.testbeds.qwen import QwenTestbed, WarmStart


class Hill:
    """log J = log .9 - curvature x^2 / 2 in one dimension, so predicted, guaranteed and measured step are one."""

    def __init__(self, x, curvature=4.0):
        self.theta, self.curvature = np.array([float(x)]), curvature

    def at(self, theta):
        return Hill(theta[0], self.curvature)

    def odds_along(self, prompt, direction, steps):
        x = self.theta[0] + np.asarray(steps) * direction[0]
        return logit(0.9 * np.exp(-self.curvature * x**2 / 2))[()]

    def log_odds_and_gap(self, prompt):
        odds = float(self.odds_along(prompt, np.ones(1), 0.0))
        return odds, -self.curvature * self.theta / expit(-odds)

    def along(self, prompt, direction, of="success"):
        J = float(expit(self.odds_along(prompt, direction, 0.0)))
        slope = -self.curvature * self.theta[0] * direction[0]
        return J, J * slope, J * (slope**2 - self.curvature * direction[0] ** 2)


@pytest.fixture(scope="module")
def qwen():
    return QwenTestbed(warm_start=WarmStart(clean_steps=30, noisy_steps=5, batch=32), dtype=torch.float64)


def test_on_a_ridge_all_steps_are_one():
    line = study.Line.of(Hill(-0.5), 0)
    assert line.predicted() == pytest.approx(1.0, rel=1e-12)
    assert line.measured == pytest.approx(1.0, rel=1e-4)
    assert line.guaranteed() == pytest.approx(1.0, rel=1e-9)
    assert line.guaranteed(constant=1.0) == pytest.approx(0.5, rel=1e-9)
    J = 0.9 * np.exp(-4 * 0.25 / 2)
    assert line.predicted(log=False) == np.inf or line.predicted(log=False) > 1e9  # J is at its point of inflection
    assert line.ridge == pytest.approx(0.5, abs=1e-6)
    near = line.before_ridge(0.01)
    assert near.testbed.theta[0] == pytest.approx(-0.005, rel=1e-3)
    assert near.measured == pytest.approx(0.01, rel=1e-3)
    assert line.parabola(np.array([0.3])) == pytest.approx(line.success([0.3]), rel=1e-9)
    assert line.success([0.0, 1.0]) == pytest.approx([J, J], rel=1e-12)


def test_along_the_other_direction_there_is_no_promise():
    line = study.Line.of(Hill(-0.5), 0, direction=np.array([-1.0]))
    assert line.predicted() == 0.0
    assert line.alignment < 0


@pytest.mark.parametrize("seed", range(5))
def test_bandit_lines_agree_with_differences(seed):
    rng = np.random.default_rng(seed)
    bandit = SoftmaxBandit(rng.normal(size=4), rng.normal(size=(1, 9, 4)), rng.integers(0, 2, (1, 9)).astype(float))
    line, h = study.Line.of(bandit, 0, longest=40.0), 1e-4
    low, here, high = log_expit(bandit.odds_along(0, line.direction, np.array([-h, 0.0, h])))
    curvature, slope = -(high - 2 * here + low) / h**2, (high - low) / (2 * h)
    if curvature > 1e-3:
        assert line.predicted() == pytest.approx(2 * slope / curvature, rel=1e-4)
    if np.isfinite(line.measured):
        around = line.success(line.measured * np.array([0.99, 1.01])) - line.start.success
        assert around[0] > 0 > around[1]
        assert line.guaranteed() <= 1.001 * line.measured
        assert line.guaranteed(largest=False) >= line.guaranteed()
        assert line.overpromises() == (line.predicted() > 1.001 * line.measured)
        assert not line.overpromises(guaranteed=True)
        assert not line.overpromises(share=0.5)
    up = study.climbed(line, 0.9)
    assert up.start.success >= 0.9 or line.start.success < up.start.success


def test_an_exact_run_takes_the_steps_it_says():
    line = study.Line.of(Hill(-0.5), 0)
    path = study.exact_run(line, 0.5, "reinforce", 6)
    assert len(path) == 7
    x = [-0.5]
    rate = None
    for _ in range(6):
        J = 0.9 * np.exp(-2 * x[-1] ** 2)
        gap = -4 * x[-1] / (1 - J)
        rate = rate or 0.5 * line.measured / (J * (1 - J) * gap)
        x.append(x[-1] + rate * J * (1 - J) * gap)
    assert expit(path) == pytest.approx(0.9 * np.exp(-2 * np.square(x)), rel=1e-9)
    first = [study.exact_run(line, 0.5, estimator, 1)[1] for estimator in ("reinforce", "grpo")]
    assert first[0] == pytest.approx(first[1], rel=1e-9)  # matched
    wild = study.exact_run(line, 30.0, "grpo", 9)
    assert len(wild) == 10
    assert study.ends(wild).drops


def test_ends_of_runs():
    J = np.array([[0.5, 0.6, 0.7, 0.95], [0.5, 0.2, 0.6, 0.8], [0.5, 0.6, 0.2, 0.9], [0.5, 0.4, 0.1, 0.1]])
    found = study.ends(logit(J))
    assert found.drops.tolist() == [False, True, False, True]
    assert found.crashes.tolist() == [False, False, True, True]  # the first step is not later
    assert found.collapsed.tolist() == [False, False, False, True]
    assert found.solved.tolist() == [True, False, False, False]


def test_prompts_are_drawn_for_each_checkpoint(qwen):
    drawn = study.lines([qwen, qwen], 2, 5, length=2)
    again = study.lines([qwen, qwen], 1, 5, length=2)
    assert [len(row) for row in drawn] == [2, 2]
    assert [row[0].prompt for row in drawn] == [row[0].prompt for row in again]
    words = [study.words(qwen, 3, 216, (5, number)) for number in range(2)]
    assert len(set(words[0])) == 216
    assert words[0] != words[1]
    assert study.words(qwen, 3, 4, (5, 1)) == words[1][:4]
    with pytest.raises(ValueError, match="count must be at most 36"):
        study.lines([qwen], 37, 5, length=2)
    with pytest.raises(ValueError, match="count must be an integer"):
        study.words(qwen, 2, 0, 5)


def test_a_line_of_a_qwen(qwen):
    (line,) = study.lines([qwen], 1, 1, length=2)[0]
    assert np.linalg.norm(line.direction) == pytest.approx(1.0)
    low, high = line.success(line.measured * np.array([0.999, 1.001]))
    assert low > line.start.success > high
    assert line.guaranteed() <= 1.001 * line.measured
    found = study.stages([[line]])
    assert list(found) == ["warm start", "success .8", "success .95", "before a ridge"]
    assert [len(stage) for stage in found.values()] == [1, 1, 1, 1]
    assert [row[0].start.success >= level for row, level in zip(found.values(), (0, 0.8, 0.95, 0), strict=True)] == [
        True
    ] * 4
    paths = study.matched_runs([[line]], 0.25, "grpo", 2)
    assert paths.shape == (1, 1, 3)
    moved = line.moved(0.25 * line.measured)
    assert paths[0, 0, 1] == pytest.approx(moved.log_odds_and_gap(line.prompt)[0], rel=1e-9)
    with pytest.raises(ValueError, match="share must be positive"):
        line.before_ridge(0.0)
    with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
        study.exact_run(line, 0.25, "grpo", 0)


def test_sampled_runs(qwen):
    theta = qwen.theta
    found = study.sampled_boundary(qwen, 2, [0.25, 4096.0], 4, 3)
    assert found.final.shape == (2,)
    assert found.over_predicted in (0.0, 32.0, np.inf)
    same = study.annealed_run(qwen, 1e-3, 20, 1.0, 10, 3)
    cut = study.annealed_run(qwen, 1e-3, 20, 0.0, 10, 3)
    assert same[0] == cut[0]
    assert cut[1] == pytest.approx(cut[0], abs=1e-12)  # nothing moves at rate zero
    assert same[1] != same[0]
    assert (qwen.theta == theta).all()
