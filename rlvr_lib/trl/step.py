"""What the theory says about the prompts of one step, from sums over their groups of responses, with errors.

The success rate J is the mean over the prompts. Every quantity comes with the standard error of a jackknife over
prompts: how much it would vary with other prompts and other responses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from rlvr_lib.theory.baseline import baseline_of_others, baseline_of_sums, second_moment
from rlvr_lib.theory.curvature import gradient_cosines
from rlvr_lib.theory.signal import signal_and_noise
from rlvr_lib.theory.threshold import AlongStep

Values = dict[str, Any]  # floats, None where undefined


@dataclass(frozen=True)
class Groups:
    """Rewards of P groups of responses, as sums.

    Attributes:
        count: [P], responses of each group that have a reward, at least 2.
        correct: [P], how many of them are correct.
    """

    count: Float[np.ndarray, " P"]
    correct: Float[np.ndarray, " P"]

    def part(self, index: np.ndarray) -> Groups:
        """Some of the groups."""
        return Groups(self.count[index], self.correct[index])

    def values(self) -> Values:
        """Success rate, mean standard deviation within prompts (GRPO's gain, I6), and share of dead groups."""
        success = self.correct / self.count
        spread = np.sqrt(success * (1 - success))
        return {
            "success_rate": float(success.mean()),
            "success_std": float(spread.mean()),
            "dead_groups": float((spread == 0).mean()),
        }


@dataclass(frozen=True)
class Scores:
    """Scores of P groups of responses, as sums over the responses of each group.

    Attributes:
        correct_energy, wrong_energy: [P], sums of |s|^2 over the correct and over the wrong responses.
        used_energy: [P], sum of (r - b)^2 |s|^2 with the baseline b in use.
        success: [P, P], inner products of the estimates sum (r - mean) s / (G - 1) of the gradients of J.
        used: [P, P], those of the prompts' gradients that the trainer follows.
    """

    groups: Groups
    correct_energy: Float[np.ndarray, " P"]
    wrong_energy: Float[np.ndarray, " P"]
    used_energy: Float[np.ndarray, " P"]
    success: Float[np.ndarray, "P P"]
    used: Float[np.ndarray, "P P"]

    def part(self, index: np.ndarray) -> Scores:
        """Some of the groups."""
        correct, wrong, used = (x[index] for x in (self.correct_energy, self.wrong_energy, self.used_energy))
        square = np.ix_(index, index)
        return Scores(self.groups.part(index), correct, wrong, used, self.success[square], self.used[square])

    @property
    def comparable(self) -> bool:
        """Whether there are two groups or more, and no score has overflowed."""
        numbers = (self.success, self.used, self.correct_energy, self.wrong_energy)
        return len(self.used) > 1 and all(np.isfinite(array).all() for array in numbers)

    def values(self) -> Values:
        """Gap norm, SNR, noise scale, cosines, optimal baseline and what the one in use costs; None for undefined."""
        success = self.groups.values()["success_rate"]
        variance = success * (1 - success)
        alive = np.flatnonzero(np.diag(self.used) > 0)
        correct, energy = self.correct_energy, self.correct_energy + self.wrong_energy
        squared = signal = noise = least = 0.0
        cosines: Any = []
        if self.comparable:
            (squared, _), (signal, noise) = (signal_and_noise(gram=gram) for gram in (self.success, self.used))
            best = baseline_of_others(correct, energy, self.groups.correct / self.groups.count)
            least = second_moment(correct, self.wrong_energy, best).sum()
            cosines = gradient_cosines(gram=self.used[np.ix_(alive, alive)]) if len(alive) > 1 else []
        snr = float(signal / noise) if noise > 0 else None
        return {
            "gap_norm": math.sqrt(squared) / variance if variance > 0 and squared > 0 else None,
            "gradient_snr": snr,
            "noise_scale": len(self.used) / snr if snr is not None and snr > 0 else None,
            "cosine_mean": float(np.mean(cosines)) if len(cosines) else None,
            "cosine_std": float(np.std(cosines, ddof=1)) if len(cosines) > 1 else None,
            "optimal_baseline": float(baseline_of_sums(correct.sum(), energy.sum())) if energy.any() else None,
            "baseline_loss": float(self.used_energy.sum() / least) if least > 0 else None,
        }


@dataclass(frozen=True)
class Along:
    """P groups of responses along the unit direction of a step.

    Attributes:
        slope, second: [P], first and second derivative of each prompt's success rate.
        covariance: [3, 3], of the means over prompts of success, slope and second, by sampling the responses again and
            keeping the prompts.
        length, learning_rate: of the step.
    """

    groups: Groups
    slope: Float[np.ndarray, " P"]
    second: Float[np.ndarray, " P"]
    covariance: Float[np.ndarray, "3 3"]
    length: float
    learning_rate: float

    def part(self, index: np.ndarray) -> Along:
        """Some of the groups."""
        return replace(self, groups=self.groups.part(index), slope=self.slope[index], second=self.second[index])

    def values(self) -> Values:
        """Alignment with the gap, critical rate of theorem 2 and the used one over it; None for undefined."""
        along = AlongStep(*self._means())
        critical = along.critical_step
        return {
            "gap_alignment": along.gap_alignment,
            "critical_learning_rate": None if critical is None else critical * self.learning_rate / self.length,
            "learning_rate_ratio": self.length / critical if critical else None,
        }

    def excess(self, limit: float) -> tuple[float, float]:
        """J times the loss in log J over a step 1/limit as long, to second order, per unit length; its standard error.

        Positive exactly beyond ``limit`` times the critical rate, also where the step points downhill and no rate is
        short enough. The error is that of these prompts, whose success the step is to raise.
        """
        success, slope, second = self._means()
        if success == 0:
            return -math.inf, 0.0
        half = self.length / limit / 2
        value = half * success * (AlongStep(success, slope, second).curvature or 0.0) - slope
        tangent = np.array([-half * (slope / success) ** 2, 2 * half * slope / success - 1, -half])
        return value, math.sqrt(max(tangent @ self.covariance @ tangent, 0.0))

    def beyond(self, limit: float, errors: float) -> bool:
        """Whether the excess over ``limit`` times the critical rate is above 0 by that many standard errors."""
        value, error = self.excess(limit)
        return value > errors * error

    def _means(self) -> tuple[float, float, float]:
        return self.groups.values()["success_rate"], float(self.slope.mean()), float(self.second.mean())


def jackknife(parts: Groups | Scores | Along, prompts: int) -> dict[str, float | None]:
    """Standard error of each of ``parts.values()`` from leaving out one prompt at a time; None where undefined."""
    every, names = np.arange(prompts), list(parts.values())
    if prompts <= 2:
        return dict.fromkeys(names)
    left_out = [list(parts.part(np.delete(every, one)).values().values()) for one in every]
    errors = np.sqrt((prompts - 1) * np.array(left_out, dtype=float).var(0))
    return {name: None if math.isnan(error) else float(error) for name, error in zip(names, errors, strict=True)}
