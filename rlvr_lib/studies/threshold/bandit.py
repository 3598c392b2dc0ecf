"""Chapter 2 on policies with closed forms: lines, token trees and log-linear bandits, exact or in sampled groups."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.special import expit, ndtri
from scipy.stats import norm

from rlvr_lib.arguments import Reals, integer, open_unit, require, whole_numbers
from rlvr_lib.studies.threshold import training_boundary
from rlvr_lib.testbeds.bandit import SoftmaxBandit, feature_range, log_odds_and_gap
from rlvr_lib.testbeds.lines import CountWindow, Ridge, Sawtooth, TokenChain, exact_critical_rate
from rlvr_lib.testbeds.token_trees import TokenTrees
from rlvr_lib.theory.advantages import Estimator, group_advantages
from rlvr_lib.theory.threshold import (
    critical_learning_rate,
    failure_energy_bound,
    first_return_step,
    token_concavity_step,
    token_critical_step,
)

GROUP = 16
LENGTHS = 2 ** np.arange(4, 11)
ESTIMATORS: tuple[tuple[Estimator, int | None], ...] = (
    ("reinforce", None), ("reinforce", GROUP), ("grpo", GROUP), ("grpo", None)
)  # fmt: skip
REWARDS = (
    "counting reward, window as √T",
    "every token right, same success",
    "every token right, same token error",
    "every token right, own parameters",
)


def four_rewards(
    lengths: ArrayLike, success: ArrayLike = 0.5, error: ArrayLike = 1e-6, half_width: ArrayLike | None = None
) -> tuple[CountWindow | TokenChain, ...]:
    """Policies on a line for each of ``REWARDS``; arguments broadcast.

    ``success`` is the best of the second and the fourth, ``error`` that of a token of the third at best, and
    ``half_width`` that of the window of the first: one standard deviation of the count, sqrt(T) / 2, where None.
    """
    return (
        CountWindow(lengths, np.sqrt(lengths) / 2 if half_width is None else half_width),
        TokenChain.with_peak(lengths, success),
        TokenChain.with_token_error(lengths, error),
        TokenChain.with_peak(lengths, success, shared=False),
    )


def predicted_shares(
    from_share: float | None = None, exchanged: bool = False, normalised: bool = True
) -> Float[np.ndarray, "4 4 2 4 7"]:
    """Predicted over measured critical rates: ``REWARDS``, ``ESTIMATORS``, plain or length-normalised, level, length.

    Args:
        from_share: start where success is this share of its best, and take the guaranteed rate for the predicted one;
            None starts next to the maximum, with the curvature of the maximum.
        exchanged: predict REINFORCE with GRPO's gain, and GRPO with REINFORCE's.
        normalised: predict length-normalised updates as such.
    """
    levels, shares = np.array([0.2, 0.5, 0.9, 0.99])[:, None], []
    window = np.clip(ndtri((1 + levels) / 2) * np.sqrt(LENGTHS) / 2 - 0.5, 0, None)
    for line in four_rewards(LENGTHS, levels, np.array([1e-6, 1e-5, 1e-4, 1e-3])[:, None], window):
        peak = line.along(0.0)
        if from_share is None:
            start = -1e-2 * np.ones((4, 1)) / np.sqrt(LENGTHS if getattr(line, "shared", True) else 1)
            here, success, curvature = line.along(start), peak.success, peak.curvature
        else:
            start = line.start(from_share * peak.success)
            here, curvature = line.along(start), line.along(np.linspace(start, -start, 101)).curvature.max(0)
            success = here.success
        step = exact_critical_rate(line, start) * here.velocity()
        for (kind, size), T in product(ESTIMATORS, (None, LENGTHS)):
            other: Estimator = "grpo" if kind == "reinforce" else "reinforce"
            used = other if exchanged else kind
            rate = critical_learning_rate(success, curvature, used, T if normalised else None, size)
            shares.append(rate * here.velocity(kind, T, size) / step)
    return np.reshape(shares, (4, 4, 2, 4, 7))


def rates_by_length(lengths: ArrayLike = LENGTHS, **rewards: ArrayLike) -> Float[np.ndarray, "4 2 lengths"]:
    """Measured critical rates of ``four_rewards`` for REINFORCE, and for GRPO in large groups.

    The counting reward starts where success is 1/2, the others a hundredth from their maximum.
    """
    lines = four_rewards(whole_numbers("lengths", lengths, low=1), **rewards)
    starts = (lines[0].start(0.5), -0.01, -0.01, -0.01)
    kinds: tuple[Estimator, ...] = ("reinforce", "grpo")
    return np.array([[exact_critical_rate(*at, kind) for kind in kinds] for at in zip(lines, starts, strict=True)])


def peak_curvature(kind: str, T: ArrayLike, J: ArrayLike) -> Reals:
    """Curvature of log J at its maximum J, T tokens a response, for three kinds of reward.

    "aggregate" counts, with the count taken as normal; "every token" must be right; so with "own parameters".
    """
    T, J = whole_numbers("T", T, low=1), open_unit("J", J)
    require(kind in ("aggregate", "every token", "own parameters"), "kind", kind, "one of the three rewards")
    if kind == "aggregate":
        deviations = norm.ppf((1 + J) / 2)
        return (T / 2 * deviations * norm.pdf(deviations) / J)[()]
    wrong = -np.expm1(np.log(J) / T)
    return (T * wrong if kind == "every token" else wrong)[()]


def attacked_trees(trees: int, seed: int) -> list[tuple[TokenTrees, float]]:
    """Random and adversarial trees whose gap points along the line, each with the longest step for its ranges."""
    kinds = [
        (TokenTrees.random(seed + 1, trees, 6), 1.0),
        (TokenTrees.random(seed + 2, trees, 4, 4, ending=0.2), 1.0),
        (TokenTrees.random(seed + 3, trees, 5, 3, bend=0.7, ending=0.1), 0.5),
    ]
    for mass, width in product((0.1, 0.01, 0.002), (0.02, 0.1)):
        even = TokenTrees.random(seed + 4, trees, 10, spread=width)
        kinds.append((even.failing_at_extremes(mass), 8.0))
    return [(tree.reversed(tree.along().slope < 0), longest) for tree, longest in kinds]


def lost_trees(
    trees: int, seed: int, by: str = "energy", logarithm: bool = True, share: float = 1.0
) -> Bool[np.ndarray, " trees"]:
    """Which of ``attacked_trees`` some step up to the guaranteed one does not raise.

    Args:
        by: "energy" of the failures, the first guarantee of 2b, or "concavity", the second.
        logarithm: whether the first keeps its 1 + log(2 / (1 - J)).
        share: factor on the curvature bound of the second.
    """
    require(by in ("energy", "concavity"), "by", by, "energy or concavity")
    lost, fractions = [], np.linspace(0, 1, 17)[1:, None] * (1 - 1e-9)
    for tree, longest in attacked_trees(trees, seed):
        here, R, L, T = tree.along(), tree.score_range(longest), tree.hessian_range(), len(tree.offset)
        if by == "concavity":
            step = token_concavity_step(here.success, here.gap, T, share * (L + R**2 / 4))
        elif logarithm:
            step = token_critical_step(here.success, here.gap, T, R, L)
        else:
            step = 2 * here.success * here.gap / (T * (L + R**2 / 2))
        moved = tree.along(fractions * np.minimum(step, longest))
        lost.append((moved.log_success <= here.log_success).any(0))
    return np.concatenate(lost)


def failure_energy_shares(trees: int, seed: int, logarithm: bool = True) -> Float[np.ndarray, " trees"]:
    """Energy of the failures of ``attacked_trees`` over the lemma's bound, with or without its logarithm."""
    shares = []
    for tree, _ in attacked_trees(trees, seed):
        T, R = len(tree.offset), tree.score_range(0.0)
        bound = failure_energy_bound(tree.along().success, T, R) if logarithm else T * R**2 / 2
        shares.append(tree.failure_energy() / bound)
    return np.concatenate(shares)


def losing_steps(instances: int, seed: int, multiple: float = 8.0) -> int:
    """Steps below ``multiple * D_w / diam^2`` that do not raise success: 19 fractions, one direction a bandit.

    Random bandits of eight responses, and ones with the correct response halfway between two wrong ones (worst case).
    """
    rng = np.random.default_rng(seed)
    drawn = [SoftmaxBandit.random(seed + i, correct=1 + i % 4) for i in range(integer("instances", instances, low=1))]
    w = rng.standard_normal((instances, 4))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    random = [np.stack(part) for part in zip(*((q.theta, q.features[0], q.reward[0]) for q in drawn), strict=True)]
    halfway = rng.uniform(-0.5, 0.5, (instances, 1)), np.array([[0.0], [1.0], [-1.0]]), np.array([1.0, 0, 0])
    lost = 0
    for (theta, features, reward), unit in ((random, w), (halfway, np.ones((1, 1)))):
        odds, gap = log_odds_and_gap(theta, features, reward)
        longest = multiple * (unit * gap).sum(-1, keepdims=True) / feature_range(features, unit)[:, None] ** 2
        moved = theta + np.linspace(0, 1, 21)[1:-1, None, None] * longest * unit
        lost += int((log_odds_and_gap(moved, features, reward)[0] <= odds).sum())
    return lost


class Diagram(NamedTuple):
    """Sampled training of the counting reward: success over the last quarter of each run over the best possible one.

    ``multiples`` are rates over the predicted one, and ``boundary`` the training boundaries in learning rates.
    """

    lengths: Float[np.ndarray, " lengths"]
    predicted: Float[np.ndarray, " lengths"]
    multiples: Float[np.ndarray, " rates"]
    final: Float[np.ndarray, "lengths seeds rates"]
    boundary: Float[np.ndarray, "lengths seeds"]

    @property
    def exponents(self) -> Float[np.ndarray, " seeds"]:
        """Of the length in each seed's boundary; not finite where one is censored."""
        x = np.log(self.lengths) - np.log(self.lengths).mean()
        with np.errstate(divide="ignore", invalid="ignore"):
            return x @ np.log(self.boundary) / (x @ x)


def sampled_positions(
    line: CountWindow,
    x: Float[np.ndarray, "..."],
    rates: ArrayLike,
    steps: int,
    keep: int,
    rng,
    estimator: str = "grpo",
) -> Float[np.ndarray, "keep ..."]:
    """The last ``keep`` positions of runs from x, a step a group of ``GROUP``, by "grpo" or "dr_grpo" advantages."""
    T, kept = int(line.length), []
    for k in range(steps):
        p = expit(x)[..., None]
        ones = rng.binomial(T, p, (*x.shape, GROUP))
        right = np.abs(ones - T / 2) <= line.half_width
        update = (group_advantages(right.astype(float), estimator) * (ones - T * p)).mean(-1)
        x = np.clip(x + rates * update, -30, 30)
        if k >= steps - keep:
            kept.append(x)
    return np.array(kept)


def phase_diagram(
    seeds: int, rates: int, steps: int, seed: int, estimator: str = "grpo", half_width: float | None = None
) -> Diagram:
    """Runs from half of the best success at rates from a tenth to forty times the predicted one, at four lengths.

    The window is sqrt(T) / 2 to either side in whole tokens, or ``half_width``; ``estimator`` is "grpo" or "dr_grpo".
    """
    lengths, multiples = (16, 64, 256, 1024), np.geomspace(0.1, 40, integer("rates", rates, low=2))
    rng, found = np.random.default_rng(seed), []
    for T in lengths:
        line = CountWindow(T, np.floor(np.sqrt(T) / 2) if half_width is None else half_width)
        peak = line.along(0.0)
        kind: Estimator = "grpo" if estimator == "grpo" else "reinforce"
        predicted = critical_learning_rate(peak.success, peak.curvature, kind, group_size=GROUP)
        x = np.full((integer("seeds", seeds, low=1), rates), line.start(0.5 * peak.success))
        keep = integer("steps", steps, low=4) // 4
        last = sampled_positions(line, x, multiples * predicted, steps, keep, rng, estimator)
        final = line.along(last[::10]).success.mean(0) / peak.success
        found.append((predicted, final, training_boundary(multiples * predicted, final)))
    predicted, final, boundary = map(np.array, zip(*found, strict=True))
    return Diagram(np.array(lengths, float), predicted, multiples, final, boundary)


def anneal_rises(
    rate: float, runs: int, steps: int, seed: int, cut: float = 0.1, locked: bool = False
) -> Float[np.ndarray, " runs"]:
    """What success gains over a second phase when stalled runs of GRPO go on at ``cut`` times their rate, not at 1.

    The counting reward of 256 tokens. Runs have stalled with success above 1e-3 or, ``locked``, below 1e-6.
    """
    line, rng = CountWindow(256, 8), np.random.default_rng(seed)
    x = np.full(integer("runs", runs, low=1), line.start(0.5 * line.along(0.0).success))
    x = sampled_positions(line, x, rate, steps, 1, rng)[-1]
    success = line.along(x).success
    x = x[success < 1e-6 if locked else success > 1e-3]
    ends = (sampled_positions(line, x, factor * rate, steps, steps // 2, rng)[::10] for factor in (cut, 1.0))
    after = [line.along(end).success.mean(0) for end in ends]
    return after[0] - after[1]


def ridge_run(multiple: float, steps: int = 150) -> Float[np.ndarray, " steps"]:
    """log J before each of the aligned steps of ``multiple`` times (1 - J) D_w / l on a ridge, from beside its top."""
    ridge, x, heights = Ridge(0.9, 1.0), 1e-2, []
    for _ in range(steps):
        heights.append(float(ridge.along(x).log_success))
        x += multiple * float(ridge.along(x).slope)
    return np.array(heights)


def _slopes(multiple: float, count: int) -> Float[np.ndarray, " count"]:
    """Slopes that grow by the factor 1 + multiple from step to step, up to 0.3."""
    return 0.3 * (1.0 + multiple) ** (np.arange(integer("slopes", count, low=1)) - count + 1.0)


def cycle_loss(multiple: float, kinks: bool = False, slopes: int = 12) -> float:
    """Nats of log J lost over one cycle of ``fixed_direction_loss``; negative is a gain."""
    start = _slopes(multiple, slopes)
    end = (1 - multiple) * start if kinks else (np.roll(start, -1) - (multiple - 1) * start) / 2
    return float((end**2 - start**2).sum() / (2 if kinks else 1))


def fixed_direction_loss(multiple: float, kinks: bool = False, slopes: int = 12, cycles: int = 300) -> float:
    """Nats of log J lost by steps in one direction, all of them uphill; where a cycle gains, minus what it gains.

    Steps are ``multiple`` times the slope, curvature 1. The slopes at their starts grow as fast as they can without
    kinks, and start again after so many, on a ``Sawtooth``.
    """
    if (loss := cycle_loss(multiple, kinks, slopes)) <= 0:
        return cycles * loss
    line, x, run = Sawtooth(multiple, 1.0, 0.3, _slopes(multiple, slopes), kinks), 0.0, []
    for _ in range(cycles * slopes):
        run.append(line.along(x))
        x += multiple * float(run[-1].slope)
    return float(run[0].log_success - run[-1].log_success) if min(here.gap for here in run) > 0 else 0.0


def two_cycle(chain: TokenChain, step: float, share: float = 0.5, steps: int = 100) -> Float[np.ndarray, " positions"]:
    """Positions of uphill steps of fixed length, whose two-cycle has its maximum at ``share`` of a step."""
    positions = [-(20 + share) * step]
    for _ in range(steps):
        positions.append(positions[-1] + step * np.sign(chain.along(positions[-1]).slope))
    return np.array(positions)


def failure_after_fixed_steps(features: ArrayLike, seed: int, right: int = 2) -> Float[np.ndarray, " policies"]:
    """1 - J of nine log-linear policies, the first ``right`` responses correct, after 120 steps of length 1 along D."""
    features, rng = np.asarray(features, float), np.random.default_rng(seed)
    theta, reward = rng.standard_normal((9, features.shape[1])), (np.arange(len(features)) < right).astype(float)
    for _ in range(120):
        _, gap = log_odds_and_gap(theta, features, reward)
        theta = theta + gap / np.linalg.norm(gap, axis=1, keepdims=True)
    return expit(-log_odds_and_gap(theta, features, reward)[0])


class Batches(NamedTuple):
    """Batches of prompts with shared parameters; ``gradients`` sum to the expected update of REINFORCE."""

    theta: Float[np.ndarray, "batches 1 d"]
    features: Float[np.ndarray, "batches prompts A d"]
    reward: Float[np.ndarray, "batches prompts A"]
    odds: Float[np.ndarray, "batches prompts"]
    gaps: Float[np.ndarray, "batches prompts d"]
    gradients: Float[np.ndarray, "batches prompts d"]

    def inner(self, alone: bool = False) -> Float[np.ndarray, "batches prompts"]:
        """<u, D_q> of the batch's update u, or of the prompt's own as if it were ``alone``."""
        update = len(self.odds[0]) * self.gradients if alone else self.gradients.sum(1, keepdims=True)
        return (self.gaps * update).sum(-1)

    def change(self, rates: Float[np.ndarray, "... batches prompts"], shared: bool = True) -> Reals:
        """Change of each prompt's log-odds, by the batch's update or, with parameters of its own, by its gradient."""
        update = self.gradients.sum(1, keepdims=True) if shared else self.gradients
        return log_odds_and_gap(self.theta + rates[..., None] * update, self.features, self.reward)[0] - self.odds


def random_batches(count: int, seed: int) -> Batches:
    """Four prompts of eight responses, two of them right, with Gaussian features in six dimensions."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((integer("count", count, low=1), 4, 8, 6))
    theta, reward = rng.standard_normal((count, 1, 6)), np.broadcast_to((np.arange(8) < 2) * 1.0, features.shape[:3])
    odds, gaps = log_odds_and_gap(theta, features, reward)
    return Batches(theta, features, reward, odds, gaps, (expit(odds) * expit(-odds))[..., None] * gaps / 4)


def lowered_prompts(batches: Batches, constant: float = 8.0, alone: bool = False) -> int:
    """Prompts with <u, D_q> > 0 that some rate below ``constant * <u, D_q> / (diam^2 |u|^2)`` lowers."""
    update = batches.gradients.sum(1, keepdims=True)
    width = feature_range(batches.features, update) * np.linalg.norm(update, axis=-1)
    fractions = np.linspace(0, 1, 21)[1:-1, None, None]
    lowered = batches.change(fractions * constant * batches.inner(alone) / width**2) <= 0
    return int((lowered.any(0) & (batches.inner() > 0)).sum())


class Usable(NamedTuple):
    """Measured critical rates, infinite beyond 1e4: of each prompt, 0 where any rate lowers it, and of their mean."""

    each: Float[np.ndarray, "batches prompts"]
    mean: Float[np.ndarray, " batches"]


def usable_rates(batches: Batches, shared: bool = True) -> Usable:
    """First returns of success with ``shared`` parameters, or with a copy of the parameters for each prompt."""
    start, longest = expit(batches.odds), 1e4

    def mean_gain(rates):
        moved = expit(batches.odds + batches.change(np.repeat(rates[:, None], 4, 1), shared))
        return (moved - start).mean(1)

    each, mean = (
        first_return_step(gain, np.full(shape, 1e-2), longest, growth=1.2, tolerance=1e-3)
        for gain, shape in ((lambda h: batches.change(h, shared), start.shape), (mean_gain, start.shape[:1]))
    )
    return Usable(np.where(shared & (batches.inner() < 0), 0.0, each), mean)
