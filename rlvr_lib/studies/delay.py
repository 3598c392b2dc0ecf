"""Ascent with gradients of some updates ago: exact chains near a maximum, and runs of a Qwen on stale rollouts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike
from scipy.special import expit, softmax

from rlvr_lib.arguments import integer, non_negative, positive, require
from rlvr_lib.studies.closed_loop import LOOK, PROMPTS, halves, judged
from rlvr_lib.testbeds.grpo import GRPO, OPTIMIZERS, one_thread, surrogate_loss
from rlvr_lib.testbeds.policy import Testbed
from rlvr_lib.testbeds.qwen import QwenTestbed

Drift = Callable[[np.ndarray], np.ndarray]
"""Maps positions, n policies [n, d] or [n], to gradients of the same shape, each policy with its own."""


def critical_factors(
    drift: Drift, start: np.ndarray, critical: np.ndarray, delay: int, steps: int | None = None
) -> np.ndarray:
    """The largest stable step of ascent with a delay, in units of ``critical``, for n policies at once, [n].

    By bisection, to 1e-4, on whether deviations from the maximum at 0 grow.

    Args:
        drift: the gradient at deviations from the maximum.
        start: [n, ...], a small deviation, at which a chain stands still before its first update.
        critical: [n], the critical step without delay.
        delay: k, updates between the policy of a gradient and its use.
        steps: updates of a chain, by default a thousand times delay plus one, because near the boundary a deviation
            grows the more slowly the longer the delay. It has grown where it once was a hundred times its start, or
            where its last eighth is not narrower by a hundredth than the eighth in its middle.
    """
    steps = 1000 * (integer("delay", delay, low=0) + 1) if steps is None else integer("steps", steps, low=8)
    low, high, eighth = np.zeros(len(critical)), np.full(len(critical), 1.5), steps // 8
    while (high - low).max() > 1e-4:
        middle = (low + high) / 2
        step = (middle * critical).reshape(-1, *[1] * (start.ndim - 1))
        past, x, far = deque([start] * (delay + 1)), start, np.zeros(len(critical), bool)
        widths, size = np.zeros((2, len(critical))), _size(start)
        for number in range(steps):
            x = x + step * drift(past.popleft())
            past.append(x)
            now = _size(x)
            far |= ~(now < 100 * size)
            for at, last in enumerate((steps // 2, steps)):
                if last - eighth <= number < last:
                    widths[at] = np.maximum(widths[at], now)
        grown = far | ~((widths[1] < 1e-6 * size) | (widths[1] < 0.99 * widths[0]))
        low, high = np.where(grown, low, middle), np.where(grown, middle, high)
    return (low + high) / 2


def _size(deviation: np.ndarray) -> np.ndarray:
    """The largest component of each deviation, [n]."""
    return np.abs(deviation).reshape(len(deviation), -1).max(1)


class Peaks(NamedTuple):
    """Log-linear policies of one right answer whose success has its maximum at finite parameters.

    Attributes:
        features: [n, A, d], the right answer first, inside the hull of the others.
        best: [n, d], the parameters of largest success.
        critical: [n], two over the largest eigenvalue of minus the Hessian of success there.
    """

    features: Float[np.ndarray, "n A d"]
    best: Float[np.ndarray, "n d"]
    critical: Float[np.ndarray, " n"]

    def drift(self, deviation: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Gradient of success at a deviation from the maximum."""
        prob = softmax(np.einsum("nad,nd->na", self.features, self.best + deviation), axis=-1)
        return prob[:, :1] * (self.features[:, 0] - np.einsum("na,nad->nd", prob, self.features))


def random_peaks(seed: int, count: int, wrong: int = 6, dimension: int = 2) -> Peaks:
    """Gaussian features of the wrong answers, and a right one at a random mean of them."""
    rng = np.random.default_rng(seed)
    others = rng.standard_normal(
        (integer("count", count, low=1), integer("wrong", wrong, low=dimension + 1), dimension)
    )
    right = np.einsum("na,nad->nd", rng.dirichlet(np.full(wrong, 2.0), count), others)
    features = np.concatenate([right[:, None], others], axis=1)
    best = np.zeros((count, dimension))
    for _ in range(200):  # Newton on log-success, which is concave, damped
        prob = softmax(np.einsum("nad,nd->na", features, best), axis=-1)
        mean = np.einsum("na,nad->nd", prob, features)
        spread = np.einsum("na,nad,nae->nde", prob, features, features) - mean[:, :, None] * mean[:, None]
        move = np.linalg.solve(spread, (right - mean)[:, :, None])[:, :, 0]
        best = best + move * np.minimum(1, 1 / np.maximum(np.linalg.norm(move, axis=1), 1e-300))[:, None]
    curvature = prob[:, 0] * np.linalg.eigvalsh(spread)[:, -1]
    return Peaks(features, best, 2 / curvature)


class Line(NamedTuple):
    """Success along a line as a polynomial about its maximum, on -1 to 1 times ``width``.

    Attributes:
        maximum: distance from the start to the maximum.
        width: half of what the polynomial covers, in the same unit.
        slope: Chebyshev coefficients of the derivative by the position.
        critical: two over minus the second derivative at the maximum.
    """

    maximum: float
    width: float
    slope: Float[np.ndarray, " degree"]
    critical: float


def line_through(testbed: Testbed, prompt: int, longest: float = 4.0, points: int = 25) -> Line | None:
    """Success along the gradient gap, about its first maximum; None where there is none within ``longest``."""
    _, gap = testbed.log_odds_and_gap(prompt)
    unit = gap / np.linalg.norm(gap)

    def odds(steps: ArrayLike) -> np.ndarray:
        return np.asarray(testbed.odds_along(prompt, unit, steps))

    steps = np.linspace(0, positive("longest", longest).item(), 33)
    values = odds(steps)
    falls = np.flatnonzero(np.diff(values) < 0)
    if not len(falls) or falls[0] == 0:
        return None
    low, high = steps[falls[0] - 1], steps[falls[0] + 1]
    nodes = chebyshev.chebpts1(points)

    def slope(middle: float, width: float) -> np.ndarray:
        fit = chebyshev.chebfit(nodes, expit(odds(middle + width * nodes)), points - 1)
        return chebyshev.chebder(fit) / width

    middle, width = (low + high) / 2, (high - low) / 2
    roots = chebyshev.chebroots(slope(middle, width))
    inside = roots[(np.abs(roots.imag) < 1e-9) & (np.abs(roots.real) < 1)].real
    if len(inside) != 1:
        return None
    maximum = float(middle + width * inside[0])
    width = min(width, maximum / 4)
    about = slope(maximum, width)
    about = about - np.eye(len(about))[0] * chebyshev.chebval(0, about)  # the maximum to the last digit
    bend = -float(chebyshev.chebval(0, chebyshev.chebder(about))) / width
    return Line(maximum, float(width), about, 2 / bend) if bend > 0 else None


def line_factors(lines: list[Line], delay: int, start: float = 1e-4) -> Float[np.ndarray, " n"]:
    """``critical_factors`` of ascent along lines, from ``start`` of their width; a chain beyond it counts as grown."""
    slopes = np.stack([line.slope for line in lines], 1)
    width = np.array([line.width for line in lines])

    def drift(deviation: np.ndarray) -> np.ndarray:
        return chebyshev.chebval(np.clip(deviation / width, -1, 1), slopes, tensor=False)

    return critical_factors(drift, start * width, np.array([line.critical for line in lines]), delay)


Weights = Literal["none", "full", "clipped"]


@dataclass(frozen=True)
class StaleRun:
    """Success of the judged prompts of a run on stale rollouts, at the start and after every few steps."""

    success: Float[np.ndarray, " looks"]

    @property
    def collapsed(self) -> bool:
        """Whether success ends below half of what it was."""
        return bool(self.success[-1] < 0.5 * self.success[0])


def stale_run(
    qwen: QwenTestbed,
    rate: float,
    settings: GRPO,
    delay: int,
    weights: Weights,
    length: int,
    steps: int,
    seed: int,
) -> StaleRun:
    """A run of GRPO whose rollouts are those of the policy of ``delay`` updates ago.

    Args:
        qwen: the warm start, which is not changed; its rollouts are used until there are later ones.
        rate: the learning rate, in place of that of the settings.
        weights: of a token: ``none``; the ``full`` ratio of its probability now to that of the rollout; that ratio
            ``clipped`` to 0.8 to 1.2 as PPO does.
        length, steps, seed: as in ``closed_loop.run``, which a run without delay repeats up to the looks' draws.
    """
    require(weights in get_args(Weights), "weights", weights, f"one of {', '.join(get_args(Weights))}")
    delay, rate = integer("delay", delay, low=0), float(non_negative("rate", rate))
    clip = {"none": None, "full": None, "clipped": 0.2}[weights]
    rule = GRPO(group_size=settings.group_size, estimator=settings.estimator, clip=clip)
    policy, (trained, judges) = qwen.at(qwen.theta), halves(qwen, length, seed)
    optimizer = OPTIMIZERS[settings.optimizer](policy.parameters(), lr=rate, weight_decay=0.0)
    generator, looks = torch.Generator().manual_seed(seed), [judged(qwen, judges, seed)]
    past = deque([policy.theta] * (delay + 1), maxlen=delay + 1)
    with one_thread():
        for number in range(steps):
            then = policy if delay == 0 else qwen.at(past[0])
            chosen = [trained[at] for at in torch.randint(len(trained), (PROMPTS,), generator=generator)]
            rollout = then.rollout(chosen, settings.group_size, generator)
            advantages = torch.as_tensor(rule.advantages(then, rollout)).flatten()
            with torch.no_grad():
                before = then.token_log_probs(rollout)
            now = policy.token_log_probs(rollout)
            reference = now.detach() if weights == "none" else before
            optimizer.zero_grad()
            surrogate_loss(now, reference, rollout.mask, advantages, rule).backward()
            optimizer.step()
            past.append(policy.theta)
            if (number + 1) % LOOK == 0:
                looks.append(judged(policy, judges, seed + number + 1))
    return StaleRun(np.array(looks))
