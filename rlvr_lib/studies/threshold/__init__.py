"""The runs behind chapter 2: where a step, or a training run, stops raising success, on all three testbeds.

Four words everywhere: the *predicted* step or rate (curvature of log J at the start), the *guaranteed* one (largest
curvature on the way), the *measured* one (first return of success to its start), and the *training boundary*. Functions
take numbers and return numbers; what a claim breaks on purpose is a keyword with the honest default.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.stats import t as student

from rlvr_lib.arguments import Reals, integer, open_unit, positive, real_array, require
from rlvr_lib.responses import Responses, success_rate
from rlvr_lib.testbeds.policy import Testbed
from rlvr_lib.theory.gap import policy_gradient

USABLE = 0.8
"""A run has trained when its success over its last quarter is at least this share of the best it could reach."""


class Power(NamedTuple):
    """The exponent of a fitted power law, and half of its least-squares interval at 95%: how straight the curve is."""

    exponent: float
    half_width: float


def power_law(argument: ArrayLike, value: ArrayLike) -> Power:
    """The slope of ``value`` against ``argument``, [n] positive numbers each, n at least 3, on logarithmic axes."""
    x, y = (np.log(positive(*pair)) for pair in (("argument", argument), ("value", value)))
    require(x.ndim == 1 and x.shape == y.shape and len(x) > 2, "value", f"shape {y.shape}", f"{x.shape}, 3 or more")
    fit, covariance = np.polyfit(x, y, 1, cov=True)
    return Power(float(fit[0]), float(student.ppf(0.975, len(x) - 2) * np.sqrt(covariance[0, 0])))


def training_boundary(rates: ArrayLike, final: ArrayLike, best: ArrayLike = 1.0) -> Reals:
    """Where training stops working, [...]: the geometric mean of the first rate that fails and its neighbour below.

    A rate fails when ``final`` is below ``USABLE`` times ``best``; the first is counted from below. Censored runs are
    marked: infinite where no rate of the grid fails, 0 where the lowest does.

    Args:
        rates: [rates], increasing.
        final: [..., rates], success over the last quarter of each run.
        best: the best success a run could reach, broadcast to ``final``.
    """
    rates, final = positive("rates", real_array("rates", rates, ndim=1)), real_array("final", final)
    require(bool((np.diff(rates) > 0).all()), "rates", rates, "increasing")
    require(final.shape[-1:] == rates.shape, "final", f"shape {final.shape}", f"of shape [..., {len(rates)}]")
    failing = final < USABLE * real_array("best", best)
    first = failing.argmax(-1)
    between = np.where(first > 0, np.sqrt(rates[first - 1] * rates[first]), 0.0)
    return np.where(failing.any(-1), between, np.inf)[()]


def sampled_slope_radius(exact: Responses, direction: Float[np.ndarray, " d"], n: int, false_alarm: float) -> float:
    """How far ``policy_gradient(sample) @ direction`` may lie from its value on all responses, but for ``false_alarm``.

    The estimate is mean((r - J) s) - (mean(r) - J) mean(s) with s = <direction, score>, and each of the three means of
    n independent responses keeps to Bernstein's inequality with its exact variance and range.
    """
    count, log_term = integer("n", n, low=1), math.log(6 / float(open_unit("false_alarm", false_alarm)))
    centred, along = exact.reward - success_rate(exact), exact.score @ direction

    def radius(values: np.ndarray) -> float:
        values = values - exact.prob @ values
        reach = np.abs(values[exact.prob > 0]).max() * log_term / (3 * count)
        return reach + math.sqrt(reach**2 + 2 * (exact.prob @ values**2) * log_term / count)

    return radius(centred * along) + radius(centred) * radius(along)


def sampled_slope_error(
    policy: Testbed,
    direction: Float[np.ndarray, " d"],
    n: int,
    seed: int,
    false_alarm: float,
    prompt: int = 0,
    sampler: Testbed | None = None,
    shuffled: bool = False,
) -> float:
    """Error of the slope of J along a direction, ``policy_gradient(r) @ direction``, from n sampled responses.

    In units of ``sampled_slope_radius``: at most 1, but for a probability of ``false_alarm``. ``sampler`` draws the
    responses in the policy's place; ``shuffled`` permutes their rewards.
    """
    exact, drawn = policy.enumerate(prompt), (sampler or policy).sample(prompt, n, seed)
    if shuffled:
        order = np.random.default_rng(seed).permutation(len(drawn))
        drawn = Responses(drawn.reward[order], drawn.score, drawn.prob, drawn.length)
    error = abs((policy_gradient(drawn) - policy_gradient(exact)) @ direction)
    return float(error / sampled_slope_radius(exact, direction, n, false_alarm))
