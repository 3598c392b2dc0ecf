"""Chapter 5 on the synthetic transformer: sampled training with a baseline from past batches, many seeds side by side.

Eight prompts, chains of four steps over S3; all 1,296 responses to a prompt can be enumerated.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from rlvr_lib.arguments import integer, positive, require
from rlvr_lib.responses import Responses
from rlvr_lib.testbeds.transformer import AttentionPolicy, TransformerTestbed, WordProblems, draw_problems
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.baseline import LaggedBaseline
from rlvr_lib.theory.groups import symmetric_group

GROUP, STEPS_OF_A_CHAIN, NAMES, PROMPTS = 4, 4, 8, 8
METHODS = ("RLOO", "zero baseline", "GRPO", "lagged b*")


class Runs(NamedTuple):
    """Exact success of every run before each step and at the end; its parameters after 0, 1/4, 1/2 and all steps."""

    success: Float[np.ndarray, "looks runs"]
    kept: Float[np.ndarray, "kept runs d"]


@cache
def _problems(seed: int) -> tuple[AttentionPolicy, WordProblems]:
    return AttentionPolicy(names=NAMES), draw_problems(symmetric_group(3), (STEPS_OF_A_CHAIN,), PROMPTS, seed, NAMES)


def _laws_and_slopes(seed: int, theta: Float[np.ndarray, "runs d"]) -> tuple[np.ndarray, np.ndarray]:
    """Laws of the steps [runs, prompts, T, order], and their derivatives [..., d]."""
    policy, problems = _problems(seed)
    policy.step_law(torch.tensor(theta[0]), problems)  # what the problems cache may not be made inside a transform

    def both(one: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        law = lambda value: policy.step_law(value, problems)  # noqa: E731
        return law(one), torch.func.jacfwd(law)(one)

    with warnings.catch_warnings():  # torch's own, at its first forward-mode derivative
        warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated", DeprecationWarning)
        law, slope = (part.numpy() for part in torch.func.vmap(both)(torch.tensor(theta)))
    return law.transpose(0, 3, 1, 2), slope.transpose(0, 3, 1, 2, 4)


@cache
def train(method: str, rate: float, runs: int, steps: int, seed: int) -> Runs:
    """Plain gradient steps at one rate, many runs; run k draws from (seed, k), whatever the method."""
    require(method in METHODS, "method", method, f"one of {', '.join(METHODS)}")
    rate, steps, runs = float(positive("rate", rate)), integer("steps", steps, low=1), integer("runs", runs, low=1)
    policy, problems = _problems(seed)
    theta = np.tile(policy.initial(2.0).numpy(), (runs, 1))
    rngs = [np.random.default_rng([seed, 7, one]) for one in range(runs)]
    target, table = problems.target.numpy()[:, None], symmetric_group(3).table
    lagged, looks, kept = LaggedBaseline(), [], []

    def look() -> Float[np.ndarray, " runs"]:
        with torch.no_grad():
            return policy.success(torch.tensor(theta), problems).mean(-1).numpy()

    for step in range(steps):
        looks.append(look())
        if step in (0, steps // 4, steps // 2):
            kept.append(theta)
        law, slope = _laws_and_slopes(seed, theta)
        noise = np.stack([rng.random((PROMPTS, GROUP, STEPS_OF_A_CHAIN)) for rng in rngs])
        element = (noise[..., None] > law.cumsum(-1)[:, :, None, :, :-1]).sum(-1)
        done, score = np.zeros(element.shape[:-1], dtype=int), np.zeros(1)
        for t in range(STEPS_OF_A_CHAIN):
            done = table[done, element[..., t]]
            taken = np.take_along_axis(law[:, :, t], element[..., t], -1)
            score = score + np.take_along_axis(slope[:, :, t], element[..., t, None], 2) / taken[..., None]
        reward, energy = (done == target).astype(float), (score**2).sum(-1)
        if method == "lagged b*":
            advantage = reward - np.broadcast_to(lagged.value, runs)[:, None, None]
        else:
            names = {"RLOO": "rloo", "zero baseline": "reinforce", "GRPO": "grpo"}
            advantage = group_advantages(reward, names[method])
        lagged.update(reward, energy)
        theta = theta + rate * np.einsum("rpg,rpgd->rd", advantage, score) / (PROMPTS * GROUP)
    return Runs(np.array([*looks, look()]), np.array([*kept, theta]))


def responses(theta: Float[np.ndarray, " d"], seed: int, prompts: int = 4) -> list[Responses]:
    """All responses of a policy to each of the first prompts."""
    policy, problems = _problems(seed)
    testbed = TransformerTestbed(policy, problems, torch.tensor(theta))
    return [testbed.enumerate(prompt) for prompt in range(integer("prompts", prompts, low=1))]
