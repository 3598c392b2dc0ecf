"""Chapter 2 on small Qwens: success along the gap of a prompt, exact runs from matched first steps, sampled runs.

The testbeds are given, so that checkpoints are a sample like prompts and seeds. Success is exact, over all responses,
except in the sampled runs while they train.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

from rlvr_lib.arguments import Reals, integer, positive, real_array, require
from rlvr_lib.studies.threshold import training_boundary
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.policy import Testbed
from rlvr_lib.testbeds.qwen import QwenTestbed, checkpoints
from rlvr_lib.theory.advantages import Estimator, estimator_gain
from rlvr_lib.theory.threshold import AlongStep, critical_learning_rate, critical_step, first_return_step

LONGEST, POINTS = 10.0, 49
"""The longest step tried, and points of the grid along a line."""
GONE, LITTLE = -5.0, 0.5
"""A run whose log-odds are below the one and cannot move by the other any more, to first order, is ended early."""


@dataclass(frozen=True)
class Line:
    """One prompt's success along a unit direction [d]; the measured step is infinite where success does not return."""

    testbed: Testbed
    prompt: int
    direction: Float[np.ndarray, " d"]
    start: AlongStep
    measured: float

    @classmethod
    def of(
        cls,
        testbed: Testbed,
        prompt: int,
        direction: Float[np.ndarray, " d"] | None = None,
        shortest: float = 0.02,
        longest: float = LONGEST,
    ) -> Self:
        """Along the prompt's gap where no direction is given; the return is sought between two lengths."""
        if direction is None:
            gap = testbed.log_odds_and_gap(prompt)[1]
            direction = gap / np.linalg.norm(gap)
        odds = float(testbed.odds_along(prompt, direction, 0.0))
        measured = first_return_step(
            lambda step: testbed.odds_along(prompt, direction, step) - odds, shortest, longest, tolerance=1e-4
        )
        return cls(testbed, prompt, direction, AlongStep(*testbed.along(prompt, direction)), float(measured))

    def success(self, steps: ArrayLike) -> Reals:
        """J after steps of these lengths."""
        return expit(self.testbed.odds_along(self.prompt, self.direction, steps))

    def moved(self, step: float) -> Testbed:
        """The testbed after a step."""
        return self.testbed.at(self.testbed.theta + step * self.direction)

    @property
    def alignment(self) -> float:
        """<w, D> at the start."""
        return self.start.gap_alignment or 0.0

    def predicted(self, log: bool = True) -> float:
        """The critical step of the curvature at the start, of log J or of J; infinite where that is not positive."""
        curvature = (self.start.curvature or 0.0) if log else -self.start.second
        return float(critical_step(self.start.success, self.alignment, curvature)) if curvature > 0 else np.inf

    def overpromises(self, share: float = 1.0, guaranteed: bool = False) -> bool:
        """Whether a step below the predicted one, or below the guaranteed one, lowers success.

        Only where log J does have ``share`` of the curvature, to a tenth, over the first hundredth of such a step: a
        prediction from a wrong curvature proves nothing.
        """
        curvature, slope = share * (self.start.curvature or 0.0), self.start.slope / self.start.success
        promised = self.guaranteed() if guaranteed else self.predicted() / share
        short = np.array([0.0, min(promised, self.measured, LONGEST) / 100])
        rise = np.diff(log_expit(self.testbed.odds_along(self.prompt, self.direction, short)))[0]
        curves = 2 * (slope * short[1] - rise) / short[1] ** 2
        return bool(promised > 1.001 * self.measured and np.isclose(curves, curvature, rtol=0.1))

    def parabola(self, steps: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """What J would be after these steps if log J had its slope and curvature at the start throughout."""
        J, curvature = self.start.success, self.start.curvature or 0.0
        return J * np.exp(self.start.slope / J * steps - curvature * steps**2 / 2)

    @functools.cached_property
    def ridge(self) -> float:
        """How far along the line a maximum of success before its return lies."""
        found = minimize_scalar(
            lambda step: -self.testbed.odds_along(self.prompt, self.direction, step),
            bounds=(0, self.measured),
            method="bounded",
            options={"xatol": 1e-9},
        )
        return float(found.x)

    def before_ridge(self, share: float) -> Self:
        """The same line from a place before its ridge, by a share of the way from there to the return."""
        back = float(positive("share", share)) * (self.measured - self.ridge)
        return self.of(self.moved(self.ridge - back), self.prompt, self.direction, back / 2, 20 * back)

    @functools.cached_property
    def grid(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Steps from 0 to half as far again as the return, and log J after them."""
        steps = np.linspace(0, 1.5 * min(self.measured, LONGEST), POINTS)
        return steps, log_expit(self.testbed.odds_along(self.prompt, self.direction, steps))

    def guaranteed(self, constant: float = 2.0, largest: bool = True) -> float:
        """The longest step promised by the largest (or the least) curvature up to its end.

        Curvatures are that of the start and second differences of log J on the grid; with these Taylor's theorem is
        exact at its points. A step may end anywhere before a point up to which it is promised.
        """
        steps, height = self.grid
        h, slope = steps[1], (1 - self.start.success) * self.alignment
        first = 2 * (h * slope - height[1] + height[0]) / h**2
        bend = np.array([self.start.curvature, first, *-np.diff(height, 2) / h**2])
        curvature = (np.maximum if largest else np.minimum).accumulate(bend)[1:]
        promised = np.full(len(curvature), np.inf)
        np.divide(constant * slope, curvature, out=promised, where=curvature > 0)
        return float(np.minimum(promised, steps[1:]).max())


def warm_starts(model: str, count: int, first: int = 0) -> list[QwenTestbed]:
    """``count`` warm starts, of the seeds from ``first`` on, in float64; a loaded model is a sample of one."""
    if model == "tiny":
        return checkpoints(range(first, first + count), dtype=torch.float64)
    return [QwenTestbed(model=model, dtype=torch.float64)]


def words(qwen: QwenTestbed, length: int, count: int, seed: int | Sequence[int]) -> list[int]:
    """Different random prompts of a word length, as a seed orders them."""
    size = (qwen.task.group.order,) * integer("length", length, low=1)
    require(integer("count", count, low=1) <= int(np.prod(size)), "count", count, f"at most {np.prod(size)}")
    drawn = np.random.default_rng(seed).permutation(np.prod(size))[:count]
    return [qwen.task.prompt(tuple(map(int, word))) for word in np.transpose(np.unravel_index(drawn, size))]


def lines(qwens: Sequence[QwenTestbed], count: int, seed: int, length: int = 3) -> list[list[Line]]:
    """For each checkpoint the first random prompts whose success returns along the gap, drawn from (seed, its number).

    Raises:
        ValueError: fewer than ``count`` prompts of a checkpoint return.
    """
    drawn = []
    for number, qwen in enumerate(qwens):
        every = words(qwen, length, max(count, qwen.task.group.order**length), (seed, number))
        returning = (line for line in (Line.of(qwen, prompt) for prompt in every) if np.isfinite(line.measured))
        drawn.append([line for _, line in zip(range(count), returning, strict=False)])
        require(len(drawn[-1]) == count, "count", count, f"at most {len(drawn[-1])}, the prompts that return")
    return drawn


def climbed(line: Line, level: float, step: float = 0.05, most: int = 200) -> Line:
    """The line of the same prompt farther up: after short steps along the gap until success reaches a level."""
    testbed, prompt = line.testbed, line.prompt
    for _ in range(most):
        odds, gap = testbed.log_odds_and_gap(prompt)
        if expit(odds) >= level:
            break
        testbed = testbed.at(testbed.theta + step * gap / np.linalg.norm(gap))
    return Line.of(testbed, prompt)


def stages(drawn: Sequence[Sequence[Line]]) -> dict[str, list[Line]]:
    """Lines of the same prompts from four places: as drawn, at success .8 and .95, and a tenth before the ridge."""
    first = [line for row in drawn for line in row]
    farther = [climbed(line, 0.8) for line in first]
    return {
        "warm start": first,
        "success .8": farther,
        "success .95": [climbed(line, 0.95) for line in farther],
        "before a ridge": [line.before_ridge(0.1) for line in first],
    }


def exact_run(
    line: Line, multiple: float, estimator: Estimator, steps: int, group_size: int | None = None
) -> Float[np.ndarray, " n"]:
    """Log-odds before and after each exact update at a fixed rate, the first a multiple of the measured step.

    ``group_size`` is that of GRPO, large groups when not given; REINFORCE has none.
    """
    size = group_size if estimator == "grpo" else None
    testbed, (odds, gap) = line.testbed, line.testbed.log_odds_and_gap(line.prompt)
    rate = multiple * line.measured / (np.linalg.norm(gap) * estimator_gain(expit(odds), estimator, size))
    path = [odds]
    for left in range(integer("steps", steps, low=1), 0, -1):
        speed = rate * estimator_gain(expit(odds), estimator, size)
        if odds < GONE and speed * (gap @ gap) * left < LITTLE:
            return np.array(path + [odds] * left)
        testbed = testbed.at(testbed.theta + speed * gap)
        odds, gap = testbed.log_odds_and_gap(line.prompt)
        path.append(odds)
    return np.array(path)


class Ends(NamedTuple):
    """What became of runs: success fell at once, or to less than half of the start later, or at the end; or is .9."""

    drops: Bool[np.ndarray, "..."]
    crashes: Bool[np.ndarray, "..."]
    collapsed: Bool[np.ndarray, "..."]
    solved: Bool[np.ndarray, "..."]


def ends(paths: Float[np.ndarray, "... n"]) -> Ends:
    """Judge runs by their log-odds; to crash later is to fall below half of the start after any step but the first."""
    J = expit(paths)
    low = J[..., :1] / 2 > J
    return Ends(J[..., 1] < J[..., 0], low[..., 2:].any(-1), low[..., -1], J[..., -1] > 0.9)


def matched_runs(
    drawn: Sequence[Sequence[Line]], multiple: float, estimator: Estimator, steps: int, group_size: int | None = None
) -> Float[np.ndarray, "checkpoints prompts n"]:
    """``exact_run`` from every line of every checkpoint."""
    runs = [[exact_run(line, multiple, estimator, steps, group_size) for line in row] for row in drawn]
    return np.array(runs)


class SampledBoundary(NamedTuple):
    """The training boundary of sampled GRPO over the predicted rate, and success over the last quarter at each rate."""

    over_predicted: float
    final: Float[np.ndarray, " rates"]


def sampled_boundary(qwen: QwenTestbed, length: int, multiples: ArrayLike, steps: int, seed: int) -> SampledBoundary:
    """Sampled GRPO on one random word of a length, at multiples of the predicted rate of its expected update."""
    (prompt,), settings = words(qwen, length, 1, (seed, length)), grpo.GRPO()
    gap, final = qwen.log_odds_and_gap(prompt)[1], []
    start = AlongStep(*qwen.along(prompt, gap / np.linalg.norm(gap)))
    curvature = start.curvature or 0.0
    require(curvature > 0, "seed", seed, "one whose prompt has a predicted rate")
    predicted = critical_learning_rate(start.success, curvature, "grpo", group_size=settings.group_size)
    for multiple in real_array("multiples", multiples, ndim=1):
        run = dataclasses.replace(settings, learning_rate=float(multiple * predicted))
        rows = grpo.train(qwen.at(qwen.theta), [prompt], run, steps, seed)
        final.append(np.mean([row["success_rate"] for row in rows[-max(1, steps // 4) :]]))
    return SampledBoundary(float(training_boundary(multiples, final)), np.array(final))


def annealed_run(
    qwen: QwenTestbed, rate: float, steps: int, cut: float, after: int, seed: int, every: int = 10
) -> Float[np.ndarray, " looks"]:
    """Exact success on eight fixed words, every few steps of sampled GRPO with Adam; the rate is cut after a step."""
    policy, here, looks = qwen.at(qwen.theta), np.zeros(len(qwen.theta)), []
    judges = [qwen.task.prompt(word) for word in itertools.product((1, 2), repeat=3)]

    def fresh(generator: torch.Generator) -> list[int]:
        drawn = torch.randint(qwen.task.group.order, (8, 3), generator=generator).tolist()
        return [qwen.task.prompt(tuple(word)) for word in drawn]

    def look(step: grpo.Step) -> None:
        if (step.number + 1) % every == 0:
            looks.append(np.mean([expit(policy.odds_along(prompt, here, 0.0)) for prompt in judges]))

    settings = grpo.GRPO(optimizer="adam", learning_rate=lambda step: rate * (cut if step >= after else 1.0))
    grpo.train(policy, fresh, settings, steps, seed, on_step=look)
    return np.array(looks)
