"""Theorem 2 under a KL penalty: where training with one ends, what its estimators descend, how long a step may be.

The law that maximises J - beta KL(pi | reference) is the reference tilted, reference exp(r / beta) / Z, because
J - beta KL(pi | reference) = beta log Z - beta KL(pi | tilt). A tilt by a binary reward moves the log-odds of success
by exactly 1 / beta and leaves the laws within right and within wrong answers as they were, so it keeps their entropy.

That is the reverse divergence, KL(pi | reference). Trainers estimate it from their own samples, with rho =
reference / pi, by k1 = -log rho, k2 = (log rho)^2 / 2 or k3 = rho - 1 - log rho, and either differentiate it as a
``loss`` or subtract it from the ``reward``. The value of k1 and of k3 has the mean KL(pi | reference); the means of
their gradients are other things::

            in the reward                                    in the loss
    k1      grad KL(pi | reference)                          0
    k2      E[k2 s]                                          grad KL(pi | reference)
    k3      grad KL(pi | reference) - grad KL(reference | pi)   grad KL(reference | pi)

So k3 as a loss, as in GRPO, descends the forward divergence, whose price for losing an answer is infinite: success
cannot pass 1 - beta (1 - J_reference) / (1 + beta), where the reverse one allows 1 / beta nats.
Sources: the tilt is classical; k1 in the reward and k2 in the loss are Liu et al. (arXiv 2510.01555); the fixed point
in large groups, as the limit of a recurrence, is Mroueh (arXiv 2503.06639). The rest is derived here.

>>> from rlvr_lib.theory.penalty import penalised_log_odds
>>> float(penalised_log_odds(0.5, beta=0.04))
25.0
>>> round(float(penalised_log_odds(0.5, beta=0.04, divergence="forward")), 3)
3.912
>>> round(float(penalised_log_odds(0.5, beta=2.0, estimator="grpo")), 3)  # large groups
1.179
>>> float(penalised_log_odds(0.5, beta=1.0, estimator="grpo"))  # no fixed point: success goes to 1
inf
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit, logsumexp

from rlvr_lib.arguments import Reals, non_negative, open_unit, positive, real_array, require, require_shape
from rlvr_lib.theory.advantages import Estimator, estimator_gain, gain_over_variance

PenaltyEstimator = Literal["k1", "k2", "k3"]
Placement = Literal["reward", "loss"]
Divergence = Literal["reverse", "forward"]

LARGEST_LOG_ODDS = 1400.0
POINTS = 4001


def tilted(log_reference: ArrayLike, reward: ArrayLike, beta: float) -> Float[np.ndarray, " n"]:
    """Log-probabilities of the law that maximises mean reward - beta KL(pi | reference): reference exp(r / beta) / Z.

    Args:
        log_reference: [n], log-probabilities of all n responses under the reference, nats.
        reward: [n], of any size. Rewards in [0, 1] move the log-odds of their mean by at most 1 / beta, binary ones by
            exactly that: the derivative by 1 / beta is Var r over J (1 - J).
        beta: price of a nat, positive.
    """
    logits = _law("log_reference", log_reference)
    reward = real_array("reward", reward)
    require_shape("reward", reward, logits.shape)
    logits = logits + reward / positive("beta", beta)
    return logits - logsumexp(logits)


def relative_entropy(log_p: ArrayLike, log_q: ArrayLike) -> float:
    """KL(p | q) = sum of p (log p - log q), nats, of two laws on the same n responses given by their logarithms."""
    log_p, log_q = _law("log_p", log_p), _law("log_q", log_q)
    require_shape("log_q", log_q, log_p.shape)
    return float(np.exp(log_p) @ (log_p - log_q))


def penalty_coefficients(
    log_policy: ArrayLike, log_reference: ArrayLike, estimator: PenaltyEstimator = "k3", placement: Placement = "loss"
) -> Reals:
    """What the score of a response is multiplied with in the gradient of its penalty, elementwise.

    In the reward the estimate itself (baselines apart); in the loss its derivative by log pi: 1 for k1, -log rho for
    k2, 1 - rho for k3.

    Args:
        log_policy, log_reference: log-probabilities of the response, or of its token, nats, any shape.
        estimator: "k1" = -log rho, "k2" = (log rho)^2 / 2 or "k3" = rho - 1 - log rho, rho = reference / policy.
        placement: "reward" or "loss".
    """
    require(estimator in get_args(PenaltyEstimator), "estimator", estimator, '"k1", "k2" or "k3"')
    require(placement in get_args(Placement), "placement", placement, '"reward" or "loss"')
    log_ratio = real_array("log_reference", log_reference) - real_array("log_policy", log_policy)
    if placement == "reward":
        value = {"k1": -log_ratio, "k2": log_ratio**2 / 2, "k3": np.expm1(log_ratio) - log_ratio}
        return value[estimator][()]
    return {"k1": np.ones_like(log_ratio), "k2": -log_ratio, "k3": -np.expm1(log_ratio)}[estimator][()]


def penalty_gradient(
    log_policy: ArrayLike,
    log_reference: ArrayLike,
    score: ArrayLike,
    estimator: PenaltyEstimator = "k3",
    placement: Placement = "loss",
) -> Float[np.ndarray, " d"]:
    """Exact mean, under the policy, of the gradient of an estimated penalty, [d]; see the table of the module.

    For a penalty token by token give the n tokens that may follow a prefix, and sum over prefixes with their
    probabilities.

    Args:
        log_policy, log_reference: [n], log-probabilities of all n responses (or next tokens), nats.
        score: [n, d], gradients of log_policy.
        estimator, placement: as in ``penalty_coefficients``.
    """
    log_policy, log_reference = _law("log_policy", log_policy), _law("log_reference", log_reference)
    require_shape("log_reference", log_reference, log_policy.shape)
    score = real_array("score", score, ndim=2)
    require(len(score) == len(log_policy), "score", f"{len(score)} rows", f"one row for each of {len(log_policy)}")
    weight = np.exp(log_policy) * penalty_coefficients(log_policy, log_reference, estimator, placement)
    return weight @ score


def penalised_log_odds(
    reference: float,
    beta: float,
    divergence: Divergence = "reverse",
    estimator: Estimator = "reinforce",
    group_size: int | None = None,
    bessel: bool = False,
) -> float:
    """Log-odds of success at which the expected update of a rich policy, less beta grad KL, vanishes.

    The expected update is Phi'(J) grad J, Phi' = gain / (J (1 - J)), so this is the fixed point of the reward
    weighted by w = Phi'(J): logit J = logit J_reference + w / beta for the reverse divergence, and for the forward
    one logit J_reference + log(x / (x - w)), x the larger root of x (x - w) = beta (x - w (1 - J_reference)). Of
    several fixed points the first above the reference, where the expected flow from the reference ends. Two that are
    closer than a percent of their distance from the reference may be passed over.

    Args:
        reference: success of the reference, strictly between 0 and 1.
        beta: price of a nat, positive.
        divergence: "reverse", KL(pi | reference), or "forward", KL(reference | pi), which is k3 in the loss.
        estimator, group_size, bessel: as in ``estimator_gain``. "reinforce" has w = 1, or 1 - 1/G in groups; GRPO in
            large groups 1 / sigma, which grows without end.

    Returns:
        The log-odds, nats; infinite where the flow is held nowhere below 1,400 nats (reverse, GRPO in large groups).
    """
    reference, beta = float(open_unit("reference", reference)), float(positive("beta", beta))
    require(divergence in get_args(Divergence), "divergence", divergence, '"reverse" or "forward"')
    estimator_gain(reference, estimator, group_size, bessel)  # checks the three
    start = float(logit(reference))

    def weight(odds: float) -> float:
        if estimator == "reinforce":
            return 1.0 if group_size is None else 1 - 1 / group_size
        if group_size is None:
            return 2 * float(np.cosh(odds / 2))
        return float(gain_over_variance(expit(-abs(odds)), 1.0, group_size, bessel))

    def moved(odds: float) -> float:
        w = weight(odds)
        if divergence == "reverse":
            return start + w / beta
        # x - w is the positive root of y^2 - 2 c y = q; c + sqrt(c^2 + q) would cancel where c is negative.
        c, q = (beta - w) / 2, beta * reference * w
        root = np.sqrt(c**2 + q)
        return start + float(np.log1p(w / (c + root if c > 0 else q / (root - c))))

    if estimator == "reinforce":
        return moved(start)
    longest = LARGEST_LOG_ODDS - start if group_size is None else moved(LARGEST_LOG_ODDS) - start
    before = start
    for odds in start + np.geomspace(1e-9, longest, POINTS) * (1 + 1e-12):
        if odds >= moved(odds):
            return float(brentq(lambda x: x - moved(x), before, odds, xtol=1e-13, rtol=1e-14))
        before = odds
    return float("inf")


def kept_share(beta: ArrayLike) -> Reals:
    """beta / (1 + beta): what every response keeps at least of its reference probability under k3 in the loss.

    At the maximum of J - beta KL(reference | pi) over all laws pi(o) = beta reference(o) / (x - r(o)) with
    1 < x <= 1 + beta (derived here). So no answer is lost by more than log(1 + 1 / beta) nats, whatever its reward;
    the reverse divergence takes up to 1 / beta nats.

    Args:
        beta: price of a nat, positive, any shape.
    """
    beta = positive("beta", beta)
    return (beta / (1 + beta))[()]


def penalised_critical_rate(
    score: ArrayLike, prob: ArrayLike, beta: float, direction: ArrayLike | None = None
) -> float:
    """2 / (beta lambda): plain ascent of J - beta KL(pi | reference) is stable at the tilt below this rate.

    lambda is the largest eigenvalue of the Fisher matrix E[s s'], or <w, s>^2 in the mean along a direction. Exact for
    every policy that can be the tilt, because J - beta KL(pi | reference) = beta log Z - beta KL(pi | tilt), and the
    Hessian of KL(pi | tilt) where it vanishes is the Fisher matrix (derived here). Infinite where the scores vanish.

    Args:
        score: [n, d], of all n responses at the tilt.
        prob: [n], their probabilities.
        beta: price of a nat, positive.
        direction: [d], of any positive length; None for the direction of the largest eigenvalue.
    """
    score, prob, beta = real_array("score", score, ndim=2), non_negative("prob", prob), float(positive("beta", beta))
    require_shape("prob", prob, score.shape[:1])
    if direction is None:
        fisher = float(np.linalg.norm(np.sqrt(prob)[:, None] * score, 2) ** 2)
    else:
        direction = real_array("direction", direction)
        require_shape("direction", direction, score.shape[1:])
        size = float(np.linalg.norm(direction))
        require(size > 0, "direction", direction, "a non-zero vector")
        fisher = float(prob @ (score @ (direction / size)) ** 2)
    return 2 / (beta * fisher) if fisher > 0 else float("inf")


def _law(name: str, log_prob: ArrayLike) -> Float[np.ndarray, " n"]:
    """Log-probabilities [n] of all responses, which sum to 1."""
    log_prob = real_array(name, log_prob, ndim=1)
    total = float(np.exp(logsumexp(log_prob))) if len(log_prob) else 0.0
    require(abs(total - 1) <= 1e-9, name, f"probabilities that sum to {total:.12g}", "logarithms of a law")
    return log_prob
