"""Tensors and their description in one safetensors file that is whole, or known to be damaged, and never a part.

The tensors of a training run are its parameters, the state of its optimizer and that of its generator: with them the
next update is the same, bit by bit, as without the interruption.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch

from rlvr_lib.arguments import require
from rlvr_lib.files import sha256, write_whole


def cache_folder() -> Path:
    """``$RLVR_CACHE``; else ``.cache/rlvr`` in the clone this package runs from; else in the home folder."""
    if os.environ.get("RLVR_CACHE"):
        return Path(os.environ["RLVR_CACHE"])
    root = Path(__file__).resolve().parents[2]
    return (root if (root / "pyproject.toml").is_file() else Path.home()) / ".cache" / "rlvr"


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], info: Mapping[str, object]) -> None:
    """Write tensors and JSON-serialisable information with a hash of both, atomically."""
    tensors = {name: value.detach().contiguous() for name, value in tensors.items()}
    text = json.dumps(info, sort_keys=True)
    described = json.dumps({"info": text, "sha256": _digest(tensors, text)})
    write_whole(path, safetensors.torch.save(tensors, {"described": described}))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors and the information that ``save_tensors`` wrote; a ValueError where it did not, or not all of it."""
    data = path.read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        described = json.loads(header["__metadata__"]["described"])
        text, digest = described["info"], described["sha256"]
        info = json.loads(text)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be a file of tensors with their hash, got a damaged one ({error})") from None
    require(digest == _digest(tensors, text), str(path), "another content", "the content that its hash says")
    return tensors, info


def training_tensors(
    parameters: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Everything that an update depends on, by name."""
    tensors = {f"parameter.{index}": value for index, value in enumerate(parameters)}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items() if torch.is_tensor(value)}
    return tensors | {"generator": generator.get_state()}


def restore_training(
    tensors: Mapping[str, torch.Tensor],
    parameters: Sequence[torch.Tensor],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Put back what ``training_tensors`` took."""
    needed = {"generator", *(f"parameter.{index}" for index in range(len(parameters)))}
    require(needed <= tensors.keys(), "checkpoint", sorted(tensors), f"one with the tensors {sorted(needed)}")
    with torch.no_grad():
        for index, value in enumerate(parameters):
            value.copy_(tensors[f"parameter.{index}"])
    generator.set_state(tensors["generator"])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, place, key = name.split(".", 2)
            state.setdefault(int(place), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _digest(tensors: Mapping[str, torch.Tensor], info: str) -> str:
    return sha256(safetensors.torch.save(dict(tensors)) + info.encode())
