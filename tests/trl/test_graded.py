"""Graded success, against numpy one group at a time."""

import numpy as np
import pytest
import torch

from rlvr_lib.trl.graded import coin_success, graded_spread

NAN = float("nan")


def test_rewards_become_probabilities_of_coins():
    found = coin_success(torch.tensor([-1.0, 0.0, 3.0, NAN]), low=-1.0, high=3.0)
    np.testing.assert_allclose(found, [0, 0.25, 1, NAN])
    assert found.dtype == torch.float64


@pytest.mark.parametrize("reward", [1.5, -0.1, float("inf")])
def test_rewards_out_of_their_range_are_refused(reward):
    with pytest.raises(ValueError, match="^reward must be in .0.0, 1.0."):
        coin_success(torch.tensor([0.5, reward]))


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf"))])
def test_a_range_needs_two_ends(low, high):
    with pytest.raises(ValueError, match="^high must be"):
        coin_success(torch.tensor([1.0]), low, high)


def test_spread_is_that_of_every_group():
    groups = [[0.0, 0.25, 1.0], [0.5, 0.5, 0.5], [1.0, NAN, 0.5], [NAN, NAN, 0.3]]
    found = graded_spread(torch.tensor(groups).flatten(), 3)
    kept = [np.array([x for x in group if x == x]) for group in groups[:3]]
    mean, real = np.array([g.mean() for g in kept]), np.array([g.std() for g in kept])
    coin = np.sqrt(mean * (1 - mean))
    expected = {
        "success_rate": mean.mean(),
        "success_std": real.mean(),
        "coin_std": coin.mean(),
        "dead_groups": 1 / 3,
        "stretch": coin[[0, 2]].mean() / real[[0, 2]].mean(),
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_binary_rewards_are_their_own_coins():
    found = graded_spread(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), 3)
    assert found["stretch"] == pytest.approx(1)
    assert found["success_std"] == pytest.approx(found["coin_std"])
    assert found["dead_groups"] == 0.5


def test_groups_of_equal_rewards_are_dead_whatever_rounding_does():
    assert graded_spread(torch.full((7,), 0.1), 7) | {"success_rate": 0.1} == {
        "success_rate": 0.1, "success_std": 0.0, "coin_std": pytest.approx(0.3, rel=1e-6), "dead_groups": 1.0,
        "stretch": None,
    }  # fmt: skip


def test_nothing_is_said_without_rewards_and_of_what_is_no_success():
    assert set(graded_spread(torch.full((4,), NAN), 2).values()) == {None}
    for success, size, name in (([0.5], 1, "group_size"), ([0.5, 0.5, 0.5], 2, "success"), ([0.5, 1.5], 2, "success")):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            graded_spread(torch.tensor(success), size)
