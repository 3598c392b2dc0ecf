"""Chapter 4 on the synthetic transformer: matched training, curvature along training, prompts that never interfere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from rlvr_lib.arguments import Reals, integer, require
from rlvr_lib.studies.curvature import ARMS, TARGET, matched_rate, prompt_weight
from rlvr_lib.studies.curves import first_time
from rlvr_lib.testbeds.adam import Adam
from rlvr_lib.testbeds.transformer import AttentionPolicy, TransformerTestbed, WordProblems, draw_problems
from rlvr_lib.testbeds.transformer.ensemble import train
from rlvr_lib.theory.curvature import gradient_cosines
from rlvr_lib.theory.groups import symmetric_group

PACE, STEPS, SQUARES = 0.01, 200, 256
"""Rise of mean success in a run's first step, the longest run, and sampled gradients behind Adam's matched rate."""
CASES = {
    "solvable": (None, 2.0, 12.0),
    "from the chance floor": (None, -2.0, 12.0),
    "saturated head": (4.0, 0.0, 30.0),
}
"""Sharpness of the head, initial attention weight and learning rate of the three runs whose curvature is followed."""


def chains(seed: int) -> TransformerTestbed:
    """Twenty-four prompts of one, two and four steps over S3 that share one attention table of eight names."""
    policy = AttentionPolicy(names=8)
    return TransformerTestbed(
        policy, draw_problems(symmetric_group(3), (1, 2, 4), 8, seed, names=8), policy.initial(1.5)
    )


def _gradients(
    testbed: TransformerTestbed, theta: Float[np.ndarray, "R d"], arm: str, group_size: int, seeds: range
) -> tuple[Float[np.ndarray, "R d"], Float[np.ndarray, " R"]]:
    """A sampled gradient of every run, and its mean success before."""
    record = train(testbed.policy, theta, testbed.problems, 1, 1.0, ARMS[arm], group_size, seeds, record_every=2)
    return record.theta - theta, record.success[0].mean(-1)


def rate(testbed: TransformerTestbed, arm: str, group_size: int | None, optimizer: str, seed: int) -> float:
    """The learning rate that matches an arm at the initial rise."""
    require(optimizer in ("sgd", "adam"), "optimizer", optimizer, "sgd or adam")
    square = None
    if optimizer == "adam":
        copies, first = np.tile(testbed.theta, (SQUARES, 1)), 2**33 + seed * SQUARES
        drawn = _gradients(
            testbed, copies, arm, integer("group_size", group_size, low=2), range(first, first + SQUARES)
        )[0]
        square = (drawn**2).mean(0)
    return matched_rate(*testbed.exact_all(), arm, group_size, PACE, square)


def expected_time(testbed: TransformerTestbed, arm: str, group_size: int | None) -> float:
    """Steps to the target by exact mean updates of plain SGD."""
    step, start = rate(testbed, arm, group_size, "sgd", 0), testbed.theta[None]

    def weight(success: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(prompt_weight(success.numpy(), arm, group_size))

    record = train(testbed.policy, start, testbed.problems, STEPS, step, weight)
    return float(first_time(record.iteration, record.success[:, 0].mean(-1), TARGET))


def sampled_times(
    testbed: TransformerTestbed, arm: str, group_size: int, seeds: range, optimizer: str = "sgd"
) -> Float[np.ndarray, " R"]:
    """The same for runs that draw their groups, one a seed; NaN where a run does not arrive."""
    step, theta = rate(testbed, arm, group_size, optimizer, 0), np.tile(testbed.theta, (len(seeds), 1))
    if optimizer == "sgd":
        record = train(testbed.policy, theta, testbed.problems, STEPS, step, ARMS[arm], group_size, seeds)
        means = record.success.mean(-1)
    else:
        adam, rows = Adam(), []
        for number in range(STEPS + 1):
            drawn = range(2**32 + number * 2**20 + seeds[0], 2**32 + number * 2**20 + seeds[0] + len(seeds))
            gradient, success = _gradients(testbed, theta, arm, group_size, drawn)
            rows.append(success)
            if (np.max(rows, 0) > TARGET).all():
                break
            theta = theta + step * adam(gradient)
        means = np.array(rows)
    return first_time(np.arange(len(means)), means.T, TARGET)


def _hessian(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """``torch.func.hessian``, without the warning that its forward mode raises when it is first used."""

    def second(theta: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated", DeprecationWarning)
            return torch.func.hessian(function)(theta)

    return second


class Followed(NamedTuple):
    """Mean variance and mean curvature (spectral norm of the Hessian of J) of eight prompts, and mean success."""

    success: Float[np.ndarray, " records"]
    variance: Float[np.ndarray, " records"]
    curvature: Float[np.ndarray, " records"]

    def slope(self, root: bool = False, above: float = 0.5) -> float:
        """Exponent of the variance in the curvature where mean success is above a level; of its ``root``."""
        late = self.success > above
        x, y = np.log(self.variance[late]) / (2 if root else 1), np.log(self.curvature[late])
        return float(np.polyfit(x, y, 1)[0])


def follow(case: str, draw: int, iterations: int = 400) -> Followed:
    """Exact training of one of ``CASES`` on a draw of prompts, at 14 geometrically spaced iterations."""
    sharpness, weight, step = CASES[case]
    policy = AttentionPolicy(names=6, sharpness=sharpness)
    problems = draw_problems(symmetric_group(3), (4,), 8, draw, names=6)
    start = policy.initial(weight)[None].numpy()
    run = train(policy, start, problems, iterations, step, keep_parameters=True)
    kept = np.unique(np.geomspace(1, iterations + 1, 14).astype(int)) - 1
    rows, success_of = [], _hessian(lambda theta: policy.success(theta, problems))
    for theta in torch.tensor(np.asarray(run.snapshots)[kept, 0]):
        with torch.no_grad():
            J = policy.success(theta, problems).numpy()
        norm = np.linalg.norm(success_of(theta).numpy(), 2, axis=(1, 2))
        rows.append((J.mean(), (J * (1 - J)).mean(), norm.mean()))
    return Followed(*np.array(rows).T)


DISJOINT, STEPS_EACH = 12, 2


class Advantage(NamedTuple):
    """Mean success along training, and the gain of one curvature-limited step of std over that of none."""

    success: Float[np.ndarray, "records runs"]
    advantage: Float[np.ndarray, "records runs"]
    cosine: float

    @property
    def peak(self) -> Float[np.ndarray, " runs"]:
        """The largest advantage of every run."""
        return self.advantage.max(0)

    @property
    def end(self) -> Float[np.ndarray, " runs"]:
        """The last advantage of every run over its largest."""
        return self.advantage[-1] / self.peak

    def at(self, level: float) -> Float[np.ndarray, " runs"]:
        """The advantage when mean success is at a level, by linear interpolation."""
        pairs = zip(self.success.T, self.advantage.T, strict=True)
        return np.array([np.interp(level, success, advantage) for success, advantage in pairs])


def disjoint_problems() -> WordProblems:
    """Twelve prompts of two steps, each with names of its own, so that their gradients are orthogonal for ever."""
    names = DISJOINT * STEPS_EACH
    return WordProblems(
        symmetric_group(3),
        torch.full((DISJOINT,), STEPS_EACH),
        torch.arange(names).view(DISJOINT, STEPS_EACH),
        torch.tensor(np.random.default_rng(0).integers(0, 6, (DISJOINT, names))),
    )


def advantage(weights: Float[np.ndarray, "runs prompts"], iterations: int, power: float = 1.0) -> Advantage:
    """Along exact GRPO training from these attention weights, at 24 geometrically spaced iterations.

    A step along sum w g, g = grad J_q, limited by the size of the curvature along it gains (sum w |g|^2)^2 over
    2 sum w^2 |g'Hg|; the advantage compares w = sigma^-power with w = 1.
    """
    policy, problems = AttentionPolicy(names=DISJOINT * STEPS_EACH), disjoint_problems()
    start = np.array([np.diag(np.repeat(w, STEPS_EACH)).ravel() for w in weights])

    def weight(success: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(prompt_weight(success.numpy(), "std"))

    run = train(policy, start, problems, iterations, 2.0, weight, keep_parameters=True)
    kept = np.unique(np.geomspace(1, iterations + 1, 24).astype(int)) - 1

    def record(theta: np.ndarray) -> tuple[float, float, float]:
        J, gradient = TransformerTestbed(policy, problems, theta).exact_all()
        at, along = torch.tensor(theta), torch.tensor(gradient)

        def success(shift: torch.Tensor) -> torch.Tensor:
            return policy.success(at + shift[:, None] * along, problems).diagonal().sum()

        bend = _hessian(success)(torch.zeros(DISJOINT, dtype=torch.float64)).diagonal().abs().numpy()
        squared = (gradient**2).sum(1)
        gains = [(w @ squared) ** 2 / (w**2 @ bend) for w in ((J * (1 - J)) ** (-power / 2), np.ones(DISJOINT))]
        return float(J.mean()), float(gains[0] / gains[1]), float(np.abs(gradient_cosines(gradient)).max())

    rows: Reals = np.array([[record(theta) for theta in thetas] for thetas in np.asarray(run.snapshots)[kept]])
    return Advantage(rows[..., 0], rows[..., 1], float(rows[..., 2].max()))
