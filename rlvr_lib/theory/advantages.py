"""Advantages from the rewards of one group: the six choices the book compares, and the gain of their mean update.

All of them depend on the group's rewards only. Except for plain REINFORCE they sum to zero in a group, so by identity
I6 (derived here) their expected update is a scalar gain times the gradient gap. One sum over the number of correct
responses of a group, ``gain_over_variance``, gives the gain of all of them at a finite group size. It is the same for
J and 1 - J, so it is accurate next to 1 when given the failure rate.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import gammaln, xlog1py, xlogy

from rlvr_lib.arguments import Reals, closed_interval, integer, require, zero_or_one

ESTIMATORS = ("reinforce", "dr_grpo", "rloo", "grpo", "grpo_variance", "grpo_batch")
POWERS = {"dr_grpo": 0.0, "grpo": 1.0, "grpo_variance": 2.0}
"""The power of the group's standard deviation that mean-removed rewards are divided by."""

Estimator = Literal["reinforce", "grpo"]


def group_advantages(reward: ArrayLike, estimator: str) -> Float[np.ndarray, "... G"]:
    """Advantage of every response of every group.

    Args:
        reward: [..., G], 0 or 1, one row a group of G responses to one prompt.
        estimator: ``reinforce`` (the reward itself), ``dr_grpo`` (minus the group mean), ``rloo`` (minus the mean of
            the OTHER rewards; G >= 2), ``grpo`` (group mean removed, divided by the group's population standard
            deviation, no epsilon, zero where all rewards are equal), ``grpo_variance`` (likewise, divided by the
            variance), ``grpo_batch`` (group mean removed, divided by the standard deviation within groups pooled over
            the whole batch).
    """
    require(estimator in ESTIMATORS, "estimator", estimator, f"one of {', '.join(ESTIMATORS)}")
    reward = zero_or_one("reward", reward)
    require(reward.ndim >= 1 and reward.shape[-1] >= 1, "reward", f"shape {reward.shape}", "[..., G] with G >= 1")
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


def gain_over_variance(success: ArrayLike, power: ArrayLike, group_size: int, bessel: bool = False) -> Reals:
    """``power_gain`` over J (1 - J): the expected update as a multiple of the gradient of J, finite at J = 0 and 1.

    sum over k = 1..G-1 of C(G, k) J^(k-1) (1-J)^(G-k-1) v_k^(1-a/2), v_k = k (G - k) / G^2; 1 - 1/G for a = 0.
    Arguments as for ``power_gain``.
    """
    success, power = closed_interval("success", success, 0, 1), closed_interval("power", power, 0, 2)
    group_size = integer("group_size", group_size, low=2 if bessel else 1)
    correct = np.arange(1, group_size)
    wrong = group_size - correct
    log_choose = gammaln(group_size + 1) - gammaln(correct + 1) - gammaln(wrong + 1)
    p, exponent = success[..., None], 1 - power[..., None] / 2
    chance = np.exp(log_choose + xlogy(correct - 1, p) + xlog1py(wrong - 1, -p))
    total = (chance * (correct * wrong / group_size**2) ** exponent).sum(-1)
    shrunk = ((group_size - 1) / group_size) ** (power / 2) if bessel else 1  # population over sample deviation
    return np.where(power > 0, total * shrunk, 1 - 1 / group_size)[()]


def power_gain(success: ArrayLike, power: ArrayLike, group_size: int | None = None, bessel: bool = False) -> Reals:
    """E[v^(1-a/2) 1{v > 0}], v = phat (1 - phat): the expected update is this times the gradient gap (4d).

    Derived here. The group's mean is removed from its rewards, and the result divided by the power a of their standard
    deviation, nothing added to it; groups of zero deviation are left out. Groups of 2 or 3 have one non-zero v, so that
    all powers agree up to a constant.

    Args:
        success: J in [0, 1], any shape.
        power: a in [0, 2], any shape.
        group_size: G, responses a group; None for the limit of large groups, sigma^(2-a).
        bessel: the deviation is the sample one, with G - 1 below the squares, as in TRL: ((G-1)/G)^(a/2) times the
            gain of the population one; one response alone has none, so G >= 2.
    """
    success, power = closed_interval("success", success, 0, 1), closed_interval("power", power, 0, 2)
    variance = success * (1 - success)
    if group_size is None:
        return np.where(variance > 0, variance ** (1 - power / 2), 0.0)[()]
    return (variance * gain_over_variance(success, power, group_size, bessel))[()]


def group_gain(success: ArrayLike, group_size: int, normalize: bool = True, bessel: bool = False) -> Reals:
    """Scalar g such that the expected GRPO update is g times the gradient gap (I6): ``power_gain`` at a = 1 or 0.

    Holds for responses that are independent and on-policy, without length weights, clipping or a KL term, and with
    groups of zero deviation left out.

    Args:
        success: J in [0, 1], any shape.
        group_size: G, responses a group.
        normalize: divide by the group's standard deviation (GRPO), giving E sqrt(phat (1 - phat)); otherwise subtract
            the group mean only (Dr.GRPO), giving (1 - 1/G) J (1 - J).
        bessel: with ``normalize``, the deviation is the sample one, as in TRL.
    """
    group_size = integer("group_size", group_size, low=1)
    return power_gain(success, float(normalize), group_size, bessel and normalize)


def estimator_gain(
    success: ArrayLike, estimator: Estimator = "reinforce", group_size: int | None = None, bessel: bool = False
) -> Reals:
    """Scalar g such that the estimator's mean update is g times the gradient gap (I6).

    Args:
        success: J in [0, 1], any shape.
        estimator: "reinforce" (reward minus a baseline) or "grpo" (also divided by the group's standard deviation).
        group_size: G, at least 2: "reinforce" then subtracts the group's mean (Dr.GRPO). None: "reinforce" with a
            baseline that is independent of the response, gain J (1 - J), and "grpo" with large groups,
            gain sqrt(J (1 - J)).
        bessel: the group's deviation is the sample one, as in TRL; of no effect on "reinforce" and on large groups.
    """
    require(estimator in get_args(Estimator), "estimator", estimator, '"reinforce" or "grpo"')
    size = None if group_size is None else integer("group_size", group_size, low=2)
    return power_gain(success, float(estimator == "grpo"), size, bessel)
