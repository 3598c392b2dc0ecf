"""Groups of responses spread over processes: their scores, and their success rate along an update of the model.

Each process holds some of the responses of one global list, group after group, and knows all rewards; a group may lie
on two processes. Sums over groups are taken where the responses are and added up over processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from rlvr_lib.arguments import require
from rlvr_lib.theory.baseline import baseline_of_others
from rlvr_lib.trl.scores import Sampled, Scored, log_probs, score_sums, still
from rlvr_lib.trl.step import Along, Groups, Scores

PREFIX = "rlvr/"
SMALLEST_CHANGE, LARGEST_CHANGE, CHANGE = 0.03, 0.3, 0.1
ROWS = 64


class RunFailed(RuntimeError):
    """A run that cannot go on; the message says why, and checkpoints written before are whole."""


def total_reward(each: Float[torch.Tensor, "N K"], weights: Float[torch.Tensor, " K"]) -> Float[torch.Tensor, " N"]:
    """Sum of the K rewards of each response with their weights, as TRL takes it; NaN where there is none of them."""
    return torch.where(each.isnan().all(1), torch.nan, (each * weights.to(each.device)).nansum(1))


def success_of(reward: Float[torch.Tensor, " N"], threshold: float | None) -> Float[torch.Tensor, " N"]:
    """1 for success, 0 for failure, NaN where there is no reward."""
    missing = reward.isnan()
    if threshold is None:
        other = reward[~missing & (reward != 0) & (reward != 1)]
        allowed = "0 or 1, or success_threshold given: the gradient gap compares successes with failures"
        require(len(other) == 0, "reward", other[:1].tolist(), allowed)
        return reward.double()
    return torch.where(missing, torch.nan, (reward >= threshold).double())


def counted(success: Float[torch.Tensor, " N"], group_size: int) -> Groups:
    """Rewards of all groups, also of those with fewer than two."""
    groups = success.view(-1, group_size)
    return Groups((~groups.isnan()).sum(1).double().cpu().numpy(), groups.nansum(1).double().cpu().numpy())


@dataclass(frozen=True)
class Rollouts:
    """Responses of this process, and the success of those of all processes.

    Attributes:
        sampled: B responses; a range of that length where no model of ours reads them.
        success: [N], of all processes in global order; NaN where there is no reward.
        first: global number of the first response of this process.
        group_size: G; N / G groups.
        advantage: [B], what the trainer multiplies with.
        temperature: of the softmax that sampled them.
        add: adds a tensor up over processes; of one process when not given.
    """

    sampled: Sampled | range
    success: Float[torch.Tensor, " N"]
    first: int
    group_size: int
    advantage: Float[torch.Tensor, " B"]
    temperature: float = 1.0
    add: Callable[[torch.Tensor], torch.Tensor] = torch.clone

    @property
    def prompts(self) -> int:
        """P, groups on all processes."""
        return len(self.success) // self.group_size

    @property
    def local_success(self) -> Float[torch.Tensor, " B"]:
        """Success of this process's responses."""
        return self.success[self.first : self.first + len(self.sampled)]

    @cached_property
    def group(self) -> Int[torch.Tensor, " B"]:
        """Number of the group of each response of this process."""
        return (self.first + torch.arange(len(self.sampled), device=self.success.device)) // self.group_size

    @cached_property
    def every_group(self) -> Groups:
        """Rewards of all groups, also of those with fewer than two."""
        return counted(self.success, self.group_size)

    @cached_property
    def kept(self) -> np.ndarray:
        """Numbers of the groups with at least two rewards."""
        return np.flatnonzero(self.every_group.count >= 2)

    def groups(self) -> Groups:
        """Rewards of the groups that have at least two."""
        require(len(self.kept) > 0, "reward", "no group with two rewards", "given for two responses of a group")
        return self.every_group.part(self.kept)

    def of_group(self, each: np.ndarray) -> Float[torch.Tensor, " B"]:
        """The number of its group for each response of this process, from [P]."""
        return torch.as_tensor(each, device=self.success.device)[self.group]

    def centred(self) -> Float[torch.Tensor, " B"]:
        """(r - mean of the group) / (G - 1), the weights of an unbiased gradient of the group's J; 0 for no reward."""
        count, correct = self.of_group(self.every_group.count), self.of_group(self.every_group.correct)
        return torch.nan_to_num((self.local_success - correct / count.clamp(min=1)) / (count - 1).clamp(min=1))

    def mean_of_others(self) -> Float[torch.Tensor, " B"]:
        """Mean reward of the other responses of each response's group."""
        count, correct = self.of_group(self.every_group.count), self.of_group(self.every_group.correct)
        return (correct - torch.nan_to_num(self.local_success)) / (count - 1).clamp(min=1)

    def sum_by_group(self, value: Float[torch.Tensor, " B"]) -> Float[np.ndarray, " P"]:
        """Sum over each group, on all processes."""
        zeros = torch.zeros(self.prompts, dtype=torch.float64, device=value.device)
        return self.add(zeros.index_add(0, self.group, value.double())).cpu().numpy()

    def pooled_baseline(self, model: nn.Module, scored: Scored) -> Float[torch.Tensor, " B"]:
        """b* from the other groups' responses, as ``pooled_baselines``; of a single group the mean of the others."""
        if self.prompts == 1:
            return self.mean_of_others()
        none = torch.zeros(0, len(self.sampled), device=self.success.device)
        _, energy, _ = score_sums(model, read_by_a_model(self), none, scored, self.temperature)
        known = torch.where(self.local_success.isnan(), 0.0, energy.double())
        correct, total = self.sum_by_group(known * self.local_success.nan_to_num()), self.sum_by_group(known)
        mean = self.every_group.correct / np.maximum(self.every_group.count, 1)
        return self.of_group(baseline_of_others(correct, total, mean))


def read_by_a_model(rollouts: Rollouts) -> Sampled:
    """The responses that a model of ours reads."""
    if isinstance(rollouts.sampled, range):
        raise TypeError("these rollouts have no tokens, so no model can read them")
    return rollouts.sampled


def score_groups(
    model: nn.Module, rollouts: Rollouts, scored: Scored, advantage: torch.Tensor, baseline: torch.Tensor | None
) -> Scores:
    """What ``Scores`` holds, for the groups of all processes.

    Args:
        model, rollouts, scored: the responses, and the parameters chosen in the model.
        advantage: [B], what the trainer multiplies the score of each response with, up to a common factor.
        baseline: [B], the one in use; None: the mean of the other responses of the group.
    """
    success = rollouts.local_success
    member = nn.functional.one_hot(rollouts.group, rollouts.prompts).T.float()
    weights = torch.cat([member * rollouts.centred().float(), member * advantage.float() / rollouts.group_size])
    sums, energy, _ = score_sums(model, read_by_a_model(rollouts), weights, scored, rollouts.temperature)
    energy = energy.double()
    in_use = rollouts.mean_of_others() if baseline is None else baseline
    by_group = (energy * success, energy * (1 - success), energy * (success - in_use) ** 2)
    energies = [rollouts.sum_by_group(torch.where(success.isnan(), 0.0, value)) for value in by_group]
    grams = [(part.double() @ part.double().T).cpu().numpy() for part in rollouts.add(sums).chunk(2)]
    return Scores(rollouts.every_group, *energies, *grams).part(rollouts.kept)


class Move:
    """An update of parameters, which can be gone along and shortened; ``before`` has copies of what they were."""

    def __init__(self, parameters: list[torch.Tensor], before: list[torch.Tensor]) -> None:
        self.parameters, self.before = parameters, [value.detach() for value in before]
        self.after = [value.detach().clone() for value in parameters]
        squares = [(b - a).double().square().sum() for a, b in zip(self.before, self.after, strict=True)]
        self.length = float(torch.stack(squares).sum().sqrt())

    @torch.no_grad()
    def to(self, times: float) -> None:
        """Go to the parameters before, plus this many times the update."""
        for value, before, after in zip(self.parameters, self.before, self.after, strict=True):
            value.copy_(before + times * (after - before))

    @torch.no_grad()
    def back(self) -> None:
        """Restore the parameters after the update, bit by bit."""
        for value, after in zip(self.parameters, self.after, strict=True):
            value.copy_(after)


def along_move(
    model: nn.Module, rollouts: Rollouts, move: Move, learning_rate: float, distance: float | None = None
) -> tuple[Along | None, float]:
    """Derivatives of each prompt's success rate along an update, at the parameters before it; None if it moves nothing.

    By central differences of log-probabilities at a distance, returned too, at which they change by about a tenth of a
    nat: small against the curvature, large against rounding. Parameters are restored bit by bit.

    Args:
        model, rollouts: the model whose parameters ``move`` holds, and the responses.
        move, learning_rate: the update, and what made it.
        distance: of the first trial; the length of the update when not given.
    """
    sampled = read_by_a_model(rollouts)
    parts = [sampled.rows(slice(start, start + ROWS)) for start in range(0, len(sampled), ROWS)]

    def read() -> torch.Tensor:
        with still(model):
            return torch.cat([log_probs(model, part, rollouts.temperature).double() for part in parts])

    return along_read(read, rollouts, move, learning_rate, distance)


def along_read(
    read: Callable[[], torch.Tensor],
    rollouts: Rollouts,
    move: Move,
    learning_rate: float,
    distance: float | None = None,
) -> tuple[Along | None, float]:
    """As ``along_move``, from a function that returns the log-probabilities [B] at the parameters as they are."""

    def at(times: float) -> torch.Tensor:
        move.to(times)
        with torch.no_grad():
            return read().double()

    times = 1.0 if distance is None else distance / move.length
    try:
        middle = at(0.0)
        for _ in range(8):
            ahead = at(times)
            change = float((rollouts.add((ahead - middle).square().sum()) / len(rollouts.success)).sqrt())
            if SMALLEST_CHANGE <= change <= LARGEST_CHANGE or change == 0:
                break
            times *= min(max(CHANGE / change, 1e-3), 1e3) if np.isfinite(change) else 1e-3
        behind = at(-times)
    finally:
        move.back()
    if change == 0:
        return None, move.length
    step, weight = times * move.length, rollouts.centred()
    slope, second = (ahead - behind) / (2 * step), (ahead - 2 * middle + behind) / step**2
    terms = torch.stack([slope, second + slope**2])
    mean, bend = (rollouts.sum_by_group(weight * value)[rollouts.kept] for value in terms)
    return Along(rollouts.groups(), mean, bend, _covariance(rollouts, terms), move.length, learning_rate), step


def _covariance(rollouts: Rollouts, terms: Float[torch.Tensor, "2 B"]) -> Float[np.ndarray, "3 3"]:
    """Of the means over prompts of r and of cov(r, term), when responses are sampled again and prompts kept.

    The covariance of r and x is the mean of (r - E r) (x - E x), so this product is what varies with a response.
    """
    missing, count = rollouts.local_success.isnan(), rollouts.of_group(rollouts.every_group.count)

    def centred(value: torch.Tensor) -> torch.Tensor:
        total = rollouts.of_group(rollouts.sum_by_group(torch.where(missing, 0.0, value)))
        return torch.where(missing, 0.0, value - total / count.clamp(min=1))

    reward = centred(rollouts.local_success)
    each = torch.stack([reward, *(centred(reward * centred(term)) for term in terms)])
    weight = torch.where(count >= 2, 1 / (count * (count - 1)).clamp(min=1), 0.0)
    total = rollouts.add((each * weight) @ each.T).cpu().numpy()
    return total / len(rollouts.kept) ** 2
