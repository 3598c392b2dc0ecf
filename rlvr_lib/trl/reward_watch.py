"""Watch a plain ``trl.GRPOTrainer``, or any subclass of it, without changing what it does.

``watch(trainer)`` sees rewards and updates and logs what follows from them; ``UNSEEN`` is what it cannot see.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from rlvr_lib.trl.rollouts import PREFIX, counted, success_of, total_reward
from rlvr_lib.trl.step import Values

logger = logging.getLogger(__name__)

UNSEEN = (
    "gap_norm", "gap_alignment", "critical_learning_rate", "learning_rate_ratio", "gradient_snr", "noise_scale",
    "optimal_baseline", "baseline_loss", "cosine_mean", "cosine_std",
)  # fmt: skip


class RewardWatch(TrainerCallback):
    """Logs, at every step, what rewards and parameters show: see ``watch``."""

    def __init__(self, trainer: GRPOTrainer, success_threshold: float | None, rows: Path | None) -> None:
        self.trainer, self.success_threshold, self.rows = trainer, success_threshold, rows
        self.measured = hasattr(trainer, "measure")
        self._before: list[torch.Tensor] = []
        self._descent: list[torch.Tensor] = []

    def noting(self, calculate: Callable) -> Callable:
        """The trainer's ``_calculate_rewards``, its rewards noted while it trains."""

        def noted(inputs, prompts, completions, completion_ids):
            each = calculate(inputs, prompts, completions, completion_ids)
            aside = getattr(self.trainer, "aside", False)  # a rollout that is only measured
            if self.trainer.model.training and not aside:
                reward = total_reward(each, self.trainer.reward_weights)
                if not self.measured:
                    groups = counted(success_of(reward, self.success_threshold), self.trainer.num_generations)
                    kept = np.flatnonzero(groups.count >= 2)
                    self._log(groups.part(kept).values() if len(kept) else {})
                if self.rows is not None:
                    first = self.trainer.accelerator.process_index * len(prompts)
                    self._write(self.rows, prompts, reward[first : first + len(prompts)].tolist(), completion_ids)
            return each

        return noted

    def _write(self, file: Path, prompts: Sequence, rewards: Sequence[float], completion_ids: Sequence[list]) -> None:
        with open(file, "a") as lines:
            for prompt, reward, ids in zip(prompts, rewards, completion_ids, strict=True):
                row = {"step": self.trainer.state.global_step, "prompt": prompt, "reward": reward, "length": len(ids)}
                lines.write("" if math.isnan(reward) else json.dumps(row) + "\n")

    def on_train_begin(self, args, state, control, **kwargs):
        """Say what stays unseen."""
        logger.warning("this trainer only shows rewards and updates; not measured: %s", ", ".join(UNSEEN))

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Keep the parameters and the gradient."""
        trained = [value for value in model.parameters() if value.requires_grad]
        self._before = [value.detach().clone() for value in trained]
        grads = [torch.zeros_like(value) if value.grad is None else value.grad for value in trained]
        self._descent = [-grad.detach() for grad in grads]

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Length of the update, and its cosine with the gradient: what the optimizer made of it."""
        after = [value.detach() for value in model.parameters() if value.requires_grad]
        inner = moved = followed = 0.0
        for now, before, descent in zip(after, self._before, self._descent, strict=True):
            move, ideal = (now - before).double(), descent.double()
            moved += float(move.square().sum())
            inner += float((move * ideal).sum())
            followed += float(ideal.square().sum())
        self._before, self._descent = [], []
        cosine = inner / math.sqrt(moved * followed) if moved * followed > 0 else math.nan
        self._log({"update_norm": math.sqrt(moved), "update_gradient_cosine": cosine})

    def _log(self, values: Values) -> None:
        for name, value in values.items():
            self.trainer._metrics["train"][PREFIX + name].append(value)


def watch(trainer: GRPOTrainer, success_threshold: float | None = None, rows: Path | str | None = None) -> RewardWatch:
    """Attach to a trainer that was built elsewhere, and log into its own log under ``rlvr/``.

    Seen: success rate, mean spread within prompts, dead groups, length of each update and its cosine with the gradient
    (clipped, if the trainer clips). Attached to a ``MeasuredGRPOTrainer``, which logs more, this only writes ``rows``.

    Args:
        trainer: whose rewards, summed with their weights, are watched while it trains.
        success_threshold: rewards of at least this count as success; None accepts 0 and 1 only.
        rows: a file to which every response with a reward is appended as the line that ``rlvr measure`` reads; one file
            a process.
    """
    file = Path(rows) if rows is not None else None
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    watcher = RewardWatch(trainer, success_threshold, file)
    trainer._calculate_rewards = watcher.noting(trainer._calculate_rewards)
    if not watcher.measured:
        trainer.add_callback(watcher)
    return watcher
