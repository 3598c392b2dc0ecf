"""Theorem 4: dividing by the standard deviation of the rewards is a step adapted to the curvature, and when that helps.

sigma^2 = J (1 - J) is the variance of the reward; it scales the Hessian of J as it scales the gradient (I4), so a step
grad J / sigma^a may grow as the variance shrinks. The power a is 0 for REINFORCE, 1 for GRPO, 2 for the gradient gap.
P4 is arXiv 2601.23135 v1; "derived here" is checked in the tests.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import (
    Reals,
    closed_interval,
    integer,
    non_negative,
    open_unit,
    positive,
    real_array,
    require,
    require_shape,
)
from rlvr_lib.responses import Responses, conditional_weights, success_rate
from rlvr_lib.theory.gap import gradient_gap


def curvature_bound(success: ArrayLike, diameter: ArrayLike) -> Reals:
    """diameter^2 J (1 - J), an upper bound on the spectral norm of the Hessian of J for log-linear policies (4a).

    Holds for every set of correct responses; approached as J -> 0 or 1, so no smaller constant does for all J;
    ``curvature_constant`` is what remains of it at each J, and ``smoothness`` the largest of that over J.
    Source: derived here. diameter^2 is at most twice the squared spectral norm X^2 of the feature matrix, so this is
    within 2 X^2 sigma^2, where P4 (Lemma 3.1) has 4 X^2 sigma^2.

    Args:
        success: J in [0, 1], any shape.
        diameter: Euclidean diameter of the prompt's features.
    """
    success, diameter = closed_interval("success", success, 0, 1), positive("diameter", diameter)
    return (diameter**2 * success * (1 - success))[()]


def curvature_constant(success: ArrayLike) -> Reals:
    """Largest spectral norm of the Hessian of J at a given J, over diameter^2 sigma^2 (4a, sharp, derived here).

    With m = min(J, 1 - J): 1 - 2 m where m <= 1/4, and 1 / (8 m) above, so it falls from 1 at the ends to 1/4 at
    J = 1/2. Attained by features at two points of a line: all wrong responses at one, the correct ones at the other or
    divided between both (wrong and correct exchanged where J > 1/2).

    Args:
        success: J in [0, 1], any shape.
    """
    success = closed_interval("success", success, 0, 1)
    minority = np.minimum(success, 1 - success)
    return np.where(minority <= 0.25, 1 - 2 * minority, 1 / (8 * np.maximum(minority, 0.25)))[()]


def smoothness(diameter: ArrayLike) -> Reals:
    """diameter^2 sqrt(3) / 18, the largest Hessian of J whatever J, for log-linear policies (4a, derived here).

    The maximum over J of ``curvature_constant(J) * curvature_bound(J, diameter)``, at J = 1/2 -+ sqrt(3)/6. Sharp, as
    ``curvature_constant`` is attained there. It is the L of a descent lemma: J(theta + u) is at least
    J(theta) + <grad J, u> - L |u|^2 / 2 for every step u. The mean of several prompts' success obeys it as well, with
    the largest diameter of the prompts.

    Args:
        diameter: Euclidean diameter of the prompt's features, or anything larger.
    """
    return (positive("diameter", diameter) ** 2 * math.sqrt(3) / 18)[()]


def power_step(success: ArrayLike, power: ArrayLike, diameter: ArrayLike) -> Reals:
    """4 / (diameter^2 (2 sigma)^a): the multiple of grad J whose gain ``guaranteed_gain`` bounds (4b, derived here).

    Args:
        success: J strictly between 0 and 1, any shape.
        power: a in [0, 2].
        diameter: Euclidean diameter of the prompt's features, or anything larger.
    """
    success, power = open_unit("success", success), closed_interval("power", power, 0, 2)
    return (4 / (positive("diameter", diameter) ** 2 * _twice_std(success) ** power))[()]


def guaranteed_gain(success: ArrayLike, power: ArrayLike, gradient_norm: ArrayLike, diameter: ArrayLike) -> Reals:
    """Gain in J that the step ``power_step`` times grad J at least brings (4b, derived here).

    (2 / C) |grad J|^2 (x^-2 - (1/x - x^(1-a))^2) with C = diameter^2 and x = 2 sigma, for log-linear policies, exact
    gradients and, of several prompts, orthogonal features. Evaluated as (2 / C) |grad J|^2 x^-a (2 - x^(2-a)), where
    nothing cancels however small the variance.

    Args:
        success: J strictly between 0 and 1, any shape.
        power: a in [0, 2]: 0 REINFORCE, 1 GRPO, 2 the gap itself.
        gradient_norm: |grad J|, per unit parameter.
        diameter: Euclidean diameter of the prompt's features, or anything larger.
    """
    success, power = open_unit("success", success), closed_interval("power", power, 0, 2)
    gradient_norm, diameter = positive("gradient_norm", gradient_norm), positive("diameter", diameter)
    x = _twice_std(success)
    # The power goes inside the square: the gradient shrinks with x^2 and its square alone would underflow first.
    return (2 * (gradient_norm / diameter * x ** (-power / 2)) ** 2 * (2 - x ** (2 - power)))[()]


def guaranteed_gain_ratio(std: ArrayLike) -> Reals:
    """(1 - sigma) / (2 sigma (1 - 2 sigma^2)): what 4b guarantees GRPO over REINFORCE, elementwise, sigma in (0, 1/2].

    At least 1, and 1 only at sigma = 1/2, because 4 sigma^3 - 3 sigma + 1 = (2 sigma - 1)^2 (sigma + 1).
    Source: derived here; P4 compares its own bounds instead, and asks for a mean sigma below 3/8.
    """
    std = real_array("std", std)
    outside = (std <= 0) | (std > 0.5)
    require(not outside.any(), "std", std[outside][:1], "in (0, 1/2]")
    return ((1 - std) / (2 * std * (1 - 2 * std**2)))[()]


def gradient_cosines(gradients: ArrayLike | None = None, gram: ArrayLike | None = None) -> Float[np.ndarray, " pairs"]:
    """Cosines between the gradients of all pairs of prompts, [q (q - 1) / 2], upper triangle row by row.

    Args:
        gradients: [q, d], q >= 2 rows, none of them zero.
        gram: [q, q], their inner products, in place of them; a gradient is zero where its own is not positive.
    """
    name, given = ("gradients", gradients) if gram is None else ("gram", gram)
    require((gradients is None) != (gram is None), name, given, "the only one given of gradients and gram")
    rows = real_array(name, given, ndim=2)
    require(len(rows) >= 2, name, f"{len(rows)} row(s)", "at least two gradients")
    if gram is None:
        # Dividing by the largest entry first keeps the norms of very short rows from underflowing.
        largest = np.abs(rows).max(1, initial=0.0, keepdims=True)
        rows = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
        rows = rows @ rows.T
    require_shape(name, rows, (len(rows), len(rows)))
    square = np.diag(rows)
    zero = np.flatnonzero(square <= 0)
    require(len(zero) == 0, name, f"a zero gradient in row {zero[:1]}", "non-zero in every row")
    norm = np.sqrt(square)
    return np.clip((rows / norm[:, None] / norm)[np.triu_indices(len(rows), 1)], -1.0, 1.0)


def two_arm_time(power: int, start: ArrayLike, stop: ArrayLike, rate: ArrayLike = 1.0) -> Reals:
    """Time of the flow dz/dt = rate sigma^(2-a) from one logit to a later one, for two arms (4d, derived here).

    Antiderivatives 2 z + 2 sinh z, 4 sinh(z / 2) and z for a = 0, 1, 2: the failure probability falls as 1/t, as 1/t^2
    and exponentially. Differences of hyperbolic sines are taken as products, so short times are exact as well.

    Args:
        power: a, one of 0, 1, 2.
        start: logit of J at time 0, nats, any shape.
        stop: logit of J to reach, not below the start.
        rate: squared distance between the features of the two arms times the learning rate.
    """
    require(power in (0, 1, 2), "power", power, "0, 1 or 2")
    start, stop, rate = real_array("start", start), real_array("stop", stop), positive("rate", rate)
    way, centre = stop - start, (start + stop) / 2
    require(bool((way >= 0).all()), "stop", stop, "at least the start")
    if power == 0:
        return ((2 * way + 4 * np.cosh(centre) * np.sinh(way / 2)) / rate)[()]
    return ((8 * np.cosh(centre / 2) * np.sinh(way / 4) if power == 1 else way) / rate)[()]


def within_class_noise(r: Responses) -> float:
    """k = ((1 - J) tr Cov+ + J tr Cov-) / |D|^2: variance of the scores within the classes over the squared gap.

    Given rewards of variance v, the mean-removed update of a group has mean v D and total variance v k |D|^2 / G;
    exactly so where both covariances have one trace, or where phat = J. Source: derived here (4e).
    """
    gap, success = gradient_gap(r), success_rate(r)
    squared_gap = float(gap @ gap)
    require(squared_gap > 0, "score", "a zero gradient gap", "of different means given success and failure")
    spread = [max(weight @ r.energy - ((weight @ r.score) ** 2).sum(), 0.0) for weight in conditional_weights(r)]
    return float(((1 - success) * spread[0] + success * spread[1]) / squared_gap)


def optimal_group_weight(
    variance: ArrayLike, noise: ArrayLike, group_size: int, overlap: ArrayLike = 0.0, mean_variance: ArrayLike = 0.25
) -> Reals:
    """v / ((v + k/G) (v + o vbar)): best weight of a group's mean-removed update, up to a constant (4e, derived here).

    Without overlap 1 / (v + k/G), which maximises the expected second-order gain when the classes have equal
    covariances and the curvature is proportional to sigma^2. With overlap a heuristic: other prompts' curvature is
    felt along this prompt's update, and their cross terms in the gain average out.

    Args:
        variance: v in [0, 1/4], population variance of the group's rewards, any shape.
        noise: k >= 0, as ``within_class_noise`` gives it.
        group_size: G, responses a group.
        overlap: o >= 0, number of prompts times the mean squared cosine between their gradients.
        mean_variance: vbar in [0, 1/4], mean variance over prompts; matters only with overlap.
    """
    variance, noise, spill = _weight_terms(variance, noise, group_size, overlap, mean_variance)
    share = np.divide(variance, variance + spill, out=np.ones(np.shape(variance + spill)), where=variance + spill > 0)
    return (share / (variance + noise))[()]


def best_power(
    variance: ArrayLike, noise: ArrayLike, group_size: int, overlap: ArrayLike = 0.0, mean_variance: ArrayLike = 0.25
) -> Reals:
    """2 (v / (v + k/G) + v / (v + o vbar) - 1): the power a for which sigma^-a falls with v as the best weight does.

    Minus twice the logarithmic slope of ``optimal_group_weight``, whose arguments it takes: 2 with neither noise nor
    overlap, 1 where o vbar = v or k/G = v, 0 where both, towards -2 where both are large; v > 0. Derived here (4e).
    """
    positive("variance", variance)
    variance, noise, spill = _weight_terms(variance, noise, group_size, overlap, mean_variance)
    return (2 * (variance / (variance + noise) + variance / (variance + spill) - 1))[()]


def _weight_terms(
    variance: ArrayLike, noise: ArrayLike, group_size: int, overlap: ArrayLike, mean_variance: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """v, k/G and o vbar, broadcast against each other."""
    variance = closed_interval("variance", variance, 0, 0.25)
    noise = non_negative("noise", noise) / integer("group_size", group_size, low=1)
    spill = non_negative("overlap", overlap) * closed_interval("mean_variance", mean_variance, 0, 0.25)
    require(bool((variance + noise > 0).all()), "noise", noise, "positive where the variance is 0")
    return variance, noise, spill


def _twice_std(success: np.ndarray) -> np.ndarray:
    """2 sigma, as a product of roots: J (1 - J) would lose digits where it is subnormal."""
    return 2 * np.sqrt(success) * np.sqrt(1 - success)
