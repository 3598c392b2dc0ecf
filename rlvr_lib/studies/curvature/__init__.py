"""The runs behind chapter 4: training with and without division by a deviation, matched at the start, on all testbeds.

Arms are matched at the *initial rise*: each has the learning rate at which its expected first step raises mean success
by the same amount, the pace, to first order. Speed is the time until mean success is ``TARGET``. Functions take numbers
and return numbers; what a claim breaks on purpose is a keyword with the honest default.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, closed_interval, positive, real_array, require, require_shape
from rlvr_lib.testbeds.adam import Adam
from rlvr_lib.theory.advantages import POWERS, power_gain

TARGET = 0.95
ARMS = {"none": "dr_grpo", "std": "grpo", "variance": "grpo_variance", "batch": "grpo_batch"}
"""What the mean-removed rewards are divided by -> its name in ``rlvr_lib.theory.advantages``; ``batch`` is pooled."""


def expected_gain(success: ArrayLike, arm: str, group_size: int | None = None) -> Reals:
    """Expected update of every prompt over its gap, [..., Q]; None for large groups.

    ``power_gain``, and for ``batch`` that of ``none`` over the root of its mean over the prompts, because the expected
    variance within groups is that gain too.
    """
    require(arm in ARMS, "arm", arm, f"one of {', '.join(ARMS)}")
    success = closed_interval("success", success, 0, 1)
    if arm != "batch":
        return power_gain(success, POWERS[ARMS[arm]], group_size)
    bare = power_gain(success, 0, group_size)
    return bare / np.sqrt(bare.mean(-1, keepdims=True))


def prompt_weight(success: ArrayLike, arm: str, group_size: int | None = None) -> Reals:
    """``expected_gain`` over the variance: what the gradients of the prompts are multiplied by, [..., Q]."""
    inside = np.clip(real_array("success", success), 1e-12, 1 - 1e-12)
    return expected_gain(inside, arm, group_size) / (inside * (1 - inside))


def matched_rate(
    success: Float[np.ndarray, " Q"],
    gradient: Float[np.ndarray, "Q d"],
    arm: str,
    group_size: int | None,
    pace: float,
    square: Float[np.ndarray, " d"] | None = None,
) -> float:
    """The learning rate at which the expected first step raises mean success by ``pace``, to first order.

    The step is that of plain SGD on the mean over prompts, or, given the mean square of every coordinate of the sampled
    gradient, that of Adam whose averages have settled: mean over root mean square.
    """
    update = prompt_weight(success, arm, group_size) @ gradient / len(success)
    if square is not None:
        require_shape("square", square, update.shape)
        update = update / (np.sqrt(square) + Adam.epsilon)
    rise = float(gradient.mean(0) @ update)
    require(rise > 0, "gradient", gradient, "one along which the first step raises mean success")
    return float(positive("pace", pace)) / rise
