"""The supervised warm start of the text model, cached like that of the tiny Qwen and trained by the same loop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlvr_lib.files import sha256
from rlvr_lib.testbeds.checkpoint import cache_folder, load_tensors, save_tensors
from rlvr_lib.testbeds.grpo import one_thread
from rlvr_lib.testbeds.qwen import forward as plain_forward
from rlvr_lib.testbeds.qwen import prefixes
from rlvr_lib.testbeds.qwen import warm_start as training
from rlvr_lib.testbeds.qwen.warm_start import WarmStart
from rlvr_lib.testbeds.text import forward, sums
from rlvr_lib.testbeds.text.sums import Sums

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WARM_START = WarmStart(clean_steps=440, noisy_steps=0, noise=0.0, batch=64, learning_rate=2e-3, ramp=50, decay=180)
"""Stops while arithmetic is half learned: what is wrong then are the model's own mistakes, and no teacher's noise."""


def warm_started(model: PreTrainedModel, task: Sums, settings: WarmStart, progress: bool = False) -> None:
    """Give a freshly initialised model its warm start: from the cache, or by training, which fills the cache.

    A cached file that is damaged, or that belongs to other settings, is replaced.
    """
    key = cache_key(model, task, settings)
    path = cache_folder() / f"warm-start-{key[:24]}.safetensors"
    parameters = dict(model.named_parameters())
    with contextlib.suppress(FileNotFoundError, ValueError):
        stored, info = load_tensors(path)
        if info.get("key") == key:
            with torch.no_grad():
                for name, value in parameters.items():
                    value.copy_(stored[name])
            return
    plain = forward.PackedQwen(model, None, range(model.config.vocab_size))
    with one_thread():
        training.supervise(model, plain, task, settings, progress)  # type: ignore[arg-type]  # it has a task's methods
    save_tensors(path, parameters, {"key": key})


def cache_key(model: PreTrainedModel, task: Sums, settings: WarmStart) -> str:
    """Hash of what the warm start depends on: model, task, tokenizer, settings, versions, and the sources."""
    import tokenizers
    import transformers

    sources = (prefixes.__file__, plain_forward.__file__, training.__file__, forward.__file__, sums.__file__, __file__)
    described = {
        "model": model.config.to_diff_dict(),
        "task": dataclasses.asdict(task),
        "tokenizer": task.tokens.to_str(),
        "settings": dataclasses.asdict(settings),
        "versions": [torch.__version__, transformers.__version__, tokenizers.__version__],
        "sources": [sha256(Path(file or "").read_bytes()) for file in sources],
    }
    return sha256(json.dumps(described, sort_keys=True, default=str).encode())
