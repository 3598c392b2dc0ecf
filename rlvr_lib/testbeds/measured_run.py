"""What the theory says about each step of a GRPO run on a Qwen testbed, and the run behind ``rlvr train``.

All quantities are measured at the parameters BEFORE the step, on an extra rollout of the same prompts that the step
did not use: on the step's own samples its alignment with the gap would be counted with its noise.
"""

from __future__ import annotations

import json
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
from rlvr_lib.testbeds.scores import rollout_squared_norms, second_order
from rlvr_lib.theory.baseline import baseline_of_sums
from rlvr_lib.theory.signal import gradient_snr
from rlvr_lib.theory.threshold import AlongStep

PROMPTS_PER_STEP = 8


def along_step(testbed: QwenTestbed, rollout: Rollout, direction: Float[np.ndarray, " d"]) -> AlongStep:
    """Derivatives of the success rate along a unit direction, from a rollout of at least two responses a prompt."""
    reward = torch.as_tensor(rollout.reward)
    weight = (reward - reward.mean(1, keepdim=True)).flatten() / (reward.numel() - len(reward))
    named = {name: value.detach().double() for name, value in testbed.named.items()}
    (_, slope), (_, second) = second_order(
        lambda p: testbed.token_log_probs(rollout, p).sum(-1), named, testbed.unflatten("direction", direction)
    )
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


def signal_to_noise(gradients: Float[torch.Tensor, "Q d"]) -> float | None:
    """``rlvr_lib.theory.signal.gradient_snr``, or None for a single row or rows without noise."""
    differ = len(gradients) > 1 and bool((gradients != gradients[0]).any())
    return gradient_snr(gradients.numpy()) if differ else None


def diagnose(testbed: QwenTestbed, step: Step, settings: GRPO, seed: int) -> dict[str, float | None]:
    """The measured quantities of one step; None for what is undefined there."""
    before = testbed.at(step.before.double().numpy())
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, step.number]).generate_state(1)[0]))
    extra = before.rollout(step.rollout.prompts, settings.group_size, generator)
    norms = rollout_squared_norms(before, extra).double().numpy()
    baseline = baseline_of_sums(extra.reward.flatten() @ norms, norms.sum())
    move = (step.after.double() - step.before.double()).numpy()
    length, alignment, critical = float(np.linalg.norm(move)), None, None
    if length > 0 and settings.group_size > 1:
        along = along_step(before, extra, move / length)
        alignment, critical = along.gap_alignment, along.critical_step
    return {
        "gap_alignment": alignment,
        "gradient_snr": signal_to_noise(prompt_gradients(before, extra, settings)),
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
    prompts_per_step: int = PROMPTS_PER_STEP,
    progress: bool = False,
) -> list[dict[str, object]]:
    """Run the loop on a Qwen, and write ``metrics.jsonl``, one object a step, and the trained ``model`` to a folder.

    The critical learning rate is the longest step of theorem 2 along the actual update, in units of the learning rate:
    for an update of gain times gap it is 2 (1 - J) / (gain l). A run that was interrupted goes on from
    ``checkpoint.safetensors`` in the folder; both results appear whole or not at all.

    Args:
        task: ``word`` or ``many``.
        steps: at least 1.
        out: folder, created if need be.
        seed: of prompts and responses; the warm start is always that of seed 0.
        model: ``tiny``, a folder, or a name on the hub.
        settings: of the loop; plain GRPO by SGD when not given.
        prompts_per_step: Q.
        progress: show bars.

    Raises:
        ValueError: an argument outside these, or a checkpoint of another run.
    """
    integer("steps", steps, low=1)
    integer("prompts_per_step", prompts_per_step, low=1)
    chosen, settings = builtin_task(task), settings or GRPO()
    testbed = QwenTestbed(chosen, model, progress=progress)
    checkpoint = out / "checkpoint.safetensors"
    records = train(
        testbed,
        lambda generator: chosen.draw(prompts_per_step, generator),
        settings,
        steps,
        seed,
        on_step=lambda step: diagnose(testbed, step, settings, seed),
        checkpoint=checkpoint,
        label=f"{model} {task} {prompts_per_step}",
        progress=progress,
    )
    records[0]["world_size"] = 1
    testbed.save(out / "model")
    write_whole(out / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())
    checkpoint.unlink()
    return records
