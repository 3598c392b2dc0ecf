"""Chapter 4 on bandits: Hessians, P4's steps, finite groups, matched training of many prompts, noise and overlap."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.special import comb, expit, logit
from scipy.stats import ortho_group

from rlvr_lib.arguments import Reals, integer, require
from rlvr_lib.studies.curvature import ARMS, TARGET, expected_gain
from rlvr_lib.studies.curves import first_time
from rlvr_lib.testbeds.adam import Adam
from rlvr_lib.testbeds.bandit import feature_diameter, log_odds_and_gap
from rlvr_lib.theory.advantages import POWERS, group_advantages
from rlvr_lib.theory.curvature import guaranteed_gain, power_step

PROMPTS, PACE, MOST = 64, 1e-3, 20_000
STARTS = np.linspace(-3, 3, PROMPTS)
"""Log-odds at which the prompts of a training run start."""
POOLED = "batch, TRL"
"""The arm whose deviation is that of all rewards of the batch, differences between prompts included."""


class Bandits(NamedTuple):
    """Log-linear bandits with a row each, as ``testbeds.bandit.log_odds_and_gap`` takes them."""

    theta: Float[np.ndarray, "n d"]
    features: Float[np.ndarray, "n A d"]
    reward: Float[np.ndarray, "n A"]
    offset: Float[np.ndarray, "n A"]

    @property
    def success(self) -> Float[np.ndarray, " n"]:
        """Success rates."""
        return expit(log_odds_and_gap(*self)[0])

    @property
    def diameter(self) -> Float[np.ndarray, " n"]:
        """Largest distance between two features."""
        return feature_diameter(self.features)

    @property
    def curvature(self) -> Float[np.ndarray, " n"]:
        """Spectral norm of the Hessian of J, by the complex step, which knows nothing of the theory."""

        def gradient(theta: np.ndarray) -> np.ndarray:
            weight = np.exp(np.einsum("nd,nad->na", theta, self.features) + self.offset)
            prob = weight / weight.sum(1, keepdims=True)
            success = (prob * self.reward).sum(1, keepdims=True)
            return np.einsum("na,nad->nd", prob * (self.reward - success), self.features)

        axes = 1e-30j * np.eye(self.theta.shape[1])
        hessian = np.stack([np.imag(gradient(self.theta + axis)) for axis in axes], -1) / 1e-30
        return np.linalg.norm(hessian, 2, axis=(1, 2))


def random_bandits(
    count: int, seed: int, spread: float = 5.0, arms: int = 6, dimension: int = 4, least: float = 0.0
) -> Bandits:
    """Heavy-tailed features, any number of correct arms, log-odds of success up to about ``spread``.

    Those whose variance of the reward is below ``least`` are left out.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_t(3, (count, arms, dimension))
    reward = (np.arange(arms) < rng.integers(1, arms, (count, 1))).astype(float)
    offset = rng.standard_normal((count, arms)) + reward * spread * rng.uniform(-1, 1, (count, 1))
    drawn = Bandits(rng.standard_normal((count, dimension)), features, reward, offset)
    kept = drawn.success * (1 - drawn.success) >= least
    return Bandits(*(part[kept] for part in drawn))


def extremal_bandits(success: Float[np.ndarray, " n"]) -> Bandits:
    """The most curved bandit of diameter one at each success rate up to 1/2: three arms at two points of a line.

    All wrong responses lie at one point; of the right ones a share 1 / (4 J), at most all, lie at the other.
    """
    apart = np.minimum(1.0, 1 / (4 * success))
    with np.errstate(divide="ignore"):
        offset = np.log(np.stack([success * apart, success * (1 - apart), 1 - success], 1))
    offset = np.maximum(offset, -700)  # an arm of no probability
    shape = (len(success), 1, 1)
    features, reward = np.tile([[[1.0], [0.0], [0.0]]], shape), np.tile([[1.0, 1.0, 0.0]], shape[:2])
    return Bandits(np.zeros(shape[:2]), features, reward, offset)


def gain_shares(
    bandits: Bandits, powers: ArrayLike, sign: float = 1.0, stretch: float = 1.0
) -> Float[np.ndarray, "powers n"]:
    """Gain of one step of each power over its guarantee, infinite where that is below rounding.

    ``sign`` -1 multiplies by the power of the deviation in place of dividing; ``stretch`` is of the whole step.
    """
    odds, gap = log_odds_and_gap(*bandits)
    variance, shares = expit(odds) * expit(-odds), []
    for power in np.asarray(powers, float):
        rate = power_step(bandits.success, power, bandits.diameter) * (2 * np.sqrt(variance)) ** ((1 - sign) * power)
        theta = bandits.theta + (stretch * rate * variance)[:, None] * gap
        rise = np.expm1(log_odds_and_gap(theta, *bandits[1:])[0] - odds)
        norm = variance * np.linalg.norm(gap, axis=1)
        bound = guaranteed_gain(bandits.success, power, norm, bandits.diameter)
        shares.append(np.where(bound > 1e-9, variance * rise / (1 + expit(odds) * rise) / bound, np.inf))
    return np.array(shares)


def two_arms(success: Float[np.ndarray, " n"]) -> Bandits:
    """A right and a wrong arm with the features (1, 0) and (0, 1), so that X = 1 and the squared diameter is two."""
    shape = (len(success), 1, 1)
    offset = np.stack([logit(success), 0 * success], 1)
    return Bandits(np.zeros((len(success), 2)), np.tile(np.eye(2), shape), np.tile([[1.0, 0.0]], shape[:2]), offset)


class Path(NamedTuple):
    """Squared gradients over C and deviations before each step, and what all steps gained."""

    squared: Float[np.ndarray, "steps n"]
    std: Float[np.ndarray, "steps n"]
    gained: Float[np.ndarray, " n"]


def paper_steps(bandits: Bandits, steps: int) -> Path:
    """Steps grad J / (C sigma) with C the squared diameter: P4's, whose 2 X^2 is C for two arms."""
    theta, C, rows = bandits.theta, bandits.diameter**2, []
    for _ in range(integer("steps", steps, low=1)):
        odds, gap = log_odds_and_gap(theta, *bandits[1:])
        std = np.sqrt(expit(odds) * expit(-odds))
        rows.append((std**4 * (gap**2).sum(1) / C, std))
        theta = theta + (std / C)[:, None] * gap
    squared, std = (np.array(column) for column in zip(*rows, strict=True))
    return Path(squared, std, bandits._replace(theta=theta).success - bandits.success)


def _law(success: Reals, group_size: int) -> Reals:
    """Probability of every number of right responses in a group, [..., G + 1]."""
    correct = np.arange(group_size + 1)
    return comb(group_size, correct) * success[..., None] ** correct * (1 - success[..., None]) ** correct[::-1]


def enumerated_gain(success: ArrayLike, arm: str, group_size: int) -> Reals:
    """Expected update over the gap from the advantages of all groups, whose rewards matter by their number only."""
    success = np.asarray(success, float)
    groups = np.tri(group_size + 1, group_size, -1)  # the first k of row k are right
    pull = (group_advantages(groups, ARMS[arm]) * groups).sum(-1) / group_size
    return _law(success, group_size) @ pull


def flow_time(odds: float, arm: str, group_size: int | None) -> float:
    """Time of two arms from even odds to these log-odds, at a rate at which all arms of the division start alike."""

    def gain(z: float) -> Reals:
        failure = float(expit(-z))  # gains are the same for J and 1 - J
        return enumerated_gain(failure, arm, group_size) if group_size else expected_gain(failure, arm)

    even = gain(0.0)
    return float(quad(lambda z: float(even / gain(z)), 0, odds, limit=200)[0])


def tail_exponent(arm: str, group_size: int | None, odds: tuple[float, float] = (12.0, 14.0)) -> float:
    """Exponent of time in the failure rate of two arms between two log-odds."""
    times = [flow_time(z, arm, group_size) for z in odds]
    return float(np.log(expit(-odds[1]) / expit(-odds[0])) / np.log(times[1] / times[0]))


def _pooled(bare: Reals, share: Reals, arm: str) -> Reals:
    """Updates without a deviation over that of the batch; ``share`` is what of each group or prompt is right."""
    mean = share.mean(-1, keepdims=True)
    spread = mean * (1 - mean) if arm == POOLED else bare.mean(-1, keepdims=True)
    return bare / np.sqrt(np.maximum(spread, 1e-9))


def _expected(success: Reals, arm: str, group_size: int | None, own: bool) -> tuple[Reals, Reals]:
    """Mean and mean square of every coordinate of the sampled gradient."""
    turn = _rotation(own)
    pooled = arm in (POOLED, "batch")
    gain = expected_gain(success, "none" if pooled else arm, group_size)
    square = gain**2
    if group_size is not None:
        share = np.arange(group_size + 1) / group_size
        square = _law(success, group_size) @ _pull(share, "none" if pooled else arm) ** 2
    if pooled:
        scale = _pooled(gain, success, arm) / gain
        gain, square = gain * scale, square * scale**2
    mean = gain @ turn
    return mean, mean**2 + (square - gain**2) @ turn**2


def _pull(share: Reals, arm: str) -> Reals:
    """The update of a group over its gap, from its share of right responses."""
    v = share * (1 - share)
    if arm in (POOLED, "batch"):
        return _pooled(v, share, arm)
    return np.where(v > 0, np.where(v > 0, v, 1.0) ** (1 - POWERS[ARMS[arm]] / 2), 0.0)


@cache
def _rotation(own: bool) -> Float[np.ndarray, "Q d"]:
    """The gaps of the prompts: orthogonal, along the coordinates or turned so that every coordinate serves all."""
    return np.eye(PROMPTS) if own else ortho_group.rvs(PROMPTS, random_state=0)


def initial_rate(arm: str, group_size: int | None, optimizer: str = "sgd", own: bool = False) -> float:
    """The learning rate at which mean success rises by ``PACE`` in the first step, to first order."""
    require(optimizer in ("sgd", "adam"), "optimizer", optimizer, "sgd or adam")
    J = expit(STARTS)
    mean, square = _expected(J, arm, group_size, own)
    update = mean / np.sqrt(square) if optimizer == "adam" else mean
    return PACE / float((J * (1 - J) * (update @ _rotation(own).T)).mean())


def expected_time(
    arm: str, group_size: int | None, optimizer: str = "sgd", own: bool = False, memory: float = 0.999
) -> float:
    """Steps until mean success is ``TARGET`` if every update is the expected one, and Adam sees expected squares.

    Under Adam it matters whether prompts have their ``own`` coordinates, and the ``memory`` of its mean of squares.
    """
    rate, turn, adam = initial_rate(arm, group_size, optimizer, own), _rotation(own), Adam(memory)
    z, means = STARTS, list[float]()
    for _ in range(MOST):
        means.append(float(expit(z).mean()))
        if means[-1] > TARGET:
            break
        mean, square = _expected(expit(z), arm, group_size, own)
        z = z + rate * (mean if optimizer == "sgd" else adam(mean, square)) @ turn.T
    return float(first_time(np.arange(len(means)), means, TARGET))


def sampled_times(
    arm: str, group_size: int, runs: int, seed: int, optimizer: str = "sgd", own: bool = False, memory: float = 0.999
) -> Float[np.ndarray, " runs"]:
    """The same for runs that draw a group for every prompt at every step; arms with one seed draw alike."""
    rate, turn, adam = initial_rate(arm, group_size, optimizer, own), _rotation(own), Adam(memory)
    rng, z, means = np.random.default_rng(seed), np.tile(STARTS, (runs, 1)), []
    for _ in range(MOST):
        means.append(expit(z).mean(1))
        if (np.max(means, 0) > TARGET).all():
            break
        pull = _pull(rng.binomial(group_size, expit(z)) / group_size, arm)
        z = z + rate * (pull if optimizer == "sgd" else adam(pull @ turn) @ turn.T)
    return first_time(np.arange(len(means)), np.transpose(means), TARGET)


class BestPowers(NamedTuple):
    """The power whose step gains most to second order, with sampled cosines and by the averaged formula."""

    sampled: float
    formula: float


def best_powers(overlap: float, noise: float, draws: int, seed: int, powers: Float[np.ndarray, " n"]) -> BestPowers:
    """Over sets of prompts with success .95 to .9999 and random directions of this overlap; no step is taken.

    The step length is the best one for every power, on the exact gradient and Hessian, with k / G the ``noise``.
    """
    rng, sums = np.random.default_rng(seed), np.zeros((2, 2, len(powers)))
    for _ in range(draws):
        lines = np.eye(PROMPTS)
        if overlap > 0:
            lines = rng.standard_normal((PROMPTS, round(PROMPTS / overlap)))
            lines /= np.linalg.norm(lines, axis=1, keepdims=True)
        cosines, success = lines @ lines.T, expit(rng.uniform(logit(0.95), logit(0.9999), PROMPTS))
        v = (success * (1 - success))[:, None]
        weight = v ** (-powers / 2)
        mean, spread = cosines @ (weight * v), cosines**2 @ (weight**2 * v * noise)
        sums[0] += (v * mean).sum(0), (v * (2 * success[:, None] - 1) * (mean**2 + spread)).sum(0)
        felt = weight**2 * v * (v + noise) * (v + overlap * v.mean())
        sums[1] += (weight * v**2).sum(0), felt.sum(0)
    return BestPowers(*(float(powers[np.argmax(slope**2 / curvature)]) for slope, curvature in sums))
