"""What the theory says about each step of a GRPO run on a Qwen testbed, and the run behind ``rlvr train``.

All quantities are measured at the parameters BEFORE the step, on an extra rollout of the same prompts that the step
did not use: on the step's own samples its alignment with the gap would be counted with its noise.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from rlvr_lib.arguments import integer
from rlvr_lib.files import write_whole
from rlvr_lib.testbeds.group_tasks import builtin_task
from rlvr_lib.testbeds.grpo import GRPO, Step, train
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.scores import second_order
from rlvr_lib.theory.baseline import baseline_of_sums
from rlvr_lib.theory.signal import gradient_snr
from rlvr_lib.theory.threshold import AlongStep


def along_step(testbed: QwenTestbed, rollout: Rollout, direction: Float[np.ndarray, " d"]) -> AlongStep:
    """Derivatives of the success rate along a unit direction, from a rollout of at least two responses a prompt."""
    reward = torch.as_tensor(rollout.reward)
    weight = (reward - reward.mean(1, keepdim=True)).flatten() / (reward.numel() - len(reward))
    named = {name: value.detach().double() for name, value in testbed.named.items()}
    towards = testbed.unflatten("direction", direction)
    (_, slope), (_, second) = second_order(lambda p: testbed.token_log_probs(rollout, p).sum(-1), named, towards)
    return AlongStep(float(reward.mean()), float(weight @ slope), float(weight @ (second + slope**2)))


def prompt_gradients(testbed: QwenTestbed, rollout: Rollout, settings: GRPO) -> Float[torch.Tensor, "Q d"]:
    """What each prompt contributes to the gradient that the loop ascends."""
    advantages = torch.as_tensor(settings.advantages(testbed, rollout)).to(testbed.parameters()[0].dtype)
    log_prob = testbed.token_log_probs(rollout).sum(-1)
    if settings.length_normalize:
        log_prob = log_prob / rollout.length
    objective = (advantages * log_prob.view(advantages.shape)).mean(1)
    each = torch.eye(len(objective), dtype=objective.dtype)
    gradients = torch.autograd.grad(objective, testbed.parameters(), each, is_grads_batched=True)
    return torch.cat([gradient.flatten(1) for gradient in gradients], 1).double()


def diagnose(testbed: QwenTestbed, step: Step, settings: GRPO, seed: int) -> dict[str, float | None]:
    """The measured quantities of one step; None for what is undefined there.

    The critical learning rate is the longest step of theorem 2 along the actual update, in units of the learning rate:
    for an update of gain times gap it is 2 (1 - J) / (gain l).
    """
    before = testbed.at(step.before.double().numpy())
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, step.number]).generate_state(1)[0]))
    extra = before.rollout(step.rollout.prompts, settings.group_size, generator)
    norms = before.squared_norms(extra).double().numpy()
    baseline = baseline_of_sums(extra.reward.flatten() @ norms, norms.sum())
    move = (step.after.double() - step.before.double()).numpy()
    length, alignment, critical = float(np.linalg.norm(move)), None, None
    if length > 0 and settings.group_size > 1:
        along = along_step(before, extra, move / length)
        alignment, critical = along.gap_alignment, along.critical_step
    gradients = prompt_gradients(before, extra, settings).numpy()
    return {
        "gap_alignment": alignment,
        "gradient_snr": gradient_snr(gradients) if (gradients != gradients[0]).any() else None,
        "critical_learning_rate": None if critical is None else critical * step.learning_rate / length,
        "optimal_baseline": float(baseline) if norms.any() else None,
    }


def train_builtin(
    task: str,
    steps: int,
    out: Path,
    seed: int = 0,
    model: str = "tiny",
    settings: GRPO | None = None,
    prompts_per_step: int = 8,
    progress: bool = False,
) -> list[dict[str, object]]:
    """Run the loop on a Qwen, and write ``metrics.jsonl``, one object a step, and the trained ``model`` to a folder.

    A run that was interrupted goes on from ``checkpoint.safetensors`` in the folder; both results appear whole or not
    at all, and a checkpoint of another run is refused. ``task`` and ``model`` are those of ``builtin_task`` and
    ``QwenTestbed``, whose warm start is always that of seed 0; without settings the loop is plain GRPO by SGD.
    """
    integer("steps", steps, low=1)
    integer("prompts_per_step", prompts_per_step, low=1)
    chosen, settings = builtin_task(task), settings or GRPO()
    testbed = QwenTestbed(chosen, model, progress=progress)
    checkpoint = out / "checkpoint.safetensors"
    draw, measure = partial(chosen.draw, prompts_per_step), partial(diagnose, testbed, settings=settings, seed=seed)
    label = f"{model} {task} {prompts_per_step}"
    records = train(testbed, draw, settings, steps, seed, measure, checkpoint, label=label, progress=progress)
    records[0]["world_size"] = 1
    testbed.save(out / "model")
    write_whole(out / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())
    checkpoint.unlink()
    return records
