"""What the measured trainer is asked to measure and to do, and what it remembers from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rlvr_lib.arguments import integer, positive, require
from rlvr_lib.theory.baseline import LaggedBaseline
from rlvr_lib.theory.signal import RunningSnr
from rlvr_lib.trl.scores import CHOICES
from rlvr_lib.trl.step import Scores

BASELINES = ("lagged", "pooled")
REACTIONS = ("warn", "lower")


@dataclass(frozen=True)
class Measure:
    """What is measured, and how often.

    Attributes:
        every: steps from one measurement to the next, at least 1. Success, its spread and dead groups are logged at
            every step from the step's own responses.
        fresh: measure on another rollout of the same prompts, which the step does not use. On the step's own responses
            the alignment and the critical rate count the step's own noise as progress. Either way the prompts are those
            of the step, which it favours over others.
        scores: ``all``, ``last-layer`` or ``head``; None chooses by the model (``rlvr_lib.trl.scores.choose``).
        along: also derive the success rate along the actual update: alignment and critical learning rate. Keeps two
            copies of the trained parameters during the step. Left out without a word where these are not in float32.
        success_threshold: rewards, summed with their weights, of at least this count as success; None accepts rewards
            of 0 and 1 only.
    """

    every: int = 1
    fresh: bool = True
    scores: str | None = None
    along: bool = True
    success_threshold: float | None = None

    def __post_init__(self) -> None:
        integer("every", self.every, low=1)
        require(self.scores is None or self.scores in CHOICES, "scores", self.scores, f"one of {', '.join(CHOICES)}")

    @classmethod
    def cheap(cls, **changes: Any) -> Measure:
        """Every 25 steps, on the last layer or on the LoRA adapters: at most a tenth of a step on average."""
        return replace(cls(every=25), **changes)


@dataclass(frozen=True)
class Act:
    """What the measurements change in the run; nothing by default, except for warnings.

    Attributes:
        baseline: ``lagged`` (b* from earlier measurements) or ``pooled`` (b* from the other groups of the step, whose
            scores are then taken at every step); the advantage is the reward minus it. None: TRL's advantages.
        snr_rate: multiply the scheduled learning rate with SNR / (1 + SNR), both averaged over measurements.
        limit: of the ratio of the used learning rate to the critical one, at which an update gains nothing.
        beyond: ``warn``, or ``lower`` the rate to half of the limit, beginning with the very step, and let it rise
            again, by at most a tenth a measurement, while it is below that; None does nothing.
        errors: standard errors by which the ratio must pass the limit.
    """

    baseline: str | None = None
    snr_rate: bool = False
    limit: float = 1.0
    beyond: str | None = "warn"
    errors: float = 3.0

    def __post_init__(self) -> None:
        known = self.baseline is None or self.baseline in BASELINES
        require(known, "baseline", self.baseline, f"one of {', '.join(BASELINES)}")
        require(
            self.beyond is None or self.beyond in REACTIONS, "beyond", self.beyond, f"one of {', '.join(REACTIONS)}"
        )
        positive("limit", self.limit)
        positive("errors", self.errors)


@dataclass
class Memory:
    """What outlives a step, and a checkpoint: b* and signal to noise of past measurements, the factor of the rate."""

    measured: int | None = None
    distance: float | None = None
    lagged: LaggedBaseline = field(default_factory=LaggedBaseline)
    snr: RunningSnr = field(default_factory=RunningSnr)
    factor: float = 1.0
    warnings: int = 0

    @classmethod
    def restored(cls, stored: dict) -> Memory:
        """From the dictionary that ``dataclasses.asdict`` makes of one."""
        parts = {"lagged": LaggedBaseline(**stored["lagged"]), "snr": RunningSnr(**stored["snr"])}
        return cls(**stored | parts)

    def count(self, scores: Scores) -> None:
        """Count the scores of a measured step."""
        correct, energy = scores.correct_energy.sum(), (scores.correct_energy + scores.wrong_energy).sum()
        if np.isfinite(energy):
            self.lagged.count(correct, energy)
        if scores.comparable:
            self.snr.update(gram=scores.used)

    @property
    def baseline(self) -> float | None:
        """b* so far."""
        return float(self.lagged.value) if self.lagged.total > 0 else None

    @property
    def snr_factor(self) -> float:
        """SNR / (1 + SNR) so far; 1 before the first measurement."""
        return float(self.snr.shrinkage) if self.snr.noise > 0 else 1.0
