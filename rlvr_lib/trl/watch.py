"""Watch a plain ``trl.GRPOTrainer``, or any subclass of it, without changing what it does.

``watch(trainer)`` sees rewards and updates and logs what follows from them; ``UNSEEN`` is what it cannot see.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import TrainerCallback

from rlvr_lib.arguments import require
from rlvr_lib.trl.rollouts import success_of

if TYPE_CHECKING:
    from trl import GRPOTrainer

logger = logging.getLogger(__name__)

PREFIX = "rlvr/"
UNSEEN = (
    "gap_norm", "gap_alignment", "critical_learning_rate", "learning_rate_ratio", "gradient_snr", "noise_scale",
    "optimal_baseline", "baseline_loss", "cosine_mean", "cosine_std",
)  # fmt: skip


class RewardWatch(TrainerCallback):
    """Logs, at every step, what rewards and parameters show: see ``watch``."""

    def __init__(self, trainer: GRPOTrainer, success_threshold: float | None, rows: Path | None) -> None:
        self.trainer, self.success_threshold, self.rows = trainer, success_threshold, rows
        self._rewards: list[torch.Tensor] = []
        self._before: list[torch.Tensor] = []
        self._descent: list[torch.Tensor | None] = []

    def wrapped(self, function: Callable, weight: float) -> Callable:
        """The reward function, its rewards noted."""

        @functools.wraps(function)
        def noted(*args, **kwargs):
            rewards = function(*args, **kwargs)
            if getattr(self.trainer, "aside", False):  # a rollout that is only measured
                return rewards
            numbers = torch.tensor([math.nan if reward is None else float(reward) for reward in rewards])
            if not hasattr(self.trainer, "measure"):
                self._rewards.append(weight * numbers)
            if self.rows is not None:
                self._write(kwargs["prompts"], rewards, kwargs["completion_ids"])
            return rewards

        return noted

    def _write(self, prompts: Sequence[object], rewards: Sequence[float], completion_ids: Sequence[list]) -> None:
        step = self.trainer.state.global_step
        with self.rows.open("a") as file:
            for prompt, reward, ids in zip(prompts, rewards, completion_ids, strict=True):
                name = prompt if isinstance(prompt, str) else json.dumps(prompt)
                row = {"step": step, "prompt": name, "reward": reward, "length": len(ids)}
                file.write(json.dumps(row) + "\n")

    def on_train_begin(self, args, state, control, **kwargs):
        """Say what stays unseen."""
        logger.warning("this trainer only shows rewards and updates; not measured: %s", ", ".join(UNSEEN))

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Keep the parameters, and turn the rewards of the step into numbers."""
        self._log_rewards()
        trained = [value for value in model.parameters() if value.requires_grad]
        self._before = [value.detach().clone() for value in trained]
        self._descent = [None if value.grad is None else -value.grad.detach() for value in trained]

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Length of the update, and its cosine with the gradient: what the optimizer made of it."""
        after = [value.detach() for value in model.parameters() if value.requires_grad]
        inner = moved = followed = 0.0
        for now, before, descent in zip(after, self._before, self._descent, strict=True):
            move = (now - before).double()
            moved += float(move.square().sum())
            if descent is not None:
                inner += float((move * descent).sum())
                followed += float(descent.double().square().sum())
        self._before, self._descent = [], []
        self._log("update_norm", math.sqrt(moved))
        self._log("update_gradient_cosine", inner / math.sqrt(moved * followed) if moved * followed > 0 else math.nan)

    def _log_rewards(self) -> None:
        functions = len(self.trainer.reward_funcs)
        if not self._rewards or len(self._rewards) % functions:
            return
        total = torch.stack([torch.stack(self._rewards[k::functions]).flatten() for k in range(functions)])
        self._rewards = []
        reward = torch.where(total.isnan().all(0), math.nan, total.nansum(0)).to(self.trainer.accelerator.device)
        success = success_of(self.trainer.accelerator.gather(reward), self.success_threshold)
        groups = success.view(-1, self.trainer.num_generations).cpu()
        rate = groups.nanmean(1)
        spread = (rate * (1 - rate)).sqrt()
        self._log("success_rate", float(rate.nanmean()))
        self._log("success_std", float(spread.nanmean()))
        self._log("dead_groups", float((spread == 0).double().mean()))

    def _log(self, name: str, value: float) -> None:
        self.trainer._metrics["train"][PREFIX + name].append(value)


def watch(trainer: GRPOTrainer, success_threshold: float | None = None, rows: Path | None = None) -> RewardWatch:
    """Attach to a trainer that was built elsewhere, and log into its own log under ``rlvr/``.

    Seen: success rate, mean spread within prompts, dead groups, length of each update and its cosine with the gradient
    (clipped, if the trainer clips). Not seen: everything in ``UNSEEN``, which needs the scores of the responses. A
    ``MeasuredGRPOTrainer`` logs all that by itself; attached to it, this only writes ``rows``. Rewards of an evaluation
    are taken for those of training, so leave ``eval_strategy`` off.

    Args:
        trainer: with ordinary, synchronous reward functions.
        success_threshold: rewards of at least this count as success; None accepts 0 and 1 only.
        rows: a file to which every response is appended as the line that ``rlvr measure`` reads, once for each reward
            function, with that function's own reward; one file a process.

    Raises:
        ValueError: a reward that is a model or asynchronous.
    """
    for function in trainer.reward_funcs:
        plain = inspect.isfunction(function) or inspect.ismethod(function)
        seen = plain and not inspect.iscoroutinefunction(function)
        require(seen, "reward_funcs", type(function).__name__, "ordinary functions")
    watcher = RewardWatch(trainer, success_threshold, rows)
    weights = trainer.reward_weights.tolist()
    trainer.reward_funcs = [watcher.wrapped(f, w) for f, w in zip(trainer.reward_funcs, weights, strict=True)]
    if not hasattr(trainer, "measure"):
        trainer.add_callback(watcher)
    return watcher
