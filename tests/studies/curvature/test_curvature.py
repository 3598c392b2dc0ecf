"""What all runs of chapter 4 share: gains and matched rates."""

import numpy as np
import pytest

from rlvr_lib.studies.curvature import ARMS, expected_gain, matched_rate, prompt_weight
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.advantages import group_advantages, power_gain


def test_gains_are_those_of_the_power_family_and_batch_divides_by_one_number():
    J = np.array([0.1, 0.5, 0.9])
    for power, arm in enumerate(("none", "std", "variance")):
        assert np.allclose(expected_gain(J, arm, 8), power_gain(J, power, 8))
    bare = power_gain(J, 0, 8)
    assert np.allclose(expected_gain(J, "batch", 8), bare / np.sqrt(bare.mean()))
    assert np.allclose(prompt_weight(J, "none"), 1)


def test_batch_pools_the_variance_whose_mean_is_the_bare_gain():
    rng, J = np.random.default_rng(0), np.array([0.2, 0.6])
    rewards = (rng.random((200_000, 2, 4)) < J[:, None]).astype(float)
    assert rewards.var(-1).mean((0, 1)) == pytest.approx(power_gain(J, 0, 4).mean(), rel=0.01)
    assert group_advantages(rewards[0], ARMS["batch"]).shape == (2, 4)


def test_matched_rate_raises_mean_success_by_the_pace():
    policy = SoftmaxBandit.random(3, prompts=4)
    success, gradient = (np.array(x) for x in zip(*map(policy.exact, range(4)), strict=True))
    pace = 1e-6
    for square in (None, np.array([1.0, 0.1, 3.0, 0.5])):
        rate = matched_rate(success, gradient, "std", 8, pace, square)
        step = prompt_weight(success, "std", 8) @ gradient / 4
        step = step if square is None else step / np.sqrt(square)
        moved = policy.at(policy.theta + rate * step)
        rise = np.mean([moved.exact(q)[0] for q in range(4)]) - success.mean()
        assert rise == pytest.approx(pace, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: expected_gain(0.5, "median"), "arm"),
        (lambda: expected_gain(1.5, "std"), "success"),
        (lambda: matched_rate(np.array([0.5]), np.ones((1, 2)), "std", 4, 0.0), "pace"),
        (lambda: matched_rate(np.array([0.5]), np.zeros((1, 2)), "std", 4, 0.1), "gradient"),
        (lambda: matched_rate(np.array([0.5]), np.ones((1, 2)), "std", 4, 0.1, np.ones(3)), "square"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()
