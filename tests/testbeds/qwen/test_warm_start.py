"""The warm start, its seeds and its cache."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import PATIENCE
from qwen_policies import FALSE_ALARM, S3

from rlvr_lib.testbeds.checkpoint import load_tensors, save_tensors
from rlvr_lib.testbeds.group_tasks import ManyAnswers, WordProblem
from rlvr_lib.testbeds.qwen import QwenTestbed, checkpoints
from rlvr_lib.testbeds.qwen.forward import PlainQwen, tiny_model
from rlvr_lib.testbeds.qwen.warm_start import WarmStart, cache_key
from rlvr_lib.theory.groups import cyclic_group


def flip(data, bit):
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_warm_start_follows_the_teacher(warm):
    """Success at each length is that of a teacher wrong with probability 1 - lambda a step, one lambda for all.

    Sampled success is within .04 (sampling, Hoeffding at 1e-6 in all) plus .02 (the policy's own deviation) of it.
    """
    generator, n, rates = torch.Generator().manual_seed(5), 6_000, []
    for length in (2, 3, 4, 5, 6):
        task = WordProblem(S3, (length,), 6)
        rollout = warm.with_task(task).rollout(task.draw(n, generator), 1, generator)
        rates.append(rollout.reward.mean())
    rates, length = np.array(rates), np.arange(2, 7)
    assert 0.3 < rates.mean() < 0.5
    fits = np.linspace(0.5, 1, 501)
    residual = np.abs(1 / 6 + 5 / 6 * fits[:, None] ** length - rates)
    best = residual.max(1).argmin()
    sampling = np.sqrt(np.log(2 * len(length) / FALSE_ALARM) / (2 * n))
    assert residual[best].max() < sampling + 0.02
    assert abs(fits[best] - 0.75) < 0.03


TINY = WarmStart(clean_steps=2, noisy_steps=1, batch=4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLVR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trained():
    return QwenTestbed(WordProblem(S3, (2,)), warm_start=TINY).theta


def foreign(data):
    tensors = safetensors.torch.load(data)
    return safetensors.torch.save({name: value + 1 for name, value in tensors.items()})


DAMAGES = {
    "empty": lambda data: b"",
    "text": lambda data: b"not tensors at all",
    "truncated": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "bit of the content": lambda data: flip(data, 8 * len(data) - 4_000),
    "bit of the header": lambda data: flip(data, 8 * 60),
    "foreign": foreign,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_rebuilt(cache, damage):
    expected = trained()
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    np.testing.assert_array_equal(trained(), expected)
    assert [file.name for file in cache.iterdir()] == [path.name]
    assert path.read_bytes() == whole


def test_cache_of_other_settings_is_not_used(cache):
    """A whole file of another key, put in the place of this one, is replaced."""
    expected = trained()
    (path,) = cache.iterdir()
    tensors, info = load_tensors(path)
    save_tensors(path, {name: value + 1 for name, value in tensors.items()}, {"key": "another"})
    np.testing.assert_array_equal(trained(), expected)
    save_tensors(path, {name: value + 1 for name, value in tensors.items()}, info)
    np.testing.assert_allclose(trained(), expected + 1, rtol=1e-6)  # so the cache is what is read


def test_seeds_are_checkpoints_with_other_weights_and_other_traces(cache, monkeypatch):
    task, draw, drawn = WordProblem(S3, (2,)), WordProblem.draw, []

    def recorded(self, n, generator):
        drawn.append(draw(self, n, generator))
        return drawn[-1]

    monkeypatch.setattr(WordProblem, "draw", recorded)
    untrained = [one.theta for one in checkpoints([0, 1], WarmStart(clean_steps=0, noisy_steps=0), task=task)]
    assert np.abs(untrained[0] - untrained[1]).max() > 0.01
    trained = checkpoints([0, 1], TINY, task=task)
    assert drawn[:3] != drawn[3:]
    assert len(list(cache.iterdir())) == 4
    again = checkpoints([1, 0], TINY, task=task, dtype=torch.float64)
    assert len(drawn) == 6  # nothing was trained
    for before, after in zip(trained, reversed(again), strict=True):
        np.testing.assert_array_equal(before.theta, after.theta)
    assert np.abs(trained[0].theta - trained[1].theta).max() > 0.01
    with pytest.raises(ValueError, match="^seeds must be all different"):
        checkpoints([0, 0], TINY)
    with pytest.raises(ValueError, match="^seed must be"):
        checkpoints([-1])
    with pytest.raises(ValueError, match="^model must be tiny"):
        checkpoints([0], model="folder")


def test_cache_key_depends_on_everything(monkeypatch):
    task = WordProblem(S3, (2,))
    model = tiny_model(16, 0)

    def key(model=model, task=task, settings=TINY, alphabet=None):
        alphabet = task.answers if alphabet is None else alphabet
        return cache_key(model, PlainQwen(model, None, alphabet), task, settings)

    others = [
        key(model=tiny_model(16, 0, "qwen2")),
        key(task=WordProblem(S3, (2,), 3)),
        key(task=WordProblem(S3, (2, 3), 3)),
        key(task=WordProblem(cyclic_group(6), (2,))),
        key(task=ManyAnswers(S3)),
        key(task=ManyAnswers(S3, accepted=2)),
        key(task=ManyAnswers(S3, length=4)),
        key(task=ManyAnswers(S3, needed=1)),
        key(alphabet=range(1, 16)),
        *(
            key(settings=replace(TINY, **{name: getattr(TINY, name) + 1}))
            for name in ("seed", "batch", "ramp", "decay")
        ),
        *(key(settings=replace(TINY, **{name: 5})) for name in ("clean_steps", "noisy_steps", "largest_gradient")),
        *(key(settings=replace(TINY, **{name: 0.1})) for name in ("noise", "learning_rate")),
    ]
    assert key() == key()
    monkeypatch.setattr(torch, "__version__", "0.0")
    others.append(key())
    assert len({key(), *others}) == len(others)


def test_a_cache_that_cannot_be_written_is_named_and_left_as_it_was(cache, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        trained()
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    cache.rmdir()
    cache.write_text("in the way")
    monkeypatch.setenv("RLVR_CACHE", str(cache))
    with pytest.raises(OSError, match=str(cache)):
        trained()


SCRIPT = """
import hashlib
from rlvr_lib.theory.groups import symmetric_group
from rlvr_lib.testbeds.qwen import QwenTestbed, checkpoints
from rlvr_lib.testbeds.group_tasks import WordProblem
from rlvr_lib.testbeds.qwen.warm_start import WarmStart
settings = WarmStart(clean_steps=6, noisy_steps=6, batch=16)
theta = QwenTestbed(WordProblem(symmetric_group(3), (2,)), warm_start=settings).theta
print(hashlib.sha256(theta.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_at_once(cache):
    runs = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    output = [run.communicate(timeout=PATIENCE) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], output
    assert output[0][0] == output[1][0] != ""
    (path,) = cache.iterdir()
    load_tensors(path)


def test_warm_start_arguments():
    for name in ("seed", "clean_steps", "noisy_steps", "batch", "noise", "learning_rate"):
        with pytest.raises(ValueError, match=name):
            WarmStart(**{name: -1})
