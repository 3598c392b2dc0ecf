"""Graded rewards and verifiers that err: the coin lemma, and what a group's standard deviation does to graded rewards.

A reward r in [0, 1] is, in the mean, a coin that falls on success with probability r after the response. Its law does
not depend on the policy, so a response with its coin has the score of the response, and every theorem about success
and failure holds for the mean reward J = E[r] with sigma^2 = J (1 - J), which is not the variance of r but larger by
E[r (1 - r)] (7a, derived here). ``coin_responses`` is that population as ``Responses``; what is derived from it needs
no threshold. A verifier that errs is the same with rewards 1 - b for right and a for wrong responses.

Dividing by the standard deviation of a group's graded rewards is no statement about coins:

>>> import numpy as np
>>> reward, prob, gamble = np.array([0.25, 1.0, 0.0]), np.array([0.5, 0.15, 0.35]), np.array([0.0, 1.0, 1.0])
>>> round(float(prob * (reward - prob @ reward) @ gamble), 4)  # the mean reward rises towards the gamble
0.0125
>>> round(float(prob * expected_advantages(reward, prob, group_size=8) @ gamble), 4)  # and GRPO steps back from it
-0.0533
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import comb

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import gammaln, xlogy

from rlvr_lib.arguments import Reals, closed_interval, integer, open_unit, probability_law, real_array, require
from rlvr_lib.responses import Responses
from rlvr_lib.theory.advantages import Estimator, estimator_gain

MOST_GROUPS = 10**6


def coin_responses(
    reward: ArrayLike, score: ArrayLike, prob: ArrayLike | None = None, length: ArrayLike | None = None
) -> Responses:
    """Responses to one prompt with graded rewards, each split by its coin into a right and a wrong one of its score.

    ``success_rate`` of it is the mean reward, ``gradient_gap`` the gradient of its log-odds, and so on (7a, derived
    here). Right ones come first; parts of probability zero are left out. Only the noise is that of coins: the second
    moment of a gradient is larger than that of the graded rewards by E[r (1 - r) |s|^2].

    Args:
        reward: [n], in [0, 1].
        score, prob, length: as of ``Responses``.
    """
    reward = closed_interval("reward", real_array("reward", reward, ndim=1), 0, 1)
    given = {name: real_array(name, x) for name, x in (("prob", prob), ("length", length)) if x is not None}
    whole = Responses(np.zeros(len(reward)), real_array("score", score), **given)  # which checks all but the reward
    right, wrong = np.flatnonzero(reward > 0), np.flatnonzero(reward < 1)
    both = np.concatenate([right, wrong])
    share = np.concatenate([reward[right], 1 - reward[wrong]])
    outcome = np.arange(len(both)) < len(right)
    return Responses(outcome.astype(float), whole.score[both], whole.prob[both] * share, whole.length[both])


def _error_rates(false_negative: ArrayLike, false_positive: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both rates, and how much of a difference in success the verifier passes on, 1 - b - a, which must be positive."""
    b, a = (
        closed_interval("false_negative", false_negative, 0, 1),
        closed_interval("false_positive", false_positive, 0, 1),
    )
    passed = 1 - b - a
    require(bool((passed > 0).all()), "false_negative + false_positive", b + a, "below 1: the update would turn round")
    return b, a, passed


def noisy_success(success: ArrayLike, false_negative: ArrayLike, false_positive: ArrayLike) -> Reals:
    """a + (1 - a - b) J: the success rate that a verifier sees which errs, whatever the response, at these rates.

    Args:
        success: J in [0, 1], any shape.
        false_negative: b, the share of right responses that it rejects.
        false_positive: a, the share of wrong ones that it accepts; a + b below 1.
    """
    _, a, passed = _error_rates(false_negative, false_positive)
    return (a + passed * closed_interval("success", success, 0, 1))[()]


def true_success(noisy: ArrayLike, false_negative: ArrayLike, false_positive: ArrayLike) -> Reals:
    """(J~ - a) / (1 - a - b), the inverse of ``noisy_success``; of a sample it may lie outside [0, 1]."""
    _, a, passed = _error_rates(false_negative, false_positive)
    return ((closed_interval("noisy", noisy, 0, 1) - a) / passed)[()]


def noisy_gap_factor(success: ArrayLike, false_negative: ArrayLike, false_positive: ArrayLike) -> Reals:
    """(1 - a - b) J (1 - J) / (J~ (1 - J~)): the gap under a verifier that errs is this times the true one (7a).

    Between 0 and 1; the direction is untouched. Derived here. Arguments as of ``noisy_success``, 0 < J < 1.
    """
    success = open_unit("success", success)
    _, _, passed = _error_rates(false_negative, false_positive)
    seen = noisy_success(success, false_negative, false_positive)
    return (passed * success * (1 - success) / (seen * (1 - seen)))[()]


def noisy_rate_factor(
    success: ArrayLike,
    false_negative: ArrayLike,
    false_positive: ArrayLike,
    estimator: Estimator = "reinforce",
    group_size: int | None = None,
    bessel: bool = False,
) -> Reals:
    """The critical learning rate under a verifier that errs over that under one that does not (7a, derived here).

    The mean update keeps its direction, and what a step does to true and seen success has the same sign, so a rate may
    grow as the update shrinks: 1 / (1 - a - b) for REINFORCE, Dr.GRPO and RLOO, and sigma~ / (sigma (1 - a - b)) for
    GRPO in large groups. Exact for the mean update, of one prompt; noise is another matter.

    Args:
        success, false_negative, false_positive: as of ``noisy_success``, 0 < J < 1.
        estimator, group_size, bessel: as of ``estimator_gain``.
    """
    success = open_unit("success", success)
    seen = noisy_success(success, false_negative, false_positive)
    gains = [estimator_gain(J, estimator, group_size, bessel) for J in (success, seen)]
    return (gains[0] / (gains[1] * noisy_gap_factor(success, false_negative, false_positive)))[()]


def expected_advantages(
    reward: ArrayLike, prob: ArrayLike, group_size: int | None, power: float = 1.0, bessel: bool = False
) -> Float[np.ndarray, " n"]:
    """Mean advantage of each response over all groups it may be in, [n]; the mean update is sum of prob x this x score.

    The group's mean is removed from its rewards, and the result divided by the power a of their standard deviation;
    groups of equal rewards give 0. With a = 0 it is (1 - 1/G)(r - J), for graded rewards as for binary ones (RLOO:
    r - J). With a > 0 it depends on a response through its reward only, but not linearly: GRPO follows the gradient of
    this function of the reward in place of the reward. With two levels of reward every function is linear, so nothing
    turns; with three it can. All multisets of the other rewards are enumerated. Derived here (7a).

    Args:
        reward: [n], any numbers; the multisets of their levels must be at most 10^6.
        prob: [n], probabilities of the responses.
        group_size: G, at least 2; None for the limit of large groups, (r - J) over the power of their deviation.
        power: a in [0, 2].
        bessel: the deviation is the sample one, as in TRL.
    """
    reward = real_array("reward", reward, ndim=1)
    prob = probability_law("prob", prob, reward.shape)
    power = float(closed_interval("power", real_array("power", power, ndim=0), 0, 2))
    if group_size is None:
        deviation = np.sqrt(prob @ (reward - prob @ reward) ** 2)
        return (reward - prob @ reward) / (deviation**power if deviation > 0 else 1)
    G = integer("group_size", group_size, low=2)
    level, place = np.unique(reward, return_inverse=True)
    groups = comb(G + len(level) - 2, G - 1)
    require(groups <= MOST_GROUPS, "group_size", f"{groups} groups of {len(level)} levels", f"at most {MOST_GROUPS}")
    law = np.bincount(place, prob, len(level))
    others = np.array(list(combinations_with_replacement(range(len(level)), G - 1)))
    count = (others[..., None] == np.arange(len(level))).sum(1)
    chance = np.exp(gammaln(G) - gammaln(count + 1).sum(1) + xlogy(count, law).sum(1))
    others_total, found = count @ level, []
    for own, x in enumerate(level):
        mean = (others_total + x) / G
        variance = ((count * (level - mean[:, None]) ** 2).sum(1) + (x - mean) ** 2) / G
        mixed = count[:, own] < G - 1  # the others are not all of the response's own level
        spread = (variance[mixed] * (G / (G - 1) if bessel else 1)) ** (power / 2)
        found.append(chance[mixed] @ ((x - mean[mixed]) / spread))
    return np.array(found)[place]
