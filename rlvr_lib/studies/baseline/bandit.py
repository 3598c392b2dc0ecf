"""Chapter 5 on the bandit: exact variances of small groups, and training with a rate tuned for every instance.

The prompts of an instance share their parameters, and a hidden teacher ranks the responses to each: the best are right,
so that all prompts can be solved together. Every method sees the same prompts and the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.special import expit, softmax
from scipy.stats import binom

from rlvr_lib.arguments import integer, open_unit, require
from rlvr_lib.responses import Responses, score_energies, success_rate
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.baseline import (
    LaggedBaseline,
    baseline_of_sums,
    gradient_variance,
    leave_one_out_variance,
    mean_of_others,
    optimal_baseline,
)
from rlvr_lib.theory.gap import policy_gradient
from rlvr_lib.theory.signal import RunningSnr, shrinkage

PROMPTS, ARMS, DIMENSION, BATCH, GROUP = 64, 8, 24, 8, 4
TESTS = 4
RATES = 2.0 ** np.arange(-2, 8)
"""Learning rates tried; four times these where a factor of the SNR shortens the steps."""
METHODS = {
    "RLOO": ("RLOO", "constant"),
    "GRPO": ("GRPO", "constant"),
    "zero baseline": ("zero baseline", "constant"),
    "exact b*": ("exact b*", "constant"),
    "lagged b*": ("lagged b*", "constant"),
    "leave-one-out b*": ("leave-one-out b*", "constant"),
    "lagged mean": ("lagged mean", "constant"),
    "sign flipped": ("sign flipped", "constant"),
    "RLOO, exact SNR": ("RLOO", "exact"),
    "RLOO, estimated SNR": ("RLOO", "estimated"),
    "OBLR-PO, our reading": ("leave-one-out b*", "estimated"),
}
"""What is subtracted from the reward, and what the learning rate follows; an exact SNR is renewed every five steps."""


def tabular(right: Float[np.ndarray, " m"], wrong: Float[np.ndarray, " w"], failure: float) -> Responses:
    """A tabular softmax, a parameter for every response, with these laws of its right and of its wrong responses."""
    failure = float(open_unit("failure", failure))
    prob = np.concatenate([(1 - failure) * right, failure * wrong])
    return Responses(np.repeat([1.0, 0.0], [len(right), len(wrong)]), np.eye(len(prob)) - prob, prob)


def even(right: int, wrong: int, failure: float) -> Responses:
    """A tabular softmax with equally likely right and equally likely wrong responses."""
    return tabular(np.full(right, 1 / right), np.full(wrong, 1 / wrong), failure)


def group_variances(right: int, wrong: int, failure: float, size: int = GROUP) -> dict[str, float]:
    """Variance of a group's gradient under each baseline, over all outcomes; of ``even`` responses.

    Energies depend on the reward only, and so do inner products of the scores of two independent responses in the mean:
    (r - J)(r' - J) |D|^2. So all outcomes are the patterns of rewards of the group, and the number of right responses
    among those that an independent estimate uses: 7 other groups (pooled), or 10 batches of 8 groups (lagged).
    """
    r = even(right, wrong, failure)
    J, (plus, minus) = success_rate(r), score_energies(r)
    gradient = float((policy_gradient(r) ** 2).sum())
    pattern = np.array(list(product((0.0, 1.0), repeat=integer("size", size, low=2))))
    weight = J ** pattern.sum(1) * (1 - J) ** (size - pattern.sum(1))
    energy = np.where(pattern == 1, plus, minus)
    inner = (pattern[:, :, None] - J) * (pattern[:, None] - J) * gradient / (J * (1 - J)) ** 2
    inner[:, np.arange(size), np.arange(size)] = energy

    def of_group(advantage: Float[np.ndarray, "o size"]) -> float:
        return float(weight @ np.einsum("oi,oij,oj->o", advantage, inner, advantage) / size**2 - gradient)

    def of_others(count: int) -> float:
        k = np.arange(count + 1)
        b = k * plus / (k * plus + (count - k) * minus)
        return float(binom.pmf(k, count, J) @ gradient_variance(r, b, size))

    return {
        "zero baseline": float(gradient_variance(r, 0.0, size)),
        "RLOO": of_group(group_advantages(pattern, "rloo")),
        "leave-one-out b*": of_group(pattern - mean_of_others(pattern, energy)),
        "pooled b*": of_others(7 * size),
        "lagged b*": of_others(80 * size),
        "b*": float(gradient_variance(r, optimal_baseline(r), size)),
    }


class Groups(NamedTuple):
    """Every ordered group of responses: its probability [o], and reward, energy and score of its members."""

    prob: Float[np.ndarray, " o"]
    reward: Float[np.ndarray, "o size"]
    energy: Float[np.ndarray, "o size"]
    score: Float[np.ndarray, "o size d"]

    def moments(self, baseline: ArrayLike) -> tuple[Float[np.ndarray, " d"], float]:
        """Mean and variance of the gradient of a group, for baselines that broadcast to [o, size]."""
        estimate = ((self.reward - baseline)[..., None] * self.score).mean(1)
        mean = self.prob @ estimate
        return mean, float(self.prob @ ((estimate - mean) ** 2).sum(1))


def all_groups(r: Responses, size: int) -> Groups:
    """All outcomes of a group of ``size`` responses."""
    arms = np.array(list(product(range(len(r)), repeat=integer("size", size, low=1))))
    return Groups(r.prob[arms].prod(1), r.reward[arms], r.energy[arms], r.score[arms])


def one_number_prices(right: int, widest: float = 3.0, size: int = GROUP) -> dict[str, float]:
    """Variance summed over thirteen prompts, log-odds from minus to plus the widest, over that with a b* for each."""
    prompts = [even(right, ARMS - right, float(expit(-odds))) for odds in np.linspace(-widest, widest, 13)]
    energies = [r.prob * r.energy for r in prompts]
    one = sum(e @ r.reward for e, r in zip(energies, prompts, strict=True)) / sum(e.sum() for e in energies)
    sums = {
        "one b* for all": sum(gradient_variance(r, one, size) for r in prompts),
        "RLOO": sum(leave_one_out_variance(r, size) for r in prompts),
        "zero baseline": sum(gradient_variance(r, 0.0, size) for r in prompts),
    }
    least = sum(gradient_variance(r, optimal_baseline(r), size) for r in prompts)
    return {name: float(value / least) for name, value in sums.items()}


class Draws(NamedTuple):
    """The prompts and the random numbers of every step of n runs."""

    chosen: Int[np.ndarray, "n steps batch"]
    noise: Float[np.ndarray, "n steps batch group"]


def instances(count: int, seed: int) -> Float[np.ndarray, "n prompts arms d"]:
    """Features of the responses to every prompt of every instance, from the teacher's best to its worst."""
    found = []
    for one in range(integer("count", count, low=1)):
        rng = np.random.default_rng([seed, one])
        rows = rng.standard_normal((PROMPTS, ARMS, DIMENSION))
        rank = np.argsort(-rows @ rng.standard_normal(DIMENSION), axis=1)
        found.append(np.take_along_axis(rows, rank[..., None], 1))
    return np.stack(found)


def draws(count: int, steps: int, seed: int, use: int) -> Draws:
    """Draws for each instance; ``use`` tells those that tune from those that test."""
    rngs = [np.random.default_rng([seed, one, 1 + use]) for one in range(count)]
    chosen = np.stack([rng.random((steps, PROMPTS)).argsort(1)[:, :BATCH] for rng in rngs])
    return Draws(chosen, np.stack([rng.random((steps, BATCH, GROUP)) for rng in rngs]))


class Moments(NamedTuple):
    """Of every prompt: success, gradient, and the means of |s|^2 and of r |s|^2 over its responses."""

    success: Float[np.ndarray, "n rates p"]
    gradient: Float[np.ndarray, "n rates p d"]
    total: Float[np.ndarray, "n rates p"]
    weighted: Float[np.ndarray, "n rates p"]


def moments(features: Float[np.ndarray, "n p arms d"], law: Float[np.ndarray, "n rates p arms"], right: int) -> Moments:
    """The exact moments that variances are made of; the first ``right`` arms are right."""
    law, square = law.swapaxes(1, 2), (features**2).sum(-1)[:, :, None]
    success, mean = law[..., :right].sum(-1), law @ features
    mean_right = law[..., :right] @ features[:, :, :right]
    total = (law * square).sum(-1) - (mean**2).sum(-1)
    weighted = (law * square)[..., :right].sum(-1) - 2 * (mean_right * mean).sum(-1) + success * (mean**2).sum(-1)
    total = np.maximum(total, 0.0)  # a difference of large numbers, where one response is certain
    found = success, mean_right - success[..., None] * mean, total, np.clip(weighted, 0.0, total)
    return Moments(*(value.swapaxes(1, 2) for value in found))


def rloo_shrinkage(all_prompts: Moments) -> Float[np.ndarray, "n rates"]:
    """SNR / (1 + SNR) of a step with RLOO, exactly: variance within (5c) and between prompts, drawn without return."""
    J, gradient, total, weighted = all_prompts
    square, mean = (gradient**2).sum(-1), gradient.mean(-2)
    own = (1 - 2 * J) * weighted + J**2 * total + J * (1 - J) * total / (GROUP - 1)
    within = own / GROUP + ((1 - 1 / GROUP) * (1 + 1 / (GROUP - 1) ** 2) - 1) * square
    signal = (mean**2).sum(-1)
    between = (square.mean(-1) - signal) * (PROMPTS - BATCH) / (PROMPTS - 1)
    return shrinkage(signal, (between + within.mean(-1)) / BATCH)


def train(
    features: Float[np.ndarray, "n prompts arms d"],
    right: int,
    method: str,
    rates: Float[np.ndarray, "n rates"],
    drawn: Draws,
    every: int = 10,
) -> Float[np.ndarray, "looks n rates"]:
    """Exact success, mean over all prompts of an instance, every few steps of a run at each rate, and at the end."""
    require(method in METHODS, "method", method, f"one of {', '.join(METHODS)}")
    name, schedule = METHODS[method]
    n, steps = np.arange(len(features))[:, None], drawn.chosen.shape[1]
    theta = np.zeros((*rates.shape, DIMENSION))
    lagged, running, looks, factor, memory = LaggedBaseline(), RunningSnr(), [], np.ones(1), np.zeros(1)

    def policy(of: Float[np.ndarray, "n p arms d"]) -> Float[np.ndarray, "n rates p arms"]:
        return softmax((theta[:, None] @ of.swapaxes(2, 3)).swapaxes(1, 2), axis=-1)

    baselines: dict[str, Callable] = {
        "zero baseline": lambda: 0.0,
        "RLOO": lambda: mean_of_others(reward, np.ones_like(reward)),
        "GRPO": lambda: reward - group_advantages(reward, "grpo"),
        "leave-one-out b*": lambda: mean_of_others(reward, energy),
        "exact b*": lambda: baseline_of_sums(exact.weighted, exact.total, 0.0)[..., None],
        "lagged b*": lambda: memory,
        "lagged mean": lambda: memory,
        "sign flipped": lambda: -memory,
    }
    for step in range(steps):
        if step % every == 0:
            looks.append(policy(features)[..., :right].sum(-1).mean(-1))
        batch = features[n, drawn.chosen[:, step]]
        law = policy(batch)
        arm = (drawn.noise[:, None, step, ..., None] > law.cumsum(-1)[..., None, :-1]).sum(-1)
        mean = law.swapaxes(1, 2) @ batch
        products = (mean @ batch.swapaxes(2, 3)).swapaxes(1, 2)
        every_energy = (batch**2).sum(-1)[:, None] - 2 * products + (mean**2).sum(-1).swapaxes(1, 2)[..., None]
        reward, energy = (arm < right).astype(float), np.take_along_axis(np.maximum(every_energy, 0.0), arm, -1)
        memory = np.broadcast_to(lagged.value, rates.shape)[..., None, None]
        if name == "exact b*":
            exact = moments(batch, law, right)
        advantage = reward - baselines[name]()
        lagged.update(reward, np.ones_like(energy) if name == "lagged mean" else energy)
        # Sum over the group of advantage times score, the score being the arm's feature minus the mean feature.
        weight = (advantage[..., None, :] @ (arm[..., None] == np.arange(ARMS)))[..., 0, :]
        weight = (weight - advantage.sum(-1, keepdims=True) * law) / GROUP
        gradient = (weight.swapaxes(1, 2) @ batch).swapaxes(1, 2)
        if schedule == "exact" and step % 5 == 0:
            factor = rloo_shrinkage(moments(features, policy(features), right))
        elif schedule == "estimated":
            running.update(gradient)
            factor = running.shrinkage
        theta = theta + (rates * factor)[..., None] * gradient.mean(-2)
    return np.array([*looks, policy(features)[..., :right].sum(-1).mean(-1)])


class Tuned(NamedTuple):
    """Runs at the rate that was best for each instance on its tuning draws; tuned where it is no end of the grid."""

    curve: Float[np.ndarray, "looks n"]
    rate: Float[np.ndarray, " n"]
    tuned: Bool[np.ndarray, " n"]

    @property
    def final(self) -> Float[np.ndarray, " n"]:
        """Success in the end."""
        return self.curve[-1]

    def wins(self, other: Tuned) -> int:
        """Instances on which this method ends higher; where either rate is not tuned there is no winner."""
        return int(((self.final > other.final) & self.tuned & other.tuned).sum())

    def alike(self, other: Tuned, margin: float) -> int:
        """The smaller of two counts of instances: not higher by the margin, and not lower by it (equivalence)."""
        gain = self.final - other.final
        return int(min((gain < margin).sum(), (gain > -margin).sum()))


@cache
def tuned(method: str, right: int, count: int, steps: int, seed: int) -> Tuned:
    """A method on ``count`` instances, each with the rate that does best on it; success is a mean over ``TESTS`` runs.

    The runs that choose a rate are not among those that judge it.
    """
    features = instances(count, seed)
    grid = np.tile(RATES * (1.0 if METHODS[method][1] == "constant" else 4.0), (count, 1))
    best = train(features, right, method, grid, draws(count, steps, seed, 0), steps)[-1].argmax(1)
    rate = grid[0, best]
    fresh = [train(features, right, method, rate[:, None], draws(count, steps, seed, 1 + k)) for k in range(TESTS)]
    return Tuned(np.mean(fresh, 0)[..., 0], rate, (best > 0) & (best < len(RATES) - 1))
