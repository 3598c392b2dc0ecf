"""Theorem 2 for steps that are not the gradient: preconditioned, with momentum, and by signs.

One update of any optimizer is a step, and ``critical_step`` judges it by the curvature along that very step. Whether a
run is stable is another question, and momentum changes its answer. Ascent next to a maximum with the update
rate P m, m <- b m + (1 - b) g, P fixed, is stable below 2 (1 + b) / ((1 - b) lambda), lambda the largest eigenvalue of
P^(1/2) (-Hess) P^(1/2): with b = 0.9 nineteen times further than one step reaches. So the ratio of a rate to the
critical one of its update is a warning for a first update, and for one without momentum; with momentum it passes 1
along runs that are stable. Signs have no stable rate: they end in a cycle as wide as the rate.
Sources: the factor for an averaging momentum is Cohen et al. (arXiv 2207.14484), where P is Adam's; here each is
derived from the roots of the recursion, and 1a holds in any direction (derived here).

>>> from rlvr_lib.theory.preconditioned import gaining_rate, largest_stable_rate, sign_plateau
>>> round(float(largest_stable_rate(2.0, momentum=0.9)), 9)
19.0
>>> [round(float(x), 3) for x in sign_plateau(0.1, curvature=8.0)]
[0.01, 0.02]
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, closed_interval, non_negative, positive, real_array, require_shape


def largest_stable_rate(curvature: ArrayLike, momentum: ArrayLike = 0.0, averaged: bool = True) -> Reals:
    """2 (1 + b) / ((1 - b) curvature): below it ascent with momentum returns to a maximum.

    The displacement follows x_{t+1} = (1 + b - c) x_t - b x_{t-1}, c = rate (1 - b) curvature, whose roots are inside
    the unit circle iff 0 < c < 2 (1 + b).

    Args:
        curvature: largest eigenvalue of minus the Hessian (of the preconditioned one where there is a preconditioner),
            positive, any shape.
        momentum: b in [0, 1).
        averaged: the new gradient counts 1 - b, as in Adam; otherwise 1, as in torch's SGD: 2 (1 + b) / curvature.
    """
    curvature = positive("curvature", curvature)
    momentum = closed_interval("momentum", momentum, 0, np.nextafter(1, 0))
    return (2 * (1 + momentum) / (((1 - momentum) if averaged else 1.0) * curvature))[()]


def preconditioned_curvature(hessian: ArrayLike, scale: ArrayLike) -> float:
    """Largest eigenvalue of P^(1/2) (-Hess) P^(1/2), P = diag(scale): what a preconditioned step sees as curvature.

    Args:
        hessian: [d, d], symmetric, of what is climbed.
        scale: [d], what each entry of the gradient is multiplied with, at least 0; Adam's is 1 / (sqrt(v) + epsilon).
    """
    hessian, root = real_array("hessian", hessian, ndim=2), np.sqrt(non_negative("scale", scale))
    require_shape("hessian", hessian, (len(root), len(root)))
    return float(np.linalg.eigvalsh(-root[:, None] * (hessian + hessian.T) / 2 * root)[-1])


def gaining_rate(gap: ArrayLike, update: ArrayLike, features: ArrayLike) -> float:
    """8 [<D, u>]+ / range(<u, f>)^2: at smaller rates theta + rate u raises log-odds, for every u (1a, derived here).

    For log-linear policies, and all updates: u = sign(D) has 8 |D|_1 / range^2, u = P D any preconditioner. Half of
    it gains at least half of rate <D, u>. Infinite where no feature varies along an update that points uphill.

    Args:
        gap: [d], D.
        update: [d], u, the step at rate one.
        features: [A, d], of the A responses.
    """
    gap, update = real_array("gap", gap, ndim=1), real_array("update", update, ndim=1)
    features = real_array("features", features, ndim=2)
    require_shape("update", update, gap.shape)
    require_shape("features", features, (len(features), len(gap)))
    uphill, spread = max(float(gap @ update), 0.0), float(np.ptp(features @ update))
    return 8 * uphill / spread**2 if spread > 0 else (np.inf if uphill > 0 else 0.0)


def sign_plateau(rate: ArrayLike, curvature: ArrayLike) -> tuple[Reals, Reals]:
    """[curvature rate^2 / 8, curvature rate^2 / 4]: between them lies the mean loss of the cycle in which signs end.

    Next to a maximum of -curvature x^2 / 2 the step rate sign(-x) ends in {a, a - rate} with 0 < a < rate, whatever
    the rate; where depends on the start (derived here). For several coordinates of their own curvatures, their sum.

    Args:
        rate: length of every step in the coordinate, at least 0, any shape.
        curvature: minus the second derivative, at least 0.
    """
    whole = non_negative("curvature", curvature) * non_negative("rate", rate) ** 2
    return (whole / 8)[()], (whole / 4)[()]


def adam_scale(square: ArrayLike, epsilon: float = 1e-8) -> Float[np.ndarray, " d"]:
    """1 / (sqrt(v) + epsilon), [d]: Adam's preconditioner from its mean of squared gradients v, [d]."""
    return 1 / (np.sqrt(non_negative("square", square)) + positive("epsilon", epsilon))
