"""REINFORCE and GRPO on the synthetic transformer, many runs (seeds, learning rates) at once.

Every update is plain gradient ascent on the mean over horizons of the mean success of their prompts, with the
estimator's own weight on each prompt. Expected updates are exact, by dynamic programming; sampled ones draw a group of
responses to every prompt. Either way the update is a cotangent on the law of the steps, pulled back through attention
once. What else a loop may have is in ``rlvr_lib.testbeds.grpo``, one run at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, integer, real_array, require
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
        iteration: updates made before each record.
        success: exact success, mean over the prompts of each of the H horizons.
        attention: mean attention of a step on the right clause.
        error: mean law of the one-step error (right)^-1 (done).
        theta: the final parameters.
        snapshots: the parameters at each record, or None.
    """

    iteration: Int[np.ndarray, " S"]
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
    theta: Reals,
    problems: WordProblems | Callable[[int], WordProblems],
    iterations: int,
    learning_rate: ArrayLike,
    estimator: str | PromptWeight = "reinforce",
    group_size: int | None = None,
    seeds: Sequence[int] | None = None,
    record_every: int = 1,
    keep_parameters: bool = False,
) -> TrainingRecord:
    """Train R runs side by side; a run's result depends on its own parameters, prompts and seed only.

    Args:
        policy: the architecture.
        theta: [R, d], where the runs start.
        problems: prompts [R, P] or shared [P]; or a function of the iteration that draws fresh ones.
        iterations: updates.
        learning_rate: one number, or [iterations, R]; nats of theta per unit of gradient.
        estimator: one of ``ESTIMATORS``; for expected updates also a function of success [R, P] that weights the
            gradients of the prompts.
        group_size: G, for sampled groups, and for expected updates that depend on it.
        seeds: R seeds for sampled groups; None for expected updates.
        record_every, keep_parameters: iterations between records, and whether these hold the parameters.
    """
    theta = torch.tensor(real_array("theta", theta, ndim=2))
    runs = len(theta)
    require(theta.shape[1] == policy.size, "theta", f"{theta.shape[1]} columns", f"[R, {policy.size}]")
    iterations, record_every = integer("iterations", iterations, low=1), integer("record_every", record_every, low=1)
    given, allowed = real_array("learning_rate", learning_rate), ((), (iterations, runs))
    require(given.shape in allowed, "learning_rate", f"shape {given.shape}", f"of a shape among {allowed}")
    rates = torch.tensor(np.broadcast_to(given, (iterations, runs)).copy())
    draw = problems if callable(problems) else lambda _: problems
    horizons = draw(0).horizons
    cotangent = _cotangents(estimator, group_size, seeds, runs)
    rows, snapshots = [], list[np.ndarray]()
    for iteration in range(iterations + 1):
        batch = draw(iteration)
        require(batch.horizons == horizons, "problems", batch.horizons, f"of horizons {horizons} at every iteration")
        shape = tuple(batch.element.shape)
        require(shape[-1] == policy.names, "problems", f"{shape[-1]} names", f"over {policy.names} names")
        require(shape[:-2] in ((), (runs,)), "problems", f"run axes {shape[:-2]}", f"those of no run, or of {runs}")
        theta.requires_grad_(True)
        read, attention = policy.attend(theta, batch.step_name, batch.values)
        law = policy.head(read)
        # Every horizon has the same share of the objective, and every prompt of it the same share of that.
        slope, success = cotangent(law.detach(), batch, (1 / len(horizons) * batch.horizon_mean).sum(0))
        (gradient,) = torch.autograd.grad(law, theta, slope)
        theta, law = theta.detach(), law.detach()
        if iteration % record_every == 0 or iteration == iterations:
            success = success_probability(law, batch) if success is None else success
            attended, error = step_mean(attention.detach(), batch), step_errors(law, batch)
            rows.append((iteration, (success @ batch.horizon_mean.T).numpy(), attended.numpy(), error.numpy()))
            snapshots += [theta.numpy()] * keep_parameters
        if iteration < iterations:
            theta = theta + rates[iteration][:, None] * gradient
    at, *seen = (np.array(column) for column in zip(*rows, strict=True))
    kept = np.array(snapshots) if keep_parameters else None
    return TrainingRecord(at, seen[0], seen[1], seen[2], theta.numpy(), kept)


def _cotangents(estimator, group_size, seeds, runs) -> Callable:
    """The function of law, problems and shares [P] that gives an update's cotangent, and success if it had to know."""
    if seeds is None:
        prompt_weight = estimator if callable(estimator) else expected_weight(estimator, group_size)

        def expected(law, problems, share):
            success, sensitivity = success_and_sensitivity(law, problems)
            return sensitivity * (share * prompt_weight(success))[:, None, None], success

        return expected
    require(len(seeds) == runs, "seeds", f"{len(seeds)} of them", f"one for each of {runs} runs")
    require(estimator in ESTIMATORS, "estimator", estimator, f"one of {', '.join(ESTIMATORS)} for sampled groups")
    group_size = integer("group_size", group_size, low=2 if estimator == "rloo" else 1)
    generators = [torch.Generator().manual_seed(integer("seeds", seed, low=0)) for seed in seeds]

    def sampled(law, problems, share):
        multiplier = draw_multipliers(law, problems, group_size, generators)  # [R, P, G, T]
        products = running_products(problems.group, multiplier)[..., -1]
        reward = (products == problems.target.expand(products.shape[:2])[..., None]).double().numpy()
        # Run by run: batch-wide statistics belong to one run.
        advantage = np.stack([group_advantages(own, estimator) for own in reward])
        share = torch.tensor(advantage) * share[:, None] / group_size
        index = multiplier.permute(0, 3, 2, 1)  # [R, T, G, P]
        total = torch.zeros_like(law).scatter_add_(2, index, share.transpose(1, 2)[:, None].expand(index.shape))
        running = torch.arange(law.shape[1])[:, None] < problems.horizon
        # The gradient of log(law) at the drawn element; a law of zero is never drawn and has no share.
        return torch.where(running[:, None] & (total != 0), total / law, 0.0), None

    return sampled


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
