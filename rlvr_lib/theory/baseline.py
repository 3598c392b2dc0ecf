"""Theorem 5: the baseline that minimises the variance of the policy gradient, exact, estimated and from past batches.

e+ and e- are the score energies E[|s|^2] given success and failure, b* = E[r |s|^2] / E[|s|^2] the best constant
baseline. An estimate leaves the gradient unbiased when it does not depend on the response it is used on: from the other
responses, the other groups, or past batches (5c). P3 is arXiv 2511.23310, read in abstract only; b* is classical
(Weaver and Tao 2001; Greensmith, Bartlett and Baxter 2004). "Derived here" is checked in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import (
    Reals,
    closed_interval,
    integer,
    non_negative,
    open_unit,
    positive,
    real_array,
    require,
    require_shape,
    zero_or_one,
)
from rlvr_lib.responses import Responses, score_energies, success_rate

# 5a, 5b: of one prompt


def baseline_of_sums(weighted: ArrayLike, total: ArrayLike, otherwise: ArrayLike = np.nan) -> Reals:
    """b* from the sum of r |s|^2 and the sum of |s|^2, elementwise; ``otherwise`` where no response has a score."""
    start = np.array(np.broadcast_to(otherwise, np.shape(total)), dtype=float)
    return np.divide(weighted, total, out=start, where=np.greater(total, 0))[()]


def second_moment(correct_energy: Reals, wrong_energy: Reals, baseline: Reals) -> Reals:
    """(1 - b)^2 C + b^2 W, sum of (r - b)^2 |s|^2, from the sums C and W of |s|^2 over correct and wrong responses."""
    return (1 - baseline) ** 2 * correct_energy + baseline**2 * wrong_energy


def gradient_variance(r: Responses, baseline: ArrayLike, samples: int = 1) -> Reals:
    """Trace of the covariance of (1/N) sum of (r_i - b) s_i over N independent responses drawn with weights ``prob``.

    (E[(r - b)^2 |s|^2] - |E[(r - b) s]|^2) / N. On exact responses the second term is |grad J|^2 for every b (5a).

    Args:
        baseline: b, fixed before the responses are drawn, any shape.
        samples: N, at least 1.
    """
    baseline, samples = real_array("baseline", baseline), integer("samples", samples, low=1)
    correct, wrong = r.prob * r.reward, r.prob * (1 - r.reward)
    mean = (1 - baseline)[..., None] * (correct @ r.score) - baseline[..., None] * (wrong @ r.score)
    second = second_moment(correct @ r.energy, wrong @ r.energy, baseline)
    return (np.maximum(second - (mean**2).sum(-1), 0.0) / samples)[()]


def leave_one_out_variance(r: Responses, group_size: int) -> float:
    """Trace of the covariance of the mean of (r_i - mean of the other rewards) s_i over a group of G >= 2 (RLOO).

    (E[(r - J)^2 |s|^2] + J (1 - J) E|s|^2 / (G - 1)) / G - (1 - (1 - 1/G) (1 + 1/(G - 1)^2)) |grad J|^2. Derived here
    (5c): the second term is the noise of a mean of G - 1 rewards; the terms of a group share rewards, which changes
    the last.
    """
    G = integer("group_size", group_size, low=2)
    J, energy = success_rate(r), r.prob * r.energy
    gradient = (r.prob * (r.reward - J)) @ r.score
    own = (r.reward - J) ** 2 @ energy + J * (1 - J) * energy.sum() / (G - 1)
    return float(own / G + ((1 - 1 / G) * (1 + 1 / (G - 1) ** 2) - 1) * (gradient @ gradient))


def optimal_baseline(r: Responses) -> float:
    """b* = E[r |s|^2] / E[|s|^2]: the constant baseline of least gradient variance (5a; P3; classical).

    On a sample this is the estimate that correlates with the very gradient it is meant for: unbiased only when used on
    responses drawn independently of it. With all scores zero every baseline is as good: a ``ValueError``.
    """
    energy = r.prob * r.energy
    require(energy.sum() > 0, "score", "zeros only", "non-zero for some response")
    return float(baseline_of_sums(energy @ r.reward, energy.sum()))


def energy_ratio(r: Responses) -> float:
    """e-/e+: mean squared score norm of wrong over that of correct responses, whose scores may not all be zero."""
    correct, wrong = score_energies(r)
    require(correct > 0, "score", "zero for every correct response", "non-zero for some correct response")
    return wrong / correct


def baseline_loss(success: ArrayLike, energy_ratio: ArrayLike, baseline: ArrayLike) -> Reals:
    """E[(r - b)^2 |s|^2] over its minimum, 1 + (b - b*)^2 (J + (1 - J) e-/e+)^2 / (J (1 - J) e-/e+), elementwise.

    Source: derived here (5b). The arguments J and ``energy_ratio`` are those of ``mean_baseline_loss``. A ratio of
    variances is 1 + (loss - 1)(1 + SNR of one response under b*), which is larger.
    """
    success, ratio = open_unit("success", success), positive("energy_ratio", energy_ratio)
    baseline = real_array("baseline", baseline)
    shift = baseline * (1 - success) * ratio - success * (1 - baseline)
    return (1 + shift / ratio * shift / (success * (1 - success)))[()]


def mean_baseline_loss(success: ArrayLike, energy_ratio: ArrayLike) -> Reals:
    """1 + J (1 - J) (e-/e+ - 1)^2 / (e-/e+): second moment with the mean baseline over that with b*, elementwise.

    Source: derived here (5b). 1 only where wrong responses have as much score energy as correct ones.

    Args:
        success: J strictly between 0 and 1, any shape.
        energy_ratio: e-/e+, score energy given failure over score energy given success, positive.
    """
    success, ratio = open_unit("success", success), positive("energy_ratio", energy_ratio)
    return (1 + success * (1 - success) * (ratio - 1) * ((ratio - 1) / ratio))[()]


def leave_one_out_loss(success: Reals, energy_ratio: Reals, group_size: int) -> Reals:
    """Second moment of one term under RLOO over that with b*: ``mean_baseline_loss`` with the noise of G - 1 rewards.

    Adds (J + (1 - J) x)^2 / (x (G - 1)) with x = e-/e+ and G >= 2, elementwise. Derived here (5c).
    """
    loss, others = mean_baseline_loss(success, energy_ratio), integer("group_size", group_size, low=2) - 1
    total = success + (1 - np.asarray(success)) * energy_ratio
    return loss + total * (total / energy_ratio) / others


def critical_energy_ratio(success: ArrayLike) -> Reals:
    """1 + 1 / (1 - J): the mean is worse than the zero baseline exactly where e-/e+ exceeds this (5b).

    Source: derived here. In second moments and in variances alike; J strictly between 0 and 1.
    """
    return (1 + 1 / (1 - open_unit("success", success)))[()]


# 5c: estimated


def mean_of_others(value: ArrayLike, weight: ArrayLike) -> Float[np.ndarray, "... n"]:
    """Weighted mean over the OTHER entries of the last axis, [..., n], n >= 2; plain where their weights are zero.

    Independent of entry i, so that as a baseline for it it leaves the gradient unbiased. With weights of 1 it is
    RLOO's baseline. Weights are at least 0.
    """
    value, weight = real_array("value", value), non_negative("weight", weight)
    require_shape("weight", weight, value.shape)
    require(value.ndim > 0 and value.shape[-1] >= 2, "value", f"shape {value.shape}", "[..., n] with n >= 2")
    return baseline_of_others(value * weight, weight, value)


def baseline_of_others(weighted: np.ndarray, total: np.ndarray, value: np.ndarray) -> np.ndarray:
    """``baseline_of_sums`` over the other entries of the last axis; where these have none, the mean of their values."""
    plain = _sum_of_others(value) / (value.shape[-1] - 1)
    return baseline_of_sums(_sum_of_others(weighted), _sum_of_others(total), plain)


def _sum_of_others(x: np.ndarray) -> np.ndarray:
    """Sum over the other entries of the last axis; sums from both ends, since a total minus one entry would cancel."""
    before, after = np.zeros_like(x), np.zeros_like(x)
    before[..., 1:] = np.cumsum(x, -1)[..., :-1]
    after[..., :-1] = np.cumsum(x[..., ::-1], -1)[..., -2::-1]
    return before + after


def leave_one_out_baselines(reward: ArrayLike, score_energy: ArrayLike) -> Float[np.ndarray, " n"]:
    """b* estimated for each response from the others of its group, [n]: sum of r_j |s_j|^2 over sum of |s_j|^2, j != i.

    Where the other energies are all zero, the mean of the other rewards. At n = 2 the other reward, as RLOO; whenever
    the other rewards agree, their common value, whatever the energies (5c, derived here).

    Args:
        reward: [n], 0 or 1, n >= 2.
        score_energy: [n], |s|^2 of each response, at least 0.
    """
    reward, score_energy = _rewards_and_energies(real_array("reward", reward, ndim=1), score_energy)
    require(len(reward) >= 2, "reward", f"{len(reward)} response(s)", "at least two responses")
    return mean_of_others(reward, score_energy)


def pooled_baselines(reward: ArrayLike, score_energy: ArrayLike) -> Float[np.ndarray, "... P"]:
    """b* estimated for each group from all responses of the OTHER groups, [..., P] (5c, derived here).

    Leaves the gradient unbiased, and is informative also for a group whose rewards agree. Where the energies of the
    other groups are all zero, the mean of their rewards.

    Args:
        reward: [..., P, G], 0 or 1, a row a group, P >= 2; leading axes are independent runs.
        score_energy: [..., P, G], |s|^2 of each response, at least 0.
    """
    reward, score_energy = _rewards_and_energies(reward, score_energy)
    enough = reward.ndim >= 2 and reward.shape[-2] >= 2 and reward.shape[-1] >= 1
    require(enough, "reward", f"shape {reward.shape}", "[..., P, G] with P >= 2, G >= 1")
    return baseline_of_others((reward * score_energy).sum(-1), score_energy.sum(-1), reward.mean(-1))


def _rewards_and_energies(reward: ArrayLike, score_energy: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    reward, energy = zero_or_one("reward", reward), non_negative("score_energy", score_energy)
    require_shape("score_energy", energy, reward.shape)
    return reward, energy


@dataclass
class LaggedBaseline:
    """b* from past batches: sum of r |s|^2 over sum of |s|^2, a batch counting ``decay`` of the one after it (5c).

    Read ``value`` for a batch first and ``update`` with it afterwards: the estimate is then independent of the batch
    given the past, so the gradient is unbiased.

    Attributes:
        decay: weight of a batch relative to the next, in [0, 1); 0 uses the last batch only.
        initial: the baseline before the first batch.
        weighted, total: weighted sums over the batches so far, one for each run.
    """

    decay: float = 0.9
    initial: float = 0.0
    weighted: Reals = 0.0
    total: Reals = 0.0

    def __post_init__(self) -> None:
        closed_interval("decay", self.decay, 0, np.nextafter(1, 0))
        real_array("initial", self.initial, ndim=0)

    @property
    def value(self) -> Reals:
        """The baseline for the next batch, one for each run."""
        return baseline_of_sums(self.weighted, self.total, self.initial)

    def update(self, reward: ArrayLike, score_energy: ArrayLike) -> None:
        """Count a batch: rewards and energies [..., P, G], of one run or of many."""
        reward, energy = real_array("reward", reward), non_negative("score_energy", score_energy)
        fits = reward.shape == energy.shape and reward.ndim >= 2
        require(fits, "score_energy", f"shape {energy.shape}", f"[..., P, G], as the rewards {reward.shape}")
        self.count((reward * energy).sum((-1, -2)), energy.sum((-1, -2)))

    def count(self, weighted: ArrayLike, total: ArrayLike) -> None:
        """Count a batch by its sum of r |s|^2 and its sum of |s|^2, each [...], or by unbiased estimates of these.

        Without norms of single scores: <C, C + W> and |C + W|^2 from the sums C and W of the scores of the correct and
        of the wrong responses, because scores average to zero.
        """
        weighted, total = real_array("weighted", weighted), non_negative("total", total)
        require_shape("total", total, weighted.shape)
        self.weighted, self.total = self.decay * self.weighted + weighted, self.decay * self.total + total


def token_energies(log_prob: ArrayLike, collision: ArrayLike, mask: ArrayLike | Bool[np.ndarray, "... T"]) -> Reals:
    """sum over tokens of 1 - 2 pi(o_t) + sum over v of pi(v)^2: squared length of the score in the logits.

    A stand-in for |s|^2 that needs no backward pass. The logits' share only: how the logits move with the parameters
    is left out.

    Args:
        log_prob: [..., T], log-probability of each token of a response.
        collision: [..., T], sum over the vocabulary of the squared probabilities at each token.
        mask: [..., T], true (1) on the tokens of the response.
    """
    log_prob, mask = real_array("log_prob", log_prob), real_array("mask", mask)
    collision = closed_interval("collision", collision, 0, 1 + 1e-6)
    require_shape("collision", collision, log_prob.shape)
    require_shape("mask", mask, log_prob.shape)
    return np.maximum((mask * (1 - 2 * np.exp(log_prob) + collision)).sum(-1), 0.0)
