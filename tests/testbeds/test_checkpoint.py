"""Files of tensors: whole, or known to be damaged."""

import numpy as np
import pytest
import torch

from rlvr_lib.testbeds.checkpoint import cache_folder, load_tensors, restore_training, save_tensors, training_tensors


def test_any_flipped_bit_is_detected_or_harmless(tmp_path):
    path, rng = tmp_path / "some.safetensors", np.random.default_rng(0)
    tensors, info = {"a": torch.randn(7), "b": torch.arange(3)}, {"key": "k", "steps": [1, 2]}
    save_tensors(path, tensors, info)
    whole, detected = path.read_bytes(), 0
    for bit in rng.permutation(8 * len(whole))[:600]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << int(bit % 8)
        path.write_bytes(bytes(damaged))
        try:
            read, described = load_tensors(path)
        except ValueError:
            detected += 1
        else:
            assert described == info
            assert all(torch.equal(read[name], value) for name, value in tensors.items())
    assert detected > 550
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "none.safetensors")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RLVR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RLVR_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "rlvr")


def test_a_training_run_is_put_back():
    def started():
        weight = torch.ones(3, requires_grad=True)
        return [weight], torch.optim.Adam([weight], lr=0.1), torch.Generator().manual_seed(1)

    def step(parameters, optimizer, generator):
        optimizer.zero_grad()
        (parameters[0] * torch.randn(3, generator=generator)).sum().backward()
        optimizer.step()

    first, second = started(), started()
    step(*first)
    tensors = {name: value.clone() for name, value in training_tensors(*first).items()}
    restore_training(tensors, *second)
    for run in (first, second):
        step(*run)
    assert torch.equal(first[0][0], second[0][0])
    with pytest.raises(ValueError, match="^checkpoint must be one with the tensors"):
        restore_training({"query": torch.zeros(3)}, *started())
