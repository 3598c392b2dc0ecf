"""What an expected update climbs: the objective of GRPO prompt by prompt, and whom a step on many prompts harms.

By I6 the expected update of a group is a gain times the gradient gap, and the gap is the gradient of the log-odds, so
for right and wrong answers it is the gradient of a function of J alone: ``group_potential``. Training on many prompts
climbs the sum of it and not the sum of J, which may fall. The limit 2 arcsin sqrt J of large groups is due to Davis and
Recht (arXiv 2510.13651); finite groups and what follows are derived here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import beta, betainc, logit

from rlvr_lib.arguments import Reals, closed_interval, integer, non_negative, open_unit, real_array


def group_potential(
    success: ArrayLike, group_size: int | None = None, power: float = 1.0, bessel: bool = False
) -> Reals:
    """Phi with Phi' = ``power_gain`` / (J (1 - J)): the gradient of it is the expected update (derived here).

    For finite G it is the mean of a score for the number of successes in G - 1 tries: each success k, counted from one,
    adds G v_k^(1 - a/2) / (k (G - k)) with v_k = k (G - k) / G^2, which for GRPO is 1 / sqrt(k (G - k)). So the first
    and the last success are worth most, as arcsin sqrt J is steepest at 0 and 1. Dr.GRPO: (1 - 1/G) J.

    Args:
        success: J in [0, 1], any shape; strictly between for a = 2 in large groups, where it is the log-odds.
        group_size: G, responses a group; None for the limit of large groups, 2 arcsin sqrt J for GRPO.
        power: a in [0, 2], of the standard deviation that advantages are divided by: 1 for GRPO, 0 for Dr.GRPO.
        bessel: the deviation is the sample one, as in TRL; G >= 2.
    """
    success = closed_interval("success", success, 0, 1)
    a = float(closed_interval("power", real_array("power", power, ndim=0), 0, 2))
    if group_size is None:
        rest = 1 - a / 2
        return (
            logit(open_unit("success", success))[()]
            if rest == 0
            else (beta(rest, rest) * betainc(rest, rest, success))[()]
        )
    G = integer("group_size", group_size, low=2 if bessel else 1)
    right = np.arange(1, G)
    wrong = G - right
    worth = G * (right * wrong / G**2) ** (1 - a / 2) / (right * wrong)
    shrunk = ((G - 1) / G) ** (a / 2) if bessel else 1  # population over sample deviation
    return (shrunk * (betainc(right, wrong, success[..., None]) * worth).sum(-1))[()]


def harmed_share_bound(overlap: ArrayLike, slack: ArrayLike = 0.0) -> Reals:
    """min(1/2, o/(o + c^2), exp(-c^2 / (2 o))), c = 1 - slack: at most so likely does a shared step harm a prompt.

    A step on a weighted sum of prompts moves the log-odds of prompt q by its own share m > 0 and by those of the
    others, plus or minus c_r; o = sum of c_r^2 / m^2. Where the signs are independent and fair, the step moves prompt q
    by less than ``slack`` m with at most this probability: by symmetry, by Cantelli's inequality, and by Hoeffding's.
    Attained by two prompts where o > 1. Derived here (R8).

    Args:
        overlap: o at least 0, any shape.
        slack: in [0, 1), what curvature may cost over m: for log-linear policies and a step u,
            diam^2 |u|^2 / 8 over the change m of the log-odds to first order (1a).
    """
    overlap, slack = non_negative("overlap", overlap), closed_interval("slack", slack, 0, np.nextafter(1, 0))
    room = (1 - slack) ** 2
    hoeffding = np.exp(-np.divide(room, 2 * overlap, out=np.full(np.shape(room * overlap), np.inf), where=overlap > 0))
    return np.minimum(np.minimum(overlap / (overlap + room), hoeffding), 0.5)[()]
