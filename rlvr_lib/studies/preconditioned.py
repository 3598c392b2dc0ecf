"""Ascent with momentum and a fixed preconditioner beside a maximum, steps by signs, several passes over one group."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, integer, non_negative, positive, real_array
from rlvr_lib.studies.penalty import every_response, log_law
from rlvr_lib.testbeds.grpo import flat, one_thread
from rlvr_lib.testbeds.lines import Line
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.clipping import clipped_weights
from rlvr_lib.theory.penalty import tilted

Vector = Float[np.ndarray, " d"]


def growth(
    gradient: Callable[[Vector], Vector],
    top: Vector,
    nudge: Vector,
    rate: float,
    scale: ArrayLike = 1.0,
    momentum: float = 0.0,
    steps: int = 100,
) -> float:
    """How far ascent from top + nudge ends from the maximum at ``top``, over where it began, in the scaled norm.

    Args:
        gradient: of what is climbed, at any point.
        rate, scale, momentum: theta grows by rate times scale times m, m <- momentum m + (1 - momentum) gradient.
        steps: of the ascent; it ends early once it is a thousand times as far as it began.
    """
    scale, theta, mean = np.broadcast_to(positive("scale", scale), top.shape), top + nudge, np.zeros_like(top)
    begun = far = float(np.linalg.norm(nudge / np.sqrt(scale)))
    for _ in range(integer("steps", steps, low=1)):
        mean = momentum * mean + (1 - momentum) * gradient(theta)
        theta = theta + rate * scale * mean
        far = float(np.linalg.norm((theta - top) / np.sqrt(scale)))
        if far > 1000 * begun:
            break
    return far / begun


class OwnTilt:
    """J - beta KL(pi | reference) of a network at one prompt, where the network as it is given is the tilt.

    Its gradient vanishes at ``theta`` and minus its Hessian there is beta times the Fisher matrix.
    """

    def __init__(self, policy: TransformerTestbed | QwenTestbed, prompt: int, beta: float):
        self.policy, self.theta, self.beta = policy.at(policy.theta), policy.theta, float(positive("beta", beta))
        self.rollout = every_response(policy, prompt)
        law = log_law(self.policy, self.rollout).detach()
        self.reward, self.law = torch.as_tensor(self.rollout.reward[0]), law - law.logsumexp(0)
        self.reference = torch.as_tensor(tilted(self.law.numpy(), -self.rollout.reward[0], self.beta))

    def gradient(self, theta: Vector) -> Vector:
        """Gradient of the objective at parameters [d]."""
        self._move(theta)
        law = log_law(self.policy, self.rollout)
        value = law.exp() @ (self.reward - self.beta * (law - self.reference))
        return flat(torch.autograd.grad(value, self.policy.parameters())).numpy()

    def success_gradient(self) -> Vector:
        """Gradient of J at the tilt, [d]."""
        self._move(self.theta)
        success = log_law(self.policy, self.rollout).exp() @ self.reward
        return flat(torch.autograd.grad(success, self.policy.parameters())).numpy()

    @one_thread()
    def top_eigenvector(self, scale: ArrayLike, iterations: int = 200, seed: int = 0) -> tuple[float, Vector]:
        """Largest eigenvalue of scale^(1/2) beta Fisher scale^(1/2) and its unit vector, by power iteration.

        Fisher times a vector is the gradient of sum of pi (slope of log pi) log pi, slopes by a second backward pass.
        """
        self._move(self.theta)
        parameters, root = self.policy.parameters(), np.sqrt(np.broadcast_to(scale, self.theta.shape))
        sizes = [value.numel() for value in parameters]
        law, value = log_law(self.policy, self.rollout), 0.0
        dummy = torch.ones_like(law, requires_grad=True)
        pulled = torch.autograd.grad(law, parameters, dummy, create_graph=True)
        vector = np.random.default_rng(seed).standard_normal(len(root))
        for _ in range(integer("iterations", iterations, low=1)):
            vector /= np.linalg.norm(vector)
            parts = torch.as_tensor(root * vector).split(sizes)
            towards = [part.view_as(one) for part, one in zip(parts, parameters, strict=True)]
            (slopes,) = torch.autograd.grad(pulled, dummy, towards, retain_graph=True)
            turned = torch.autograd.grad(law, parameters, self.law.exp() * slopes, retain_graph=True)
            product = self.beta * root * flat(turned).numpy()
            before, value = value, float(vector @ product)
            vector = product
            if abs(value - before) < 1e-10 * value:
                break
        return value, vector / np.linalg.norm(vector)

    def _move(self, theta: Vector) -> None:
        with torch.no_grad():
            parts = torch.as_tensor(theta).split([value.numel() for value in self.policy.parameters()])
            for value, part in zip(self.policy.parameters(), parts, strict=True):
                value.copy_(part.view_as(value))


def signs_on_a_line(line: Line, start: ArrayLike, rate: ArrayLike, steps: int) -> tuple[Reals, Reals]:
    """Mean of log J over the last two of ``steps`` sign steps of a rate, and the last position; starts broadcast."""
    position, rate = np.broadcast_arrays(real_array("start", start), positive("rate", rate))
    last: list[Reals] = []
    for _ in range(integer("steps", steps, low=2)):
        position = position + rate * np.sign(line.along(position).slope)
        last = [*last[-1:], line.along(position).log_success]
    return np.mean(last, axis=0), position


class Ratios(NamedTuple):
    """Of a run with averaging momentum: the ratio of each step to the critical one along it, and where it ended."""

    ratio: Float[np.ndarray, " steps"]
    last: float


def momentum_on_a_line(line: Line, start: float, rate: float, momentum: float, steps: int) -> Ratios:
    """Ascent of log J; the ratio of a step is to the first one that returns to its level, 0 for steps downhill.

    For lines symmetric about a maximum at 0, where that step is twice the distance to it. Ends at 1e-9 from there.
    """
    position, mean, ratios = float(start), 0.0, []
    for _ in range(integer("steps", steps, low=1)):
        if abs(position) < 1e-9:
            break
        mean = momentum * mean + (1 - momentum) * float(line.along(position).slope)
        step = rate * mean
        ratios.append(step / (-2 * position) if step * position < 0 else 0.0)
        position += step
    return Ratios(np.array(ratios), position)


def several_passes(
    log_law: ArrayLike,
    reward: ArrayLike,
    group_size: int,
    rate: float,
    passes: int,
    clip: float | None = 0.2,
    estimator: str = "dr_grpo",
) -> Float[np.ndarray, "passes n"]:
    """Mean movement of the log-probabilities after each pass, over ALL groups that a tabular policy may sample.

    Args:
        log_law, reward: [n], of all n responses; n^G ordered groups.
        rate, passes, clip: of the steps on one group; the ratio is that of the whole response.
        estimator: of the advantages.
    """
    start, reward = real_array("log_law", log_law, ndim=1), real_array("reward", reward, ndim=1)
    groups = np.array(list(itertools.product(range(len(start)), repeat=integer("group_size", group_size, low=1))))
    chance, rate = np.exp(start)[groups].prod(1), float(non_negative("rate", rate))
    advantage = group_advantages(reward[groups], estimator)
    taken = (groups[..., None] == np.arange(len(start))).astype(float)
    law, moves = np.broadcast_to(start, (len(groups), len(start))), []
    for _ in range(integer("passes", passes, low=1)):
        ratio = np.take_along_axis(law - start, groups, 1)
        weight = clipped_weights(advantage, ratio, clip) / group_size
        gradient = np.einsum("og,ogn->on", weight, taken) - weight.sum(1)[:, None] * np.exp(law)
        logits = law + rate * gradient
        law = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        moves.append(chance @ (law - start))
    return np.array(moves)
