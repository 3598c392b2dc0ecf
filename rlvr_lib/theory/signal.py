"""Theorem 5 in a run: estimates of the optimal baseline and of the signal-to-noise ratio from batches.

Estimates from past batches are independent of the batch they are used on, so the gradient stays unbiased (5c). All
functions take leading axes for independent runs. "Derived here" is checked in the tests and in chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, closed_interval, integer, non_negative, open_unit, positive, real_array, require
from rlvr_lib.responses import Responses, success_rate


def leave_one_out_variance(r: Responses, group_size: int) -> float:
    """Trace of the covariance of the mean of (r_i - mean of the other rewards) s_i over a group of G (RLOO).

    (E[(r - J)^2 |s|^2] + J (1 - J) E|s|^2 / (G - 1)) / G - (1 - (1 - 1/G) (1 + 1/(G - 1)^2)) |grad J|^2. Derived here
    (5c): the second term is the noise of a mean of G - 1 rewards; the terms of a group share rewards, which changes
    the last.

    Raises:
        ValueError: a group size below 2.
    """
    G = integer("group_size", group_size, low=2)
    J, energy = success_rate(r), r.prob * np.einsum("nd,nd->n", r.score, r.score)
    gradient = (r.prob * (r.reward - J)) @ r.score
    own = (r.reward - J) ** 2 @ energy + J * (1 - J) * energy.sum() / (G - 1)
    return float(own / G + ((1 - 1 / G) * (1 + 1 / (G - 1) ** 2) - 1) * (gradient @ gradient))


def leave_one_out_loss(success: ArrayLike, energy_ratio: ArrayLike, group_size: int) -> Reals:
    """Second moment of one term under RLOO over that with b*: ``mean_baseline_loss`` with the noise of G - 1 rewards.

    1 + [J (1 - J) (x - 1)^2 + (J + (1 - J) x)^2 / (G - 1)] / x with x = e-/e+, elementwise. Derived here (5c).

    Raises:
        ValueError: success not strictly between 0 and 1, an energy ratio that is not positive, a group size below 2.
    """
    success, ratio = open_unit("success", success), positive("energy_ratio", energy_ratio)
    others = integer("group_size", group_size, low=2) - 1
    mean = success * (1 - success) * (ratio - 1) * ((ratio - 1) / ratio)
    total = success + (1 - success) * ratio
    return (1 + mean + total * (total / ratio) / others)[()]


def group_squared_signal(reward: ArrayLike, score: ArrayLike) -> Reals:
    """Unbiased estimate of |grad J|^2 from one group: the mean over pairs of (r_i - b)(r_j - b) <s_i, s_j>.

    The baseline of a pair is the mean reward of the responses outside it, so that it is independent of both; with
    baselines that leave out only one, the same mean is (1 + 1/(G - 1)^2) |grad J|^2 (5d, derived here).

    Args:
        reward: [..., G], 0 or 1, G >= 3.
        score: [..., G, d].

    Raises:
        ValueError: shapes that do not fit, or fewer than three responses.
    """
    reward, score = real_array("reward", reward), real_array("score", score)
    fits = score.ndim >= 2 and score.shape[:-1] == reward.shape
    require(fits, "score", f"shape {score.shape}", f"[..., G, d] for rewards of shape {reward.shape}")
    G = reward.shape[-1]
    require(G >= 3, "reward", f"groups of {G}", "groups of at least three")
    gram = np.einsum("...id,...jd->...ij", score, score)
    first, second = reward[..., :, None], reward[..., None, :]
    baseline = (reward.sum(-1)[..., None, None] - first - second) / (G - 2)
    terms = (first - baseline) * (second - baseline) * gram * (1 - np.eye(G))
    return (terms.sum((-1, -2)) / (G * (G - 1)))[()]


def token_energies(
    log_prob: ArrayLike, collision: ArrayLike, mask: ArrayLike | Bool[np.ndarray, "... T"]
) -> Float[np.ndarray, "..."]:
    """sum over tokens of 1 - 2 pi(o_t) + sum over v of pi(v)^2: squared length of the score in the logits.

    A stand-in for |s|^2 that needs no backward pass. The logits' share only: how the logits move with the parameters
    is left out.

    Args:
        log_prob: [..., T], log-probability of each token of a response.
        collision: [..., T], sum over the vocabulary of the squared probabilities at each token.
        mask: [..., T], true (1) on the tokens of the response.

    Raises:
        ValueError: shapes that differ, a collision probability outside [0, 1].
    """
    log_prob, mask = real_array("log_prob", log_prob), real_array("mask", mask)
    collision = closed_interval("collision", collision, 0, 1 + 1e-6)
    for name, value in (("collision", collision), ("mask", mask)):
        require(value.shape == log_prob.shape, name, f"shape {value.shape}", f"of shape {log_prob.shape}")
    return np.maximum((mask * (1 - 2 * np.exp(log_prob) + collision)).sum(-1), 0.0)


@dataclass
class LaggedBaseline:
    """b* from past batches: sum of r |s|^2 over sum of |s|^2, a batch counting ``decay`` of the one after it (5c).

    Read ``value`` for a batch first and ``update`` with it afterwards: the estimate is then independent of the batch
    given the past, so the gradient is unbiased.

    Attributes:
        decay: weight of a batch relative to the next, in [0, 1); 0 uses the last batch only.
        initial: the baseline before the first batch.

    Raises:
        ValueError: a decay outside [0, 1).
    """

    decay: float = 0.9
    initial: float = 0.0

    def __post_init__(self) -> None:
        closed_interval("decay", self.decay, 0, np.nextafter(1, 0))
        real_array("initial", self.initial, ndim=0)
        self._weighted, self._total = np.zeros(()), np.zeros(())

    @property
    def value(self) -> Reals:
        """The baseline for the next batch, one for each run."""
        start = np.full(self._total.shape, float(self.initial))
        return np.divide(self._weighted, self._total, out=start, where=self._total > 0)[()]

    def update(self, reward: ArrayLike, score_energy: ArrayLike) -> None:
        """Count a batch: rewards and energies [..., P, G], of one run or of many.

        Raises:
            ValueError: shapes that differ or are too short, a negative energy.
        """
        reward, energy = real_array("reward", reward), non_negative("score_energy", score_energy)
        fits = reward.shape == energy.shape and reward.ndim >= 2
        require(fits, "score_energy", f"shape {energy.shape}", f"[..., P, G], as the rewards {reward.shape}")
        self.count((reward * energy).sum((-1, -2)), energy.sum((-1, -2)))

    def count(self, weighted: ArrayLike, total: ArrayLike) -> None:
        """Count a batch by its sum of r |s|^2 and its sum of |s|^2, each [...], or by estimates of these.

        From two gradients these are <C, C + W> and |C + W|^2 (see ``two_gradient_baseline``): no single norms.

        Raises:
            ValueError: shapes that differ, or a negative total.
        """
        weighted, total = real_array("weighted", weighted), non_negative("total", total)
        require(weighted.shape == total.shape, "total", f"shape {total.shape}", f"of shape {weighted.shape}")
        self._weighted, self._total = self.decay * self._weighted + weighted, self.decay * self._total + total


@dataclass
class RunningSnr:
    """Signal-to-noise ratio of a step that averages P prompt gradients, smoothed over batches (5d).

    Each batch gives an unbiased estimate of |mean|^2 (``squared_signal`` between prompts) and one of the variance of
    the batch mean; both are averaged over batches before the ratio is taken, because single ratios are wild.

    Attributes:
        decay: weight of a batch relative to the next, in [0, 1).

    Raises:
        ValueError: a decay outside [0, 1).
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        closed_interval("decay", self.decay, 0, np.nextafter(1, 0))
        self._signal, self._noise = np.zeros(()), np.zeros(())

    @property
    def value(self) -> Reals:
        """The ratio, at least 0, one for each run; 0 before the first batch and where nothing varies."""
        signal = np.maximum(self._signal, 0.0)
        noiseless = np.where(signal > 0, np.inf, 0.0)
        return np.divide(signal, self._noise, out=noiseless, where=self._noise > 0)[()]

    @property
    def shrinkage(self) -> Reals:
        """SNR / (1 + SNR), the factor of the learning rate, in [0, 1]."""
        signal = np.maximum(self._signal, 0.0)
        total = signal + self._noise
        return np.divide(signal, total, out=np.zeros_like(total), where=total > 0)[()]

    def update(self, gradients: ArrayLike) -> None:
        """Count a batch of prompt gradients [..., P, d], P >= 2.

        Raises:
            ValueError: a wrong shape, or fewer than two prompts.
        """
        gradients = real_array("gradients", gradients)
        enough = gradients.ndim >= 2 and gradients.shape[-2] >= 2
        require(enough, "gradients", f"shape {gradients.shape}", "[..., P, d] with P >= 2")
        count, mean = gradients.shape[-2], gradients.mean(-2)
        noise = ((gradients - mean[..., None, :]) ** 2).sum((-1, -2)) / (count - 1) / count
        self._signal = self.decay * self._signal + (mean**2).sum(-1) - noise
        self._noise = self.decay * self._noise + noise
