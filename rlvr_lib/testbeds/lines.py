"""Policies on a line whose critical steps and learning rates are known in closed form.

Each family gives log J, its slope and its curvature as functions of the position on a line. It is symmetric about its
only maximum, at 0, so the critical step from a position x < 0 is exactly -2 x, and steps of fixed length eta that
straddle the maximum evenly hold J at ``along(eta / 2)`` for ever.
Everything broadcasts: lengths, levels and positions may be arrays. Computed from log J and log-odds, so the values
are accurate for a thousand tokens and for J near 0 or 1. All of it is derived here.

A learning rate enters through the estimator's mean update, gain times gap, which points along the line by symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit, gammaln, log_expit, logsumexp, softmax

from rlvr_lib.arguments import Reals, non_negative, open_unit, positive, real_array, require, whole_numbers
from rlvr_lib.theory.threshold import Estimator, estimator_gain, first_return_step


class Point(NamedTuple):
    """A policy's success at positions on its line, arrays of one shape.

    Attributes:
        log_success: log J, below 0.
        slope: derivative of log J, nats per unit length.
        curvature: minus the second derivative of log J.
    """

    log_success: Reals
    slope: Reals
    curvature: Reals

    @property
    def success(self) -> Reals:
        """J; rounds to 1 where the failure rate is below 1e-16."""
        return np.exp(self.log_success)

    @property
    def failure(self) -> Reals:
        """1 - J, accurate also where J rounds to 1."""
        return -np.expm1(self.log_success)

    @property
    def gap(self) -> Reals:
        """Gradient gap along the line: the derivative of the log-odds of J."""
        return self.slope / self.failure

    def velocity(
        self, estimator: Estimator = "reinforce", length: ArrayLike | None = None, group_size: int | None = None
    ) -> Reals:
        """Mean movement along the line per unit of learning rate: gain times gap, over ``length`` when one is given.

        Args:
            estimator, group_size: as in ``estimator_gain``.
            length: tokens of every response, for estimators that divide by it.

        Raises:
            ValueError: an unknown estimator, a group of fewer than 2, or a length that is not positive.
        """
        gain = estimator_gain(np.minimum(self.success, self.failure), estimator, group_size)
        return gain * self.gap / (1.0 if length is None else positive("length", length))


class Line(Protocol):
    """A policy on a line."""

    def along(self, position: ArrayLike) -> Point:
        """Success at these positions."""


def exact_critical_rate(
    line: Line,
    position: ArrayLike,
    estimator: Estimator = "reinforce",
    length: ArrayLike | None = None,
    group_size: int | None = None,
) -> Reals:
    """The learning rate at which one mean update no longer raises success, by bisection to 1e-12.

    Args:
        line: a family; its arrays broadcast with ``position``.
        position: where the update starts, not a maximum.
        estimator, length, group_size: as in ``Point.velocity``.

    Returns:
        The rate; infinite where no step of up to 100 times the distance to 0 returns to the starting level.

    Raises:
        ValueError: a position with no slope, or as in ``Point.velocity``.
    """
    position = real_array("position", position)
    start = line.along(position)
    require(bool((start.slope != 0).all()), "position", position, "where log J has a slope")
    uphill, scale = np.sign(start.slope), np.broadcast_to(np.abs(position), start.slope.shape)
    step = first_return_step(
        lambda h: line.along(position + uphill * h).log_success - start.log_success, 0.1 * scale, 100 * scale
    )
    return step / np.abs(start.velocity(estimator, length, group_size))


@dataclass(frozen=True, eq=False)
class TokenChain:
    """T tokens that must all be right, each out of three: one right, two wrong ones that the line trades off.

    A token's weights are 1, e exp(x) and e exp(-x), so J = (1 + 2 e cosh x)^(-T).

    Attributes:
        length: T, any shape.
        wrong_weight: e, positive.
        shared: True where all tokens share x. False where every token has its own and the line is their diagonal,
            x = position / sqrt(T), which is the direction of the gradient there.

    Raises:
        ValueError: a length that is not whole and positive, or a weight that is not positive.
    """

    length: Float[np.ndarray, "..."]
    wrong_weight: Float[np.ndarray, "..."]
    shared: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", whole_numbers("length", self.length, low=1))
        object.__setattr__(self, "wrong_weight", positive("wrong_weight", self.wrong_weight))

    @classmethod
    def with_peak(cls, length: ArrayLike, success: ArrayLike, shared: bool = True) -> TokenChain:
        """The chain whose best success rate is the given one, whatever its length."""
        length = whole_numbers("length", length, low=1)
        return cls(length, np.expm1(-np.log(open_unit("success", success)) / length) / 2, shared)

    @classmethod
    def with_token_error(cls, length: ArrayLike, error: ArrayLike, shared: bool = True) -> TokenChain:
        """The chain whose tokens are wrong with the given probability at best: its peak falls with the length."""
        error = open_unit("error", error)
        return cls(length, error / (1 - error) / 2, shared)

    def along(self, position: ArrayLike) -> Point:
        """Success at these positions."""
        scale = 1.0 if self.shared else np.sqrt(self.length)
        x = real_array("position", position) / scale
        decay = np.exp(-2 * np.abs(x))
        log_odds_wrong = np.log(self.wrong_weight) + np.abs(x) + np.log1p(decay)
        wrong, right, tilt = expit(log_odds_wrong), expit(-log_odds_wrong), np.tanh(x)
        bend = wrong * (4 * decay / (1 + decay) ** 2 + right * tilt**2)
        return Point(
            self.length * log_expit(-log_odds_wrong),
            -self.length * wrong * tilt / scale,
            self.length * bend / scale**2,
        )

    def start(self, success: ArrayLike) -> Reals:
        """The position below 0 at which J has this value.

        Raises:
            ValueError: success not strictly between 0 and the peak.
        """
        success = open_unit("success", success)
        cosh = np.expm1(-np.log(success) / self.length) / (2 * self.wrong_weight)
        require(bool((cosh > 1).all()), "success", success, "below the success rate at 0")
        return (-np.arccosh(cosh) * (1.0 if self.shared else np.sqrt(self.length)))[()]


@dataclass(frozen=True, eq=False)
class CountWindow:
    """T independent tokens, each a 1 with probability expit(x), rewarded when the count of ones is near T/2.

    An aggregate reward: J = P(|N - T/2| <= half_width) for N ~ Binomial(T, expit(x)).

    Attributes:
        length: T, any shape.
        half_width: at least 0 (1/2 where T is odd) and below T/2, so that something and not everything is right.

    Raises:
        ValueError: a length that is not whole and positive, or a width that accepts nothing or everything.
    """

    length: Float[np.ndarray, "..."]
    half_width: Float[np.ndarray, "..."]

    def __post_init__(self) -> None:
        length, half_width = whole_numbers("length", self.length, low=1), non_negative("half_width", self.half_width)
        mixed = (half_width < length / 2) & (half_width >= (length % 2) / 2)
        require(bool(mixed.all()), "half_width", half_width, "below length / 2, and at least 1/2 for odd lengths")
        object.__setattr__(self, "length", length)
        object.__setattr__(self, "half_width", half_width)

    def along(self, position: ArrayLike) -> Point:
        """Success at these positions."""
        x, length = real_array("position", position)[..., None], self.length[..., None]
        count = np.arange(self.length.max() + 1)
        # Counts beyond the length get weight 0: gammaln is infinite at 0, -1, -2 and so on.
        log_choose = gammaln(length + 1) - gammaln(count + 1) - gammaln(length - count + 1)
        log_weight = log_choose + count * log_expit(x) + (length - count) * log_expit(-x)
        inside = np.abs(count - length / 2) <= self.half_width[..., None]
        total, mean, variance = zip(*(_moments(log_weight, count, side) for side in (inside, ~inside)), strict=True)
        log_odds, gap = total[0] - total[1], mean[0] - mean[1]
        log_success, log_failure = log_expit(log_odds), log_expit(-log_odds)
        bend = np.exp(log_success) * gap**2 - (variance[0] - variance[1])
        return Point(log_success, np.exp(log_failure) * gap, np.exp(log_failure) * bend)

    def start(self, success: ArrayLike) -> Reals:
        """The position below 0 at which J has this value, by bisection to 1e-12.

        Raises:
            ValueError: success not strictly between 0 and the peak.
        """
        success = open_unit("success", success)
        shape = np.broadcast_shapes(success.shape, self.length.shape, self.half_width.shape)
        above = np.broadcast_to(self.along(0.0).log_success > np.log(success), shape)
        require(bool(above.all()), "success", success, "below the success rate at 0")
        return -first_return_step(
            lambda h: self.along(-h).log_success - np.log(success), np.full(shape, 1e-3), 1e4, growth=1.5
        )


def _moments(log_weight: np.ndarray, value: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, ...]:
    """Log of the total weight, and mean and variance of the values, among those marked along the last axis."""
    log_weight = np.where(among, log_weight, -np.inf)
    weight = softmax(log_weight, axis=-1)
    mean = weight @ value
    return logsumexp(log_weight, axis=-1), mean, (weight * (value - mean[..., None]) ** 2).sum(-1)
