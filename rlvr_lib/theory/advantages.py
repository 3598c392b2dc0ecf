"""Advantages from the rewards of one group: the six choices the book compares.

All of them depend on the group's rewards only. Except for plain REINFORCE they sum to zero in a group, so by
identity I6 their expected update is a scalar gain times the gradient gap (``rlvr_lib.theory.gap.group_gain``).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import real_array, require

ESTIMATORS = ("reinforce", "dr_grpo", "rloo", "grpo", "grpo_variance", "grpo_batch")


def group_advantages(reward: ArrayLike, estimator: str) -> Float[np.ndarray, "... G"]:
    """Advantage of every response of every group.

    Args:
        reward: [..., G], 0 or 1, one row a group of G responses to one prompt.
        estimator: ``reinforce`` (the reward itself), ``dr_grpo`` (minus the group mean), ``rloo`` (minus the mean of
            the OTHER rewards; G >= 2), ``grpo`` (group mean removed, divided by the group's population standard
            deviation, no epsilon, zero where all rewards are equal), ``grpo_variance`` (likewise, divided by the
            variance), ``grpo_batch`` (group mean removed, divided by the standard deviation within groups pooled over
            the whole batch).

    Raises:
        ValueError: unknown estimator, a reward that is not 0 or 1, no group axis, or ``rloo`` at G = 1.
    """
    require(estimator in ESTIMATORS, "estimator", estimator, f"one of {', '.join(ESTIMATORS)}")
    reward = real_array("reward", reward)
    require(reward.ndim >= 1 and reward.shape[-1] >= 1, "reward", f"shape {reward.shape}", "[..., G] with G >= 1")
    require(bool(((reward == 0) | (reward == 1)).all()), "reward", reward, "0 or 1")
    if estimator == "reinforce":
        return reward.copy()
    group_size = reward.shape[-1]
    centred = reward - reward.mean(-1, keepdims=True)
    if estimator == "dr_grpo":
        return centred
    if estimator == "rloo":
        require(group_size >= 2, "reward", "groups of one response", "at least two responses a group for rloo")
        return centred * group_size / (group_size - 1)
    over = None if estimator == "grpo_batch" else -1
    variance = (centred**2).mean(over, keepdims=True)
    spread = variance if estimator == "grpo_variance" else np.sqrt(variance)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
