"""Theorem 1: the gradient gap, its alignment with the step, and what a step then gains.

The gap D = E+[s] - E-[s] is the gradient of the log-odds of success (I1), so a step u moves the log-odds by
<u, D> up to a curvature term. Sources: P1 is arXiv 2510.08539; statements marked "derived here" are rederived and
machine-checked in chapter 1. An undefined gap (all responses correct, or all wrong) is a ``ValueError``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import logit

from rlvr_lib.arguments import Reals, non_negative, open_unit, positive, real_array, require, require_shape
from rlvr_lib.responses import Responses, conditional_means, success_rate


def gradient_gap(r: Responses) -> Float[np.ndarray, " d"]:
    """D = E+[s] - E-[s], [d], nats per unit parameter: mean score given success minus mean score given failure.

    Source: P1, definition of the gradient gap.
    """
    mean_correct, mean_wrong = conditional_means(r)
    return mean_correct - mean_wrong


def policy_gradient(r: Responses) -> Float[np.ndarray, " d"]:
    """sum of p (r - J) s, [d]: the gradient of J on exact responses, its centred estimate on a sample.

    Equals J (1 - J) D on both (I1, derived here), and zero where all rewards are equal.
    """
    return (r.prob * (r.reward - success_rate(r))) @ r.score


def gap_alignment(r: Responses, direction: ArrayLike) -> float:
    """Inner product of the UNIT direction of a step with the gap, nats per unit step length.

    Args:
        direction: [d], of any positive length.
    """
    direction = real_array("direction", direction, ndim=1)
    require_shape("direction", direction, r.score.shape[1:])
    # Dividing by the largest entry first keeps the norm of very short directions from underflowing.
    largest = np.abs(direction).max(initial=0.0)
    require(largest > 0, "direction", direction, "a non-zero vector")
    scaled = direction / largest
    return float(scaled @ gradient_gap(r) / np.linalg.norm(scaled))


def log_odds(p: ArrayLike) -> Reals:
    """log(p / (1 - p)), nats, elementwise, for p strictly between 0 and 1."""
    return logit(open_unit("p", p))[()]


def half_gain_step(alignment: ArrayLike, diameter: ArrayLike) -> Reals:
    """4 [alignment]+ / diameter^2: the longest step that 1a guarantees half of the first-order gain in log-odds.

    Holds for log-linear policies; a step below twice this length still gains. Where the alignment is not positive
    no step is guaranteed to gain, and the answer is 0. Source: derived here (1a); P1 prints
    [alignment]+ / (2 (L + 8 G^2)) for a score bound G and a Hessian bound L.

    Args:
        alignment: inner product of the unit direction with the gap, any shape.
        diameter: Euclidean diameter of the prompt's features, or their range along the direction.
    """
    alignment, diameter = real_array("alignment", alignment), positive("diameter", diameter)
    return (4 * np.maximum(alignment, 0) / diameter**2)[()]


def success_lower_bound(initial_success: ArrayLike, progress: ArrayLike) -> Reals:
    """J0 / (J0 + (1 - J0) exp(-M / 2)): success guaranteed after steps no longer than ``half_gain_step``.

    Source: P1, convergence bound, with the step of 1b (derived here).

    Args:
        initial_success: J0, strictly between 0 and 1.
        progress: M, the sum over iterations of step length times positive part of the alignment, at least 0, nats.
    """
    initial, progress = open_unit("initial_success", initial_success), non_negative("progress", progress)
    return (initial / (initial + (1 - initial) * np.exp(-progress / 2)))[()]
