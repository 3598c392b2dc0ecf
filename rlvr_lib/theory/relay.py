"""Theorem 3: reward at the end of a chain of group elements, its decay with length, and the relay between lengths.

A chain of h steps multiplies h elements of a group of order n; the answer is right when the product is. Always read
success through y = (P - 1/n) / (1 - 1/n), which is 0 at chance and 1 when every answer is right.
P2 is arXiv 2602.14872 v1, whose theorems treat one horizon a stage; "derived here" is checked in the tests.

>>> from rlvr_lib import symmetric_group, uniform_error_success, walk_success
>>> import numpy as np
>>> errors = np.array([0.9, 0.02, 0.02, 0.02, 0.02, 0.02])  # 90% right steps, the rest uniform over wrong ones
>>> round(float(walk_success(symmetric_group(3), errors, 10)), 6)
0.398751
>>> round(float(uniform_error_success(order=6, accuracy=0.9, horizon=10)), 6)
0.398751
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize.elementwise import find_root
from scipy.special import betaln, expit

from rlvr_lib.arguments import (
    Reals,
    closed_interval,
    open_unit,
    positive,
    probability_law,
    real_array,
    require,
    whole_numbers,
)
from rlvr_lib.theory.groups import FiniteGroup


def normalized_success(success: ArrayLike, order: ArrayLike) -> Reals:
    """y = (P - 1/n) / (1 - 1/n), elementwise, n >= 2: 0 at chance, 1 when every answer is right, negative below it."""
    success, order = closed_interval("success", success, 0, 1), whole_numbers("order", order, low=2)
    return ((order * success - 1) / (order - 1))[()]


def uniform_error_success(order: ArrayLike, accuracy: ArrayLike, horizon: ArrayLike) -> Reals:
    """1/n + (1 - 1/n) lambda^h, lambda = (n p - 1) / (n - 1): success when wrong steps are uniform over wrong elements.

    Exact on every group of that order (3a, derived here). P2 (v1, Lemma 6.2) has it up to a factor 1 +- o(1), with the
    attention to the right clause for lambda.

    Args:
        order: n, order of the group.
        accuracy: p in [0, 1], probability that one step gives the right group element; 1 where the order is 1.
        horizon: h, number of steps, at least 0.
    """
    order, horizon = whole_numbers("order", order, low=1), whole_numbers("horizon", horizon, low=0)
    accuracy = closed_interval("accuracy", accuracy, 0, 1)
    require(bool(((order > 1) | (accuracy == 1)).all()), "accuracy", accuracy, "1 in a group of order 1")
    decay = (order * accuracy - 1) / np.maximum(order - 1, 1)
    return (1 / order + (1 - 1 / order) * decay**horizon)[()]


def walk_success(
    group: FiniteGroup, error_distribution: ArrayLike, horizon: ArrayLike, conjugated: bool = False
) -> Reals:
    """Probability that h steps with independent errors end at the right element, from the irreps (3a, derived here).

    Args:
        group: of order n.
        error_distribution: [n], law of one step's error e: the step does ``e g`` where ``g`` was right; e = 0 is right.
        horizon: h, at least 0, any shape.
        conjugated: False where the errors multiply undisturbed, (1/n) sum of d Tr(muhat^h). True where uniform right
            elements stand between them and so conjugate each error by a uniform element, (1/n) sum of
            d^2 (Tr muhat / d)^h; the two agree when the law is constant on conjugacy classes.
    """
    law = probability_law("error_distribution", error_distribution, (group.order,))
    horizon = whole_numbers("horizon", horizon, low=0)
    total = np.ones(horizon.shape)
    for multiplicity, rates in _walk_rates(group, law, conjugated):
        total = total + multiplicity * (rates ** horizon[..., None]).sum(-1).real
    return np.clip(total / group.order, 0.0, 1.0)[()]


def walk_decay_rate(group: FiniteGroup, error_distribution: ArrayLike, conjugated: bool = False) -> float:
    """Largest modulus over the non-trivial irreps of an eigenvalue of muhat, or of Tr(muhat)/d when conjugated.

    Bounds the rate of every decay of ``walk_success`` to chance (3a); 0 in a group of order 1. The conjugated rate is
    that of P2's task, in which right elements stand between the errors, and at most the other one.
    """
    law = probability_law("error_distribution", error_distribution, (group.order,))
    return float(max((np.abs(rates).max() for _, rates in _walk_rates(group, law, conjugated)), default=0.0))


def _walk_rates(group: FiniteGroup, law: np.ndarray, conjugated: bool) -> list[tuple[int, np.ndarray]]:
    """For each non-trivial irrep the weight and the base of its powers in ``walk_success``.

    The trace of a power from eigenvalues is stable even where the block is defective: the computed eigenvalues are
    those of a block perturbed by rounding, and the trace of its power is smooth in the block.
    """
    blocks = group.fourier(law)[1:]
    if conjugated:
        return [(len(block) ** 2, np.array([np.trace(block) / len(block)])) for block in blocks]
    return [(len(block), np.linalg.eigvals(block)) for block in blocks]


def clause_pair_law(clause_law: ArrayLike, attention: float) -> Float[np.ndarray, "order order"]:
    """Joint law of the right and the done element when the right clause is read with probability ``attention``.

    Otherwise the step reads an independent clause of the same law. [order, order], entry [g, k] = P(right g, done k).
    """
    law = real_array("clause_law", clause_law, ndim=1)
    law = probability_law("clause_law", law, law.shape)
    right = closed_interval("attention", attention, 0, 1)
    require(right.ndim == 0, "attention", f"shape {right.shape}", "one number")
    return right * np.diag(law) + (1 - right) * np.outer(law, law)


def pair_success(group: FiniteGroup, joint_distribution: ArrayLike, horizon: ArrayLike) -> Reals:
    """Probability that the product of the done elements is that of the right ones, for i.i.d. pairs (3a, derived here).

    ``(1/n) sum over irreps of d <<I| M^h |I>>`` with ``M = E[rho(done) x conj rho(right)]``, a matrix of size d^2, and
    ``|I>>`` the identity matrix as a vector.

    Args:
        group: of order n.
        joint_distribution: [n, n], entry [g, k] the probability that g was right and k done, summing to 1.
        horizon: h, at least 0, any shape.
    """
    joint = probability_law("joint_distribution", joint_distribution, (group.order, group.order))
    horizon = whole_numbers("horizon", horizon, low=0)
    powers, place = np.unique(horizon, return_inverse=True)
    total = np.ones(len(powers))
    for irrep in group.irreps[1:]:
        d = irrep.shape[1]
        done = np.tensordot(joint, irrep, axes=1)
        transfer = np.einsum("gij,gab->iajb", done, irrep.conj()).reshape(d * d, d * d)
        paired = np.eye(d).ravel()
        total += d * np.array([(paired @ np.linalg.matrix_power(transfer, int(h)) @ paired).real for h in powers])
    return np.clip(total / group.order, 0.0, 1.0)[place].reshape(horizon.shape)[()]


def coset_floor(group: FiniteGroup, clause_law: ArrayLike) -> float:
    """1/|N|: the success that long chains keep under ``clause_pair_law`` with attention strictly between 0 and 1.

    N is the smallest normal subgroup of the group generated by the law's support that has the support in one coset
    (3a, derived here). Chance, 1/n, needs N to be the whole group; transpositions of S_3 have N = A_3, floor 1/3.
    """
    support = np.flatnonzero(probability_law("clause_law", clause_law, (group.order,)))
    generated = group.subgroup(support)
    quotients = group.table[group.inverses[support[0]], support]
    conjugates = group.table[group.table[generated[:, None], quotients], group.inverses[generated][:, None]]
    return 1 / len(group.subgroup(np.unique(conjugates)))


def clause_attention(logit: ArrayLike, context: ArrayLike = 2) -> Reals:
    """1 / (1 + (context - 1) e^-w), elementwise: softmax attention to the right clause, of logit w, others at 0.

    A fixed context is absorbed in the logit by the default 2, where this is the logistic function. A context equal to
    the chain's length is the dilute case of 3c.
    """
    return expit(-_crowding(logit, context))[()]


def relay_velocity(logit: ArrayLike, horizons: ArrayLike, order: int, contexts: ArrayLike = 2) -> Reals:
    """dw/dt = ((1 - 1/n) / K) sum over k of h_k a_k^h_k (1 - a_k): gradient of the mean success in the logit (3c).

    Every step reads its right clause with probability a_k = ``clause_attention(logit, contexts)`` and otherwise errs
    uniformly. P2 (v1, Lemma 6.2) drops the factor h_k, as its objective is success over h.

    Args:
        logit: w, nats, any shape.
        horizons: [K], lengths of the chains in the mixture.
        order: n, at least 2.
        contexts: 2 for a fixed context, or [K]; equal to ``horizons`` in the dilute case.
    """
    horizons = np.atleast_1d(whole_numbers("horizons", horizons, low=1))
    contexts, n = whole_numbers("contexts", contexts, low=1), whole_numbers("order", order, low=2)
    require(horizons.ndim == 1 and horizons.size > 0, "horizons", f"shape {horizons.shape}", "a list [K]")
    require(
        contexts.shape in ((), horizons.shape), "contexts", f"shape {contexts.shape}", "one number or one a horizon"
    )
    crowding = _crowding(real_array("logit", logit)[..., None], contexts)
    kernel = horizons * np.exp(-horizons * np.logaddexp(0, crowding)) * expit(crowding)
    return ((1 - 1 / n) * kernel.mean(axis=-1))[()]


def escape_time(horizon: ArrayLike, start: ArrayLike, stop: ArrayLike, order: ArrayLike) -> Reals:
    """Time for attention to go from ``start`` to ``stop`` under ``relay_velocity``: one horizon, fixed context (3d).

    (1 - 1/n) h t = integral of da / (a^(h+1) (1 - a)^2) = integral over the logit w of (1 + e^-w)^h (1 + e^w), which
    expands into h + 2 positive terms: no cancellation at small attention or long horizons. Source: derived here.

    >>> round(float(escape_time(horizon=5, start=0.5, stop=0.5 ** (1 / 5), order=6)), 3)
    11.134

    Args:
        horizon: h, at least 1.
        start, stop: attention a (not y), 0 < start <= stop < 1.
        order: n, at least 2: with one element there is nothing to learn.

    Returns:
        Time in units of the flow dw/dt = dJ/dw; infinite where it exceeds the float64 range.
    """
    horizon, order = whole_numbers("horizon", horizon, low=1), whole_numbers("order", order, low=2)
    start, stop = open_unit("start", start), open_unit("stop", stop)
    require(bool((start <= stop).all()), "stop", stop, "at least start: attention only grows")
    horizon, start, stop, order = np.broadcast_arrays(horizon, start, stop, order)
    span = np.log1p((stop - start) / (start * (1 - stop)))  # of the logit
    grown = (stop - start) / ((1 - start) * (1 - stop))  # of e^w
    m = horizon[..., None] + 1
    power = np.arange(1, m.max(initial=1))  # term e^(-power w) has coefficient C(m, power + 1)
    odds = np.log(start) - np.log1p(-start)
    with np.errstate(divide="ignore", over="ignore"):
        log_choose = -np.log(m + 1) - betaln(np.maximum(m - power, 1), power + 2)
        log_term = log_choose - power * odds[..., None] + np.log(-np.expm1(-power * span[..., None])) - np.log(power)
        shrunk = np.where(power < m, np.exp(log_term), 0.0).sum(axis=-1)
    return ((grown + (horizon + 1) * span + shrunk) / ((1 - 1 / order) * horizon))[()]


def handoff_exponent(
    ratio: ArrayLike, horizon: ArrayLike | None = None, normalized_success: ArrayLike | None = None
) -> Reals:
    """kappa in y_next = y^kappa, which ties the success of horizon R h to that of horizon h at all times (3e).

    Without a horizon: fixed context, kappa = R at every success. With a horizon h: context = chain (dilute), in the
    limit y -> 1, kappa = R (R h - 1) / (h - 1). With y too: dilute at that success of horizon h, kappa =
    R ln(1 + (R h - 1) e^-w) / ln(1 + (h - 1) e^-w), where w gives y; it increases in y to the limit.
    In the one-logit model with a linear head, free of time, learning rate, optimiser and seed. Source: derived here.

    >>> handoff_exponent(7), handoff_exponent(7, horizon=5)
    (np.float64(7.0), np.float64(59.5))
    >>> handoff_exponent(7, horizon=5, normalized_success=[0.1, 0.9]).round(1)
    array([27.2, 55.3])

    Args:
        ratio: R > 0, next horizon over this horizon.
        horizon: h > 1 with R h >= 1.
        normalized_success: y of this horizon, strictly between 0 and 1; needs a horizon.
    """
    ratio = positive("ratio", ratio)
    if horizon is None:
        require(normalized_success is None, "normalized_success", normalized_success, "left out without a horizon")
        return ratio[()]
    horizon = real_array("horizon", horizon)
    require(bool((horizon > 1).all()), "horizon", horizon, "above 1, where context = chain leaves something to learn")
    require(bool((ratio * horizon >= 1).all()), "ratio", ratio, "at least 1 / horizon")
    crowd = (ratio * horizon - 1) / (horizon - 1)
    if normalized_success is None:
        return (ratio * crowd)[()]
    per_step = -np.log(open_unit("normalized_success", normalized_success)) / horizon  # -ln a
    return (ratio * np.log1p(crowd * np.expm1(per_step)) / per_step)[()]


def saturated_decay(attention: ArrayLike, sharpness: ArrayLike, order: ArrayLike) -> Reals:
    """lambda(a) = (e^(beta a) - 1) / (e^(beta a) + n - 1), elementwise: decay per step of a head that saturates.

    The head is a softmax over beta times what attention read, the right clause with weight a and the others taken as
    spread evenly over the n elements; it is sure of its answer before its attention is. Source: derived here.

    >>> saturated_decay([0.5, 0.9], sharpness=10, order=6).round(3)
    array([0.961, 0.999])

    Args:
        attention: a in [0, 1].
        sharpness: beta > 0.
        order: n, at least 2.
    """
    reach = positive("sharpness", sharpness) * closed_interval("attention", attention, 0, 1)
    return (-np.expm1(-reach) / (1 + (whole_numbers("order", order, low=2) - 1) * np.exp(-reach)))[()]


def saturated_exponent(
    ratio: ArrayLike, horizon: ArrayLike, normalized_success: ArrayLike, sharpness: ArrayLike, order: ArrayLike
) -> Reals:
    """kappa = R ln lambda(a_Rh) / ln lambda(a_h) of the head of ``saturated_decay``, context equal to the chain (3e).

    NaN where no attention below 1 gives horizon h that success. In a fixed context kappa is R, whatever the head.

    >>> saturated_exponent([3, 7], horizon=5, normalized_success=0.9, sharpness=10, order=6).round(1)
    array([ 51. , 384.1])

    Args:
        ratio, horizon, normalized_success: as for ``handoff_exponent``, all given.
        sharpness, order: of the head.
    """
    ratio, horizon = positive("ratio", ratio), real_array("horizon", horizon)
    require(bool((horizon > 1).all()), "horizon", horizon, "above 1, where context = chain leaves something to learn")
    require(bool((ratio * horizon >= 1).all()), "ratio", ratio, "at least 1 / horizon")
    beta, n = positive("sharpness", sharpness), whole_numbers("order", order, low=2)
    per_step = np.log(open_unit("normalized_success", normalized_success)) / horizon  # ln lambda(a_h)
    attention = np.log((1 + (n - 1) * np.exp(per_step)) / -np.expm1(per_step)) / beta
    attention = np.where(attention < 1, attention, np.nan)
    next_attention = 1 / (1 + (ratio * horizon - 1) / (horizon - 1) * (1 / attention - 1))
    reach = beta * next_attention
    return (ratio * (np.log(-np.expm1(-reach)) - np.log1p((n - 1) * np.exp(-reach))) / per_step)[()]


def next_ratio(normalized_success: ArrayLike, visible: ArrayLike = 0.1, horizon: ArrayLike | None = None) -> Reals:
    """Largest R such that horizon R h has success above chance of at least ``visible`` when horizon h has the y given.

    Solves y^kappa = visible for the exponent of ``handoff_exponent``: R = ln visible / ln y for a fixed context, and
    with a horizon the dilute R, which is smaller; it need not be such that R h is whole. A linear head is assumed, and
    what counts as visible is a convention: 0.1 is this book's, P2 has a success of 0.01. Source: derived here.

    >>> next_ratio([0.5, 0.9]).round(2), next_ratio(0.9, horizon=5).round(2)
    (array([ 3.32, 21.85]), np.float64(4.37))

    Args:
        normalized_success: y of horizon h, strictly between 0 and 1.
        visible: y that the next horizon should have, strictly between 0 and 1, at most y.
        horizon: h > 1, for a context equal to the chain.
    """
    level, visible = open_unit("normalized_success", normalized_success), open_unit("visible", visible)
    require(bool((visible <= level).all()), "visible", visible, "at most normalized_success")
    fixed = np.log(visible) / np.log(level)
    if horizon is None:
        return fixed[()]
    horizon = real_array("horizon", horizon)
    found = find_root(  # the exponent increases in R, from 1 at R = 1, and exceeds R
        lambda ratio, level, horizon, fixed: handoff_exponent(ratio, horizon, level) - fixed,
        (np.ones_like(fixed), fixed),
        args=(level, horizon, fixed),
    )
    return np.where(found.success, found.x, fixed)[()]  # no bracket where rounding hides it: R is 1 and is ``fixed``


def stage_time(exponent: ArrayLike) -> Reals:
    """T(kappa): time of one stage of an endless relay near saturation, every hand-off of exponent kappa > 1 (3f).

    The integral from 1/kappa to 1 of du / (u^2 sum over integers j of kappa^j e^(-kappa^j u)), in units of
    1 / ((1 - 1/n) / K). The integrand is periodic in ln u / ln kappa, so equally spaced nodes converge geometrically;
    close to kappa = 1 it is (ln kappa)^2 to rounding. Source: derived here.

    >>> stage_time([2, 3, 9]).round(5)
    array([0.48045, 1.20695, 4.84976])
    """
    exponent = real_array("exponent", exponent)
    require(bool((exponent > 1).all()), "exponent", exponent[exponent <= 1][:1], "above 1")
    return np.reshape([_stage_time(np.log(kappa)) for kappa in exponent.flat], exponent.shape)[()]


def _stage_time(log_exponent: float) -> float:
    # Harmonics of the integrand are of relative size |Gamma(1 + 2 pi i / ln kappa)|^2: 1e-19 at ln kappa = 0.4.
    if log_exponent < 0.4:
        return log_exponent**2
    # Its nearest poles are pi / (ln kappa)^2 off the real axis, so (ln kappa)^2 nodes gain exp(-2 pi^2).
    nodes = 16 + int(2.2 * log_exponent**2)
    j = np.arange(-int(40 / log_exponent) - 1, int(7 / log_exponent) + 2)
    log_u = log_exponent * (j[:, None] - np.arange(nodes) / nodes)
    kernel = np.exp(log_u - np.exp(np.minimum(log_u, 50.0))).sum(0)
    return log_exponent * float(np.mean(1 / kernel))


def _crowding(logit: ArrayLike, context: ArrayLike) -> np.ndarray:
    """ln((context - 1) e^-w), the log of the attention's odds against the right clause."""
    logit, context = real_array("logit", logit), whole_numbers("context", context, low=1)
    with np.errstate(divide="ignore"):
        return np.log(context - 1) - logit
