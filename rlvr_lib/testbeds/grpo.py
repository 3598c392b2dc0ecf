"""The GRPO loop in plain sight, for any ``TrainablePolicy``.

Each step samples groups of responses, turns their rewards into advantages and ascends (1/B) sum_i A_i log pi(o_i), or
with length normalisation (1/B) sum_i (A_i / |o_i|) log pi(o_i). On-policy, for advantages that sum to zero in each
group, the expected step of plain SGD is the learning rate times ``rlvr_lib.group_gain`` times the gradient gap.
Left out: a KL penalty, a reference policy, several devices.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm import tqdm

from rlvr_lib.arguments import integer, non_negative, positive, require
from rlvr_lib.testbeds.checkpoint import load_tensors, restore_training, save_tensors, training_tensors
from rlvr_lib.testbeds.policy import Rollout, TrainablePolicy
from rlvr_lib.theory.advantages import ESTIMATORS, group_advantages

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

Advantages = Float[np.ndarray, "Q G"]
Baseline = Callable[[TrainablePolicy, Rollout], Float[np.ndarray, "..."]]
Prompts = Sequence[int] | Callable[[torch.Generator], Sequence[int]]


@dataclass(frozen=True)
class GRPO:
    """Settings of the loop.

    Attributes:
        group_size: G, responses to a prompt.
        estimator: one of ``rlvr_lib.theory.advantages.ESTIMATORS``.
        baseline: in place of the estimator: maps policy and rollout to what is subtracted from the rewards [Q, G].
        length_normalize: weight each response with 1/|o|.
        optimizer: ``sgd``, ``adam`` or ``adamw``, without weight decay.
        learning_rate: a number, or a function of the step, counted from 0.
        largest_gradient: norm to which longer gradients are cut; None cuts nothing.
        passes, minibatches: how often each rollout is used, and in how many parts; more than one update is off-policy.
        clip: the ratio of new to old token probabilities counts only within 1 - clip to 1 + clip; None: anywhere.
    """

    group_size: int = 16
    estimator: str = "grpo"
    baseline: Baseline | None = None
    length_normalize: bool = False
    optimizer: str = "sgd"
    learning_rate: float | Callable[[int], float] = 0.01
    largest_gradient: float | None = None
    passes: int = 1
    minibatches: int = 1
    clip: float | None = 0.2

    def __post_init__(self) -> None:
        for name in ("group_size", "passes", "minibatches"):
            integer(name, getattr(self, name), low=1)
        require(self.estimator in ESTIMATORS, "estimator", self.estimator, f"one of {', '.join(ESTIMATORS)}")
        require(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer, f"one of {', '.join(OPTIMIZERS)}")
        if not callable(self.learning_rate):
            non_negative("learning_rate", self.learning_rate)
        for name in ("largest_gradient", "clip"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))

    def advantages(self, policy: TrainablePolicy, rollout: Rollout) -> Advantages:
        """Advantage of every response of a rollout."""
        if self.baseline is None:
            return group_advantages(rollout.reward, self.estimator)
        return rollout.reward - np.broadcast_to(self.baseline(policy, rollout), rollout.reward.shape)


@dataclass(frozen=True)
class Step:
    """What one step of the loop did; ``before`` and ``after`` are all parameters, flat, [d]."""

    number: int
    rollout: Rollout
    learning_rate: float
    before: Float[torch.Tensor, " d"]
    after: Float[torch.Tensor, " d"]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch in one thread: sums do not depend on the machine's cores, and small tensors are not slowed down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def surrogate_loss(
    log_probs: Float[torch.Tensor, "B T"],
    old_log_probs: Float[torch.Tensor, "B T"],
    mask: Bool[torch.Tensor, "B T"],
    advantages: Float[torch.Tensor, " B"],
    settings: GRPO,
) -> Float[torch.Tensor, ""]:
    """Minus the mean over responses of the sum over tokens of the clipped, advantage-weighted probability ratio.

    Where new and old log-probabilities agree, its gradient is that of -(1/B) sum_i A_i sum_t log pi(o_it).
    """
    advantages = advantages.to(log_probs.dtype)[:, None]
    ratio = (log_probs - old_log_probs).exp()
    gain = ratio * advantages
    if settings.clip is not None:
        gain = torch.minimum(gain, ratio.clamp(1 - settings.clip, 1 + settings.clip) * advantages)
    per_response = (gain * mask).sum(-1)
    return -(per_response / mask.sum(-1) if settings.length_normalize else per_response).mean()


def update(
    policy: TrainablePolicy, optimizer: torch.optim.Optimizer, rollout: Rollout, advantages: Advantages, settings: GRPO
) -> float:
    """All optimizer steps on one rollout; returns the largest gradient norm, before any cut."""
    prompts, group_size = rollout.reward.shape
    count = settings.minibatches
    require(prompts % count == 0, "minibatches", count, f"a divisor of the {prompts} prompts of a step")
    size, rows = prompts // count, prompts // count * group_size
    starts, rewards = range(0, prompts, size), np.split(rollout.reward, count)
    whole = zip(starts, rollout.tokens.split(rows), rollout.mask.split(rows), rewards, strict=True)
    parts = [Rollout(rollout.prompts[start : start + size], *part) for start, *part in whole]
    weights = torch.as_tensor(np.ascontiguousarray(advantages)).flatten().split(rows)
    on_policy = settings.passes * count == 1
    with torch.no_grad():
        old = [None if on_policy else policy.token_log_probs(part) for part in parts]
    largest = 0.0
    for _ in range(settings.passes):
        for part, weight, old_log_probs in zip(parts, weights, old, strict=True):
            log_probs = policy.token_log_probs(part)
            reference = log_probs.detach() if old_log_probs is None else old_log_probs
            optimizer.zero_grad()
            surrogate_loss(log_probs, reference, part.mask, weight, settings).backward()
            norm = get_total_norm([value.grad for value in policy.parameters() if value.grad is not None])
            if settings.largest_gradient is not None:
                clip_grads_with_norm_(policy.parameters(), settings.largest_gradient, norm)
            optimizer.step()
            largest = max(largest, float(norm))
    return largest


def train(
    policy: TrainablePolicy,
    prompts: Prompts,
    settings: GRPO,
    steps: int,
    seed: int,
    on_step: Callable[[Step], Mapping[str, object] | None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 25,
    label: str = "",
    progress: bool = False,
) -> list[dict[str, object]]:
    """Train a policy in place; returns one record a step.

    Args:
        policy, settings: what is trained, and how.
        prompts: the prompts of every step, or a function that draws them with the loop's generator.
        steps: total number of steps, those of a resumed checkpoint included.
        seed: of the prompts drawn and the responses sampled.
        on_step: sees each step; what it returns is added to the record.
        checkpoint, checkpoint_every: a file written every so many steps and at the end, atomically. Where it exists
            the run goes on from it, and the next step is the same, bit by bit, as without the interruption.
        label: what else a checkpoint must agree on with the run that resumes it, such as model and task.
        progress: show a bar.
    """
    steps, checkpoint_every = integer("steps", steps, low=0), integer("checkpoint_every", checkpoint_every, low=1)
    optimizer = OPTIMIZERS[settings.optimizer](policy.parameters(), lr=0.0, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(integer("seed", seed, low=0))
    described = {name: "function" if callable(value) else value for name, value in vars(settings).items()}
    identity = {"settings": described, "seed": seed, "label": label}
    records: list[dict[str, object]] = []
    if checkpoint is not None and checkpoint.exists():
        tensors, info = load_tensors(checkpoint)
        require(info["identity"] == json.loads(json.dumps(identity)), "checkpoint", info["identity"], f"of {identity}")
        restore_training(tensors, policy.parameters(), optimizer, generator)
        records = info["records"]
    with one_thread(), tqdm(total=steps, initial=len(records), desc="GRPO", disable=not progress) as bar:
        for number in range(len(records), steps):
            chosen = prompts(generator) if callable(prompts) else prompts
            rollout = policy.rollout(chosen, settings.group_size, generator)
            advantages = settings.advantages(policy, rollout)
            rate = float(settings.learning_rate(number) if callable(settings.learning_rate) else settings.learning_rate)
            optimizer.param_groups[0]["lr"] = rate
            before = flat(policy.parameters())
            gradient_norm = update(policy, optimizer, rollout, advantages, settings)
            after = flat(policy.parameters())
            record = {
                "step": number,
                "success_rate": float(rollout.reward.mean()),
                "learning_rate": rate,
                "gradient_norm": gradient_norm,
                "update_norm": float((after - before).norm()),
                "mean_length": float(rollout.length.double().mean()),
            }
            extra = on_step(Step(number, rollout, rate, before, after)) if on_step else None
            records.append(record | dict(extra or {}))
            bar.update()
            bar.set_postfix(success=f"{record['success_rate']:.3f}", refresh=False)
            if checkpoint is not None and (number + 1 == steps or (number + 1) % checkpoint_every == 0):
                tensors = training_tensors(policy.parameters(), optimizer, generator)
                save_tensors(checkpoint, tensors, {"identity": identity, "records": records})
    return records


def flat(parameters: Sequence[torch.Tensor]) -> Float[torch.Tensor, " d"]:
    """A detached copy of all parameters in one vector, in their order."""
    return torch.cat([value.detach().flatten() for value in parameters])
