"""The book's quantities on TRL's GRPOTrainer: measured, logged with everything else the trainer logs, and acted on.

``MeasuredGRPOTrainer`` takes the arguments of ``trl.GRPOTrainer`` and two more, ``measure`` and ``act``. Its numbers
appear under ``rlvr/`` wherever the trainer reports (TensorBoard, Weights & Biases, ``state.log_history``); what is
undefined in a step is None there. ``watch`` attaches to a trainer that is not of this class. Needs the extra
``[scale]``. The gradient that is measured is the one on the policy: without clipping, importance weights and KL. Left
out: tools, images, and scores of inner layers whose parameters are sharded.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections import defaultdict
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from rlvr_lib.arguments import require
from rlvr_lib.trl.rollouts import PREFIX, Move, Rollouts, RunFailed, along_move, score_groups, success_of, total_reward
from rlvr_lib.trl.scores import Sampled, Scored, choose, is_sharded
from rlvr_lib.trl.settings import Act, Measure, Memory
from rlvr_lib.trl.step import Along, Values, jackknife

logger = logging.getLogger(__name__)

MOST_KEPT = 2**27
LARGEST_RISE = 1.1


class MeasuredGRPOTrainer(GRPOTrainer):
    """GRPOTrainer that measures its steps.

    Args:
        args, kwargs: those of ``trl.GRPOTrainer``.
        measure: what to measure; see ``Measure``.
        act: what to do about it; see ``Act``.

    Raises:
        ValueError: an argument outside its range, ``act.baseline`` with rewards that TRL scales, or tools.
    """

    _metrics: dict[str, Any]  # the trainer's own
    _logs: dict[str, Any]

    def __init__(self, *args, measure: Measure | None = None, act: Act | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.measure, self.act, self.memory = measure or Measure(), act or Act(), Memory()
        require(not self.tools, "tools", "tools", "absent: their tokens are not the policy's")
        plain = self.act.baseline is None or self.scale_rewards == "none"
        require(plain, "scale_rewards", self.scale_rewards, '"none" with a baseline: no spread divides its advantages')
        self.scored: Scored | None = None
        self._reward: Any = None
        self._pending: Rollouts | None = None
        self._before: list[torch.Tensor] | None = None
        self.aside = False
        self.add_callback(_Steps(self))

    # ------------------------------------------------------------ rollouts

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        try:
            each = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        except Exception as error:
            names = ", ".join(self.reward_func_names)
            raise RunFailed(
                f"a verifier of {names} raised at step {self.state.global_step}: {type(error).__name__}: {error}"
            ) from error
        self._reward = total_reward(each, self.reward_weights)
        return each

    def _generate_and_score_completions(self, inputs):
        fresh_inputs = [dict(row) for row in inputs]
        output = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        own = self._rollouts(output)
        self._log(own.groups().values())
        if self.state.global_step == 0:
            self._log({"world_size": self.accelerator.num_processes})
        last, now = self.memory.measured, self.state.global_step
        if last is None or now - last >= self.measure.every:
            self.memory.measured = now
            self._pending = self._fresh_rollouts(fresh_inputs) if self.measure.fresh else own
            self._measure_scores(self._pending)
        if self.act.baseline:
            output["advantages"] = self._advantages(own)
        return output

    def _rollouts(self, output: dict) -> Rollouts:
        """The generated responses of this process, with what their groups did on all processes."""
        success = success_of(self._reward, self.measure.success_threshold)
        binary = (self._reward == 0) | (self._reward == 1) | self._reward.isnan()
        whole = self.act.baseline is None or bool(binary.all())
        require(whole, "reward", "rewards other than 0 and 1", "0 or 1 with act.baseline")
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        sampled = Sampled(*(output[name] for name in names))
        first = self.accelerator.process_index * len(sampled)
        return Rollouts(sampled, success, first, self.num_generations, output["advantages"])

    def _fresh_rollouts(self, inputs: list[dict]) -> Rollouts:
        """Another rollout of the same prompts that leaves no trace: not in the random numbers, not in the logs."""
        device = self.accelerator.device
        kept = self._metrics, self._logs, self._reward, self.state.num_input_tokens_seen
        self._metrics = {mode: defaultdict(list) for mode in self._metrics}
        self._logs = {name: _empty(value) for name, value in self._logs.items()}
        self.aside = True
        try:
            with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
                place = [self.args.seed, self.state.global_step, self.accelerator.process_index]
                torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
                return self._rollouts(super()._generate_and_score_completions(inputs))
        finally:
            self.aside = False
            self._metrics, self._logs, self._reward, self.state.num_input_tokens_seen = kept

    # ------------------------------------------------------------ measurements

    def _measure_scores(self, rollouts: Rollouts) -> None:
        """Log what the scores of a rollout say, and remember what actions need."""
        model = self.accelerator.unwrap_model(self.model)
        if self.scored is None:
            self.scored = choose(model, self.measure.scores, max(1, min(2**18, MOST_KEPT // (2 * rollouts.prompts))))
            logger.info("scores on %s", self.scored)
        advantage = self._advantages(rollouts) if self.act.baseline else rollouts.advantage
        if self.loss_type == "grpo":
            advantage = advantage / rollouts.sampled.length
        baseline = self._baseline(rollouts) if self.act.baseline else None
        with self.accelerator.autocast():
            scores = score_groups(
                model, rollouts, self.scored, advantage, baseline, self.temperature, self._sum_over_processes
            )
        values = scores.values()
        self._log(values, jackknife(scores, len(scores.groups.count)))
        self.memory.count(scores)

    def _baseline(self, rollouts: Rollouts) -> torch.Tensor:
        """Baseline of each response of this process: b*, or the mean of the others while nothing is measured."""
        if self.act.baseline == "pooled":
            return self._pooled(rollouts)
        known = self.memory.baseline
        return rollouts.mean_of_others() if known is None else torch.full_like(rollouts.local_success, known)

    def _pooled(self, rollouts: Rollouts) -> torch.Tensor:
        model = self.accelerator.unwrap_model(self.model)
        scored = self.scored or choose(model, self.measure.scores)
        with self.accelerator.autocast():
            return rollouts.pooled_baseline(model, scored, self.temperature, self._sum_over_processes)

    def _advantages(self, rollouts: Rollouts) -> torch.Tensor:
        advantage = rollouts.local_success - self._baseline(rollouts)
        return torch.nan_to_num(advantage).to(rollouts.advantage.dtype)

    def _sum_over_processes(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(tensor, "sum")

    def _log(self, values: Values, errors: Values | None = None) -> None:
        """Hand numbers to the trainer's own log, which averages the defined ones and has None where there is none."""
        known = {f"{name}_error": error for name, error in (errors or {}).items() if error is not None}
        named = dict(values) | known
        for name, value in named.items():
            self._metrics["train"][PREFIX + name].append(math.nan if value is None else float(value))

    # ------------------------------------------------------------ the update

    def before_update(self) -> None:
        """Set the learning rate of this step, and keep the parameters where the update is to be measured."""
        factor = self.memory.factor * (self.memory.snr_factor if self.act.snr_rate else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
        if self.act.snr_rate or self.memory.factor != 1:
            self._log({"learning_rate": self.optimizer.param_groups[0]["lr"]})
        if self._pending is not None and self.measure.along and self._can_move():
            self._before = [value.detach().clone() for value in self._trained()]

    def after_update(self) -> None:
        """Measure the update that was just made, and warn of it or shorten it."""
        rollouts, before, self._pending, self._before = self._pending, self._before, None, None
        if rollouts is None or before is None:
            return
        move = Move(self._trained(), before)
        along = None
        if move.length > 0:
            rate = self.optimizer.param_groups[0]["lr"]
            model = self.accelerator.unwrap_model(self.model)
            along, self.memory.distance = along_move(
                model, rollouts, move, rate, self.temperature, self._sum_over_processes, self.memory.distance
            )
        if along is None:
            self._log(dict.fromkeys(("gap_alignment", "critical_learning_rate", "learning_rate_ratio")))
            return
        self._log(along.values() | {"update_norm": move.length}, jackknife(along, len(along.slope)))
        self._react(along, move)

    def _react(self, along: Along, move: Move) -> None:
        ratio = along.values()["learning_rate_ratio"]
        # Half of the critical step is the best one, as far as the second order reaches.
        wanted = self.act.limit / 2 / ratio if ratio else 0.5
        if self.act.beyond and along.beyond(self.act.limit, self.act.errors):
            self.memory.warnings += 1
            said = f"{ratio:.3g} times the critical one" if ratio else "too long at any size: it points off the gap"
            logger.warning("step %d: the learning rate is %s", self.state.global_step, said)
            if self.act.beyond == "lower":
                move.to(min(0.5, wanted))
                self.memory.factor *= min(0.5, wanted)
        elif self.act.beyond == "lower" and ratio:
            self.memory.factor = min(1.0, self.memory.factor * min(max(1.0, wanted), LARGEST_RISE))
        self._log({"warnings": self.memory.warnings, "rate_factor": self.memory.factor})

    def _trained(self) -> list[torch.Tensor]:
        return [value for value in self.model.parameters() if value.requires_grad]

    def _can_move(self) -> bool:
        exact = all(value.dtype in (torch.float32, torch.float64) for value in self._trained())
        return exact and not is_sharded(self.model)

    # ------------------------------------------------------------ failures

    def training_step(self, model, inputs, num_items_in_batch):
        """One forward and backward pass.

        Raises:
            RunFailed: the loss is not finite on some process; the parameters are those of the step before.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not bool(self._sum_over_processes(loss.detach().float()).isfinite()):
            raise RunFailed(
                f"the loss is {float(loss)} at step {self.state.global_step}; the parameters are still those before"
                " it; lower the learning rate, or train in float32"
            )
        return loss

    def _save_checkpoint(self, model, trial):
        self.state.stateful_callbacks["rlvr"] = asdict(self.memory)
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            partial = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            shutil.rmtree(partial, ignore_errors=True)
            raise RunFailed(
                f"checkpoint {partial} could not be written ({error}); its parts are removed, earlier ones are whole"
            ) from error


class _Steps(TrainerCallback):
    """Calls the trainer back around its optimizer step."""

    def __init__(self, trainer: MeasuredGRPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        stored = state.stateful_callbacks.get("rlvr")
        self.trainer.memory = Memory.restored(stored) if stored else Memory()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.before_update()

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.after_update()


def _empty(value):
    """An empty container of the same kind, for a rollout that leaves no trace."""
    fresh = copy(value)
    fresh.clear()
    return fresh
