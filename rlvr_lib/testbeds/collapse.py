"""Policies on a line that show theorem 2's constant 2 cannot be raised: above it, aligned steps can end in J = 0.

Both are one-parameter policies with one correct and one wrong response, of probabilities J and 1 - J. All of it is
derived here; the construction of P1 (arXiv 2510.08539) was not available.

>>> ridge = Ridge(peak=0.8, curvature=2.0)
>>> x = -0.1
>>> for _ in range(3):  # aligned steps of 2.5 times (1 - J) gap / curvature: 1.25 times the critical step
...     x += 2.5 * float(ridge.along(x).slope) / 2.0
...     print(round(x, 6), round(float(ridge.along(x).success), 4))
0.15 0.7822
-0.225 0.7605
0.3375 0.7139
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import non_negative, open_unit, positive, real_array, require
from rlvr_lib.testbeds.lines import Point


@dataclass(frozen=True, eq=False)
class Ridge:
    """log J = log(peak) - curvature x^2 / 2, where the critical step of theorem 2 is exact at every position.

    Aligned steps of c times half of it move x to (1 - c) x: for every c > 2 they climb, overshoot and end lower.

    Attributes:
        peak: J at 0, strictly between 0 and 1.
        curvature: of log J, positive.

    Raises:
        ValueError: a peak or curvature outside its range.
    """

    peak: Float[np.ndarray, "..."]
    curvature: Float[np.ndarray, "..."]

    def __post_init__(self) -> None:
        object.__setattr__(self, "peak", open_unit("peak", self.peak))
        object.__setattr__(self, "curvature", positive("curvature", self.curvature))

    def along(self, position: ArrayLike) -> Point:
        """Success at these positions."""
        x = real_array("position", position)
        height = np.log(self.peak) - self.curvature * x**2 / 2
        return Point(height[()], (-self.curvature * x)[()], np.broadcast_to(self.curvature, height.shape)[()])


class Tooth(NamedTuple):
    """Quadratic pieces of log J over one cycle of steps, [pieces] each, the first one starting at 0."""

    position: Float[np.ndarray, " pieces"]
    height: Float[np.ndarray, " pieces"]
    slope: Float[np.ndarray, " pieces"]
    curvature: Float[np.ndarray, " pieces"]
    width: float
    fall: float


@dataclass(frozen=True, eq=False)
class Sawtooth:
    """A line on which steps of ``multiple * slope / curvature``, all in one direction and all uphill, end in J = 0.

    With convex kinks of log J it exists for every multiple c above 2, and one slope is enough. Without kinks one slope
    needs c above 4, and slopes that grow by up to the factor 1 + c a step, then start again, need c above 3; at c = 3
    and below the total loss on a line without kinks is bounded, whatever the slopes.

    Attributes:
        multiple: c, step times curvature over slope.
        curvature: bound on the curvature of log J, attained; without kinks also on minus the curvature. Positive.
        initial_success: J at position 0, where the first step starts.
        slopes: [m], slopes of log J where steps start, positive, repeated for ever.
        kinks: whether the slope jumps up at the end of each step; otherwise it climbs back at the rate ``curvature``.

    Raises:
        ValueError: an argument outside its range, slopes that cannot be reached without kinks, a cycle of steps that
            does not lower success, or an initial success from which the line would climb to 1.
    """

    multiple: float
    curvature: float = 1.0
    initial_success: float = 0.5
    slopes: Float[np.ndarray, " m"] = (0.5,)
    kinks: bool = True

    def __post_init__(self) -> None:
        slopes = positive("slopes", real_array("slopes", self.slopes, ndim=1))
        object.__setattr__(self, "slopes", slopes)
        for name, check in (("multiple", positive), ("curvature", positive), ("initial_success", open_unit)):
            object.__setattr__(self, name, float(check(name, real_array(name, getattr(self, name), ndim=0))))
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
        return Tooth(
            np.append(0.0, position[:-1]),
            np.append(0.0, height[:-1]),
            slope.ravel(),
            np.tile([self.curvature, -self.curvature], len(here)),
            float(position[-1]),
            -float(height[-1]),
        )

    def along(self, position: ArrayLike) -> Point:
        """Success at positions of at least 0; those within 1e-9 cycles of a step's start are taken to be there."""
        x, tooth = non_negative("position", position), self.tooth
        cycle = np.floor(x / tooth.width + 1e-9)
        x = x - cycle * tooth.width
        piece = np.searchsorted(tooth.position, x + 1e-9 * tooth.width, side="right") - 1
        x = x - tooth.position[piece]
        x = np.where(np.abs(x) <= 1e-9 * tooth.width, 0.0, x)
        curvature = tooth.curvature[piece]
        height = tooth.height[piece] + tooth.slope[piece] * x - curvature * x**2 / 2
        log_success = np.log(self.initial_success) - cycle * tooth.fall + height
        return Point(log_success[()], (tooth.slope[piece] - curvature * x)[()], curvature[()])
