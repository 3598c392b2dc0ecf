"""How sure is a measured critical rate: standard error and interval of a ratio of two estimates.

The critical step is 2 slope / curvature with curvature = slope^2 / J - second derivative of J, both estimated. Where
the curvature may be zero the ratio has no finite mean and no bounded interval, so its inverse is asked, curvature over
twice the slope, which is bounded as soon as the slope is not zero (Fieller's theorem); a negative inverse says that
every step gains. Derived here from Fieller's theorem and the delta method; normal estimates are assumed.

>>> from rlvr_lib.theory.confidence import fieller_interval
>>> sure = fieller_interval(1.0, 4.0, [[0.01, 0.0], [0.0, 0.04]])
>>> [round(end, 3) for end in sure]
[0.395, 0.615]
>>> fieller_interval(0.1, 4.0, [[0.01, 0.0], [0.0, 0.04]]) is None  # uphill or downhill is not known
True
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm
from scipy.stats import t as student

from rlvr_lib.arguments import Reals, open_unit, positive, real_array, require, require_shape


class RateInterval(NamedTuple):
    """The steps, from ``low`` to ``high``, that the data do not rule out as the critical one.

    ``high`` is infinite where every step may gain, and so are both where every one does; both are 0 where the step
    points downhill.
    """

    low: float
    high: float


def fieller_interval(
    slope: float, curvature: float, covariance: ArrayLike, level: float = 0.95, freedom: float | None = None
) -> RateInterval | None:
    """Interval of the critical step 2 slope / curvature, exact for normal estimates of known covariance (Fieller).

    None where the slope is not distinguishable from zero, because then not even the sign of the step's gain is
    known. With probability ``level`` it holds the truth, or is None.

    Args:
        slope: estimated derivative of J along the unit direction of the step.
        curvature: estimated slope^2 / J minus second derivative, as ``AlongStep``'s curvature times J.
        covariance: [2, 2], of the two estimates.
        level: of confidence, strictly between 0 and 1.
        freedom: degrees of freedom of the covariance, for Student's quantile; None for the normal one.
    """
    covariance = _covariance(covariance)
    slope, curvature = (float(real_array(n, x, ndim=0)) for n, x in (("slope", slope), ("curvature", curvature)))
    tail = (1 + float(open_unit("level", level))) / 2
    quantile = float(norm.ppf(tail) if freedom is None else student.ppf(tail, positive("freedom", freedom)))
    # All q with (curvature - q slope)^2 <= quantile^2 Var(curvature - q slope), a q^2 - 2 b q + c <= 0.
    square = quantile**2
    a = slope**2 - square * float(covariance[0, 0])
    b = slope * curvature - square * float(covariance[0, 1])
    c = curvature**2 - square * float(covariance[1, 1])
    if a <= 0:
        return None
    if slope < 0:
        return RateInterval(0.0, 0.0)
    root = math.sqrt(max(b**2 - a * c, 0.0))
    least, most = (b - root) / a, (b + root) / a
    return RateInterval(2 / most if most > 0 else math.inf, 2 / least if least > 0 else math.inf)


def relative_rate_error(slope: ArrayLike, curvature: ArrayLike, covariance: ArrayLike) -> Reals:
    """Relative standard error of slope / curvature by the delta method; small errors only.

    Args:
        slope, curvature: the two estimates, not 0, of one shape [...].
        covariance: [..., 2, 2].
    """
    slope, curvature = real_array("slope", slope), real_array("curvature", curvature)
    require(bool((slope != 0).all()), "slope", slope, "not 0")
    require(bool((curvature != 0).all()), "curvature", curvature, "not 0")
    both = np.stack(np.broadcast_arrays(1 / slope, -1 / curvature), -1)
    return np.sqrt(np.einsum("...i,...ij,...j->...", both, real_array("covariance", covariance), both))[()]


class MeasuredRate(NamedTuple):
    """Slope and curvature of the mean success of P prompts along a step, and the covariance [2, 2] of the two."""

    slope: float
    curvature: float
    covariance: np.ndarray
    freedom: int

    @property
    def critical(self) -> float | None:
        """2 slope / curvature; 0 downhill, None where the curvature is not positive: every step gains."""
        return max(2 * self.slope / self.curvature, 0.0) if self.curvature > 0 else None

    def interval(self, level: float = 0.95) -> RateInterval | None:
        """``fieller_interval``, with Student's quantile for P - 1 degrees of freedom."""
        return fieller_interval(self.slope, self.curvature, self.covariance, level, self.freedom)


def measured_rate(success: ArrayLike, slope: ArrayLike, second: ArrayLike) -> MeasuredRate:
    """Pool unbiased estimates of P prompts that were drawn independently; their spread gives the covariance.

    The curvature is nonlinear in the three means, so its error is by the delta method.

    Args:
        success, slope, second: [P], estimates of J and its two derivatives along the UNIT direction of a step, of
            each prompt, from responses that the step did not use; P >= 3, some success.
    """
    rows = [real_array(name, x, ndim=1) for name, x in (("success", success), ("slope", slope), ("second", second))]
    for name, row in zip(("slope", "second"), rows[1:], strict=True):
        require_shape(name, row, rows[0].shape)
    count = len(rows[0])
    require(count >= 3, "success", f"{count} prompts", "of at least three prompts")
    mean = np.mean(rows, axis=1)
    require(bool(mean[0] > 0), "success", mean[0], "above 0 in the mean")
    ratio = float(mean[1] / mean[0])
    to_both = np.array([[0.0, 1.0, 0.0], [-(ratio**2), 2 * ratio, -1.0]])
    covariance = to_both @ np.atleast_2d(np.cov(rows)) @ to_both.T / count
    return MeasuredRate(float(mean[1]), float(mean[1] * ratio - mean[2]), covariance, count - 1)


def correct_responses_needed(variance: ArrayLike, curvature: ArrayLike, error: ArrayLike = 0.2) -> Reals:
    """2 (variance / (error curvature))^2: correct responses for a relative error of the curvature l of log J.

    l = -(E+[h] + Var+[a]) is a small difference where the spread of the slopes Var+[a] is large beside it, and the
    variance of n correct responses is known to Var+[a] sqrt(2 / n) only (normal slopes, small spread of h).

    Args:
        variance: Var+[<w, s>], at least 0, any shape.
        curvature: l, positive.
        error: relative standard error wanted, positive.
    """
    variance = real_array("variance", variance)
    require(bool((variance >= 0).all()), "variance", variance, "at least 0")
    return (2 * (variance / (positive("error", error) * positive("curvature", curvature))) ** 2)[()]


def _covariance(value: ArrayLike) -> np.ndarray:
    covariance = real_array("covariance", value, ndim=2)
    require_shape("covariance", covariance, (2, 2))
    eigenvalues = np.linalg.eigvalsh((covariance + covariance.T) / 2)
    positive_part = bool(eigenvalues[0] >= -1e-9 * max(abs(eigenvalues[-1]), 1e-300))
    require(
        positive_part and covariance[0, 1] == covariance[1, 0],
        "covariance",
        covariance,
        "symmetric, no variance below 0",
    )
    return covariance
