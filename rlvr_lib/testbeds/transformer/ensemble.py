"""REINFORCE and GRPO on the synthetic transformer, many runs (seeds, mixtures, learning rates) at once.

Every update is plain gradient ascent on sum over horizons of (mixture weight) x (mean success of its prompts), with
the estimator's own weight on each prompt. Expected updates are exact, by dynamic programming; sampled ones draw a
group of responses to every prompt. Either way the update is a cotangent on the law of the steps, pulled back through
attention once. Left out on purpose: Adam, clipping, several epochs, KL and entropy terms: the generic loop has those
that the book needs, one run at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from tqdm import tqdm

from rlvr_lib.arguments import closed_interval, integer, non_negative, real_array, require
from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy
from rlvr_lib.testbeds.transformer.problems import (
    WordProblems,
    running_products,
    step_errors,
    step_mean,
    success_and_sensitivity,
    success_probability,
)
from rlvr_lib.theory.advantages import ESTIMATORS, POWERS, gain_over_variance, group_advantages

PromptWeight = Callable[[Float[torch.Tensor, "R P"]], Float[torch.Tensor, "R P"]]


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """What was seen along R runs at S recorded iterations, the last of them after the last update.

    Attributes:
        iteration: [S], updates made before each record.
        horizons: the H horizons.
        success: [S, R, H], exact success, mean over the prompts of each horizon.
        attention: [S, R, H], mean attention of a step on the right clause.
        error: [S, R, H, order], mean law of the one-step error (right)^-1 (done).
        theta: [R, d], the final parameters.
        snapshots: [S, R, d], the parameters at each record, or None.
    """

    iteration: Int[np.ndarray, " S"]
    horizons: tuple[int, ...]
    success: Float[np.ndarray, "S R H"]
    attention: Float[np.ndarray, "S R H"]
    error: Float[np.ndarray, "S R H order"]
    theta: Float[np.ndarray, "R d"]
    snapshots: Float[np.ndarray, "S R d"] | None


def expected_weight(estimator: str, group_size: int | None) -> PromptWeight:
    """Expected update of an estimator as a multiple of the gradient of success: gain(J) / (J (1 - J)), by I6.

    ``grpo_batch`` has none: its weight depends on the other prompts.
    """
    allowed = [name for name in ESTIMATORS if name != "grpo_batch"]
    require(estimator in allowed, "estimator", estimator, f"one of {', '.join(allowed)} for expected updates")
    if estimator in ("reinforce", "rloo"):
        return torch.ones_like
    size, power = integer("group_size", group_size, low=2), POWERS[estimator]
    return lambda success: torch.as_tensor(gain_over_variance(success.numpy().clip(0, 1), power, size))


def train(
    policy: AttentionPolicy,
    theta: ArrayLike,
    problems: WordProblems | Callable[[int], WordProblems],
    iterations: int,
    learning_rate: ArrayLike,
    mixture: ArrayLike | None = None,
    estimator: str | PromptWeight = "reinforce",
    group_size: int | None = None,
    seeds: Sequence[int] | None = None,
    baseline_decay: float | None = None,
    record_every: int = 1,
    keep_parameters: bool = False,
    progress: bool = False,
) -> TrainingRecord:
    """Train R runs side by side; a run's result depends on its own parameters, prompts and seed only.

    Args:
        policy: the architecture.
        theta: [R, d], where the runs start.
        problems: prompts [R, P] or shared [P]; or a function of the iteration that draws fresh ones.
        iterations: updates.
        learning_rate: one number, [iterations], or [iterations, R]; nats of theta per unit of gradient.
        mixture: weights of the horizons in the objective, [H] or [R, H], each at least 0; 1/H when not given. A
            horizon of weight 0 is recorded and not trained on.
        estimator: a name of ``rlvr_lib.theory.advantages.ESTIMATORS``; for expected updates also a function of success
            [R, P] that weights the gradients of the prompts.
        group_size: G, for sampled groups, and for expected updates that depend on it.
        seeds: R seeds for sampled groups; None for expected updates.
        baseline_decay: for sampled ``reinforce``: subtract an exponential moving average of the run's mean reward.
        record_every: iterations between records.
        keep_parameters: keep the parameters of every record.
        progress: show a progress bar.
    """
    theta = torch.tensor(real_array("theta", theta, ndim=2))
    runs = len(theta)
    require(theta.shape[1] == policy.size, "theta", f"{theta.shape[1]} columns", f"[R, {policy.size}]")
    iterations, record_every = integer("iterations", iterations, low=1), integer("record_every", record_every, low=1)
    draw = problems if callable(problems) else lambda _: problems
    horizons = draw(0).horizons
    rates, mixture = _rates(learning_rate, iterations, runs), _mixture(mixture, runs, len(horizons))
    cotangent = _cotangents(estimator, group_size, seeds, baseline_decay, runs)
    rows: list[tuple] = []
    for iteration in tqdm(range(iterations + 1), disable=not progress, desc="training"):
        batch = draw(iteration)
        _check_problems(batch, policy, runs, horizons)
        theta.requires_grad_(True)
        read, attention = policy.attend(theta, batch.step_name, batch.values)
        law = policy.head(read)
        slope, success = cotangent(law.detach(), batch, mixture @ batch.horizon_mean)
        (gradient,) = torch.autograd.grad(law, theta, slope)
        theta = theta.detach()
        if iteration % record_every == 0 or iteration == iterations:
            kept = theta.numpy() if keep_parameters else None
            rows.append((iteration, *_measure(law.detach(), attention.detach(), batch, success), kept))
        theta = theta + rates[iteration][:, None] * gradient
    at, solved, attended, error, snapshots = zip(*rows, strict=True)
    return TrainingRecord(
        np.array(at),
        horizons,
        np.array(solved),
        np.array(attended),
        np.array(error),
        theta.numpy(),
        np.array(snapshots) if keep_parameters else None,
    )


def _check_problems(problems: WordProblems, policy: AttentionPolicy, runs: int, horizons: tuple[int, ...]) -> None:
    same = problems.horizons == horizons
    require(same, "problems", problems.horizons, f"of horizons {horizons} at every iteration")
    shape = tuple(problems.element.shape)
    require(shape[-1] == policy.names, "problems", f"{shape[-1]} names", f"over {policy.names} names")
    require(shape[:-2] in ((), (runs,)), "problems", f"run axes {shape[:-2]}", f"without a run axis, or with {runs}")


def _rates(learning_rate: ArrayLike, iterations: int, runs: int) -> Float[torch.Tensor, "updates R"]:
    """Learning rates of all updates, and 0 after the last one, where there is only a record."""
    rates = real_array("learning_rate", learning_rate)
    allowed = ((), (iterations,), (iterations, runs))
    require(rates.shape in allowed, "learning_rate", f"shape {rates.shape}", f"of a shape among {allowed}")
    rates = np.broadcast_to(rates[:, None] if rates.ndim == 1 else rates, (iterations, runs))
    return torch.tensor(np.concatenate([rates, np.zeros((1, runs))]))


def _mixture(mixture: ArrayLike | None, runs: int, horizons: int) -> Float[torch.Tensor, "R H"]:
    weights = np.full(horizons, 1 / horizons) if mixture is None else non_negative("mixture", mixture)
    fits = weights.shape in ((horizons,), (runs, horizons))
    require(fits, "mixture", f"shape {weights.shape}", f"of shape ({horizons},) or ({runs}, {horizons})")
    return torch.tensor(np.broadcast_to(weights, (runs, horizons)).copy())


def _measure(law, right, problems, success) -> tuple[np.ndarray, ...]:
    success = success_probability(law, problems) if success is None else success
    columns = (success @ problems.horizon_mean.T, step_mean(right, problems), step_errors(law, problems))
    return tuple(column.numpy() for column in columns)


def _cotangents(estimator, group_size, seeds, baseline_decay, runs) -> Callable:
    """The function that maps the law of the steps to the cotangent of one update, and success if it had to know it."""
    require(
        baseline_decay is None or seeds is not None, "baseline_decay", baseline_decay, "None without sampled groups"
    )
    if seeds is None:
        return _expected(estimator if callable(estimator) else expected_weight(estimator, group_size))
    require(len(seeds) == runs, "seeds", f"{len(seeds)} of them", f"one for each of {runs} runs")
    require(estimator in ESTIMATORS, "estimator", estimator, f"one of {', '.join(ESTIMATORS)} for sampled groups")
    smallest = 2 if estimator == "rloo" else 1
    group_size = integer("group_size", group_size, low=smallest)
    if baseline_decay is not None:
        require(estimator == "reinforce", "baseline_decay", baseline_decay, "None unless the estimator is reinforce")
        baseline_decay = float(closed_interval("baseline_decay", baseline_decay, 0, 1))
    generators = [torch.Generator().manual_seed(integer("seeds", seed, low=0)) for seed in seeds]
    return _sampled(estimator, group_size, generators, baseline_decay)


def _expected(prompt_weight: PromptWeight) -> Callable:
    def cotangent(law, problems, weight):
        success, sensitivity = success_and_sensitivity(law, problems)
        return sensitivity * (weight * prompt_weight(success))[:, None, None], success

    return cotangent


def _sampled(estimator: str, group_size: int, generators: list[torch.Generator], decay: float | None) -> Callable:
    baseline = np.zeros(len(generators))

    def cotangent(law, problems, weight):
        multiplier = draw_multipliers(law, problems, group_size, generators)  # [R, P, G, T]
        products = running_products(problems.group, multiplier)[..., -1]
        reward = (products == problems.target.expand(products.shape[:2])[..., None]).double().numpy()
        advantage = np.zeros_like(reward)
        for run, trained in enumerate(weight.numpy() > 0):  # run by run: batch-wide statistics belong to one run
            own = reward[run, trained]
            advantage[run, trained] = group_advantages(own, estimator) - baseline[run]
            if decay is not None:
                baseline[run] += (1 - decay) * (own.mean() - baseline[run])
        share = torch.tensor(advantage) * weight[..., None] / group_size
        index = multiplier.permute(0, 3, 2, 1)  # [R, T, G, P]
        total = torch.zeros_like(law).scatter_add_(2, index, share.transpose(1, 2)[:, None].expand(index.shape))
        running = torch.arange(law.shape[1])[:, None] < problems.horizon
        # The gradient of log(law) at the drawn element; a law of zero is never drawn and has no share.
        slope = torch.where(running[:, None] & (total != 0), total / law, 0.0)
        return slope, None

    return cotangent


def draw_multipliers(
    law: Float[torch.Tensor, "R T order P"], problems: WordProblems, group_size: int, generators: list[torch.Generator]
) -> Int[torch.Tensor, "R P G T"]:
    """``group_size`` independent responses to every prompt of every run, as multipliers; the identity past the end."""
    running = torch.arange(law.shape[1]) < problems.horizon[:, None]  # [P, T]
    drawn = torch.zeros(len(law), *running.shape, group_size, dtype=torch.long)
    for run, generator in enumerate(generators):
        rows = law[run].permute(2, 0, 1)[running]
        drawn[run, running] = torch.multinomial(rows, group_size, replacement=True, generator=generator)
    return drawn.transpose(2, 3)
