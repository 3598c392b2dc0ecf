"""Partial credit, erring verifiers and shared steps: what the two notebooks on graded rewards measure.

All of it is exact: responses, groups and signs are enumerated, and rates are found by bisection.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import softmax

from rlvr_lib.arguments import integer
from rlvr_lib.responses import Responses, success_rate
from rlvr_lib.testbeds import partial_credit
from rlvr_lib.testbeds.bandit import SoftmaxBandit, feature_diameter
from rlvr_lib.testbeds.policy import Testbed
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.theory.climb import harmed_share_bound
from rlvr_lib.theory.gap import gradient_gap
from rlvr_lib.theory.graded import coin_responses, expected_advantages, noisy_success
from rlvr_lib.theory.threshold import first_return_step

GROUPS = (2, 4, 8, 16)


def sine(update: Float[np.ndarray, " d"], gradient: Float[np.ndarray, " d"]) -> float:
    """Sine of the angle between two vectors, as accurate at small angles as at large ones."""
    u, g = (x / np.linalg.norm(x) for x in (update, gradient))
    return float(np.linalg.norm(u - (u @ g) * g))


class Credit(NamedTuple):
    """One prompt of a network under partial credit, and under a verifier that errs.

    Attributes:
        mean, deviation: of the graded reward.
        wanted: gradient of the log-odds of the mean reward, from the testbed's own exact methods.
        coin, whole, noisy: gap of the coins of the share of right steps, of "all right", and of the erring verifier.
        success, gap: of the whole chain, from the testbed's own exact methods.
        thrown, graded, spared, plain: with the mean as baseline, second moment of the gradient with coins and with
            graded rewards, E[r (1 - r) |s|^2], and E[r (1 - r)] E|s|^2.
        turned: sine of the angle between mean update and gradient of the mean reward, by (power, group size).
    """

    mean: float
    deviation: float
    wanted: Float[np.ndarray, " d"]
    coin: Float[np.ndarray, " d"]
    whole: Float[np.ndarray, " d"]
    noisy: Float[np.ndarray, " d"]
    success: float
    gap: Float[np.ndarray, " d"]
    thrown: float
    graded: float
    spared: float
    plain: float
    turned: dict[tuple[float, int], float]


def _credit(
    testbed: Testbed, steps: Sequence[Testbed], reward: Float[np.ndarray, " n"], prompt: int, rates: tuple[float, float]
) -> Credit:
    every = testbed.enumerate(prompt)
    p, (b, a) = every.prob, rates
    mean, gradient = partial_credit.mean_success(steps, prompt)
    coins = coin_responses(reward, every.score, p)
    accepted = np.where(every.reward == 1, 1 - b, a)
    turned = {
        (power, G): sine((p * expected_advantages(reward, p, G, power)) @ every.score, gradient)
        for power, G in itertools.product((0.0, 1.0), GROUPS)
    }
    return Credit(
        mean=mean,
        deviation=math.sqrt(p @ (reward - mean) ** 2),
        wanted=gradient / (mean * (1 - mean)),
        coin=gradient_gap(coins),
        whole=gradient_gap(every),
        noisy=gradient_gap(coin_responses(accepted, every.score, p)),
        success=success_rate(every),
        gap=testbed.log_odds_and_gap(prompt)[1],
        thrown=float(coins.prob @ ((coins.reward - mean) ** 2 * coins.energy)),
        graded=float(p @ ((reward - mean) ** 2 * every.energy)),
        spared=float(p @ (reward * (1 - reward) * every.energy)),
        plain=float(p @ (reward * (1 - reward)) * (p @ every.energy)),
        turned=turned,
    )


def qwen_credit(qwen: QwenTestbed, prompts: Sequence[int], length: int, rates: tuple[float, float]) -> list[Credit]:
    """Partial credit of words of a length on a Qwen; ``rates`` are those of false negatives and false positives."""
    steps = partial_credit.qwen_steps(qwen, length)
    return [_credit(qwen, steps, partial_credit.qwen_credit(steps, prompt), prompt, rates) for prompt in prompts]


def transformer_credit(testbed: TransformerTestbed, rates: tuple[float, float]) -> list[Credit]:
    """Partial credit of all prompts of a transformer, which have one horizon; ``rates`` likewise."""
    steps, credit = partial_credit.transformer_steps(testbed), partial_credit.transformer_credit
    return [_credit(testbed, steps, credit(testbed, q), q, rates) for q in range(len(testbed.problems))]


def mean_update(
    r: Responses, rates: tuple[float, float], group_size: int | None, power: float
) -> Float[np.ndarray, " d"]:
    """Mean update of a group, [d], whose verifier errs at these rates; the advantages of a verdict are enumerated."""
    b, a = rates
    seen = float(noisy_success(success_rate(r), b, a))
    wrong, right = expected_advantages([0.0, 1.0], [1 - seen, seen], group_size, power)
    accepted = np.where(r.reward == 1, 1 - b, a)
    return (r.prob * (wrong + (right - wrong) * accepted)) @ r.score


def critical_rate(bandit: SoftmaxBandit, update: Float[np.ndarray, " d"]) -> float:
    """The learning rate at which a step along an update first lowers TRUE success; infinite where none is seen to."""
    odds, shortest = bandit.log_odds_and_gap()[0], 1e-3 / np.linalg.norm(update)
    return float(first_return_step(lambda rate: bandit.odds_along(0, update, rate) - odds, shortest, 1e5 * shortest))


def critical_ratio(bandit: SoftmaxBandit, rates: tuple[float, float], group_size: int | None, power: float) -> float:
    """``critical_rate`` of the mean update with errors over that without."""
    r = bandit.enumerate()
    return critical_rate(bandit, mean_update(r, rates, group_size, power)) / critical_rate(
        bandit, mean_update(r, (0.0, 0.0), group_size, power)
    )


class Line(NamedTuple):
    """P prompts along a line of parameters: J at both ends, and J and its slope at the nodes of a quadrature."""

    ends: Float[np.ndarray, "2 P"]
    success: Float[np.ndarray, "nodes P"]
    slope: Float[np.ndarray, "nodes P"]

    @classmethod
    def of(cls, testbed: Testbed, prompts: Sequence[int], step: ArrayLike, nodes: int = 64) -> Line:
        """From the testbed's parameters to those after a step [d]."""
        step, (place, _) = np.asarray(step), _quadrature(nodes)
        ends = [[testbed.at(testbed.theta + t * step).exact(q)[0] for q in prompts] for t in (0.0, 1.0)]
        at = [testbed.at(testbed.theta + t * step) for t in place]
        inside = np.array([[there.along(q, step)[:2] for q in prompts] for there in at])
        return cls(np.array(ends), inside[..., 0], inside[..., 1])

    def work(self, group_size: int) -> float:
        """Work of GRPO's mean update, its groups enumerated: the integral of its product with the step."""
        _, weight = _quadrature(len(self.slope))
        lift = [
            [float(np.diff(expected_advantages([0.0, 1.0], [1 - J, J], group_size))[0]) for J in row]
            for row in self.success
        ]
        return float(weight @ (np.array(lift) * self.slope).sum(1))


def _quadrature(nodes: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    place, weight = np.polynomial.legendre.leggauss(integer("nodes", nodes, low=1))
    return (place + 1) / 2, weight / 2


class Signs(NamedTuple):
    """A shared step and all signs of the other prompts, as a prompt sees them.

    Attributes:
        overlap, slack: of ``harmed_share_bound``.
        harmed: the share of signs with which the prompt's success falls.
        opposed: 1 if it falls where every other prompt pulls against it, or else 0.
    """

    overlap: float
    slack: float
    harmed: float
    opposed: float


def all_signs(seed: Sequence[int], rate: float, others: int = 11, dimension: int = 4) -> Signs:
    """One step of a rate on the mean of ``others`` + 1 random prompts of four responses, with all signs of the others.

    Features are Gaussian and theta is 0, so a prompt's sign is that of its features; logits are random offsets.
    """
    drawn = np.random.default_rng(seed)
    features = drawn.standard_normal((others + 1, 4, dimension))
    logits, right = 2 * drawn.standard_normal((others + 1, 4)), np.array([1.0, 1.0, 0.0, 0.0])
    p = softmax(logits, axis=1)
    J = p @ right
    gradient = np.einsum("qa,qad->qd", p * (right - J[:, None]), features)
    size, own = np.linalg.norm(gradient, axis=1), gradient[0]
    push = gradient[1:] @ own / (own @ own)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=others)))
    step = rate * (own + signs @ gradient[1:]) / (others + 1)
    harmed = softmax(logits[0] + step @ features[0].T, axis=1) @ right < J[0] * (1 - 1e-13)
    first = rate * size[0] ** 2 / (J[0] * (1 - J[0]) * (others + 1))
    longest = rate * size.sum() / (others + 1)
    slack = float(feature_diameter(features[:1])[0]) ** 2 * longest**2 / (8 * first)
    against = signs @ np.sign(push) == -others
    return Signs(float(push @ push), slack, float(harmed.mean()), float(harmed[against].mean()))


class Interference(NamedTuple):
    """A step on the mean of n prompts, to first order: cosines, the bound on the harmed for fair signs, the harmed.

    Attributes:
        negative, against, along: share of negative cosines, mean of the negative ones (0 if none) and of the positive.
        bound, harmed: numbers of prompts.
    """

    negative: float
    against: float
    along: float
    bound: float
    harmed: int


def interference(gradients: Float[np.ndarray, "n d"]) -> Interference:
    """From the gradients of the prompts' success rates."""
    gram = gradients @ gradients.T
    size, apart = np.sqrt(np.diag(gram)), ~np.eye(len(gram), dtype=bool)
    cosine = (gram / size / size[:, None])[apart]
    push = (gram / size[:, None] ** 2)[apart].reshape(len(gram), -1)
    against, along = (float(x.mean()) if len(x) else 0.0 for x in (cosine[cosine < 0], cosine[cosine >= 0]))
    bound = float(harmed_share_bound((push**2).sum(1)).sum())
    return Interference(float((cosine < 0).mean()), against, along, bound, int((push.sum(1) < -1).sum()))
