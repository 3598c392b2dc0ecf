"""Training small Qwens at fixed rates, at rates set by the measured critical one, and with the usual safeguards.

A run is sampled GRPO on words drawn from the training half of all words of a length; success is judged on the other
half. A closed loop measures the critical rate of the very update, on a second rollout of the step's prompts, and cuts
the update where it is longer than a share of it; until the next measurement the rate stays at that share.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from rlvr_lib.arguments import integer, open_unit, positive, require
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.policy import Rollout, TrainablePolicy
from rlvr_lib.testbeds.qwen import QwenTestbed, checkpoints
from rlvr_lib.testbeds.scores import second_order
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.threshold import AlongStep

PROMPTS, LOOK, JUDGES = 8, 5, 4
"""Prompts a step, steps between two looks at success, responses to each judged prompt."""
READINGS = ("mean", "tenth", "worst")
CRASHED, LEARNED = 0.5, 0.9
"""A run has crashed below this share of the success it started with, and has learned at this success."""


@dataclass(frozen=True)
class Safeguard:
    """What keeps a run from collapsing; the defaults are nothing.

    Attributes:
        share: c, the rate is at most c times the measured critical one; None measures nothing.
        every: steps from one measurement to the next.
        others: measure on as many other prompts in place of the step's own.
        reading: the critical rate of the ``mean`` success of the step's prompts, of the lowest ``tenth`` of those that
            have one, or of the ``worst`` of them.
        largest_gradient: norm to which longer gradients are cut.
        penalty: beta, the price of a nat of log(pi / pi at the start), as in ``penalised``.
        passes: updates on each rollout, with clipped ratios.
        warm_up: share of the run over which the rate rises linearly, before it falls as a cosine; None keeps it.
    """

    share: float | None = None
    every: int = 1
    others: bool = False
    reading: str = "mean"
    largest_gradient: float | None = None
    penalty: float = 0.0
    passes: int = 1
    warm_up: float | None = None

    def __post_init__(self) -> None:
        require(self.reading in READINGS, "reading", self.reading, f"one of {', '.join(READINGS)}")
        integer("every", self.every, low=1)
        if self.share is not None:
            positive("share", self.share)
            require(self.passes == 1, "passes", self.passes, "1 in a closed loop: a rollout has one update")
        if self.warm_up is not None:
            open_unit("warm_up", self.warm_up)

    def schedule(self, step: int, steps: int) -> float:
        """What the rate is multiplied with at a step."""
        if self.warm_up is None:
            return 1.0
        rise = max(1, round(self.warm_up * steps))
        return min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * max(0, step - rise) / max(1, steps - rise))))


class Run(NamedTuple):
    """Success of the judged prompts at the start and after every few steps, the rate of each step, processor time."""

    success: Float[np.ndarray, " looks"]
    rates: Float[np.ndarray, " steps"]
    seconds: float

    @property
    def collapsed(self) -> bool:
        """Whether success ends below half of what it was."""
        return bool(self.success[-1] < CRASHED * self.success[0])

    @property
    def dipped(self) -> bool:
        """Whether success was ever below half of what it was."""
        return bool(self.success.min() < CRASHED * self.success[0])


def warm_starts(model: str, count: int, first: int = 0) -> list[QwenTestbed]:
    """``count`` warm starts, of the seeds from ``first`` on; a loaded model is a sample of one."""
    return checkpoints(range(first, first + count)) if model == "tiny" else [QwenTestbed(model=model)]


def halves(qwen: QwenTestbed, length: int, seed: int | Sequence[int]) -> tuple[list[int], list[int]]:
    """All words of a length, split at random into those that are trained on and those that judge."""
    every = list(itertools.product(range(qwen.task.group.order), repeat=integer("length", length, low=1)))
    order = np.random.default_rng(seed).permutation(len(every))
    prompts = [qwen.task.prompt(every[at]) for at in order]
    return prompts[: len(every) // 2], prompts[len(every) // 2 :]


def judged(policy: QwenTestbed, prompts: Sequence[int], seed: int) -> float:
    """Sampled success of some prompts."""
    return float(policy.rollout(prompts, JUDGES, torch.Generator().manual_seed(seed)).reward.mean())


def each_along(
    qwen: QwenTestbed, rollout: Rollout, direction: Float[np.ndarray, " d"]
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """Success of each prompt of a rollout and its two derivatives along a unit direction, estimated without bias."""
    reward = torch.as_tensor(rollout.reward)
    weight = (reward - reward.mean(1, keepdim=True)) / (reward.shape[1] - 1)
    named = {name: value.detach().double() for name, value in qwen.named.items()}
    towards = qwen.unflatten("direction", direction)
    (_, slope), (_, second) = second_order(lambda p: qwen.token_log_probs(rollout, p).sum(-1), named, towards)
    slope, second = slope.view(weight.shape), second.view(weight.shape)
    derivatives = (weight * slope).sum(1), (weight * (second + slope**2)).sum(1)
    return rollout.reward.mean(1), derivatives[0].numpy(), derivatives[1].numpy()


def critical_length(
    success: Float[np.ndarray, " Q"], slope: Float[np.ndarray, " Q"], second: Float[np.ndarray, " Q"], reading: str
) -> float | None:
    """The critical length of a step by a reading: 0 where it points downhill, None where it is not defined.

    Prompts of which all responses are right or all wrong have no critical length, and those that bend upwards no end.
    """
    if reading == "mean":
        along = AlongStep(float(success.mean()), float(slope.mean()), float(second.mean()))
        return along.critical_step
    found = [AlongStep(*map(float, one)).critical_step for one in zip(success, slope, second, strict=True)]
    lengths = np.array([length for length in found if length is not None])
    if not len(lengths):
        return None
    return float(lengths.min() if reading == "worst" else np.quantile(lengths, 0.1))


@dataclass
class Loop:
    """The rate of the next step, and what a measurement makes of it."""

    rate: float
    guard: Safeguard
    steps: int
    others: Callable[[torch.Generator], list[int]] | None = None
    factor: float = 1.0
    used: list[float] = field(default_factory=list)

    def __call__(self, step: int) -> float:
        """The rate of a step, before it is measured."""
        return self.rate * self.factor * self.guard.schedule(step, self.steps)

    def shorten(self, policy: QwenTestbed, step: grpo.Step, group_size: int, seed: int) -> None:
        """Measure the update that was made; where it is too long, take back a part of it, and lower the rate."""
        rate, guard = step.learning_rate, self.guard
        length = float((step.after - step.before).double().norm())
        if guard.share is not None and step.number % guard.every == 0 and length > 0:
            before, move = policy.at(step.before.double().numpy()), (step.after - step.before).double().numpy()
            seeds = np.random.SeedSequence([seed, step.number]).generate_state(1)
            generator = torch.Generator().manual_seed(int(seeds[0]))
            prompts = self.others(generator) if self.others else step.rollout.prompts
            fresh = before.rollout(prompts, group_size, generator)
            critical = critical_length(*each_along(before, fresh, move / length), guard.reading)
            if critical is not None:
                # Between measurements the factor stands; it rises again as fast as it fell.
                kept = min(1.0, guard.share * critical / length)
                self.factor = min(1.0, self.factor * guard.share * critical / length) if critical > 0 else self.factor
                rate *= kept
                with torch.no_grad():
                    for value, whole in zip(
                        policy.parameters(), policy.unflatten("theta", before.theta + kept * move).values(), strict=True
                    ):
                        value.copy_(whole)
        self.used.append(rate)


def penalised(beta: float, reference: QwenTestbed, settings: grpo.GRPO) -> grpo.Baseline:
    """What to subtract from rewards for the estimator's advantages less beta log(pi / reference), centred in its group.

    For Dr.GRPO these are the advantages of the reward less that price; GRPO's division is of the reward's part alone.
    """

    def baseline(policy: TrainablePolicy, rollout: Rollout) -> Float[np.ndarray, "Q G"]:
        with torch.no_grad():
            both = [model.token_log_probs(rollout).sum(-1).double() for model in (policy, reference)]
        price = beta * (both[0] - both[1]).view(rollout.reward.shape).numpy()
        return rollout.reward - group_advantages(rollout.reward, settings.estimator) + price - price.mean(1)[:, None]

    return baseline


def run(
    qwen: QwenTestbed, rate: float, guard: Safeguard, settings: grpo.GRPO, length: int, steps: int, seed: int
) -> Run:
    """One run of ``settings`` with a safeguard, on words drawn anew at each step.

    Args:
        qwen: the warm start, which is not changed.
        rate: the learning rate before the safeguard acts, in place of that of the settings.
        length: of the words.
        seed: of the halves, the draws and the looks.
    """
    policy, (trained, judges) = qwen.at(qwen.theta), halves(qwen, length, seed)
    looks, spent = [judged(qwen, judges, seed)], 0.0

    def draw(generator: torch.Generator) -> list[int]:
        return [trained[at] for at in torch.randint(len(trained), (PROMPTS,), generator=generator)]

    loop = Loop(positive("rate", rate).item(), guard, steps, draw if guard.others else None)

    def after(step: grpo.Step) -> None:
        nonlocal spent
        loop.shorten(policy, step, settings.group_size, seed)
        if (step.number + 1) % LOOK == 0:
            begun = time.process_time()
            looks.append(judged(policy, judges, seed + step.number + 1))
            spent += time.process_time() - begun

    baseline = penalised(guard.penalty, qwen, settings) if guard.penalty else settings.baseline
    guarded = replace(
        settings,
        learning_rate=loop,
        baseline=baseline,
        passes=guard.passes,
        largest_gradient=guard.largest_gradient or settings.largest_gradient,
    )
    begun = time.process_time()
    grpo.train(policy, draw, guarded, steps, seed, on_step=after)
    return Run(np.array(looks), np.array(loop.used), time.process_time() - begun - spent)


def pooled_rate(qwen: QwenTestbed, settings: grpo.GRPO, length: int, draws: int, seed: int) -> float:
    """The median critical rate of first updates from the warm start, each from its own rollout; infinite for none.

    An update that points downhill counts with rate 0, and one whose success does not bend with no end.
    """
    (trained, _), found = halves(qwen, length, seed), []
    generator = torch.Generator().manual_seed(seed)
    for number in range(integer("draws", draws, low=1)):
        policy = qwen.at(qwen.theta)
        chosen = [trained[at] for at in torch.randint(len(trained), (PROMPTS,), generator=generator)]
        steps: list[grpo.Step] = []
        one = replace(settings, learning_rate=1e-4)
        grpo.train(policy, chosen, one, 1, seed + number, on_step=steps.append)
        move = (steps[0].after - steps[0].before).double().numpy()
        size = float(np.linalg.norm(move))
        if size == 0:
            continue
        fresh = qwen.rollout(chosen, settings.group_size, generator)
        critical = critical_length(*each_along(qwen, fresh, move / size), "mean")
        found.append(math.inf if critical is None else critical * 1e-4 / size)
    return float(np.median(found)) if found else math.inf
