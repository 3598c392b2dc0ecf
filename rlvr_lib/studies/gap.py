"""The runs behind chapter 1: steps of bandits along and across the gap, steps for many prompts, training of networks.

Functions take numbers and return numbers; what a claim breaks on purpose is a keyword with the honest default. A *band*
is what Hoeffding's lemma allows the change of the log-odds to differ from <step, gap>.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import differential_evolution
from scipy.special import expit
from scipy.stats import binom, norm

from rlvr_lib.arguments import Reals, integer, open_unit, require
from rlvr_lib.responses import Responses, success_rate
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.adam import Adam
from rlvr_lib.testbeds.bandit import SoftmaxBandit, feature_range, log_odds_and_gap
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.scores import second_order
from rlvr_lib.testbeds.transformer import AttentionPolicy, TransformerTestbed, draw_problems
from rlvr_lib.testbeds.transformer.ensemble import train
from rlvr_lib.theory.advantages import group_advantages, power_gain
from rlvr_lib.theory.gap import gradient_gap, half_gain_step
from rlvr_lib.theory.groups import symmetric_group

PRINTED_STEP = 1 / (2 * (1 + 8 * 2**2))
"""[alignment]+ / (2 (L + 8 G^2)) over the alignment, for features in the unit ball: L = 1 and G = 2 at most."""
POINTS = np.geomspace(0.5, 100, 400)
"""Steps along the gap that are tried in search of one that keeps less than half of its gain, over ours."""


def unit(x: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "... d"]:
    """Vectors over their lengths."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Instances(NamedTuple):
    """Random log-linear policies, a row each: 8 responses, 4 features, one to four correct."""

    theta: Float[np.ndarray, "n d"]
    features: Float[np.ndarray, "n A d"]
    reward: Float[np.ndarray, "n A"]


def instances(count: int, seed: int) -> Instances:
    """``count`` of them, from ``SoftmaxBandit.random`` of the seeds from ``seed`` on."""
    drawn = [SoftmaxBandit.random(seed + k, correct=1 + k % 4) for k in range(integer("count", count, low=1))]
    rows = [(bandit.theta, bandit.features[0], bandit.reward[0]) for bandit in drawn]
    return Instances(*(np.stack(column) for column in zip(*rows, strict=True)))


class Runs(NamedTuple):
    """Steps of every instance: log-odds before and after, length, alignment with the gap, range of the features."""

    before: Float[np.ndarray, "steps n"]
    after: Float[np.ndarray, "steps n"]
    length: Float[np.ndarray, "steps n"]
    alignment: Float[np.ndarray, "steps n"]
    spread: Float[np.ndarray, "steps n"]

    @property
    def progress(self) -> Float[np.ndarray, "steps n"]:
        """The sum of <step, gap> up to each step."""
        return (self.length * self.alignment).cumsum(0)

    @property
    def band(self) -> Float[np.ndarray, "steps n"]:
        """The sum of diam^2 / 8 of squared lengths up to each step."""
        return (self.length**2 * self.spread**2).cumsum(0) / 8

    @property
    def change(self) -> Float[np.ndarray, "steps n"]:
        """How far the log-odds have come since the start."""
        return self.after - self.before[0]


Direction = float | str | Callable[[int], float]
Length = Callable[[Reals, Reals, int], Reals]


def half_gain_length(alignment: Reals, spread: Reals, step: int, multiple: float = 1.0) -> Reals:
    """``half_gain_step``, or a multiple of it."""
    return multiple * half_gain_step(alignment, spread)


def shrinking_length(alignment: Reals, spread: Reals, step: int) -> Reals:
    """0.3 (step + 1)^-0.6: not summable, but its squares are."""
    return np.full(np.shape(alignment), 0.3 * (step + 1) ** -0.6)


def follow(start: Instances, steps: int, direction: Direction, length: Length, seed: int = 0) -> Runs:
    """Steps of all instances at once.

    Args:
        direction: ``adam``, or the cosine between step and gap, random otherwise; or the cosine as a function of the
            step, counted from 0.
        length: of a step, from its alignment [n], the range of the features along it [n] and its number.
    """
    require(direction == "adam" or not isinstance(direction, str), "direction", direction, "adam or a cosine")
    theta, rng = start.theta, np.random.default_rng(seed)
    odds, gap = log_odds_and_gap(theta, start.features, start.reward)
    adam, rows = Adam(), []
    for k in range(integer("steps", steps, low=1)):
        if direction == "adam":
            w = unit(adam(gap))
        else:
            cosine, along = direction(k) if callable(direction) else float(direction), unit(gap)
            noise = rng.standard_normal(gap.shape)
            across = unit(noise - (noise * along).sum(-1, keepdims=True) * along)
            w = cosine * along + math.sqrt(1 - cosine**2) * across
        alignment, spread, before = (w * gap).sum(-1), feature_range(start.features, w), odds
        eta = length(alignment, spread, k)
        theta = theta + eta[:, None] * w
        odds, gap = log_odds_and_gap(theta, start.features, start.reward)
        rows.append((before, odds, eta, alignment, spread))
    return Runs(*(np.array(column) for column in zip(*rows, strict=True)))


def first_failures(
    features: Float[np.ndarray, "*n A"],
    reward: Float[np.ndarray, "*n A"],
    logits: Float[np.ndarray, "*n A"],
    points: Float[np.ndarray, " steps"] = POINTS,
) -> Float[np.ndarray, "*n"]:
    """The shortest step that keeps less than half of its gain, over the alignment: over our step for a range of two.

    ``features`` are those along the step, in [-1, 1]; where the alignment is negative it is taken the other way. The
    step is sought among ``points`` and interpolated between two; it is the last of them where none fails.
    """
    start, gap = log_odds_and_gap(np.zeros(1), features[..., None], reward, logits)
    eta = points * np.abs(gap)
    moved = (eta * np.sign(gap))[..., None] * features[..., None, :] + logits[..., None, :]
    after = log_odds_and_gap(np.zeros(1), features[..., None, :, None], reward[..., None, :], moved)[0]
    excess = (after - start[..., None]) / eta - np.abs(gap) / 2
    first = (excess < 0).argmax(-1)[..., None]
    low, high = (np.take_along_axis(excess, np.maximum(k, 0), -1)[..., 0] for k in (first - 1, first))
    near, far = points[np.maximum(first[..., 0] - 1, 0)], points[first[..., 0]]
    between = np.divide(low, low - high, out=np.ones_like(low), where=first[..., 0] > 0)
    return np.where((excess < 0).any(-1), near + between * (far - near), points[-1])


def unit_ball_failures(count: int, seed: int) -> Float[np.ndarray, " n"]:
    """``first_failures`` of random instances along their gap, their features scaled into the unit ball."""
    start = instances(count, seed)
    _, gap = log_odds_and_gap(start.theta, start.features, start.reward)
    scaled = start.features / np.linalg.norm(start.features, axis=-1).max(-1)[:, None, None]
    along = np.einsum("nad,nd->na", scaled, unit(gap))
    logits = np.einsum("nad,nd->na", start.features, start.theta)
    return first_failures(along, start.reward, logits)


def shortest_failure(seed: int, generations: int = 100, alignment: float = 0.02) -> float:
    """The least ``first_failures`` that an optimiser finds over features in the unit ball and probabilities.

    Two correct and two wrong responses; a step sees its features only along itself, so one dimension is enough.
    Policies whose alignment is below ``alignment`` are out of bounds, because rounding would decide there.
    """
    reward, points = np.array([1.0, 1.0, 0.0, 0.0]), np.geomspace(0.5, 4, 60)

    def ratio(drawn: Float[np.ndarray, "8 ..."]) -> Float[np.ndarray, "..."]:
        features, logits = np.moveaxis(drawn[:4], 0, -1), np.moveaxis(drawn[4:], 0, -1)
        gap = log_odds_and_gap(np.zeros(1), features[..., None], reward, logits)[1][..., 0]
        found = first_failures(features, np.broadcast_to(reward, features.shape), logits, points)
        return np.where(np.abs(gap) < alignment, points[-1], found)

    bounds = [(-1.0, 1.0)] * 4 + [(-4.0, 4.0)] * 4
    found = differential_evolution(
        ratio,
        bounds,
        rng=integer("seed", seed, low=0),
        maxiter=generations,
        popsize=8,
        tol=0,
        polish=False,
        vectorized=True,
        updating="deferred",
    )
    return float(found.fun)


class Batches(NamedTuple):
    """One step on the mean of several prompts, batch by batch, as their first prompt sees it.

    Attributes:
        overlap: sum over the others of their squared gradients along the prompt's own, over its own squared gradient.
        alignment: of the unit step with the prompt's gap.
        spread: range of the prompt's features along the step.
        change: of its log-odds by a step of ``length``.
    """

    overlap: Float[np.ndarray, " n"]
    alignment: Float[np.ndarray, " n"]
    spread: Float[np.ndarray, " n"]
    change: Float[np.ndarray, " n"]
    length: float

    def by_overlap(self, bins: int) -> Float[np.ndarray, "3 bins"]:
        """Median overlap, share of prompts harmed, and the share that the normal law predicts, from few to many."""
        parts = np.array_split(np.argsort(self.overlap), bins)
        predicted = norm.sf(1 / np.sqrt(self.overlap))
        rows = [(np.median(self.overlap[k]), (self.change[k] < 0).mean(), predicted[k].mean()) for k in parts]
        return np.array(rows).T


def shared_steps(
    count: int, seed: int, length: float = 0.02, prompts: int = 16, weighted: bool = True, signed: bool = True
) -> Batches:
    """Steps along the gradient of the mean success of prompts whose gradients have random signs.

    Features are Gaussian, in 4 to 32 dimensions, theta is 0 and the logits are random offsets, so that prompts are
    easy and hard and the sign of a prompt's features is independent of all else. ``weighted`` False leaves the lengths
    of the gradients out of the overlap; ``signed`` False gives each prompt the sign that agrees with the first.
    """
    rng, parts = np.random.default_rng(seed), []
    for dimension in (4, 8, 16, 32):
        shape = (max(1, integer("count", count, low=1) // 4), prompts, 4)
        features, logits = rng.standard_normal((*shape, dimension)), 2 * rng.standard_normal(shape)
        reward = np.broadcast_to(np.arange(4) < 2, shape).astype(float)
        theta = np.zeros(dimension)
        odds, gap = log_odds_and_gap(theta, features, reward, logits)
        gradient = (expit(odds) * expit(-odds))[..., None] * gap
        along = np.einsum("nqd,nd->nq", gradient, unit(gradient[:, 0]))
        if not signed:
            gradient = np.where(along < 0, -1, 1)[..., None] * gradient
        own = np.linalg.norm(gradient, axis=-1)
        cosine = np.abs(along) / own
        share = own / own[:, :1] if weighted else np.ones_like(own)
        w = unit(gradient.mean(1))
        moved = log_odds_and_gap(length * w, features[:, 0], reward[:, 0], logits[:, 0])[0]
        overlap = ((cosine * share)[:, 1:] ** 2).sum(1)
        parts.append((overlap, (w * gap[:, 0]).sum(-1), feature_range(features[:, 0], w), moved - odds[:, 0]))
    overlap, alignment, spread, change = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Batches(overlap, alignment, spread, change, length)


def group_moments(
    r: Responses, direction: Float[np.ndarray, " d"], estimator: str, group_size: int
) -> tuple[float, float]:
    """Variance of one group's update along a direction, and the largest size it can have."""
    J, along = success_rate(r), r.score @ direction
    of = {outcome: r.prob * (r.reward == outcome) for outcome in (0, 1)}
    mean = {k: (weight @ along) / weight.sum() for k, weight in of.items()}
    spread = {k: (weight @ along**2) / weight.sum() - mean[k] ** 2 for k, weight in of.items()}
    correct = np.arange(group_size + 1)
    pattern = (np.arange(group_size) < correct[:, None]).astype(float)
    advantage = group_advantages(pattern, estimator)
    chance = binom.pmf(correct, group_size, J)
    outcome = pattern.astype(int)
    means = (advantage * np.where(outcome, mean[1], mean[0])).mean(1)
    variances = (advantage**2 * np.where(outcome, spread[1], spread[0])).sum(1) / group_size**2
    variance = chance @ (variances + means**2) - (chance @ means) ** 2
    return float(variance), float(np.abs(advantage).mean(1).max() * np.abs(along[r.prob > 0]).max())


def sampled_update_error(
    testbed: QwenTestbed | TransformerTestbed,
    prompt: int,
    estimator: str,
    groups: int,
    seed: int,
    false_alarm: float,
    group_size: int = 8,
    power: float | None = None,
    **settings: Any,
) -> float:
    """How far one step of the GRPO loop, on many sampled groups of a prompt, lies from its gain times the gap.

    Along the gap, over the radius of Bernstein's inequality with the exact variance of a group's update: at most 1 but
    for ``false_alarm``. ``power`` is that of the standard deviation in the gain, by default the estimator's own;
    ``settings`` are those of the loop.
    """
    exact = testbed.enumerate(prompt)
    steps: list[grpo.Step] = []
    gap = gradient_gap(exact)
    w, J, rate = unit(gap), success_rate(exact), 1e-3
    run = grpo.GRPO(group_size=group_size, estimator=estimator, learning_rate=rate, clip=None, **settings)
    prompts = [prompt] * integer("groups", groups, low=1)
    grpo.train(testbed.at(testbed.theta), prompts, run, 1, seed, on_step=steps.append)
    made = float((steps[0].after - steps[0].before).double().numpy() @ w) / rate
    if estimator in ("reinforce", "rloo") and power is None:
        gain = J * (1 - J)
    else:
        gain = float(power_gain(J, {"grpo": 1.0}.get(estimator, 0.0) if power is None else power, group_size))
    variance, largest = group_moments(exact, w, estimator, group_size)
    log_term = math.log(2 / float(open_unit("false_alarm", false_alarm)))
    reach = 2 * largest * log_term / (3 * groups)
    return abs(made - gain * float(np.linalg.norm(gap))) / (reach + math.sqrt(2 * variance * log_term / groups))


def farthest_update(
    qwens: Sequence[QwenTestbed],
    prompts: Sequence[int],
    estimators: Sequence[str],
    groups: int,
    seed: int,
    false_alarm: float,
    **settings: Any,
) -> float:
    """The largest ``sampled_update_error`` of estimators on checkpoints, a prompt each; ``false_alarm`` is for all."""
    pairs = itertools.product(enumerate(zip(qwens, prompts, strict=True)), estimators)
    rate = false_alarm / len(qwens) / len(estimators)
    return max(sampled_update_error(*own, kind, groups, seed + k, rate, **settings) for (k, own), kind in pairs)


class Steps(NamedTuple):
    """Steps of a training run: log-odds before and after, <step, gap>, curvature along the step at its start, cosine.

    The curvature is that of the log-odds per unit of duration: the step is taken as one unit.
    """

    before: Float[np.ndarray, "..."]
    after: Float[np.ndarray, "..."]
    gained: Float[np.ndarray, "..."]
    curvature: Float[np.ndarray, "..."]
    cosine: Float[np.ndarray, "..."]

    @property
    def moved(self) -> Bool[np.ndarray, "..."]:
        """Steps that are not zero, as they are where the rewards of every group agree."""
        return self.cosine != 0

    @property
    def curved(self) -> Float[np.ndarray, "..."]:
        """Change less <step, gap>, over half of the curvature: 1 where it does not change along the step."""
        found, half = self.after - self.before - self.gained, self.curvature / 2
        return np.divide(found, half, out=np.zeros_like(found), where=half != 0)

    def foreseen(self, factor: float = 1.0, sign: float = 1.0) -> Bool[np.ndarray, "..."]:
        """Steps whose change less <step, gap> is half to one and a half times what the curvature at the start says.

        ``factor`` multiplies that curvature, and ``sign`` the <step, gap>.
        """
        said = factor * self.curvature / 2
        error = np.abs(self.after - self.before - sign * self.gained - said)
        return self.moved & (error <= np.abs(said) / 2)

    def share_foreseen(self, factor: float = 1.0, sign: float = 1.0) -> Reals:
        """The share of the steps that moved which are ``foreseen``, over the first axis."""
        return self.foreseen(factor, sign).sum(0) / np.maximum(self.moved.sum(0), 1)


def transformer_steps(runs: int, steps: int, seed: int, rate: float = 8.0) -> Steps:
    """Sampled GRPO on the synthetic transformer, [steps, runs], each run on 24 prompts of its own.

    Log-odds are those of their mean success; groups of 16, chains of 2, 4 and 8 links over S3.
    """
    seeds = [seed + k for k in range(integer("runs", runs, low=1))]
    policy, horizons = AttentionPolicy(12), (2, 4, 8)
    problems = draw_problems(symmetric_group(3), horizons, 8, [[s, 1] for s in seeds], names=12)
    theta = np.tile(policy.initial(1.5).numpy(), (runs, 1))
    record = train(policy, theta, problems, steps, rate, "grpo", 16, seeds, keep_parameters=True)
    places = torch.tensor(record.snapshots)

    def odds(p: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return torch.logit(policy.success(p["theta"], problems).mean(-1))

    rows = []
    for here, there in itertools.pairwise(places):
        (value, slope), (_, second) = second_order(odds, {"theta": here}, {"theta": there - here})
        leaf = here.clone().requires_grad_()
        (gap,) = torch.autograd.grad(odds({"theta": leaf}).sum(), leaf)
        cosine = slope / (gap.norm(dim=-1) * (there - here).norm(dim=-1)).clamp(min=1e-300)
        rows.append([x.detach().numpy() for x in (value, odds({"theta": there}), slope, second, cosine)])
    return Steps(*(np.array(column) for column in zip(*rows, strict=True)))


VARIANTS = {
    "SGD": grpo.GRPO(learning_rate=0.02),
    "no deviation": grpo.GRPO(learning_rate=0.04, estimator="dr_grpo"),
    "weights 1/|o|": grpo.GRPO(learning_rate=0.08, length_normalize=True),
    "Adam": grpo.GRPO(learning_rate=5e-4, optimizer="adam"),
    "reused batches": grpo.GRPO(learning_rate=0.01, passes=2, minibatches=2),
}
"""Ways to step on the Qwen: GRPO in groups of 16."""


def qwen_steps(
    qwen: QwenTestbed, prompts: Sequence[int], settings: grpo.GRPO, steps: int, seed: int, tracked: int = 1
) -> Steps:
    """GRPO on a Qwen, [steps, tracked]: exact log-odds, gap and curvature of the first prompts before each step."""
    rows = []

    def record(step: grpo.Step) -> None:
        before, after = step.before.double().numpy(), step.after.double().numpy()
        for prompt in prompts[:tracked]:
            start, u = qwen.at(before), after - before
            value, slope, second = start.along(prompt, u, of="log_odds")
            size = np.linalg.norm(start.log_odds_and_gap(prompt)[1]) * np.linalg.norm(u)
            rows.append((value, start.odds_along(prompt, u, 1.0), slope, second, slope / size if size else 0.0))

    grpo.train(qwen.at(qwen.theta), prompts, settings, steps, seed, on_step=record)
    return Steps(*np.array(rows).reshape(steps, tracked, 5).transpose(2, 0, 1))


def all_variants(
    qwens: Sequence[QwenTestbed], prompts: Sequence[Sequence[int]], steps: int, seed: int, tracked: int = 2
) -> dict[str, Steps]:
    """``qwen_steps`` of every variant on every checkpoint and its prompts, [steps, checkpoints, tracked]."""
    found = {}
    for name, settings in VARIANTS.items():
        runs = [
            qwen_steps(q, own, settings, steps, seed + k, tracked)
            for k, (q, own) in enumerate(zip(qwens, prompts, strict=True))
        ]
        found[name] = Steps(*(np.stack(column, 1) for column in zip(*runs, strict=True)))
    return found


def careful_ascent(
    qwen: QwenTestbed, prompt: int, steps: int, factor: float = 2.0, longest: float = 1.0
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Log-odds and progress of exact steps along a prompt's gap, each chosen from the curvature at its start only.

    A step has the length alignment / (``factor`` x curvature), and a first-order gain of at most ``longest`` nats.
    """
    odds, progress = [], [0.0]
    for _ in range(integer("steps", steps, low=1)):
        value, gap = qwen.log_odds_and_gap(prompt)
        size = float(np.linalg.norm(gap))
        curvature = abs(qwen.along(prompt, gap / size, of="log_odds")[2])
        eta = min(size / (factor * curvature), longest / size)
        odds.append(value)
        progress.append(progress[-1] + eta * size)
        qwen = qwen.at(qwen.theta + eta * gap / size)
    return np.array([*odds, qwen.log_odds_and_gap(prompt)[0]]), np.array(progress)
