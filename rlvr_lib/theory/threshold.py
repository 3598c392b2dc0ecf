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
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize.elementwise import find_root

from rlvr_lib.arguments import (
    Reals,
    non_negative,
    open_unit,
    positive,
    real_array,
    require,
    require_shape,
    whole_numbers,
    zero_or_one,
)
from rlvr_lib.theory.advantages import Estimator, estimator_gain


def critical_step(success: ArrayLike, alignment: ArrayLike, curvature: ArrayLike) -> Reals:
    """2 (1 - J) [alignment]+ / curvature: shorter steps raise the success rate (2a, derived here; P1 has no constant).

    A guarantee when ``curvature`` is the largest value along the step, a prediction when it is the value at the start.
    The constant 2 cannot be raised. Where the alignment is not positive no step is promised to gain: 0.

    Args:
        success: J, strictly between 0 and 1, any shape.
        alignment: inner product of the unit direction with the gap.
        curvature: -w' Hess(log J) w along the unit direction w, positive; where it is not, every step gains.
    """
    success, curvature = open_unit("success", success), positive("curvature", curvature)
    return (2 * (1 - success) * np.maximum(real_array("alignment", alignment), 0) / curvature)[()]


@dataclass(frozen=True)
class AlongStep:
    """Success rate J and its first two derivatives along the UNIT direction w of a step; None for what is undefined.

    From sampled responses the slope is the mean of (r - J) <w, s> and, by I4, the second derivative the mean of
    (r - J) (w' H w + <w, s>^2), best from responses that the step did not use.
    """

    success: float
    slope: float
    second: float

    @property
    def gap_alignment(self) -> float | None:
        """<w, D>, nats per unit step; None where all responses are correct or all are wrong."""
        variance = self.success * (1 - self.success)
        return self.slope / variance if variance > 0 else None

    @property
    def curvature(self) -> float | None:
        """-w' Hess(log J) w = (J'/J)^2 - J''/J; None where J = 0."""
        return (self.slope / self.success) ** 2 - self.second / self.success if self.success > 0 else None

    @property
    def critical_step(self) -> float | None:
        """``critical_step``; None where the curvature is not positive: every step gains."""
        alignment, curvature = self.gap_alignment, self.curvature
        if alignment is None or curvature is None or curvature <= 0:
            return None
        return float(critical_step(self.success, alignment, curvature))


def log_success_curvature(
    reward: ArrayLike, slope: ArrayLike, second: ArrayLike, prob: ArrayLike | None = None
) -> Reals:
    """-(E+[second] + Var+[slope]): the curvature l of one prompt's log J along a direction (2a, derived here).

    Only the correct responses count. From sampled responses it is an estimate, with the unbiased sample variance;
    sample them apart from those that chose the direction, or the two are correlated.

    Args:
        reward: [n], 0 or 1, of responses to one prompt; two correct ones, one if all responses are given.
        slope: [n], first derivative of each response's log-probability along the unit direction w, <w, s>.
        second: [n], its second derivative, w' H w.
        prob: [n], probabilities when these are all responses; None when they are sampled from the policy.
    """
    reward = zero_or_one("reward", real_array("reward", reward, ndim=1))
    slope, second = real_array("slope", slope), real_array("second", second)
    weight = np.ones_like(reward) if prob is None else non_negative("prob", prob)
    for name, array in (("slope", slope), ("second", second), ("prob", weight)):
        require_shape(name, array, reward.shape)
    weight = weight * reward
    total, least = float(weight.sum()), 2 if prob is None else np.finfo(float).tiny
    require(total >= least, "reward", f"{total:g} correct", "two correct, one if exact")
    mean = weight @ slope / total
    spread = weight @ (slope - mean) ** 2 / (total - (prob is None))
    # A slope that all correct responses share tilts log J and does not bend it, so it is left out of both terms.
    return np.float64(AlongStep(1.0, 0.0, weight @ second / total + spread).curvature)


def failure_energy_bound(success: ArrayLike, horizon: ArrayLike, score_range: ArrayLike) -> Reals:
    """(T R^2 / 2) (1 + log(2 / (1 - J))): no policy has a larger E-[<w, s>^2], the mean over wrong responses.

    Hoeffding-Azuma for the martingale of token scores, integrated over an event of probability 1 - J (derived here).

    Args:
        success: J, strictly between 0 and 1, any shape.
        horizon: T, most tokens in a response.
        score_range: R, largest range over the next token of <w, score>, at any prefix.
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
    """
    concavity = positive("concavity_bound", concavity_bound)
    return critical_step(success, alignment, whole_numbers("horizon", horizon, low=1) * concavity)


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
    """
    high, longest = np.broadcast_arrays(positive("shortest", shortest), positive("longest", longest))
    require(bool((high <= longest).all()), "longest", longest, "at least the shortest step")
    require(bool(real_array("growth", growth, ndim=0) > 1), "growth", growth, "above 1")
    positive("tolerance", tolerance)
    low, gaining = np.zeros(high.shape), gain(high) > 0
    while (going := gaining & (high < longest)).any():
        low, high = np.where(going, high, low), np.where(going, np.minimum(growth * high, longest), high)
        gaining = np.where(going, gain(high) > 0, gaining)
    place = np.arange(high.size).reshape(high.shape)

    def change(step: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Gain of some of the entries; a step of no length counts as a gain, an infinite loss as a loss."""
        every = np.array(high)
        every.flat[place] = np.where(step > 0, step, every.flat[place])
        gained = np.nan_to_num(np.asarray(gain(every), float).flat[place], nan=-1.0, posinf=1.0, neginf=-1.0)
        return np.where(step > 0, gained, 1.0)

    found = find_root(change, (low, high), args=(place,), tolerances={"xatol": 0.0, "xrtol": max(tolerance, 1e-15)})
    return np.where(gaining, np.inf, found.x)[()]
