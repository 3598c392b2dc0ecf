"""The runs of chapter 2 on the synthetic transformer: critical steps along the gap, and training on both sides of them.

Chains of T permutations, right when the last product is. Three kinds of attention: with *own logits* no two steps of a
chain share a parameter; with a *relative bias* all steps share one; with *crowded names*, 33 names in 16 dimensions, no
logit moves alone. Rows are independent: prompts, or the seeds of training runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from rlvr_lib.arguments import Reals, integer, open_unit, positive, require
from rlvr_lib.studies.threshold import power_law, training_boundary
from rlvr_lib.testbeds.lines import Point
from rlvr_lib.testbeds.scores import second_order
from rlvr_lib.testbeds.transformer import AttentionPolicy, TransformerTestbed, WordProblems, draw_problems
from rlvr_lib.testbeds.transformer.ensemble import train
from rlvr_lib.theory.advantages import Estimator, estimator_gain
from rlvr_lib.theory.groups import symmetric_group
from rlvr_lib.theory.threshold import critical_learning_rate, critical_step, first_return_step

KINDS = ("own logits", "relative bias", "crowded names")
ESTIMATORS: tuple[Estimator, ...] = ("reinforce", "grpo")
LENGTHS = np.array([4, 8, 16, 32])
NAMES, WIDTH = 33, 16
GROUP_SIZE, BATCH = 16, 8
OTHER_SEEDS = 2**32
"""Added to a seed for draws that no run uses: a notebook's seeds are smaller."""


class Starts(NamedTuple):
    """Policies on rows of prompts, and the unit direction of the gap of each row's mean success."""

    policy: AttentionPolicy
    problems: WordProblems
    theta: Float[torch.Tensor, "rows d"]
    direction: Float[torch.Tensor, "rows d"]

    def moved(self, step: Float[np.ndarray, " rows"]) -> Starts:
        """After steps of these lengths along the directions, which stay."""
        return self._replace(theta=self.theta + torch.as_tensor(step)[:, None] * self.direction)

    def rows(self, index: Int[np.ndarray, " n"]) -> Starts:
        """The rows with these numbers."""
        policy, problems = self.policy, self.problems
        if policy.embedding is not None and policy.embedding.ndim == 3:
            policy = AttentionPolicy(NAMES, embedding=policy.embedding[index])
        problems = WordProblems(problems.group, problems.horizon, problems.name[index], problems.element[index])
        return Starts(policy, problems, self.theta[index], self.direction[index])

    def log_success(self, theta: Float[torch.Tensor, "rows d"] | None = None) -> Float[torch.Tensor, " rows"]:
        """Log of each row's mean success."""
        return self.policy.success(self.theta if theta is None else theta, self.problems).mean(-1).log()

    @property
    def here(self) -> Point:
        """log J, its slope and its curvature along the direction, [rows]."""
        self.log_success()  # what the problems cache may not be made inside a transform
        value, direction = {"theta": self.theta}, {"theta": self.direction}
        (log_success, slope), (_, second) = second_order(lambda p: self.log_success(p["theta"]), value, direction)
        return Point(log_success.numpy(), slope.numpy(), -second.numpy())

    @property
    def predicted(self) -> Float[np.ndarray, " rows"]:
        """The predicted critical steps."""
        here = self.here
        return critical_step(here.success, here.gap, here.curvature)


def _names(seed: int | Sequence[int]) -> Float[np.ndarray, "names width"]:
    """The first table of Gaussian names each of which is closest to itself, so that a chain can be right for sure."""
    rng = np.random.default_rng(seed)
    while True:
        names = rng.standard_normal((NAMES, WIDTH)) / np.sqrt(WIDTH)
        product = names @ names.T
        if (product.argmax(1) == np.arange(NAMES)).all():
            return names


def starts(
    kind: str,
    length: int,
    rows: int,
    seed: int,
    success: float = 0.5,
    batch: int = 1,
    degree: int = 4,
    own_tables: bool = False,
) -> Starts:
    """Multiples of the initial parameters at which every row has this mean success, by bisection.

    Args:
        kind: one of ``KINDS``.
        length: T, at most the 33 names.
        batch: prompts of a row.
        degree: the permutations are of so many letters.
        own_tables: a table of crowded names for each row, in place of one for all.
    """
    require(kind in KINDS, "kind", kind, f"one of {', '.join(KINDS)}")
    rows, success = integer("rows", rows, low=1), float(open_unit("success", success))
    relative, embedding = kind == "relative bias", None
    if kind == "crowded names":
        tables = [_names((seed, row)) for row in range(rows)] if own_tables else [_names(seed)]
        embedding = np.stack(tables) if own_tables else tables[0]
    policy = AttentionPolicy(NAMES, "relative" if relative else "content", embedding=embedding)
    seeds = [(seed, int(length), row) for row in range(rows)]
    group = symmetric_group(degree)
    problems = draw_problems(group, (int(length),), batch, seeds, names=NAMES, consecutive=relative)
    low, unit = torch.full((rows, 1), -3.0, dtype=torch.float64), policy.initial(1.0)
    high = low + 2**16
    for _ in range(60):
        middle = (low + high) / 2
        above = policy.success(middle * unit, problems).mean(-1, keepdim=True) >= success
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    start = Starts(policy, problems, high * unit, high * unit)
    missed = (start.log_success().exp() - success).abs().max().item()
    require(missed < 1e-6 * (1 - success), "success", success, "one that each row reaches")
    gradient = torch.func.grad(lambda theta: start.log_success(theta).sum())(start.theta)
    return start._replace(direction=gradient / gradient.norm(dim=-1, keepdim=True))


LENGTH_STARTS = {
    "own logits, same success": ("own logits", 0.9 + 0 * LENGTHS),
    "relative bias, same success": ("relative bias", 0.9 + 0 * LENGTHS),
    "relative bias, same step accuracy": ("relative bias", 0.99**LENGTHS),
}


def exponents_of_length(
    prompts: int, seed: int, exchanged: bool = False, swapped: bool = False
) -> Float[np.ndarray, "2 3 2"]:
    """Exponents of T in predicted rates: found and on chains that share as many parameters, by start and estimator.

    With the token error e of the same success, a chain's curvature is T e (1 - e) where tokens share their parameter
    and e (1 - e) where they do not.

    Args:
        prompts: whose median curvature is taken, at each length.
        exchanged: sigma in place of sigma^2 for REINFORCE, and the reverse for GRPO; not on the chains.
        swapped: chains that share where attention does not, and the reverse.
    """
    found = []
    for kind, success in LENGTH_STARTS.values():
        here = [starts(kind, T, prompts, seed, J).here for T, J in zip(LENGTHS, success, strict=True)]
        error = -np.expm1(np.log(success) / LENGTHS)
        shared = LENGTHS if (kind == "relative bias") != swapped else 1
        for curvature in (np.array([np.median(place.curvature) for place in here]), shared * error * (1 - error)):
            found.append([critical_learning_rate(success, curvature, e) for e in ESTIMATORS])
    slopes = np.polyfit(np.log(LENGTHS), np.log(found).reshape(-1, len(LENGTHS)).T, 1)[0]
    both = slopes.reshape(3, 2, 2).swapaxes(0, 1)
    return np.stack([both[0, :, ::-1], both[1]]) if exchanged else both


def exponents_of_failure(kind: str, prompts: int, seed: int, constant: str | None = None) -> Float[np.ndarray, " 2"]:
    """Exponents in 1 - J, from 1e-4 to .1, of the curvature and of the predicted step: T = 8, medians over prompts.

    ``constant`` keeps the ``curvature``, or the factor 1 - J of the ``slope``, at its value where J is smallest.
    """
    require(constant in (None, "curvature", "slope"), "constant", constant, "curvature, slope or None")
    failures = np.geomspace(1e-4, 0.1, 7)
    here = [starts(kind, 8, prompts, seed, 1 - failure).here for failure in failures]
    curvature = np.array([(here[-1] if constant == "curvature" else place).curvature for place in here])
    success = 1 - (failures[-1:] if constant == "slope" else failures)
    step = critical_step(success[:, None], np.array([place.gap for place in here]), curvature)
    return np.array([power_law(failures, np.median(row, 1)).exponent for row in (curvature, step)])


def first_return(start: Starts, farthest: float = 100.0) -> Float[np.ndarray, " rows"]:
    """The measured critical steps; infinite where success has not returned at ``farthest`` times the predicted ones."""
    predicted, level = start.predicted, start.log_success()
    gain = lambda step: (start.moved(step).log_success() - level).numpy()  # noqa: E731
    return first_return_step(gain, 0.1 * predicted, farthest * predicted, growth=1.15, tolerance=1e-4)


def guaranteed_over_measured(
    start: Starts, measured: Float[np.ndarray, " rows"], estimator: Estimator, gain_power: float = 1.0, points: int = 17
) -> Float[np.ndarray, " n"]:
    """The guaranteed over the measured rate of the training loop's expected update, where success returns.

    Args:
        measured: the measured steps of these starts.
        gain_power: power of the estimator's gain in the guaranteed rate.
        points: where the curvature is taken on the way, beside its means between neighbours.
    """
    seen = np.flatnonzero(np.isfinite(measured))
    start, step = start.rows(seen), measured[seen]
    way = [start.moved(share * step).here for share in np.linspace(0, 1, points)]
    between = -np.diff([place.slope for place in way], axis=0) * (points - 1) / step
    largest = np.concatenate([[place.curvature for place in way], between]).max(0)
    return _step(start, largest, estimator, gain_power).norm(dim=-1).numpy() / step


def ridge_ratios(
    start: Starts,
    measured: Float[np.ndarray, " rows"],
    distance: float = 1e-3,
    estimator: Estimator | None = None,
    gain_power: float = 1.0,
    old_curvature: bool = False,
) -> Float[np.ndarray, " n"]:
    """The measured over the predicted step, or the reverse for rates, next to the maxima of log J before its returns.

    Args:
        measured: the measured steps of these starts.
        distance: how far before the maximum, as a share of the way to it.
        estimator: of the training loop's expected update, for learning rates; None for steps.
        gain_power: power of its gain in the predicted rate.
        old_curvature: predict with the curvature at the start of the way.
    """
    seen = np.flatnonzero(np.isfinite(measured))
    start, end = start.rows(seen), measured[seen]
    rise = lambda step: torch.func.jvp(start.log_success, (start.moved(step).theta,), (start.direction,))[1].numpy()  # noqa: E731
    top = first_return_step(rise, end / 40, end, tolerance=1e-7)
    seen = np.flatnonzero(np.isfinite(top))
    start, top = start.rows(seen), top[seen]
    before = start.moved((1 - distance) * top)
    here, curvature = before.here, (start if old_curvature else before).here.curvature
    returned = first_return(before, 4.0)
    if estimator is None:
        return returned / critical_step(here.success, here.gap, curvature)
    return (_step(before, curvature, estimator, gain_power) * before.direction).sum(-1).numpy() / returned


def _step(start: Starts, curvature: np.ndarray, estimator: Estimator, gain_power: float) -> torch.Tensor:
    """The training loop's expected step at the learning rate that this curvature predicts."""
    success, size = start.here.success, GROUP_SIZE if estimator == "grpo" else None
    rate = critical_learning_rate(success, curvature, estimator, group_size=size)
    rate = rate * estimator_gain(success, estimator, size) ** (1 - gain_power)
    options: dict[str, Any] = {"estimator": estimator, "group_size": GROUP_SIZE}
    record = train(start.policy, start.theta.numpy(), start.problems, 1, rate[None], **options)
    return torch.tensor(record.theta) - start.theta


class Trained(NamedTuple):
    """Success over the last quarter of training, at multiples of each length's predicted rate."""

    predicted: Float[np.ndarray, " lengths"]
    multiples: Float[np.ndarray, " rates"]
    final: Float[np.ndarray, "lengths seeds rates"]

    @property
    def boundary(self) -> Float[np.ndarray, "lengths seeds"]:
        """The training boundaries, over the predicted rates."""
        return training_boundary(self.multiples, self.final)


def trained(
    kind: str,
    estimator: Estimator,
    multiples: Reals,
    seeds: int,
    steps: int,
    seed: int,
    sampled: bool = True,
    lengths: Iterable[int] = LENGTHS,
) -> Trained:
    """Training from success one half; every seed has a table of names, eight prompts and groups of sixteen of its own.

    The predicted rate is that of the median curvature of 32 other seeds, so that it owes nothing to the runs.

    Args:
        estimator: REINFORCE subtracts the group's mean.
        multiples: the learning rates, over the predicted one.
        steps: at least 4.
        sampled: False for expected updates, which have no noise.
    """
    require(estimator in ESTIMATORS, "estimator", estimator, " or ".join(ESTIMATORS))
    multiples, steps = positive("multiples", multiples), integer("steps", steps, low=4)
    first, runs = seed + 10**6 * ESTIMATORS.index(estimator), seeds * len(multiples)
    rates, finals = [], []
    for T in lengths:
        draw = partial(starts, kind, T, batch=BATCH, degree=3, own_tables=True)
        curvature = np.median(draw(32, seed + OTHER_SEEDS).here.curvature)
        rates.append(critical_learning_rate(0.5, curvature, estimator, group_size=GROUP_SIZE))
        start = draw(seeds, seed).rows(np.repeat(np.arange(seeds), len(multiples)))
        record = train(
            start.policy,
            start.theta.numpy(),
            start.problems,
            steps,
            np.broadcast_to(np.tile(rates[-1] * multiples, seeds), (steps, runs)),
            estimator="grpo" if estimator == "grpo" else "dr_grpo",
            group_size=GROUP_SIZE,
            seeds=range(first, first + runs) if sampled else None,
            record_every=max(1, steps // 12),
        )
        finals.append(record.success[record.iteration > 0.75 * steps, :, 0].mean(0).reshape(seeds, -1))
    return Trained(np.array(rates), multiples, np.array(finals))


def short_chain(kind: str, length: int, seed: int) -> tuple[TransformerTestbed, Float[np.ndarray, " d"]]:
    """One prompt of at most three or four steps over S3, few enough to enumerate, and the unit direction of its gap."""
    embedding = np.random.default_rng(seed).standard_normal((6, 3)) / 4 if kind == "crowded names" else None
    policy = AttentionPolicy(6, "relative" if kind == "relative bias" else "content", embedding=embedding)
    problems = draw_problems(symmetric_group(3), (length,), 1, seed, names=6, consecutive=kind == "relative bias")
    testbed = TransformerTestbed(policy, problems, policy.initial(1.0))
    gap = testbed.log_odds_and_gap(0)[1]
    return testbed, gap / np.linalg.norm(gap)
