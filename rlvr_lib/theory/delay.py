"""Ascent by gradients of some updates ago: how much smaller the critical step is (derived here).

Near a maximum, and along one direction of constant curvature, an update computed from the policy of k updates ago moves
the distance x to the maximum by x_{t+1} = x_t - 2 s x_{t-k}, where s is the step over the critical step of a fresh
update. On several directions each has its own s, and the largest decides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, integer, non_negative, whole_numbers


def delay_factor(delay: ArrayLike) -> Reals:
    """The critical step with a delay, over that without: sin(pi / (4 k + 2)), so 1, 1/2, .309, .223, .174, ...

    On the boundary x_t = exp(i w t) solves the recursion of this module: exp(i w (k + 1)) - exp(i w k) = -2 s. The left
    side is 2 i sin(w / 2) exp(i w (k + 1/2)), so w (2 k + 1) = pi gives the smallest s > 0, which is sin(w / 2).

    Args:
        delay: k, how many updates ago the gradient's policy was, whole numbers of any shape.
    """
    delay = whole_numbers("delay", delay, low=0)
    return np.sin(np.pi / (4 * delay + 2))


def delayed_growth(step: float, delay: int) -> float:
    """By how much a deviation from the maximum grows with every update, in the long run; below 1 it dies out.

    The largest modulus of the roots of z^(k+1) - z^k + 2 s.

    Args:
        step: s, over the critical step of a fresh update, at least 0.
        delay: k, updates.
    """
    step, delay = float(non_negative("step", step)), integer("delay", delay, low=0)
    polynomial = np.zeros(delay + 2)
    polynomial[0] = 1
    polynomial[1] -= 1
    polynomial[-1] += 2 * step
    return float(np.abs(np.roots(polynomial)).max(initial=0.0))
