"""Logs of healthy and of doomed runs, on which the alarm of ``rlvr_lib.theory.meter`` is calibrated and tried."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from rlvr_lib.testbeds.group_tasks import builtin_task
from rlvr_lib.testbeds.grpo import GRPO, Step, train
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.meter import covariance_loss


@dataclass(frozen=True)
class Log:
    """What a trainer logs: one number a step, [T] each.

    Attributes:
        loss: minus the mean over responses of advantage times log-probability (nats), before the update.
        reward: mean reward of the step's responses.
        length: mean length of the step's responses, in tokens.
    """

    loss: Float[np.ndarray, " T"]
    reward: Float[np.ndarray, " T"]
    length: Float[np.ndarray, " T"]


def logged_run(
    seed: int,
    learning_rate: float,
    steps: int,
    raised: tuple[int, float] | None = None,
    prompts: int = 1,
    group_size: int = 8,
    optimizer: str = "adamw",
) -> Log:
    """Train the tiny Qwen on words from its warm start, with GRPO and no clipping or penalty, and keep its log.

    ``raised`` is a step from which on the rate is multiplied, and by what: a run that is healthy until then.
    """
    task = builtin_task("word")
    testbed = QwenTestbed(task, "tiny")
    since, factor = raised or (steps, 1.0)
    settings = GRPO(
        group_size,
        optimizer=optimizer,
        learning_rate=lambda number: learning_rate * (factor if number >= since else 1.0),
    )

    def loss(step: Step) -> dict[str, float]:
        # The loop has moved on to `after`; the loss a trainer logs is that of the parameters that drew the responses.
        with torch.no_grad():
            before = testbed.at(step.before.double().numpy())
            log_prob = before.token_log_probs(step.rollout).double().sum(-1).numpy()
        return {"loss": covariance_loss(group_advantages(step.rollout.reward, "grpo"), log_prob)}

    def draw(generator: torch.Generator) -> list[int]:
        return list(task.draw(prompts, generator))

    records = train(testbed, draw, settings, steps, seed, loss)
    columns = ("loss", "success_rate", "mean_length")
    return Log(*(np.array([record[name] for record in records], dtype=float) for name in columns))
