"""Policies on a line: log J, its slope and its curvature in closed form as functions of the position.

``TokenChain``, ``CountWindow`` and ``Ridge`` are symmetric about their only maximum, at 0, so the critical step from a
position x < 0 is exactly -2 x, and steps of fixed length eta that straddle the maximum evenly hold J at
``along(eta / 2)`` for ever. ``Ridge`` and ``Sawtooth``, of one correct and one wrong response, show that theorem 2's
constant 2 cannot be raised: above it, aligned steps can end in J = 0.

Lengths, levels and positions broadcast; the values are accurate for a thousand tokens and for J near 0 or 1. All of it
is derived here; the construction of P1 (arXiv 2510.08539) was not available.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit, gammaln, log_expit, logsumexp, softmax

from rlvr_lib.arguments import Reals, non_negative, open_unit, positive, real_array, require, whole_numbers
from rlvr_lib.theory.advantages import Estimator, estimator_gain
from rlvr_lib.theory.threshold import first_return_step


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
        """Mean movement per unit of learning rate: gain times gap, over the tokens of a response where given."""
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
    """The learning rate at which one mean update (``Point.velocity``) no longer raises success, by bisection to 1e-12.

    The update starts from the position, which is not a maximum. Infinite where no step of up to 100 times the distance
    to 0 returns to the starting level.
    """
    position = real_array("position", position)
    start = line.along(position)
    require(bool((start.slope != 0).all()), "position", position, "where log J has a slope")
    uphill, level = np.sign(start.slope), start.log_success
    scale = np.broadcast_to(np.abs(position), uphill.shape)
    step = first_return_step(lambda h: line.along(position + uphill * h).log_success - level, 0.1 * scale, 100 * scale)
    return step / np.abs(start.velocity(estimator, length, group_size))


@dataclass(frozen=True, eq=False)
class TokenChain:
    """T tokens that must all be right, each out of three: one right, two wrong ones that the line trades off.

    A token's weights are 1, e exp(x) and e exp(-x), so J = (1 + 2 e cosh x)^(-T).

    Attributes:
        length: T, any shape.
        wrong_weight: e, positive.
        shared: whether all tokens share x; otherwise each has its own, and the line is their diagonal, along the
            gradient there: x = position / sqrt(T).
    """

    length: Reals
    wrong_weight: Reals
    shared: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", whole_numbers("length", self.length, low=1))
        object.__setattr__(self, "wrong_weight", positive("wrong_weight", self.wrong_weight))

    @property
    def _scale(self) -> Reals:
        return np.float64(1) if self.shared else np.sqrt(self.length)

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
        scale = self._scale
        x = real_array("position", position) / scale
        decay = np.exp(-2 * np.abs(x))
        log_odds_wrong = np.log(self.wrong_weight) + np.abs(x) + np.log1p(decay)
        wrong, right, tilt, T = expit(log_odds_wrong), expit(-log_odds_wrong), np.tanh(x), self.length
        bend = wrong * (4 * decay / (1 + decay) ** 2 + right * tilt**2)
        return Point(T * log_expit(-log_odds_wrong), -T * wrong * tilt / scale, T * bend / scale**2)

    def start(self, success: ArrayLike) -> Reals:
        """The position below 0 at which J has this value."""
        success = open_unit("success", success)
        cosh = np.expm1(-np.log(success) / self.length) / (2 * self.wrong_weight)
        require(bool((cosh > 1).all()), "success", success, "below the success rate at 0")
        return (-np.arccosh(cosh) * self._scale)[()]


@dataclass(frozen=True, eq=False)
class CountWindow:
    """T independent tokens, each a 1 with probability expit(x), rewarded when the count of ones is near T/2.

    An aggregate reward: J = P(|N - T/2| <= half_width) for N ~ Binomial(T, expit(x)).

    Attributes:
        length: T, any shape.
        half_width: at least 0 (1/2 where T is odd) and below T/2, so that something and not everything is right.
    """

    length: Reals
    half_width: Reals

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
        """The position below 0 at which J has this value, by bisection to 1e-12."""
        success = open_unit("success", success)
        shape = np.broadcast_shapes(success.shape, self.length.shape, self.half_width.shape)
        level, start = np.log(success), np.full(shape, 1e-3)
        above = np.broadcast_to(self.along(0.0).log_success > level, shape)
        require(bool(above.all()), "success", success, "below the success rate at 0")
        return -first_return_step(lambda h: self.along(-h).log_success - level, start, 1e4, growth=1.5)


def _moments(log_weight: np.ndarray, value: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, ...]:
    """Log of the total weight, and mean and variance of the values, among those marked along the last axis."""
    log_weight = np.where(among, log_weight, -np.inf)
    weight = softmax(log_weight, axis=-1)
    mean = weight @ value
    return logsumexp(log_weight, axis=-1), mean, (weight * (value - mean[..., None]) ** 2).sum(-1)


@dataclass(frozen=True, eq=False)
class Ridge:
    """log J = log(peak) - curvature x^2 / 2, where the critical step of theorem 2 is exact at every position.

    Aligned steps of c times half of it move x to (1 - c) x: for every c > 2 they climb, overshoot and end lower.

    Attributes:
        peak: J at 0, strictly between 0 and 1.
        curvature: of log J, positive.
    """

    peak: Reals
    curvature: Reals

    def __post_init__(self) -> None:
        object.__setattr__(self, "peak", open_unit("peak", self.peak))
        object.__setattr__(self, "curvature", positive("curvature", self.curvature))

    def along(self, position: ArrayLike) -> Point:
        """Success at these positions."""
        x = real_array("position", position)
        height = np.log(self.peak) - self.curvature * x**2 / 2
        return Point(height[()], (-self.curvature * x)[()], np.broadcast_to(self.curvature, height.shape)[()])


class Tooth(NamedTuple):
    """Quadratic pieces of log J over one cycle of steps, the first one starting at 0."""

    position: Float[np.ndarray, " pieces"]
    height: Float[np.ndarray, " pieces"]
    slope: Float[np.ndarray, " pieces"]
    curvature: Float[np.ndarray, " pieces"]
    width: float
    fall: float


@dataclass(frozen=True, eq=False)
class Sawtooth:
    """A line on which steps of ``multiple * slope / curvature``, all in one direction and all uphill, end in J = 0.

    With convex kinks of log J it exists for every multiple c above 2. Without kinks one slope needs c above 4, and
    slopes that grow by up to the factor 1 + c a step, then start again, c above 3; up to 3 the total loss is bounded.

    Attributes:
        multiple: c, step times curvature over slope.
        curvature: the largest curvature of log J; without kinks also of minus log J.
        initial_success: J at position 0, where the first step starts.
        slopes: [m], positive slopes of log J where steps start, repeated for ever.
        kinks: whether the slope jumps up at the end of each step; otherwise it climbs back at the rate ``curvature``.
    """

    multiple: float
    curvature: float = 1.0
    initial_success: float = 0.5
    slopes: Reals = (0.5,)
    kinks: bool = True

    def __post_init__(self) -> None:
        slopes = positive("slopes", real_array("slopes", self.slopes, ndim=1))
        object.__setattr__(self, "slopes", slopes)
        for name, check in (("multiple", positive), ("curvature", positive), ("initial_success", open_unit)):
            object.__setattr__(self, name, float(check(name, getattr(self, name))))
        # A little slack for slopes computed as powers of 1 + c.
        reachable = self.kinks or (np.roll(slopes, -1) <= (1 + self.multiple) * slopes * (1 + 1e-9)).all()
        require(len(slopes) > 0 and bool(reachable), "slopes", slopes, "growing by at most the factor 1 + multiple")
        require(self.tooth.fall > 0, "multiple", self.multiple, "so large that a cycle of these slopes lowers success")
        climb = (self.tooth.height + np.maximum(self.tooth.slope, 0) ** 2 / (2 * self.curvature)).max()
        highest = np.exp(-climb)
        require(self.initial_success < highest, "initial_success", self.initial_success, f"below {highest:.6g}")

    @cached_property
    def tooth(self) -> Tooth:
        """One cycle; its ``width`` is the sum of the steps and its ``fall`` the loss of log J."""
        here, after = self.slopes, np.roll(self.slopes, -1)
        turn = (1 - self.multiple) * here if self.kinks else (after - (self.multiple - 1) * here) / 2
        slope, end = np.stack([here, turn], 1), np.stack([turn, turn if self.kinks else after], 1)
        length = np.abs(end - slope) / self.curvature
        rise = (slope + end) / 2 * length
        position, height = np.cumsum(length), np.cumsum(rise)
        bend = np.tile([self.curvature, -self.curvature], len(here))
        starts = np.append(0.0, position[:-1]), np.append(0.0, height[:-1])
        return Tooth(*starts, slope.ravel(), bend, float(position[-1]), -float(height[-1]))

    def along(self, position: ArrayLike) -> Point:
        """Success at positions of at least 0; those within 1e-9 cycles of a step's start are taken to be there."""
        x, tooth = non_negative("position", position), self.tooth
        cycle = np.floor(x / tooth.width + 1e-9)
        x = x - cycle * tooth.width
        piece = np.searchsorted(tooth.position, x + 1e-9 * tooth.width, side="right") - 1
        x = x - tooth.position[piece]
        x = np.where(np.abs(x) <= 1e-9 * tooth.width, 0.0, x)
        slope, curvature = tooth.slope[piece], tooth.curvature[piece]
        height = tooth.height[piece] + slope * x - curvature * x**2 / 2
        log_success = np.log(self.initial_success) - cycle * tooth.fall + height
        return Point(log_success[()], (slope - curvature * x)[()], curvature[()])
