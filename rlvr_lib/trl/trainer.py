"""The book's quantities on TRL's GRPOTrainer: measured, logged with everything else the trainer logs, and acted on.

``MeasuredGRPOTrainer`` takes the arguments of ``trl.GRPOTrainer`` and two more, ``measure`` and ``act``. Its numbers
appear under ``rlvr/`` wherever the trainer reports; what is undefined in a step is None there. Needs the extra
``[scale]``. The gradient that is measured is the one on the policy: without clipping, importance weights and KL. Left
out: tools, images, and scores of inner layers whose parameters are sharded.
"""

from __future__ import annotations

import logging
import math
import shutil
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from rlvr_lib.arguments import integer, positive, require
from rlvr_lib.theory.baseline import LaggedBaseline
from rlvr_lib.theory.signal import RunningSnr
from rlvr_lib.trl.rollouts import (
    PREFIX,
    Move,
    Rollouts,
    RunFailed,
    along_move,
    read_by_a_model,
    score_groups,
    success_of,
    total_reward,
)
from rlvr_lib.trl.scores import CHOICES, Sampled, Scored, choose, is_sharded
from rlvr_lib.trl.step import Along, Scores, Values, jackknife

logger = logging.getLogger(__name__)

MOST_KEPT = 2**27
LARGEST_RISE = 1.1


@dataclass(frozen=True)
class Measure:
    """What is measured, and how often.

    Attributes:
        every: steps from one measurement to the next, at least 1. Success, its spread and dead groups are logged at
            every step from the step's own responses.
        fresh: measure on another rollout of the step's prompts, which the step does not use. On its own responses the
            alignment and the critical rate count its noise as progress.
        scores: ``all``, ``last-layer`` or ``head``; None chooses by the model (``rlvr_lib.trl.scores.choose``).
        along: also derive the success rate along the actual update: alignment and critical learning rate. Keeps two
            copies of the trained parameters, which must be in float32 or it is left out without a word.
        success_threshold: rewards, summed with their weights, of at least this count as success; None accepts rewards
            of 0 and 1 only.
    """

    every: int = 1
    fresh: bool = True
    scores: str | None = None
    along: bool = True
    success_threshold: float | None = None

    def __post_init__(self) -> None:
        integer("every", self.every, low=1)
        require(self.scores in (None, *CHOICES), "scores", self.scores, f"one of {', '.join(CHOICES)}")

    @classmethod
    def cheap(cls, **changes: Any) -> Measure:
        """Every 25 steps, on the last layer or on the LoRA adapters: at most a tenth of a step on average."""
        return replace(cls(every=25), **changes)


@dataclass(frozen=True)
class Act:
    """What the measurements change in the run; nothing by default, except for warnings.

    Attributes:
        baseline: ``lagged`` (b* from earlier measurements) or ``pooled`` (b* from the other groups of the step, whose
            scores are then taken at every step); the advantage is the reward minus it. None: TRL's advantages.
        snr_rate: multiply the scheduled learning rate with SNR / (1 + SNR), both averaged over measurements.
        limit: of the ratio of the used learning rate to the critical one, at which an update gains nothing.
        beyond: ``warn``, or ``lower`` the rate to half of the limit, beginning with the very step, and let it rise
            again, by at most a tenth a measurement, while it is below that; None does nothing.
        errors: standard errors by which the ratio must pass the limit.
    """

    baseline: str | None = None
    snr_rate: bool = False
    limit: float = 1.0
    beyond: str | None = "warn"
    errors: float = 3.0

    def __post_init__(self) -> None:
        require(self.baseline in (None, "lagged", "pooled"), "baseline", self.baseline, "one of lagged, pooled")
        require(self.beyond in (None, "warn", "lower"), "beyond", self.beyond, "one of warn, lower")
        positive("limit", self.limit)
        positive("errors", self.errors)


@dataclass
class Memory:
    """What outlives a step, and a checkpoint: b* and signal to noise of past measurements, the factor of the rate."""

    measured: int | None = None
    distance: float | None = None
    lagged: LaggedBaseline = field(default_factory=LaggedBaseline)
    snr: RunningSnr = field(default_factory=RunningSnr)
    factor: float = 1.0
    warnings: int = 0

    @classmethod
    def restored(cls, stored: dict) -> Memory:
        """From the dictionary that ``dataclasses.asdict`` makes of one; that of another version is refused."""
        try:
            return cls(**stored | {"lagged": LaggedBaseline(**stored["lagged"]), "snr": RunningSnr(**stored["snr"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"checkpoint must be one of this version of the measured trainer, got {error}") from None

    def count(self, scores: Scores) -> None:
        """Count the scores of a measured step."""
        correct, energy = scores.correct_energy.sum(), (scores.correct_energy + scores.wrong_energy).sum()
        if np.isfinite(energy):
            self.lagged.count(correct, energy)
        if scores.comparable:
            self.snr.update(gram=scores.used)

    @property
    def baseline(self) -> float | None:
        """b* so far."""
        return float(self.lagged.value) if self.lagged.total > 0 else None

    @property
    def snr_factor(self) -> float:
        """SNR / (1 + SNR) so far; 1 before the first measurement."""
        return float(self.snr.shrinkage) if self.snr.noise > 0 else 1.0


class MeasuredGRPOTrainer(GRPOTrainer):
    """GRPOTrainer that measures its steps: what, by ``measure``; and what it does about it, by ``act``.

    Raises:
        ValueError: an argument outside its range, a baseline with rewards that are scaled or not 0 and 1, or tools.
    """

    _metrics: dict[str, Any]  # the trainer's own
    _logs: dict[str, Any]

    def __init__(self, *args, measure: Measure | None = None, act: Act | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.measure, self.act, self.memory = measure or Measure(), act or Act(), Memory()
        require(not self.tools, "tools", "tools", "absent: their tokens are not the policy's")
        if self.act.baseline:
            threshold, scaled = self.measure.success_threshold, self.scale_rewards
            require(scaled == "none", "scale_rewards", scaled, '"none" with a baseline: no spread divides advantages')
            require(threshold is None, "success_threshold", threshold, "None with a baseline: rewards must be 0 or 1")
        self.scored: Scored | None = None
        self._reward: Any = None
        self._pending: Rollouts | None = None
        self._before: list[torch.Tensor] | None = None
        self.aside = False
        self.add_callback(_Steps(self))

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        try:
            each = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        except Exception as error:
            names, step = ", ".join(self.reward_func_names), self.state.global_step
            raise RunFailed(f"a verifier of {names} raised at step {step}: {type(error).__name__}: {error}") from error
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
        last = self.memory.measured
        if last is None or self.state.global_step - last >= self.measure.every:
            self.memory.measured = self.state.global_step
            self._pending = self._fresh_rollouts(fresh_inputs) if self.measure.fresh else own
            self._measure_scores(self._pending)
        if self.act.baseline:
            output["advantages"] = self._advantages(own, self._baseline(own))
        return output

    def _rollouts(self, output: dict) -> Rollouts:
        """The generated responses of this process, with what their groups did on all processes."""
        success = success_of(self._reward, self.measure.success_threshold)
        sampled = Sampled(*(output[each.name] for each in fields(Sampled)))
        first = self.accelerator.process_index * len(sampled)
        own = sampled, success, first, self.num_generations, output["advantages"]
        return Rollouts(*own, self.temperature, self.accelerator.reduce)

    def _fresh_rollouts(self, inputs: list[dict]) -> Rollouts:
        """Another rollout of the same prompts that leaves no trace: not in the random numbers, not in the logs."""
        device = self.accelerator.device
        kept = self._metrics, self._logs, self._reward, self.state.num_input_tokens_seen
        self._metrics, self._logs = deepcopy(self._metrics), deepcopy(self._logs)
        self.aside = True
        try:
            with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
                place = [self.args.seed, self.state.global_step, self.accelerator.process_index]
                torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
                return self._rollouts(super()._generate_and_score_completions(inputs))
        finally:
            self.aside = False
            self._metrics, self._logs, self._reward, self.state.num_input_tokens_seen = kept

    def _measure_scores(self, rollouts: Rollouts) -> None:
        """Log what the scores of a rollout say, and remember what actions need."""
        model = self.accelerator.unwrap_model(self.model)
        most = max(1, min(2**18, MOST_KEPT // (2 * rollouts.prompts)))
        self.scored = self.scored or choose(model, self.measure.scores, most)
        baseline = self._baseline(rollouts) if self.act.baseline else None
        advantage = rollouts.advantage if baseline is None else self._advantages(rollouts, baseline)
        if self.loss_type == "grpo":
            advantage = advantage / read_by_a_model(rollouts).length
        with self.accelerator.autocast():
            scores = score_groups(model, rollouts, self.scored, advantage, baseline)
        self._log(scores.values(), jackknife(scores, len(scores.groups.count)))
        self.memory.count(scores)

    def _baseline(self, rollouts: Rollouts) -> torch.Tensor:
        """Baseline of each response of this process: b*, or the mean of the others while nothing is measured."""
        if self.act.baseline == "lagged":
            known = self.memory.baseline
            return rollouts.mean_of_others() if known is None else torch.full_like(rollouts.local_success, known)
        model = self.accelerator.unwrap_model(self.model)
        scored = self.scored or choose(model, self.measure.scores)
        with self.accelerator.autocast():
            return rollouts.pooled_baseline(model, scored)

    def _advantages(self, rollouts: Rollouts, baseline: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(rollouts.local_success - baseline).to(rollouts.advantage.dtype)

    def _log(self, values: Values, errors: Values | None = None) -> None:
        """Hand numbers to the trainer's own log, which averages the defined ones and has None where there is none."""
        known = {f"{name}_error": error for name, error in (errors or {}).items() if error is not None}
        for name, value in (values | known).items():
            self._metrics["train"][PREFIX + name].append(math.nan if value is None else float(value))

    def before_update(self) -> None:
        """Set the learning rate of this step, and keep the parameters where the update is to be measured."""
        factor = self.memory.factor * (self.memory.snr_factor if self.act.snr_rate else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
        if self.act.snr_rate or self.memory.factor != 1:
            self._log({"learning_rate": self.optimizer.param_groups[0]["lr"]})
        exact = all(value.dtype in (torch.float32, torch.float64) for value in self._trained())
        if self._pending is not None and self.measure.along and exact and not is_sharded(self.model):
            self._before = [value.detach().clone() for value in self._trained()]

    def after_update(self) -> None:
        """Measure the update that was just made, and warn of it or shorten it."""
        rollouts, before, self._pending, self._before = self._pending, self._before, None, None
        if rollouts is None or before is None:
            return
        move = Move(self._trained(), before)
        along, rate = None, self.optimizer.param_groups[0]["lr"]
        if move.length > 0:
            model = self.accelerator.unwrap_model(self.model)
            along, self.memory.distance = along_move(model, rollouts, move, rate, self.memory.distance)
        if along is None:
            self._log(dict.fromkeys(("gap_alignment", "critical_learning_rate", "learning_rate_ratio")))
        else:
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

    def training_step(self, model, inputs, num_items_in_batch):
        """One forward and backward pass; ``RunFailed`` where the loss is not finite on some process."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not bool(self.accelerator.reduce(loss.detach().float()).isfinite()):
            advice = "the parameters are still those before it; lower the learning rate, or train in float32"
            raise RunFailed(f"the loss is {float(loss)} at step {self.state.global_step}; {advice}")
        return loss

    def _save_checkpoint(self, model, trial):
        self.state.stateful_callbacks["rlvr"] = asdict(self.memory)
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            partial = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            shutil.rmtree(partial, ignore_errors=True)
            kept = "its parts are removed, earlier ones are whole"
            raise RunFailed(f"checkpoint {partial} could not be written ({error}); {kept}") from error


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
