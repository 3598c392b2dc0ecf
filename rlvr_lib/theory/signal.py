"""Theorem 5d: how much of a gradient is signal, and the learning rate that its noise allows.

From n gradients that are independent and of one mean: the squared norm of that mean without bias (the signal), the
variance of the mean of the n (the noise), and their ratio, which is n over the gradient noise scale. P3 is arXiv
2511.23310, read in abstract only; "derived here" is checked in the tests and in chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, closed_interval, positive, real_array, require


def signal_and_noise(gradients: ArrayLike | None = None, gram: ArrayLike | None = None) -> tuple[Reals, Reals]:
    """Unbiased estimate of |mean|^2, which may be negative, and estimated variance (trace) of the mean of n gradients.

    Args:
        gradients: [..., n, d], n >= 2; leading axes are independent runs.
        gram: [..., n, n], their inner products, in place of them; exact to rounding of its largest entry.
    """
    name, given = ("gradients", gradients) if gram is None else ("gram", gram)
    require((gradients is None) != (gram is None), name, given, "the only one given of gradients and gram")
    rows = real_array(name, given)
    count = rows.shape[-2] if rows.ndim >= 2 else 1
    require(count >= 2, name, f"shape {rows.shape}", "[..., n, d] with at least two gradients")
    if gram is None:
        mean = rows.mean(-2)
        squared, spread = (mean**2).sum(-1), ((rows - mean[..., None, :]) ** 2).sum((-1, -2)) / (count - 1)
    else:
        require(rows.shape[-1] == count, "gram", f"shape {rows.shape}", "[..., n, n]")
        squared = rows.mean((-1, -2))
        spread = np.maximum(np.trace(rows, axis1=-2, axis2=-1) - count * squared, 0.0) / (count - 1)
    return (squared - spread / count)[()], (spread / count)[()]


def squared_signal(gradients: ArrayLike) -> float:
    """Unbiased estimate of |mean|^2 from n gradients, the mean of <g_i, g_j> over i != j; may be negative (5d).

    Unbiased for rows that are independent and of one mean, as those of prompts drawn independently. Biased for the
    terms of one group under leave-one-out baselines, which share their rewards: by 1 + 1/(G - 1)^2 under RLOO.

    Args:
        gradients: [n, d], n >= 2.
    """
    return float(signal_and_noise(real_array("gradients", gradients, ndim=2))[0])


def gradient_snr(gradients: ArrayLike) -> float:
    """``squared_signal`` over the estimated variance of the mean of the n rows; may be negative (5d).

    The signal-to-noise ratio of a step that averages all n gradients: n over the gradient noise scale (derived here).
    As a ratio of estimates it is itself not unbiased.

    Args:
        gradients: [n, d], n >= 2, not all equal: their noise would be zero.
    """
    gradients = real_array("gradients", gradients, ndim=2)
    require(bool((gradients != gradients[:1]).any()), "gradients", "rows that are all equal", "of rows that differ")
    # The ratio is free of scale, and squares of very small entries would underflow.
    signal, noise = signal_and_noise(gradients / np.abs(gradients).max())
    return float(signal / noise)


def shrinkage(signal: Reals, noise: Reals) -> Reals:
    """[signal]+ / ([signal]+ + noise) = SNR / (1 + SNR), in [0, 1], elementwise; 0 where both are zero."""
    signal = np.maximum(signal, 0.0)
    total = signal + noise
    return np.divide(signal, total, out=np.zeros_like(total), where=total > 0)[()]


def snr_learning_rate(snr: ArrayLike, smoothness: ArrayLike) -> Reals:
    """SNR / (1 + SNR) / L: the learning rate of the largest gain that L-smoothness guarantees (5d).

    Source: P3, in the standard reading of its abstract.

    Args:
        snr: squared norm of the gradient over the variance of its estimate, any shape; a negative one counts as 0.
        smoothness: L > 0, bound on the spectral norm of the Hessian.
    """
    return (shrinkage(real_array("snr", snr), 1.0) / positive("smoothness", smoothness))[()]


def group_squared_signal(reward: ArrayLike, score: ArrayLike) -> Reals:
    """Unbiased estimate of |grad J|^2 from one group: the mean over pairs of (r_i - b)(r_j - b) <s_i, s_j>.

    The baseline of a pair is the mean reward of the responses outside it, so that it is independent of both; with
    baselines that leave out only one, the same mean is (1 + 1/(G - 1)^2) |grad J|^2 (5d, derived here).

    Args:
        reward: [..., G], 0 or 1, G >= 3.
        score: [..., G, d].
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


@dataclass
class RunningSnr:
    """Signal-to-noise ratio of a step that averages P prompt gradients, smoothed over batches (5d).

    Signal and noise between the prompts of each batch are averaged over batches before the ratio is taken, because
    single ratios are wild.

    Attributes:
        decay: weight of a batch relative to the next, in [0, 1).
        signal, noise: weighted sums over the batches so far, one for each run.
    """

    decay: float = 0.9
    signal: Reals = 0.0
    noise: Reals = 0.0

    def __post_init__(self) -> None:
        closed_interval("decay", self.decay, 0, np.nextafter(1, 0))

    @property
    def value(self) -> Reals:
        """The ratio, at least 0, one for each run; 0 before the first batch and where nothing varies."""
        signal = np.maximum(self.signal, 0.0)
        noiseless = np.where(signal > 0, np.inf, 0.0)
        return np.divide(signal, self.noise, out=noiseless, where=np.greater(self.noise, 0))[()]

    @property
    def shrinkage(self) -> Reals:
        """SNR / (1 + SNR), the factor of the learning rate, in [0, 1]."""
        return shrinkage(self.signal, self.noise)

    def update(self, gradients: ArrayLike | None = None, gram: ArrayLike | None = None) -> None:
        """Count a batch of prompt gradients [..., P, d], P >= 2, or their inner products [..., P, P]."""
        signal, noise = signal_and_noise(gradients, gram)
        self.signal, self.noise = self.decay * self.signal + signal, self.decay * self.noise + noise
