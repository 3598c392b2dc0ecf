"""One run of the text model on the measured trainer, followed on held-out prompts: what ``studies.pooled`` compares."""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from dataclasses import replace
from typing import Any

from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig

from rlvr_lib.arguments import require
from rlvr_lib.testbeds.grpo import one_thread
from rlvr_lib.testbeds.qwen import WarmStart
from rlvr_lib.testbeds.text import WARM_START, Shape, Sums, TextTestbed
from rlvr_lib.testbeds.text.testbed import Success
from rlvr_lib.trl.rollouts import PREFIX
from rlvr_lib.trl.tasks import text_task
from rlvr_lib.trl.trainer import Act, Measure, MeasuredGRPOTrainer

SETTINGS = {
    "beta": 0.0, "bf16": False, "disable_tqdm": True, "gradient_checkpointing": False, "logging_steps": 1,
    "loss_type": "dr_grpo", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "report_to": "none",
    "save_strategy": "no", "scale_rewards": "none", "temperature": 1.0, "top_k": 0, "top_p": 1.0, "use_cpu": True,
    "weight_decay": 0.0,
}  # fmt: skip
OPTIMIZERS = {"sgd": "sgd", "adamw": "adamw_torch"}
LOGGED = ("success_rate", "gap_alignment", "critical_learning_rate", "learning_rate_ratio", "rate_factor", "warnings")
EVALUATION_SEED = 2**31 - 1


class _Evaluation(TrainerCallback):
    """Success on the same held-out prompts before the first step, every so many steps, and after the last."""

    def __init__(self, testbed: TextTestbed, prompts: int, every: int, steps: int) -> None:
        self.testbed, self.prompts, self.every, self.steps = testbed, prompts, every, steps
        self.found: list[Success] = []
        self.evaluate()

    def evaluate(self) -> None:
        """Evaluate now."""
        self.found.append(self.testbed.held_out_success(self.prompts, EVALUATION_SEED))

    def on_step_end(self, args, state, control, **kwargs):
        """Evaluate where it is time to."""
        if state.global_step % self.every == 0 or state.global_step == self.steps:
            self.evaluate()


def run_text(
    *,
    optimizer: str,
    checkpoint: int,
    learning_rate: float,
    steps: int,
    measured: bool,
    lowered: bool,
    prompts: int,
    group_size: int,
    evaluate_every: int,
    evaluation_prompts: int,
    task: Sums | None = None,
    shape: Shape = Shape(),  # noqa: B008 - immutable
    warm_start: WarmStart = WARM_START,
) -> dict[str, Any]:
    """Train a text model from its warm start by Dr.GRPO at a constant rate.

    Args:
        optimizer: ``sgd`` or ``adamw``, without weight decay.
        checkpoint: seed of the warm start, of the prompts and of the responses.
        learning_rate, steps, prompts, group_size: of the run.
        measured: at every step; else the first step alone is, as a single look would do.
        lowered: whether the measurements lower the rate, ``Act(beyond="lower")``.
        evaluate_every, evaluation_prompts: steps between evaluations, and held-out prompts of each.
        task, shape, warm_start: of the model; the checkpoint's seed takes the place of the warm start's.

    Returns:
        ``success`` and ``length`` of the evaluations, ``critical``, the logged critical rates, ``logged``, further
        numbers of the trainer's log that are defined in some step, ``parameters``, and ``seconds`` of the processor.
    """
    require(optimizer in OPTIMIZERS, "optimizer", optimizer, f"one of {', '.join(OPTIMIZERS)}")
    began, task = time.process_time(), task or Sums()
    testbed = TextTestbed(task, warm_start=replace(warm_start, seed=checkpoint), shape=shape)
    training = text_task(task, rows=max(steps, 2) * prompts, seed=checkpoint)
    act, measure = Act(beyond="lower" if lowered else None), Measure(every=1 if measured else steps, scores="head")
    with one_thread(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".(is_)?gradient_checkpointing. is deprecated", FutureWarning)
        config = GRPOConfig(
            output_dir=folder, learning_rate=learning_rate, optim=OPTIMIZERS[optimizer], max_steps=steps,
            num_generations=group_size, per_device_train_batch_size=prompts * group_size, seed=checkpoint,
            max_completion_length=task.longest, **SETTINGS,
        )  # fmt: skip
        trainer = MeasuredGRPOTrainer(
            model=testbed.model, reward_funcs=training.reward, args=config, train_dataset=training.data,
            processing_class=testbed.tokenizer, measure=measure, act=act,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        evaluation = _Evaluation(testbed, evaluation_prompts, evaluate_every, steps)
        trainer.add_callback(evaluation)
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if PREFIX + "success_rate" in entry]
    series = {name: [_number(entry.get(PREFIX + name)) for entry in logs] for name in LOGGED}
    return {
        "success": [found.rate for found in evaluation.found],
        "length": [found.length for found in evaluation.found],
        "critical": series["critical_learning_rate"],
        "logged": {name: values for name, values in series.items() if any(value is not None for value in values)},
        "parameters": sum(value.numel() for value in testbed.parameters()),
        "seconds": round(time.process_time() - began, 1),
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
