"""The collapse meter: what the value of a policy-gradient loss says, and an alarm on it from a trainer's log.

On-policy, a trainer that descends -(1/n) sum_i A_i log pi(o_i) logs that number, and nobody reads it, because its
gradient is the purpose. Its value is a quantity all the same. With advantages that sum to zero in each group it is

    loss = -Cov(A, log pi) = -sigma (m_correct - m_wrong)        (advantages (r - J) / sigma, sigma^2 = J (1 - J)),

with m the mean log-probabilities of the correct and of the wrong responses. The two are read through surprise
S = -log pi(o), in nats, which is a sum over tokens. So |loss| / sigma is how many nats more the wrong responses
surprise the policy that has just written them. Three things make it grow:

- wrong responses get longer, because every token adds its surprise;
- wrong responses get more random, because a token of surprise s was one of about e^s that it could have been;
- the policy has nothing else to say: for success J alone, with |S| bounded, sigma makes it fall.

It foretells collapse because surprise bounds what a step does. The score of a token's logits has the squared norm
1 - 2p + sum p^2 >= (1 - p)^2 = (1 - e^-s)^2, so surprise is energy: a wrong response with k tokens of surprise log 2 or
more has energy k / 4 at least (``energy_bound``), while a correct one of small surprise has next to none. The
second moment of the gradient, the energy ratio of wrong to correct responses and the curvature that is a moment of the
same scores all grow with it, and the critical rate falls, at a learning rate that stays what it was.

Where the trainer logs a ratio pi / pi_old in place of log pi, the loss is zero on-policy and says nothing of this
(every value is 0, or at most the size of an advantage): then only success and length are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import rankdata

from rlvr_lib.arguments import integer, positive, require


def covariance_loss(advantage: ArrayLike, log_prob: ArrayLike) -> float:
    """Minus the mean of advantage times log-probability: the loss that is logged, in nats times advantage.

    Args:
        advantage: [n] or [groups, G], summing to zero over each group.
        log_prob: as many, log-probabilities of whole responses (or means over tokens, if the trainer takes those).
    """
    a, value = np.ravel(np.asarray(advantage, dtype=float)), np.ravel(np.asarray(log_prob, dtype=float))
    require(a.size == value.size and a.size > 0, "log_prob", f"{value.size} numbers", f"{max(a.size, 1)} numbers")
    return -float(np.mean(a * value))


def surprise_excess(loss: float, success: float) -> float:
    """Nats by which wrong responses surprise the policy more than correct ones, from the loss of GRPO and J in (0, 1).

    Negative where the correct ones are the less likely. Exact for one group with the population deviation.
    """
    require(0 < success < 1, "success", success, "strictly between 0 and 1: otherwise there is nothing to compare")
    return -loss / math.sqrt(success * (1 - success))


def energy_bound(surprise: ArrayLike) -> float:
    """Least squared norm of a response's score in its logits: sum of (1 - e^-s)^2 over its tokens' nats."""
    s = np.asarray(surprise, dtype=float)
    require(bool((s >= 0).all()), "surprise", surprise, "zero or more nats a token")
    return float(np.sum(np.expm1(-s) ** 2))


@dataclass(frozen=True)
class Alarm:
    """Something that a log says about a run; ``step`` is the number at which it could first be known.

    Attributes:
        step: of the last row that was needed.
        kind: ``loss`` (wrong responses surprise more than they did), ``success`` (it has fallen) or ``length``
            (responses are longer than they were, and succeed less).
        now, before: median |loss|, mean success or median length, of the last window and of the steps before it.
    """

    step: int
    kind: str
    now: float
    before: float


@dataclass(frozen=True)
class Rule:
    """When an alarm is raised: a change that is large, and too large for chance.

    Attributes:
        window: steps that are compared with those before them.
        past: how many steps before the window count, at most.
        every: steps from one look to the next.
        level: chance that one look raises an alarm of |loss| or length although the steps are exchangeable.
        fall_level: likewise, of success, which wanders more because prompts differ.
        growth: least ratio of the median of |loss|, or of length, to that before.
        fall: largest ratio of the mean success to that before.
        floor: least median of |loss|, in nats: below one, wrong responses are no e times less likely.
        fewest: least steps with a signal in a window; the past has three times as many.
    """

    window: int = 25
    past: int = 500
    every: int = 5
    level: float = 1e-3
    fall_level: float = 1e-4
    growth: float = 2.0
    fall: float = 0.5
    floor: float = 1.0
    fewest: int = 8

    def __post_init__(self) -> None:
        for name in ("window", "past", "every", "fewest"):
            integer(name, getattr(self, name), low=1)
        for name in ("level", "fall_level", "growth", "fall"):
            positive(name, getattr(self, name))
        for name in ("level", "fall_level"):
            require(getattr(self, name) < 0.5, name, getattr(self, name), "below one half")

    def false_alarms_per_thousand_steps(self) -> float:
        """Upper bound of their expected number, by the union of all looks at all kinds, if steps are exchangeable."""
        return math.ceil(1000 / self.every) * (2 * self.level + self.fall_level)


def alarms(
    step: Sequence[int] | np.ndarray,
    loss: ArrayLike | None = None,
    success: ArrayLike | None = None,
    length: ArrayLike | None = None,
    rule: Rule = Rule(),
) -> list[Alarm]:
    """What a log gives reason to worry about, in the order of its steps.

    A look compares the last window with the past by the ranks of Wilcoxon, and by its size with the rule. The first
    keeps chance out; the second keeps out what is real and harmless, such as responses that grow by a tenth.

    Args:
        step: [T], increasing numbers of the steps.
        loss: [T], in nats; NaN or exactly zero where a step has no signal.
        success, length: [T], means of the step; NaN where unknown.
        rule: when to raise an alarm.
    """
    number = np.asarray(step)
    series = {"loss": loss, "success": success, "length": length}
    given = {name: np.asarray(values, dtype=float) for name, values in series.items() if values is not None}
    for name, values in given.items():
        require(values.shape == number.shape, name, f"shape {values.shape}", f"of shape {number.shape}")
    if "loss" in given:
        # Rounding of advantages that sum to zero leaves a few units of float32 of the value: no signal either.
        size = np.abs(given["loss"])
        given["loss"] = np.where(size > 1e-6, size, np.nan)
    raised: list[Alarm] = []
    last: dict[str, int] = {}
    for end in range(rule.window, len(number) + 1, rule.every):
        start = end - rule.window
        slices = slice(max(start - rule.past, 0), start), slice(start, end)
        for kind in given:
            found = _look(kind, given, *slices, rule)
            if found is not None and end - last.get(kind, -(10**9)) > 4 * rule.window:
                raised.append(Alarm(int(number[end - 1]), kind, *found))
            if found is not None:
                last[kind] = end
    return raised


def _look(kind: str, given: dict, past: slice, now: slice, rule: Rule) -> tuple[float, float] | None:
    before, after = (given[kind][part] for part in (past, now))
    before, after = before[~np.isnan(before)], after[~np.isnan(after)]
    if len(after) < rule.fewest or len(before) < 3 * rule.fewest:
        return None
    if kind == "success":
        values = float(after.mean()), float(before.mean())
        large = values[0] <= rule.fall * values[1]
        return values if large and ranks_above(before, after) > -ndtri(rule.fall_level) else None
    values = float(np.median(after)), float(np.median(before))
    large = values[0] >= rule.growth * values[1] and (kind != "loss" or values[0] >= rule.floor)
    if not large or ranks_above(after, before) <= -ndtri(rule.level):
        return None
    if kind == "length":
        worse = [given["success"][part] for part in (past, now)] if "success" in given else None
        if worse is None or not np.nanmean(worse[1]) < np.nanmean(worse[0]):
            return None
    return values


def ranks_above(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]) -> float:
    """Wilcoxon's rank statistic of two samples in standard deviations: positive where the first tends to be larger.

    With correction for ties and for continuity; the normal law overstates its tails, so a level from it is safe.
    """
    n, m = len(first), len(second)
    ranks = rankdata(np.concatenate([first, second]))
    _, ties = np.unique(ranks, return_counts=True)
    total = n + m
    variance = n * m / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    if variance <= 0:
        return 0.0
    excess = float(ranks[:n].sum()) - n * (total + 1) / 2
    return math.copysign(max(abs(excess) - 0.5, 0.0), excess) / math.sqrt(variance)
