"""The supervised warm start of the tiny Qwen: clean traces first, then a teacher that errs on purpose.

The noisy teacher replaces each step by a random element with a fixed probability. The policy learns how to reason
from the clean traces and how often to err from the noisy ones, which leaves GRPO something to gain. (With noise from
the first step on it stays at chance.) Trained parameters are cached under a hash of everything they depend on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from rlvr_lib.arguments import closed_interval, integer, positive
from rlvr_lib.files import sha256
from rlvr_lib.testbeds import group_tasks
from rlvr_lib.testbeds.checkpoint import cache_folder, load_tensors, save_tensors
from rlvr_lib.testbeds.group_tasks import Task
from rlvr_lib.testbeds.grpo import one_thread
from rlvr_lib.testbeds.qwen import forward, prefixes
from rlvr_lib.testbeds.qwen.forward import PlainQwen

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class WarmStart:
    """Settings of the supervised training; the seed also draws the model's initial weights.

    Attributes:
        clean_steps, noisy_steps: AdamW steps on each kind of traces.
        noise: probability that the noisy teacher replaces a step by a uniform element.
        batch: traces a step, each for a fresh prompt.
        learning_rate: reached after ``ramp`` steps, falling to 0 over the last ``decay`` steps.
    """

    seed: int = 0
    clean_steps: int = 150
    noisy_steps: int = 150
    noise: float = 0.25
    batch: int = 128
    learning_rate: float = 3e-3
    ramp: int = 20
    decay: int = 50
    largest_gradient: float = 1.0

    def __post_init__(self) -> None:
        for name, low in (("seed", 0), ("clean_steps", 0), ("noisy_steps", 0), ("batch", 1), ("ramp", 1), ("decay", 1)):
            integer(name, getattr(self, name), low)
        closed_interval("noise", self.noise, 0, 1)
        positive("learning_rate", self.learning_rate)
        positive("largest_gradient", self.largest_gradient)


def supervise(model: PreTrainedModel, plain: PlainQwen, task: Task, settings: WarmStart, progress: bool) -> None:
    """Train a model in place on the task's demonstrations: mean negative log-probability of a token, by AdamW."""
    p = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(p.values(), betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(settings.seed)
    steps = settings.clean_steps + settings.noisy_steps
    for step in tqdm(range(steps), "warm start", disable=not progress):
        noise = 0.0 if step < settings.clean_steps else settings.noise
        prompts = task.draw(settings.batch, generator)
        tokens, mask = task.demonstrations(prompts, noise, generator)
        optimizer.zero_grad()
        (-plain.row_log_probs(p, task.prompt_tokens(prompts), tokens)[mask].mean()).backward()
        torch.nn.utils.clip_grad_norm_(p.values(), settings.largest_gradient)
        share = min(1.0, (step + 1) / settings.ramp, (steps - step) / settings.decay)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * share
        optimizer.step()


def warm_started(
    model: PreTrainedModel, plain: PlainQwen, task: Task, settings: WarmStart, progress: bool = False
) -> None:
    """Give a freshly initialised model its warm start: from the cache, or by training, which fills the cache.

    A cached file that is damaged, or that belongs to other settings, is replaced. Several processes may do this at
    once: each reads whole files only.
    """
    key = cache_key(model, plain, task, settings)
    path = cache_folder() / f"warm-start-{key[:24]}.safetensors"
    parameters = dict(model.named_parameters())
    with contextlib.suppress(FileNotFoundError, ValueError):
        stored, info = load_tensors(path)
        if info.get("key") == key:
            with torch.no_grad():
                for name, value in parameters.items():
                    value.copy_(stored[name])
            return
    with one_thread():
        supervise(model, plain, task, settings, progress)
    save_tensors(path, parameters, {"key": key})


def cache_key(model: PreTrainedModel, plain: PlainQwen, task: Task, settings: WarmStart) -> str:
    """Hash of what the warm start depends on: model, task, settings, versions, and the source of this training."""
    import transformers

    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(task) if field.name != "group"}
    sources = (prefixes.__file__, forward.__file__, group_tasks.__file__, __file__)
    described = {
        "model": model.config.to_diff_dict(),
        "alphabet": plain.alphabet.tolist(),
        "task": {"kind": type(task).__name__, **fields, "table": task.table.tolist()},
        "settings": dataclasses.asdict(settings),
        "versions": [torch.__version__, transformers.__version__],
        "sources": [sha256(Path(file or "").read_bytes()) for file in sources],
    }
    return sha256(json.dumps(described, sort_keys=True, default=str).encode())
