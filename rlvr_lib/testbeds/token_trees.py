"""Small token trees along one direction, every response enumerated: where the token bounds of theorem 2 are attacked.

At each prefix the logits of the next token are ``offset + velocity * x + acceleration * x^2 / 2`` at position x on the
line. Trees of equal shape are stacked: arrays are [trees, V^t, V] for the token at depth t, [trees, V^T] for responses,
and positions broadcast as [..., trees]. Derived here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from rlvr_lib.arguments import integer, non_negative, open_unit, real_array, require
from rlvr_lib.testbeds.lines import Point

MOST_RESPONSES = 2**16


class Leaves(NamedTuple):
    """All responses at positions on the line: log-probability, and its first and second derivative along the line."""

    log_prob: Float[np.ndarray, "... trees leaves"]
    score: Float[np.ndarray, "... trees leaves"]
    hessian: Float[np.ndarray, "... trees leaves"]


@dataclass(frozen=True, eq=False)
class TokenTrees:
    """Policies that write T tokens out of V, with a reward for each of the V^T responses.

    A prefix whose velocities and accelerations are all equal has ended: its later tokens carry no score.

    Attributes:
        offset, velocity, acceleration: for each of the depths t, nats.
        reward: 0 or 1.
    """

    offset: tuple[Float[np.ndarray, "trees prefixes V"], ...]
    velocity: tuple[Float[np.ndarray, "trees prefixes V"], ...]
    acceleration: tuple[Float[np.ndarray, "trees prefixes V"], ...]
    reward: Float[np.ndarray, "trees leaves"]

    @classmethod
    def random(
        cls, seed: int, trees: int, horizon: int, vocabulary: int = 2, *, spread=1.0, bend=0.0, ending=0.0
    ) -> TokenTrees:
        """Gaussian offsets of standard deviation ``spread``, velocities of range 1 at every prefix, random rewards.

        A tree has at most 65,536 responses.

        Args:
            bend: range of the accelerations at every prefix, at least 0.
            ending: probability in [0, 1) that the response ends before any given token but the first.
        """
        horizon, vocabulary = integer("horizon", horizon, low=1), integer("vocabulary", vocabulary, low=2)
        require(vocabulary**horizon <= MOST_RESPONSES, "horizon", horizon, f"such that V^T is at most {MOST_RESPONSES}")
        non_negative("spread", spread), non_negative("bend", bend)
        require(0 <= ending < 1, "ending", ending, "in [0, 1)")
        rng = np.random.default_rng(seed)
        shape = (integer("trees", trees, low=1), 1)
        alive, parts = np.ones(shape, bool), []
        for depth in range(horizon):
            alive &= (rng.random(alive.shape) >= ending) | (depth == 0)
            size = (*alive.shape, vocabulary)
            live = alive[..., None]
            steep, curved = (_unit_range(rng.random(size)) * live for _ in range(2))
            parts.append((spread * rng.standard_normal(size), steep, bend * curved))
            alive = np.repeat(alive, vocabulary, axis=1)
        correct = rng.random(alive.shape).argsort(1) < rng.integers(1, alive.shape[1], shape)
        offset, velocity, acceleration = zip(*parts, strict=True)
        return cls(offset, velocity, acceleration, correct.astype(float))

    def leaves(self, position: ArrayLike = 0.0) -> Leaves:
        """Every response with its log-probability and the derivatives of that along the line."""
        position = real_array("position", position)
        x = np.broadcast_to(position, np.broadcast_shapes(position.shape, self.reward.shape[:1]))[..., None, None]
        total = [np.zeros((*x.shape[:-2], 1)) for _ in range(3)]
        for offset, velocity, acceleration in zip(self.offset, self.velocity, self.acceleration, strict=True):
            steep = velocity + acceleration * x
            log_prob = log_softmax(offset + velocity * x + acceleration * x**2 / 2, axis=-1)
            prob = np.exp(log_prob)
            score = steep - (prob * steep).sum(-1, keepdims=True)
            hessian = acceleration - (prob * (acceleration + score**2)).sum(-1, keepdims=True)
            pairs = zip(total, (log_prob, score, hessian), strict=True)
            total = [(so_far[..., None] + token).reshape(*so_far.shape[:-1], -1) for so_far, token in pairs]
        return Leaves(*total)

    def along(self, position: ArrayLike = 0.0) -> Point:
        """Success at positions on the line, [..., trees], from the moments of the correct responses."""
        here = self.leaves(position)
        weight = np.exp(here.log_prob) * self.reward
        success = weight.sum(-1)
        weight /= success[..., None]
        slope = (weight * here.score).sum(-1)
        bend = (weight * (here.hessian + (here.score - slope[..., None]) ** 2)).sum(-1)
        return Point(np.log(success), slope, -bend)

    def failure_energy(self, position: ArrayLike = 0.0) -> Float[np.ndarray, "... trees"]:
        """E-[score^2], the mean over wrong responses, at positions on the line."""
        here = self.leaves(position)
        weight = np.exp(here.log_prob) * (1 - self.reward)
        return (weight * here.score**2).sum(-1) / weight.sum(-1)

    def score_range(self, longest: ArrayLike) -> Float[np.ndarray, "... trees"]:
        """Largest range over the next token of its score, at any prefix and any position in [0, longest]."""
        x = real_array("longest", longest)[..., None, None]
        # The range is a convex function of the position, so its maximum is at an end.
        pairs = zip(self.velocity, self.acceleration, strict=True)
        spans = [np.ptp(v + a * end, axis=-1).max(-1) for v, a in pairs for end in (0.0, x)]
        return np.max(np.broadcast_arrays(*spans), axis=0)

    def hessian_range(self) -> Float[np.ndarray, " trees"]:
        """Bound on w' H w of a token; on minus w' H w, with a quarter of the squared score range added."""
        return np.max([np.ptp(a, axis=-1).max(-1) for a in self.acceleration], axis=0)

    def failing_at_extremes(self, mass: float) -> TokenTrees:
        """The same trees when the responses of largest |score| at 0 fail, up to this mass, at least one and not all."""
        open_unit("mass", mass)
        here = self.leaves()
        order = np.argsort(-np.abs(here.score), axis=-1)
        taken = np.cumsum(np.take_along_axis(np.exp(here.log_prob), order, -1), axis=-1) <= mass
        taken[:, 0], taken[:, -1] = True, False
        reward = np.ones_like(self.reward)
        np.put_along_axis(reward, order, (~taken).astype(float), -1)
        return replace(self, reward=reward)

    def reversed(self, where: Float[np.ndarray, " trees"]) -> TokenTrees:
        """The same trees with the direction of the line turned round where the flag is set."""
        sign = np.where(where, -1.0, 1.0)[:, None, None]
        return replace(self, velocity=tuple(sign * v for v in self.velocity))


def _unit_range(values: np.ndarray) -> np.ndarray:
    """Each row of the last axis moved and scaled to range from 0 to 1."""
    values = values - values.min(-1, keepdims=True)
    return values / values.max(-1, keepdims=True)
