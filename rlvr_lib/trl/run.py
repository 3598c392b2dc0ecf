"""``rlvr train --engine trl``: a GRPO run of any causal model on one process or many, measured like the built-in loop.

Under ``torchrun`` or ``accelerate launch`` each process runs this same command. The folder gets ``checkpoints/``, from
which the same command goes on, and at the end ``metrics.jsonl`` and ``model/``. Whatever is wrong with what was asked
for is a ValueError before the first step.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from peft import LoraConfig
from torch import cuda
from transformers import AutoConfig, AutoTokenizer, PrinterCallback, ProgressCallback, TrainerCallback
from trl import GRPOConfig, TrlParser

from rlvr_lib.arguments import integer, require
from rlvr_lib.files import write_whole
from rlvr_lib.testbeds.group_tasks import builtin_task
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.qwen.forward import HUB_NAME
from rlvr_lib.testbeds.text import Sums, TextTestbed
from rlvr_lib.trl.rollouts import PREFIX, RunFailed
from rlvr_lib.trl.tasks import GROUP_TASKS, TEXT, built_in, math_task
from rlvr_lib.trl.trainer import Act, Measure, MeasuredGRPOTrainer

CONTRACT = ("success_rate", "gap_alignment", "gradient_snr", "critical_learning_rate", "optimal_baseline")
PROMPTS = 8
DEFAULTS = {
    "activation_checkpointing": False, "bf16": False, "learning_rate": 0.02, "logging_steps": 1, "loss_type": "dr_grpo",
    "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "num_generations": 16, "optim": "sgd", "save_steps": 25,
    "save_total_limit": 2,
}  # fmt: skip
"""What differs from TRL's own defaults where no file of arguments says anything: the settings of the built-in loop."""


@dataclass(frozen=True)
class Run:
    """What a run is asked for: the options of ``rlvr train``; None leaves one to the file and the defaults.

    ``options`` are further words of the command line, those of ``trl.GRPOConfig``, ``Inputs``, ``Measure`` and ``Act``;
    ``arguments_file`` holds more of the same in YAML, which the command line overrides.
    """

    task: str
    model: str
    steps: int
    seed: int = 0
    group_size: int | None = None
    prompts: int | None = None
    learning_rate: float | None = None
    options: Sequence[str] = ()
    arguments_file: Path | None = None
    world_size: int | None = None


@dataclass(frozen=True)
class Inputs:
    """Options that are neither the trainer's nor the measurements'.

    Attributes:
        data: a local file or folder, or a name on the hub, in place of the usual one of ``gsm8k`` and ``math``.
        prompt: ``chat`` or ``plain``.
        lora: rank of LoRA adapters; 0 trains all parameters.
    """

    data: str | None = None
    prompt: str = "chat"
    lora: int = 0


class _Bar(ProgressCallback):
    """Without the dictionary that it prints at every step."""

    on_log = TrainerCallback.on_log


def train_trl(run: Run, out: Path) -> list[dict[str, Any]]:
    """Train, and write ``metrics.jsonl``, one object a step, and the trained ``model`` to a folder.

    Raises:
        RunFailed: no trainer could be built, a verifier raised, the loss was not finite, or a checkpoint not written.
    """
    # What TRL and transformers say about each other's deprecated names, and their advice about special tokens.
    warnings.filterwarnings("ignore", ".(is_)?gradient_checkpointing. is deprecated", FutureWarning)
    for name in ("transformers.trainer", "math_verify"):
        logging.getLogger(name).setLevel(logging.ERROR)
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
    """The trainer of a run."""
    own = built_in(run.task, run.seed)
    inputs, measure, act, config = read_options(run, out, own.longest if own else None)
    ignored = [name for name in ("data", "prompt") if own and getattr(inputs, name) != getattr(Inputs, name)]
    require(not ignored, "task", run.task, f"another one, or used without {', '.join(ignored)}")
    found, wanted = config.distributed_state.num_processes, run.world_size
    require(wanted in (None, found), "world_size", f"{found} processes", f"{wanted}; start them with torchrun")
    model, tokenizer = _model_and_tokenizer(run)
    task = own or math_task(run.task, inputs.data, tokenizer, inputs.prompt)
    rank = integer("lora", inputs.lora, low=0)
    lora = {"r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    try:
        trainer = MeasuredGRPOTrainer(
            model=model, reward_funcs=task.reward, args=config, train_dataset=task.data, processing_class=tokenizer,
            peft_config=LoraConfig(**lora) if rank else None, measure=measure, act=act,
        )  # fmt: skip
    except (ImportError, RuntimeError) as error:
        raise RunFailed(f"the trainer could not be built: {' '.join(str(error).split())}") from error
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(_Bar)
    return trainer


def read_options(run: Run, out: Path, longest: int | None = None) -> tuple[Inputs, Measure, Act, GRPOConfig]:
    """What a run is asked for, read by TRL's own parser: the defaults, then the file, then the command line.

    ``longest`` bounds the tokens of a response where nothing else is asked for.
    """
    parser = TrlParser((Inputs, Measure, Act, GRPOConfig), add_help=False, allow_abbrev=False, exit_on_error=False)
    steps = integer("steps", run.steps, low=1)
    fixed = {"output_dir": str(out / "checkpoints"), "max_steps": steps, "seed": run.seed, "num_train_epochs": 3.0,
             "resume_from_checkpoint": None}  # fmt: skip
    given = {"num_generations": run.group_size, "learning_rate": run.learning_rate}
    given = {name: value for name, value in given.items() if value is not None}
    asked: dict[str, Any] = {} if longest is None else {"max_completion_length": longest}
    asked |= _mapping(run.arguments_file) if run.arguments_file else {**DEFAULTS, "use_cpu": not cuda.is_available()}
    try:
        unknown = parser.set_defaults_with_config(**(fixed | asked | given))
        known, more = parser.parse_known_args(list(run.options))
        if run.prompts or run.arguments_file is None:
            rows = (run.prompts or PROMPTS) * known.num_generations
            parts = int(os.environ.get("WORLD_SIZE", "1")) * known.gradient_accumulation_steps
            allowed = f"a multiple of {parts}, processes times gradient_accumulation_steps"
            require(rows % parts == 0, "prompts times group size", rows, allowed)
            parser.set_defaults(per_device_train_batch_size=rows // parts)
            given |= {"per_device_train_batch_size": rows // parts} if run.prompts else {}
        *parsed, _ = parser.parse_args_into_dataclasses(list(run.options), True, look_for_args_file=False)
        require(not unknown + more, "options", unknown + more, "names that rlvr train or trl.GRPOConfig has")
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"options of the engine trl: {' '.join(str(error).split())}") from None
    config = parsed[-1]
    for name, value in (fixed | given).items():
        found = getattr(config, name)
        require(found == value, name, found, f"left out, since rlvr train's own options make it {value}")
    seen = config.logging_strategy == "steps" and config.logging_steps <= steps
    require(seen, "logging_steps", config.logging_steps, f"at most the {steps} steps, or nothing is written")
    return tuple(parsed)


def _mapping(file: Path) -> dict[str, Any]:
    require(file.is_file(), "arguments", str(file), "a YAML file that exists")
    try:
        found = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"arguments must be YAML, got {file}: {' '.join(str(error).split())}") from None
    require(isinstance(found, dict), "arguments", type(found).__name__, "a mapping of names to values")
    return found


def metrics(trainer: MeasuredGRPOTrainer) -> list[dict[str, Any]]:
    """One record a logged step from the trainer's own log: the book's numbers without their prefix, None if undefined.

    The first record also has the number of processes, ``world_size``, and what scores were taken of, ``scored``.
    """
    records = []
    for entry in (entry for entry in trainer.state.log_history if PREFIX + "success_rate" in entry):
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


def _model_and_tokenizer(run: Run) -> tuple[Any, Any]:
    """The tiny model itself, or the name of any other, checked as far as its configuration; and its tokenizer."""
    if run.model == "tiny":
        own = [*GROUP_TASKS, TEXT]
        require(run.task in own, "task", run.task, f"one of {', '.join(own)} with the model tiny")
        testbed = TextTestbed() if run.task == TEXT else _of_group(run.task)
        return testbed.model, testbed.tokenizer
    local = run.model != "" and Path(run.model).is_dir()
    require(local or HUB_NAME.fullmatch(run.model) is not None, "model", run.model, "a folder, or a name on the hub")
    where = {"trust_remote_code": False, "local_files_only": local}
    try:
        AutoConfig.from_pretrained(run.model, **where)
        tokenizer = AutoTokenizer.from_pretrained(run.model, padding_side="left", **where)
    except (OSError, ValueError) as error:
        found = f"{run.model!r}: {str(error).splitlines()[0]}"
        raise ValueError(f"model must be a readable checkpoint or a reachable name, got {found}") from None
    same = run.task != TEXT or tokenizer.get_vocab() == Sums().tokenizer().get_vocab()
    require(same, "model", f"{run.model} with another vocabulary", f"one with the tokenizer of the task {TEXT}")
    return run.model, tokenizer


def _of_group(task: str) -> QwenTestbed:
    return QwenTestbed(builtin_task(GROUP_TASKS[task]), alphabet="vocabulary")


def _same_run(run: Run, out: Path) -> None:
    """Refuse a folder that belongs to a run with other settings; else leave a note of these."""
    note, identity = out / "run.json", json.loads(json.dumps(asdict(run), default=str))
    del identity["steps"], identity["world_size"]
    if note.is_file():
        earlier = json.loads(note.read_text())
        differing = sorted(name for name in identity if earlier.get(name) != identity[name])
        require(not differing, "out", f"a folder of a run with other {', '.join(differing)}", "empty, or of this run")
    write_whole(note, (json.dumps(identity, indent=1, sort_keys=True) + "\n").encode())
