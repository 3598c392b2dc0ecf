"""Theorem 2: how long a step may be before it lowers success, judged against the curvature of log J along it.

A step of length eta along a unit direction w, aligned with the gradient gap (alignment <w, D> > 0), raises the success
rate J while eta stays below 2 (1 - J) <w, D> / l, where l = -w' Hess(log J) w is the curvature of log J. Length of
response, success rate and algorithm enter only through l, and through the factor between the estimator's mean and the
gap. With l the largest value along the step this is a guarantee; with l at its start it is a prediction. It is
gradient descent's threshold of 2 / lambda, for log J.
P1 is arXiv 2510.08539, whose full text was not available; "derived here" is checked in the tests.

Two hundred tokens that all must be right share one parameter; J = 1/2 at best, and we start a little beside that:

>>> from rlvr_lib.theory.threshold import critical_learning_rate, critical_step, token_critical_step
>>> from rlvr_lib.testbeds.lines import TokenChain, exact_critical_rate
>>> chain = TokenChain.with_peak(length=200, success=0.5)
>>> here = chain.along(-0.1)
>>> round(float(critical_step(here.success, here.gap, here.curvature)), 4)  # the exact one is 0.2
0.1993
>>> peak = chain.along(0.0)
>>> round(float(critical_learning_rate(peak.success, peak.curvature, estimator="grpo")), 3)
2.89
>>> round(float(exact_critical_rate(chain, -0.001, estimator="grpo")), 3)  # by bisection
2.89

What holds for any policy whose token scores have a range of at most 0.5 along the step, knowing nothing else:

>>> round(float(token_critical_step(0.9, alignment=2.0, horizon=200, score_range=0.5)), 4)
0.036
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
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
    whole_numbers,
)
from rlvr_lib.theory.gap import group_gain

Estimator = Literal["reinforce", "grpo"]


def critical_step(success: ArrayLike, alignment: ArrayLike, curvature: ArrayLike) -> Reals:
    """2 (1 - J) [alignment]+ / curvature: shorter steps raise the success rate (2a, derived here; P1 has no constant).

    A guarantee when ``curvature`` is the largest value along the step, a prediction when it is the value at the start.
    The constant 2 cannot be raised. Where the alignment is not positive no step is promised to gain: 0.

    Args:
        success: J, strictly between 0 and 1, any shape.
        alignment: inner product of the unit direction with the gap.
        curvature: -w' Hess(log J) w along the unit direction w, positive; where it is not, every step gains.

    Raises:
        ValueError: success not strictly between 0 and 1, or a curvature that is not positive.
    """
    success, curvature = open_unit("success", success), positive("curvature", curvature)
    return (2 * (1 - success) * np.maximum(real_array("alignment", alignment), 0) / curvature)[()]


def log_success_curvature(
    reward: ArrayLike, slope: ArrayLike, second: ArrayLike, prob: ArrayLike | None = None
) -> Reals:
    """-(E+[second] + Var+[slope]): the curvature l of one prompt's log J along a direction (2a, derived here).

    Only the correct responses count. From sampled responses it is an estimate, with the unbiased sample variance;
    sample them apart from those that chose the direction, or the two are correlated.

    Args:
        reward: [n], 0 or 1, of responses to one prompt.
        slope: [n], first derivative of each response's log-probability along the unit direction w, <w, s>.
        second: [n], its second derivative, w' H w.
        prob: [n], probabilities when these are all responses; None when they are sampled from the policy.

    Raises:
        ValueError: different shapes, rewards that are not 0 or 1, no correct response, or a single one when sampled.
    """
    reward, slope, second = (
        real_array(name, value, ndim=1) for name, value in (("reward", reward), ("slope", slope), ("second", second))
    )
    weight = np.ones_like(reward) if prob is None else non_negative("prob", prob)
    for name, array in (("slope", slope), ("second", second), ("prob", weight)):
        require(array.shape == reward.shape, name, f"shape {array.shape}", f"of shape {reward.shape}")
    require(bool(((reward == 0) | (reward == 1)).all()), "reward", reward, "0 or 1")
    weight = weight * reward
    least = 2 if prob is None else np.finfo(float).tiny
    require(bool(weight.sum() >= least), "reward", f"{weight.sum():g} correct", "two correct, one if exact")
    mean = weight @ slope / weight.sum()
    spread = weight @ (slope - mean) ** 2 / (weight.sum() - (prob is None))
    return (-(weight @ second / weight.sum() + spread))[()]


def failure_energy_bound(success: ArrayLike, horizon: ArrayLike, score_range: ArrayLike) -> Reals:
    """(T R^2 / 2) (1 + log(2 / (1 - J))): no policy has a larger E-[<w, s>^2], the mean over wrong responses.

    Hoeffding-Azuma for the martingale of token scores, integrated over an event of probability 1 - J (derived here).

    Args:
        success: J, strictly between 0 and 1, any shape.
        horizon: T, most tokens in a response.
        score_range: R, largest range over the next token of <w, score>, at any prefix.

    Raises:
        ValueError: success not strictly between 0 and 1, a horizon that is not whole and positive, or a range that
            is not positive.
    """
    success, horizon = open_unit("success", success), whole_numbers("horizon", horizon, low=1)
    score_range = positive("score_range", score_range)
    return (horizon * score_range**2 / 2 * (1 + np.log(2) - np.log1p(-success)))[()]


def token_critical_step(
    success: ArrayLike,
    alignment: ArrayLike,
    horizon: ArrayLike,
    score_range: ArrayLike,
    hessian_bound: ArrayLike = 0.0,
) -> Reals:
    """2 J [alignment]+ / (T [L + (R^2 / 2) (1 + log(2 / (1 - J)))]): shorter steps raise the success rate.

    For any policy that writes tokens (2b, derived here): it knows only how far one token's score can vary, so at a
    fixed gap it falls as 1/T and, near J = 1, only as 1 / log(1 / (1 - J)). P1 (secondary source) says that the step
    shrinks with T, with 1 - J and with the regularity of the tokens. Not positive alignment: 0.

    Args:
        success: J, strictly between 0 and 1, any shape.
        alignment: inner product of the unit direction w with the gap.
        horizon: T, most tokens in a response.
        score_range: R, largest range over the next token of <w, score>, at any prefix and along the whole step.
        hessian_bound: L, largest w' H w of a token's log-probability there, or 0 where that is negative; 0 for
            log-linear tokens.

    Raises:
        ValueError: success not strictly between 0 and 1, a horizon that is not whole and positive, a range that is
            not positive, or a negative Hessian bound.
    """
    bend = non_negative("hessian_bound", hessian_bound)
    alignment = np.maximum(real_array("alignment", alignment), 0)
    energy = failure_energy_bound(success, horizon, score_range)
    return (2 * np.asarray(success) * alignment / (np.asarray(horizon) * bend + energy))[()]


def token_concavity_step(
    success: ArrayLike, alignment: ArrayLike, horizon: ArrayLike, concavity_bound: ArrayLike
) -> Reals:
    """2 (1 - J) [alignment]+ / (T L): shorter steps raise the success rate (second guarantee of 2b, derived here).

    ``critical_step`` at the largest curvature there can be, since Hess log J >= E+[H]. For log-linear tokens of score
    range R, L = R^2/4 will do, and this is longer than ``token_critical_step`` where 1 - J is above 0.115.

    Args:
        success: J, strictly between 0 and 1, any shape.
        alignment: inner product of the unit direction w with the gap.
        horizon: T, most tokens in a response.
        concavity_bound: L, largest -w' H w of a token's log-probability, at any prefix and along the whole step.

    Raises:
        ValueError: success not strictly between 0 and 1, a horizon that is not whole and positive, or a bound that is
            not positive.
    """
    concavity = positive("concavity_bound", concavity_bound)
    return critical_step(success, alignment, whole_numbers("horizon", horizon, low=1) * concavity)


def estimator_gain(
    success: ArrayLike, estimator: Estimator = "reinforce", group_size: int | None = None, bessel: bool = False
) -> Reals:
    """Scalar g such that the estimator's mean update is g times the gradient gap (I6, derived here).

    It is the same for J and 1 - J, so it is accurate next to 1 when given the failure rate.

    Args:
        success: J in [0, 1], any shape.
        estimator: "reinforce" (reward minus a baseline) or "grpo" (also divided by the group's standard deviation).
        group_size: G, at least 2: "reinforce" then subtracts the group's mean (Dr.GRPO). None: "reinforce" with a
            baseline that is independent of the response, gain J (1 - J), and "grpo" with large groups,
            gain sqrt(J (1 - J)).
        bessel: the group's deviation is the sample one, as in TRL: sqrt((G-1)/G) times the gain of "grpo" at a finite
            G; of no effect on "reinforce" and on large groups.

    Raises:
        ValueError: success outside [0, 1], an unknown estimator, or a group of fewer than 2.
    """
    require(estimator in get_args(Estimator), "estimator", estimator, '"reinforce" or "grpo"')
    if group_size is not None:
        size = integer("group_size", group_size, low=2)
        return group_gain(success, size, normalize=estimator == "grpo", bessel=bessel)
    success = closed_interval("success", success, 0, 1)
    variance = success * (1 - success)
    return (variance if estimator == "reinforce" else np.sqrt(variance))[()]


def critical_learning_rate(
    success: ArrayLike,
    curvature: ArrayLike,
    estimator: Estimator = "reinforce",
    length: ArrayLike | None = None,
    group_size: int | None = None,
    bessel: bool = False,
) -> Reals:
    """2 (1 - J) / (gain * curvature): for smaller rates the expected update raises success (2c, derived here).

    REINFORCE 2 / (J l), GRPO with large groups 2 sqrt((1 - J) / J) / l. A guarantee when ``curvature`` is the largest
    value along the step; the exact threshold of stability at a maximum along the line; elsewhere a prediction. In
    several dimensions a maximum is stable below the rate of its largest curvature. It is for plain gradient steps along
    the gap of one prompt, without noise: Adam, batches of prompts and sampled groups are not covered.

    Args:
        success: J, strictly between 0 and 1, any shape.
        curvature: -w' Hess(log J) w along the unit direction of the update, positive.
        estimator: "reinforce" or "grpo".
        length: tokens of every response, for estimators that divide by it (length-normalised); None where they do not.
        group_size: G, at least 2, for the gain at a finite group as in ``estimator_gain``.
        bessel: whether the group's deviation is the sample one, as in TRL.

    Raises:
        ValueError: success not strictly between 0 and 1, a curvature or length that is not positive, an unknown
            estimator, or a group of fewer than 2.
    """
    success, curvature = open_unit("success", success), positive("curvature", curvature)
    tokens = 1.0 if length is None else positive("length", length)
    gain = estimator_gain(success, estimator, group_size, bessel)
    return (2 * (1 - success) * tokens / (gain * curvature))[()]


def first_return_step(
    gain: Callable[[np.ndarray], np.ndarray],
    shortest: ArrayLike,
    longest: ArrayLike,
    growth: float = 1.1,
    tolerance: float = 1e-12,
) -> Reals:
    """The measured critical step: the shortest one whose gain is not positive, by a scan and bisection.

    The scan multiplies the step by ``growth`` from ``shortest`` to ``longest``, so a loss that is made good again
    within one such factor goes unseen.

    Args:
        gain: change of the success rate (or of any increasing function of it) after steps of these lengths, an array
            of the same shape; positive for short steps.
        shortest: first step tried, positive, any shape; where it already loses, the bracket is between it and 0.
        longest: last step tried, at least ``shortest``.
        growth: ratio of successive steps of the scan, above 1.
        tolerance: relative accuracy of the bisection, positive.

    Returns:
        The step, in the common shape of ``shortest`` and ``longest``; infinite where every step tried gains.

    Raises:
        ValueError: steps that are not positive or not in order, a growth of at most 1, or a tolerance that is not
            positive.
    """
    high, longest = np.broadcast_arrays(positive("shortest", shortest), positive("longest", longest))
    require(bool((high <= longest).all()), "longest", longest, "at least the shortest step")
    require(bool(real_array("growth", growth, ndim=0) > 1), "growth", growth, "above 1")
    positive("tolerance", tolerance)
    low, gaining = np.zeros(high.shape), gain(high) > 0
    while (going := gaining & (high < longest)).any():
        low, high = np.where(going, high, low), np.where(going, np.minimum(growth * high, longest), high)
        gaining = np.where(going, gain(high) > 0, gaining)
    low = np.where(gaining, high, low)
    while (high - low > tolerance * high).any():
        middle = (low + high) / 2
        if ((middle == low) | (middle == high)).all():
            break
        gains = gain(middle) > 0
        low, high = np.where(gains, middle, low), np.where(gains, high, middle)
    return np.where(gaining, np.inf, high)[()]
