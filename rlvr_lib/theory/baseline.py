"""Theorem 5: the baseline that minimises the variance of the policy gradient, and the learning rate that noise allows.

e+ and e- are the score energies E[|s|^2] given success and failure, b* = E[r |s|^2] / E[|s|^2] the best constant
baseline. P3 is arXiv 2511.23310, read in abstract only; b* is classical (Weaver and Tao 2001; Greensmith, Bartlett and
Baxter 2004). "Derived here" is checked in the tests.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, integer, non_negative, open_unit, positive, real_array, require
from rlvr_lib.responses import Responses


def gradient_variance(r: Responses, baseline: ArrayLike, samples: int = 1) -> Reals:
    """Trace of the covariance of (1/N) sum of (r_i - b) s_i over N independent responses drawn with weights ``prob``.

    (E[(r - b)^2 |s|^2] - |E[(r - b) s]|^2) / N. On exact responses the second term is |grad J|^2 for every b (5a).

    Args:
        baseline: b, fixed before the responses are drawn, any shape.
        samples: N, at least 1.

    Raises:
        ValueError: a baseline that is not finite, or samples that are not a positive integer.
    """
    baseline, samples = real_array("baseline", baseline), integer("samples", samples, low=1)
    correct, wrong = r.prob * r.reward, r.prob * (1 - r.reward)
    energy = np.einsum("nd,nd->n", r.score, r.score)
    second = (1 - baseline) ** 2 * (correct @ energy) + baseline**2 * (wrong @ energy)
    mean = (1 - baseline)[..., None] * (correct @ r.score) - baseline[..., None] * (wrong @ r.score)
    return (np.maximum(second - (mean**2).sum(-1), 0.0) / samples)[()]


def optimal_baseline(r: Responses) -> float:
    """b* = E[r |s|^2] / E[|s|^2]: the constant baseline of least gradient variance (5a; P3; classical).

    On a sample this is the estimate that correlates with the very gradient it is meant for: unbiased only when used on
    responses drawn independently of it.

    Raises:
        ValueError: all scores are zero, so that every baseline gives the same gradient.
    """
    energy = r.prob * np.einsum("nd,nd->n", r.score, r.score)
    require(energy.sum() > 0, "score", "zeros only", "non-zero for some response")
    return float(energy @ r.reward / energy.sum())


def baseline_loss(success: ArrayLike, energy_ratio: ArrayLike, baseline: ArrayLike) -> Reals:
    """E[(r - b)^2 |s|^2] over its minimum, 1 + (b - b*)^2 (J + (1 - J) e-/e+)^2 / (J (1 - J) e-/e+), elementwise.

    Source: derived here (5b). The arguments J and ``energy_ratio`` are those of ``mean_baseline_loss``. A ratio of
    variances is 1 + (loss - 1)(1 + SNR of one response under b*), which is larger.

    Raises:
        ValueError: success not strictly between 0 and 1, an energy ratio that is not positive.
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

    Raises:
        ValueError: success not strictly between 0 and 1, or an energy ratio that is not positive.
    """
    success, ratio = open_unit("success", success), positive("energy_ratio", energy_ratio)
    return (1 + success * (1 - success) * (ratio - 1) * ((ratio - 1) / ratio))[()]


def critical_energy_ratio(success: ArrayLike) -> Reals:
    """1 + 1 / (1 - J): the mean is worse than the zero baseline exactly where e-/e+ exceeds this (5b).

    Source: derived here. In second moments and in variances alike.

    Raises:
        ValueError: success not strictly between 0 and 1.
    """
    return (1 + 1 / (1 - open_unit("success", success)))[()]


def mean_of_others(value: ArrayLike, weight: ArrayLike) -> Float[np.ndarray, "... n"]:
    """Weighted mean over the OTHER entries of the last axis, [..., n]; their plain mean where their weights are zero.

    Independent of entry i, so that as a baseline for it it leaves the gradient unbiased. With weights of 1 it is
    RLOO's baseline.

    Raises:
        ValueError: shapes that differ, fewer than two entries, or a negative weight.
    """
    value, weight = real_array("value", value), non_negative("weight", weight)
    require(value.shape == weight.shape, "weight", f"shape {weight.shape}", f"of the values' shape {value.shape}")
    require(value.ndim > 0 and value.shape[-1] >= 2, "value", f"shape {value.shape}", "[..., n] with n >= 2")
    return _ratio_of_others(value * weight, weight, value)


def leave_one_out_baselines(reward: ArrayLike, score_energy: ArrayLike) -> Float[np.ndarray, " n"]:
    """b* estimated for each response from the others of its group, [n]: sum of r_j |s_j|^2 over sum of |s_j|^2, j != i.

    Where the other energies are all zero, the mean of the other rewards. At n = 2 the other reward, as RLOO; whenever
    the other rewards agree, their common value, whatever the energies (5c, derived here).

    Args:
        reward: [n], 0 or 1, n >= 2.
        score_energy: [n], |s|^2 of each response, at least 0.

    Raises:
        ValueError: a wrong shape, fewer than two responses, a reward that is not 0 or 1, a negative energy.
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

    Raises:
        ValueError: a wrong shape, fewer than two groups, a reward that is not 0 or 1, a negative energy.
    """
    reward, score_energy = _rewards_and_energies(reward, score_energy)
    enough = reward.ndim >= 2 and reward.shape[-2] >= 2 and reward.shape[-1] >= 1
    require(enough, "reward", f"shape {reward.shape}", "[..., P, G] with P >= 2, G >= 1")
    return _ratio_of_others((reward * score_energy).sum(-1), score_energy.sum(-1), reward.mean(-1))


def two_gradient_baseline(correct_sums: ArrayLike, wrong_sums: ArrayLike) -> float:
    """sum of <C, C + W> over sum of |C + W|^2: b* from two gradients a batch, without norms of single scores (5c).

    Derived here: for a batch of N the two have the means N E[r |s|^2] and N E[|s|^2], because scores average to zero.
    A noisy ratio, not confined to [0, 1]: use many past batches, never the batch it is for.

    Args:
        correct_sums: [m, d], for each of m past batches the sum C of the scores of its correct responses.
        wrong_sums: [m, d], the same for the wrong responses, W.

    Raises:
        ValueError: a wrong shape, no batch, or only zero gradients.
    """
    correct = real_array("correct_sums", correct_sums, ndim=2)
    wrong = real_array("wrong_sums", wrong_sums, ndim=2)
    require(correct.shape == wrong.shape, "wrong_sums", f"shape {wrong.shape}", f"of shape {correct.shape}")
    require(len(correct) >= 1, "correct_sums", f"shape {correct.shape}", "[m, d] with m >= 1")
    total = correct + wrong
    energy = float((total**2).sum())
    require(energy > 0, "correct_sums", "only zero gradients", "such that some C + W is not zero")
    return float((correct * total).sum() / energy)


def two_gradient_estimate(
    correct_sum: ArrayLike, wrong_sum: ArrayLike, baseline: float, samples: int
) -> Float[np.ndarray, " d"]:
    """(C - b (C + W)) / N = (1/N) sum of (r_i - b) s_i, [d]: the gradient of a batch from its two sums (5c).

    Args:
        correct_sum: [d], C, sum of the scores of the correct responses.
        wrong_sum: [d], W, sum of the scores of the wrong ones.
        baseline: b, chosen independently of the batch.
        samples: N, responses in the batch.

    Raises:
        ValueError: a wrong shape, a baseline that is not a finite number, samples that are not a positive integer.
    """
    correct, wrong = real_array("correct_sum", correct_sum, ndim=1), real_array("wrong_sum", wrong_sum, ndim=1)
    require(correct.shape == wrong.shape, "wrong_sum", f"shape {wrong.shape}", f"of shape {correct.shape}")
    baseline, samples = real_array("baseline", baseline, ndim=0), integer("samples", samples, low=1)
    return (correct - baseline * (correct + wrong)) / samples


def squared_signal(gradients: ArrayLike) -> float:
    """Unbiased estimate of |mean|^2 from n gradients, the mean of <g_i, g_j> over i != j; may be negative (5d).

    Unbiased for rows that are independent and of one mean, as those of prompts drawn independently. Biased for the
    terms of one group under leave-one-out baselines, which share their rewards: by 1 + 1/(G - 1)^2 under RLOO.

    Args:
        gradients: [n, d], n >= 2.

    Raises:
        ValueError: a wrong shape, or fewer than two gradients.
    """
    signal, noise = _signal_and_noise(_at_least_two(gradients))
    return signal - noise


def gradient_snr(gradients: ArrayLike) -> float:
    """``squared_signal`` over the estimated variance of the mean of the n rows; may be negative (5d).

    The signal-to-noise ratio of a step that averages all n gradients: n over the gradient noise scale (derived here).
    As a ratio of estimates it is itself not unbiased.

    Args:
        gradients: [n, d], n >= 2, not all equal.

    Raises:
        ValueError: a wrong shape, fewer than two gradients, or gradients that are all equal: their noise is zero.
    """
    gradients = _at_least_two(gradients)
    require(bool((gradients != gradients[0]).any()), "gradients", "rows that are all equal", "of rows that differ")
    # The ratio is free of scale, and squares of very small entries would underflow.
    signal, noise = _signal_and_noise(gradients / np.abs(gradients).max())
    return (signal - noise) / noise


def snr_learning_rate(snr: ArrayLike, smoothness: ArrayLike) -> Reals:
    """SNR / (1 + SNR) / L: the learning rate of the largest gain that L-smoothness guarantees (5d).

    Source: P3, in the standard reading of its abstract.

    Args:
        snr: squared norm of the gradient over the variance of its estimate, any shape; a negative one counts as 0.
        smoothness: L > 0, bound on the spectral norm of the Hessian.

    Raises:
        ValueError: an SNR that is not finite, or a smoothness that is not positive.
    """
    snr, smoothness = np.maximum(real_array("snr", snr), 0.0), positive("smoothness", smoothness)
    return (snr / (1 + snr) / smoothness)[()]


def _ratio_of_others(numerator: np.ndarray, weight: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Sum of the other numerators over sum of the other weights; where these are zero, the mean of the other values."""
    total = _sum_of_others(weight)
    plain = _sum_of_others(value) / (value.shape[-1] - 1)
    return np.divide(_sum_of_others(numerator), total, out=plain, where=total > 0)


def _sum_of_others(x: np.ndarray) -> np.ndarray:
    """Sum over the other entries of the last axis; sums from both ends, since a total minus one entry would cancel."""
    before, after = np.zeros_like(x), np.zeros_like(x)
    before[..., 1:] = np.cumsum(x, -1)[..., :-1]
    after[..., :-1] = np.cumsum(x[..., ::-1], -1)[..., -2::-1]
    return before + after


def _rewards_and_energies(reward: ArrayLike, score_energy: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of 0 or 1 and score energies of at least 0, of one shape."""
    reward, energy = real_array("reward", reward), non_negative("score_energy", score_energy)
    other = (reward != 0) & (reward != 1)
    require(not other.any(), "reward", reward[other][:1], "0 or 1")
    require(reward.shape == energy.shape, "score_energy", f"shape {energy.shape}", f"of shape {reward.shape}")
    return reward, energy


def _at_least_two(gradients: ArrayLike) -> Float[np.ndarray, "n d"]:
    gradients = real_array("gradients", gradients, ndim=2)
    require(len(gradients) >= 2, "gradients", f"{len(gradients)} row(s)", "at least two gradients")
    return gradients


def _signal_and_noise(gradients: Float[np.ndarray, "n d"]) -> tuple[float, float]:
    """Squared norm of the mean row, and the estimated variance (trace) of that mean."""
    count, mean = len(gradients), gradients.mean(0)
    return float(mean @ mean), float(((gradients - mean) ** 2).sum() / (count - 1) / count)
