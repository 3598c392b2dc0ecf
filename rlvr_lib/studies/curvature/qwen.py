"""Chapter 4 on small Qwens: how soon success is reached under each normalisation, and the curvature meanwhile.

A ``Batch`` is a checkpoint and words of one length, so that checkpoints are a sample like words and seeds. Success is
exact, over all responses, wherever it is looked at.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit

from rlvr_lib.arguments import integer
from rlvr_lib.studies.curvature import ARMS, TARGET, matched_rate, prompt_weight
from rlvr_lib.studies.curves import first_time
from rlvr_lib.studies.threshold import qwen as threshold
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed

EVERY, PROBES, OTHER_SEEDS = 4, 32, 2**32
"""Steps between looks at a sampled run; sampled gradients behind a rate for Adam, and what is added to their seed."""
TINY = 1e-9
"""A learning rate that leaves a policy where it is, so that its steps show the gradients."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A checkpoint, some words of one length, and all responses to them."""

    qwen: QwenTestbed
    prompts: tuple[int, ...]

    @functools.cached_property
    def responses(self) -> Rollout:
        """Every response to every prompt, once."""
        count, (tokens, length) = len(self.prompts), self.qwen.responses(self.prompts[0])
        shape = (count, *tokens.shape)
        reward = self.qwen.task.reward(self.prompts, tokens.expand(shape), length.expand(shape[:2]))
        mask = (torch.arange(shape[2]) < length[:, None]).repeat(count, 1)
        return Rollout(self.prompts, tokens.repeat(count, 1), mask, reward.double().numpy())

    @functools.cached_property
    def gaps(self) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, "Q d"]]:
        """Log-odds of every prompt and their gradients."""
        odds, gap = zip(*map(self.qwen.log_odds_and_gap, self.prompts), strict=True)
        return np.array(odds), np.array(gap)

    @property
    def success(self) -> Float[np.ndarray, " Q"]:
        """J of every prompt."""
        return expit(self.gaps[0])

    @property
    def gradient(self) -> Float[np.ndarray, "Q d"]:
        """Of the success of every prompt."""
        return (self.success * expit(-self.gaps[0]))[:, None] * self.gaps[1]

    def at(self, theta: Float[np.ndarray, " d"]) -> Self:
        """The same words at other parameters."""
        return type(self)(self.qwen.at(theta), self.prompts)

    def success_of(self, policy: QwenTestbed) -> Float[torch.Tensor, " Q"]:
        """J of every prompt for another policy on the task, differentiable, from one pass over all responses."""
        log_prob = policy.token_log_probs(self.responses).sum(-1).view(self.responses.reward.shape)
        return (log_prob.exp() * torch.as_tensor(self.responses.reward)).sum(-1)

    def curvature(self) -> Float[np.ndarray, " Q"]:
        """Size of the second derivative of each prompt's success along its own unit gradient."""
        units = self.gaps[1] / np.linalg.norm(self.gaps[1], axis=1, keepdims=True)
        found = [self.qwen.along(prompt, unit)[2] for prompt, unit in zip(self.prompts, units, strict=True)]
        return np.abs(found)

    def rate(self, arm: str, group_size: int | None, pace: float, optimizer: str = "sgd", seed: int = 0) -> float:
        """An arm's learning rate matched at the initial rise; for Adam by the mean square of sampled gradients."""
        squares: list[Float[np.ndarray, " d"]] = []
        if optimizer != "sgd":
            size = integer("group_size", group_size, low=1)
            settings = grpo.GRPO(group_size=size, estimator=ARMS[arm], learning_rate=TINY)

            def look(step: grpo.Step) -> None:
                squares.append(((step.after - step.before).double().numpy() / TINY) ** 2)

            grpo.train(self.qwen.at(self.qwen.theta), self.prompts, settings, PROBES, OTHER_SEEDS + seed, look)
        square = np.mean(squares, axis=0) if squares else None
        return matched_rate(self.success, self.gradient, arm, group_size, pace, square)

    def steered(self, odds: Float[np.ndarray, " Q"], most: int = 30) -> Self:
        """At parameters that give the prompts these log-odds, by damped Gauss-Newton steps of least norm."""
        here, gap = self.gaps
        if most == 0 or np.abs(odds - here).max() < 0.02:
            return self
        gram = gap @ gap.T
        step = gap.T @ np.linalg.solve(gram + 1e-3 * gram.diagonal().mean() * np.eye(len(gram)), odds - here)
        return self.at(self.qwen.theta + step * min(1.0, 0.5 / np.abs(gap @ step).max())).steered(odds, most - 1)

    @grpo.one_thread()
    @torch.no_grad()
    def line_search_advantage(self) -> float:
        """Best gain of mean success along the mean update of ``std`` in large groups over that of ``none``, or NaN.

        Eight steps are tried, which change a log-odds by up to two nats to first order.
        """
        (odds, gap), reaches, best = self.gaps, np.geomspace(0.03, 2, 8), []
        for power in (0.5, 1.0):
            update = (expit(odds) * expit(-odds)) ** power @ gap
            update = update / np.abs(gap @ update).max()
            after = [self.success_of(self.qwen.at(self.qwen.theta + reach * update)).mean() for reach in reaches]
            best.append(float(max(after)) - self.success.mean())
        return best[0] / best[1] if min(best) > 0 else np.nan


def batches(model: str, count: int, first: int, words: int, seed: int) -> list[Batch]:
    """Warm starts of the seeds from ``first`` on, with different words of two elements, drawn from (seed, number)."""
    qwens = threshold.warm_starts(model, count, first)
    return [Batch(qwen, tuple(threshold.words(qwen, 2, words, (seed, k)))) for k, qwen in enumerate(qwens)]


class Runs(NamedTuple):
    """Matched rates of an arm; of its runs steps to the target, infinite where too few, and largest drops."""

    rate: Float[np.ndarray, " checkpoints"]
    steps: Float[np.ndarray, "checkpoints runs"]
    drop: Float[np.ndarray, "checkpoints runs"]


class _Arrived(Exception): ...


def looks(batch: Batch, settings: grpo.GRPO, most: int, seed: int) -> Float[np.ndarray, " looks"]:
    """Mean success before a run of GRPO and after every fourth step, until it exceeds ``TARGET``."""
    policy, means = batch.qwen.at(batch.qwen.theta), [float(batch.success.mean())]

    def look(step: grpo.Step) -> None:
        if (step.number + 1) % EVERY == 0:
            with torch.no_grad():
                means.append(float(batch.success_of(policy).mean()))
            if means[-1] > TARGET:
                raise _Arrived

    with contextlib.suppress(_Arrived):
        grpo.train(policy, batch.prompts, settings, most, seed, look)
    return np.array(means)


def sampled_runs(
    drawn: Sequence[Batch], optimizer: str, arm: str, group_size: int, pace: float, most: int, seeds: Sequence[int]
) -> Runs:
    """From every checkpoint at its matched rate, one run for each seed, which other arms share."""
    rates = [batch.rate(arm, group_size, pace, optimizer, seeds[0]) for batch in drawn]
    settings = [grpo.GRPO(group_size, ARMS[arm], optimizer=optimizer, learning_rate=rate) for rate in rates]
    paths = [[looks(*each, most, seed) for seed in seeds] for each in zip(drawn, settings, strict=True)]
    steps = [[float(first_time(EVERY * np.arange(len(x)), x, TARGET)) for x in row] for row in paths]
    drop = [[-np.diff(x).min(initial=0) for x in row] for row in paths]
    return Runs(np.array(rates), np.array(steps), np.array(drop))


class MeanRun(NamedTuple):
    """Parameters and success before each exact mean update, up to the first beyond the target."""

    theta: Float[np.ndarray, "n d"]
    success: Float[np.ndarray, "n Q"]


@grpo.one_thread()
def mean_run(batch: Batch, arm: str, group_size: int | None, pace: float, most: int) -> MeanRun:
    """A run whose sampled groups are replaced by their mean: what the finite-group gains predict, step by step."""
    policy, rate, theta, success = batch.qwen.at(batch.qwen.theta), batch.rate(arm, group_size, pace), [], []
    for _ in range(integer("most", most, low=1) + 1):
        here = batch.success_of(policy)
        theta.append(policy.theta)
        success.append(here.detach().numpy())
        if success[-1].mean() > TARGET:
            break
        weight = torch.as_tensor(prompt_weight(success[-1], arm, group_size))
        update = torch.autograd.grad((weight * here).mean(), policy.parameters())
        for value, change in zip(policy.parameters(), update, strict=True):
            value.data.add_(change, alpha=rate)
    return MeanRun(np.array(theta), np.array(success))


def along_run(batch: Batch, run: MeanRun, count: int) -> list[Batch]:
    """The batch at places of a run, at mean successes as evenly spaced as the run has them."""
    means = run.success.mean(1)
    return [batch.at(run.theta[np.argmax(means >= level)]) for level in np.linspace(means[0], means.max(), count)]


def first_order_steps(places: Sequence[Batch], arm: str, group_size: int | None, pace: float) -> float:
    """Steps from the first place to the last if mean success rises as the finite-group gain says, to first order."""
    weights = [prompt_weight(here.success, arm, group_size) for here in places]
    rise = [here.gradient.mean(0) @ (w @ here.gradient) for here, w in zip(places, weights, strict=True)]
    way = places[-1].success.mean() - places[0].success.mean()
    return float(way / pace * np.mean(rise[0] / np.array(rise)))
