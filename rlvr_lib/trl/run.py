"""``rlvr train --engine trl``: a GRPO run of any causal model on one process or many, measured like the built-in loop.

Started by itself it is one process; under ``torchrun`` or ``accelerate launch`` each process runs this same command.
The folder gets ``checkpoints/``, and at the end ``metrics.jsonl`` and ``model/``. The same command goes on from the
last whole checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml

from rlvr_lib.arguments import integer, require
from rlvr_lib.files import write_whole
from rlvr_lib.testbeds.group_tasks import builtin_task
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.qwen.forward import HUB_NAME
from rlvr_lib.trl.tasks import GROUP_TASKS, TrainingTask, load_task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import GRPOConfig

    from rlvr_lib.trl import MeasuredGRPOTrainer

OPTIMIZERS = {"sgd": "sgd", "adam": "adamw_torch", "adamw": "adamw_torch"}
# TRL's "batch" is the deviation of all rewards of a batch, so it includes the differences between prompts that the
# built-in ``grpo_batch`` leaves out.
SCALES = {"dr_grpo": "none", "grpo": "group", "grpo_batch": "batch"}
CONTRACT = ("success_rate", "gap_alignment", "gradient_snr", "critical_learning_rate", "optimal_baseline")
DEFAULTS = {
    "activation_checkpointing": False, "beta": 0.0, "bf16": False, "gradient_accumulation_steps": 1,
    "logging_steps": 1, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "report_to": "none", "save_steps": 25,
    "save_total_limit": 2, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "weight_decay": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a run is asked for; ``arguments`` are the trainer's, by their names in ``trl.GRPOConfig``.

    Attributes:
        task: ``group-word``, ``many``, ``gsm8k``, ``math`` or a JSON-lines file.
        model: ``tiny``, a folder or a name on the hub.
        steps: of the optimizer, those of a resumed checkpoint included.
        seed: of prompts and responses.
        arguments_file: a YAML file of further arguments; ``arguments`` win.
        data: a local file or folder, or a name on the hub, in place of the task's usual one.
        prompt: ``chat`` or ``plain``.
        lora: rank of LoRA adapters; 0 trains all parameters.
        world_size: processes there must be; None for any number.
        measure, act: arguments of ``rlvr_lib.trl.Measure`` and ``Act``.
    """

    task: str
    model: str
    steps: int
    seed: int = 0
    arguments: Mapping[str, object] = field(default_factory=dict)
    arguments_file: Path | None = None
    data: str | None = None
    prompt: str = "chat"
    lora: int = 0
    world_size: int | None = None
    measure: Mapping[str, object] = field(default_factory=dict)
    act: Mapping[str, object] = field(default_factory=dict)

    def identity(self) -> dict[str, object]:
        """What a run that goes on must share with the one that was interrupted."""
        values = asdict(self) | {"arguments": dict(self.arguments), "arguments_file": str(self.arguments_file or "")}
        return {name: value for name, value in values.items() if name not in ("steps", "world_size")}


def loop_arguments(
    group_size: int, prompts: int, estimator: str, optimizer: str, learning_rate: float, length_normalize: bool
) -> dict[str, object]:
    """The trainer's arguments for the settings of the built-in loop.

    TRL's ``dr_grpo`` divides the built-in loop's gradient by the longest length, so equal rates are not equal steps.

    Raises:
        ValueError: an estimator or optimizer that TRL does not have.
    """
    require(estimator in SCALES, "estimator", estimator, f"one of {', '.join(SCALES)} with --engine trl")
    require(optimizer in OPTIMIZERS, "optimizer", optimizer, f"one of {', '.join(OPTIMIZERS)}")
    return {
        "num_generations": integer("group_size", group_size, low=2),
        "generation_batch_size": integer("prompts", prompts, low=1) * group_size,
        "scale_rewards": SCALES[estimator],
        "loss_type": "grpo" if length_normalize else "dr_grpo",
        "optim": OPTIMIZERS[optimizer],
        "learning_rate": learning_rate,
    }


def train_trl(run: Run, out: Path) -> list[dict[str, object]]:
    """Train, and write ``metrics.jsonl``, one object a step, and the trained ``model`` to a folder.

    Raises:
        ValueError: anything that is wrong with what was asked for, before the first step.
        RunFailed: a verifier raised, the loss was not finite, or a checkpoint could not be written.
    """
    integer("steps", run.steps, low=1)
    with quiet_libraries():
        trainer = build(run, out)
        main = trainer.is_world_process_zero()
        if main:
            _same_run(run, out)
        trainer.accelerator.wait_for_everyone()
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(out / "checkpoints"))
        records = metrics(trainer)
        trainer.save_model(str(out / "model"))
        if main:
            trainer.processing_class.save_pretrained(out / "model")
            write_whole(out / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())
        trainer.accelerator.end_training()
    return records


def build(run: Run, out: Path) -> MeasuredGRPOTrainer:
    """The trainer of a run.

    Raises:
        ValueError: anything that is wrong with what was asked for.
    """
    from rlvr_lib.trl import Act, Measure, MeasuredGRPOTrainer

    measure, act = Measure(**run.measure), Act(**run.act)
    model, tokenizer = _model_and_tokenizer(run)
    task = load_task(run.task, run.data, tokenizer, run.prompt, run.seed)
    config = _config(run, out, task)
    processes = config.distributed_state.num_processes
    right = run.world_size is None or processes == run.world_size
    require(right, "world_size", f"{processes} processes", f"{run.world_size}; start them with torchrun")
    trainer = MeasuredGRPOTrainer(
        model=model,
        reward_funcs=task.reward,
        args=config,
        train_dataset=task.data,
        processing_class=tokenizer,
        peft_config=_lora(run.lora),
        measure=measure,
        act=act,
    )
    _show_a_bar(trainer)
    return trainer


def metrics(trainer: MeasuredGRPOTrainer) -> list[dict[str, object]]:
    """One record a logged step from the trainer's own log: the book's numbers without their prefix, None if undefined.

    The first record also has the number of processes, ``world_size``, and what scores were taken of, ``scored``.
    """
    from rlvr_lib.trl import PREFIX

    records = []
    for entry in trainer.state.log_history:
        if PREFIX + "success_rate" not in entry:
            continue
        measured = {name.removeprefix(PREFIX): value for name, value in entry.items() if name.startswith(PREFIX)}
        other = {name: entry.get(name) for name in ("loss", "grad_norm", "learning_rate", "completions/mean_length")}
        finite = {name: value for name, value in (other | measured).items() if value is None or math.isfinite(value)}
        records.append({"step": entry["step"] - 1} | dict.fromkeys([*CONTRACT, *other, *measured]) | finite)
    if records:
        records[0] |= {"world_size": trainer.accelerator.num_processes, "scored": str(trainer.scored)}
    return records


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint whose last file, the trainer's state, is there and readable; None if there is none."""
    found = {}
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        with contextlib.suppress(ValueError, OSError):
            found[json.loads(state.read_text())["global_step"]] = str(state.parent)
    return found[max(found)] if found else None


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide what TRL and transformers say about each other's deprecated names, and their advice about special tokens."""
    with warnings.catch_warnings():
        for name in ("gradient_checkpointing", "is_gradient_checkpointing"):
            warnings.filterwarnings("ignore", f".{name}. is deprecated", FutureWarning)
        noisy = logging.getLogger("transformers.trainer"), logging.getLogger("math_verify")
        levels = [logger.level for logger in noisy]
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(noisy, levels, strict=True):
                logger.setLevel(level)


def _config(run: Run, out: Path, task: TrainingTask) -> GRPOConfig:
    """The trainer's arguments: our defaults, then the file, then what was asked for."""
    from trl import GRPOConfig, TrlParser

    if run.arguments_file is not None:
        asked = read_arguments(run.arguments_file)
        asked |= dict(run.arguments)
    else:
        asked = DEFAULTS | {"use_cpu": not torch.cuda.is_available()} | dict(run.arguments)
    if task.longest is not None:
        asked.setdefault("max_completion_length", task.longest)
    asked |= {"output_dir": str(out / "checkpoints"), "max_steps": run.steps, "seed": run.seed}
    parser = TrlParser((GRPOConfig,))
    try:
        unknown = parser.set_defaults_with_config(**_spread(asked))
        require(not unknown, "arguments", unknown, "names of trl.GRPOConfig")
        (config,) = parser.parse_args_into_dataclasses(args=[])
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"arguments must be those of trl.GRPOConfig: {error}") from None
    return config


def read_arguments(file: Path) -> dict[str, object]:
    """A YAML mapping of trainer arguments.

    Raises:
        ValueError: no such file, or not a mapping.
    """
    require(file.is_file(), "arguments", str(file), "a YAML file that exists")
    try:
        found = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"arguments must be YAML, got {file}: {error}") from None
    require(isinstance(found, dict), "arguments", type(found).__name__, "a mapping of names to values")
    return found


def _spread(asked: dict[str, object]) -> dict[str, object]:
    """With a whole generation batch given and no rows a process, all rows at once on each process."""
    import os

    batch = asked.get("generation_batch_size")
    if batch is None or "per_device_train_batch_size" in asked:
        return asked
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    require(batch % processes == 0, "prompts times group_size", batch, f"a multiple of the {processes} processes")
    rest = {name: value for name, value in asked.items() if name != "generation_batch_size"}
    return rest | {"per_device_train_batch_size": batch // processes}


def _model_and_tokenizer(run: Run) -> tuple[PreTrainedModel | str, PreTrainedTokenizerBase]:
    """The tiny model itself, or the name of any other, checked as far as its configuration; and its tokenizer."""
    if run.model == "tiny":
        require(run.task in GROUP_TASKS, "task", run.task, f"one of {', '.join(GROUP_TASKS)} with the model tiny")
        testbed = QwenTestbed(builtin_task(GROUP_TASKS[run.task]), alphabet="vocabulary")
        return testbed.model, testbed.tokenizer
    local = run.model != "" and Path(run.model).is_dir()
    require(local or HUB_NAME.fullmatch(run.model) is not None, "model", run.model, "a folder, or a name on the hub")
    from transformers import AutoConfig, AutoTokenizer

    where = {"trust_remote_code": False, "local_files_only": local}
    try:
        AutoConfig.from_pretrained(run.model, **where)
        return run.model, AutoTokenizer.from_pretrained(run.model, padding_side="left", **where)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"model must be a readable checkpoint or a reachable name, got {run.model!r}: {reason}"
        ) from None


def _lora(rank: int):
    if integer("lora", rank, low=0) == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def _same_run(run: Run, out: Path) -> None:
    """Refuse a folder that belongs to a run with other settings; else leave a note of these."""
    note, identity = out / "run.json", json.loads(json.dumps(run.identity(), default=str))
    if note.is_file():
        earlier = json.loads(note.read_text())
        differing = sorted(name for name in identity if earlier.get(name) != identity[name])
        require(not differing, "out", f"a folder of a run with other {', '.join(differing)}", "empty, or of this run")
    write_whole(note, (json.dumps(identity, indent=1, sort_keys=True) + "\n").encode())


def _show_a_bar(trainer: MeasuredGRPOTrainer) -> None:
    """A progress bar with the success rate instead of a printed dictionary a step."""
    from transformers import PrinterCallback, ProgressCallback

    class Bar(ProgressCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if self.training_bar is not None and (logs or {}).get("rlvr/success_rate") is not None:
                self.training_bar.set_postfix(success=f"{logs['rlvr/success_rate']:.3f}", refresh=False)

    shown = not trainer.args.disable_tqdm
    trainer.remove_callback(PrinterCallback if not shown else ProgressCallback)
    if shown:
        trainer.add_callback(Bar)
