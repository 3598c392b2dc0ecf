import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lib.theory.advantages import ESTIMATORS, group_advantages

groups = st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=6)


@given(groups, st.sampled_from(ESTIMATORS[1:]))
def test_advantages_sum_to_zero_in_every_group(reward, estimator):
    np.testing.assert_allclose(group_advantages(reward, estimator).sum(-1), 0, atol=1e-12)


@given(groups)
def test_each_estimator_against_its_definition(reward):
    x = np.array(reward, float)
    np.testing.assert_array_equal(group_advantages(x, "reinforce"), x)
    others = (x.sum(-1, keepdims=True) - x) / 3
    np.testing.assert_allclose(group_advantages(x, "rloo"), x - others, atol=1e-12)
    for row, advantage in zip(x, group_advantages(x, "grpo"), strict=True):
        expected = (row - row.mean()) / row.std() if row.std() else np.zeros(4)
        np.testing.assert_allclose(advantage, expected, atol=1e-12)
    for row, advantage in zip(x, group_advantages(x, "grpo_variance"), strict=True):
        expected = (row - row.mean()) / row.var() if row.var() else np.zeros(4)
        np.testing.assert_allclose(advantage, expected, atol=1e-12)
    pooled = np.sqrt(np.mean([row.var() for row in x]))
    expected = (x - x.mean(-1, keepdims=True)) / (pooled or 1)
    np.testing.assert_allclose(group_advantages(x, "grpo_batch"), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "reward", "estimator"),
    [
        ("estimator", [1, 0], "ppo"),
        ("reward", [1, 0.5], "grpo"),
        ("reward", 1.0, "grpo"),
        ("reward", np.ones((3, 0)), "grpo"),
        ("reward", [[1], [0]], "rloo"),
    ],
)
def test_bad_input_is_named(name, reward, estimator):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        group_advantages(reward, estimator)
