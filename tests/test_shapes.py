"""That shapes are checked while the tests run, in the library and in code like the library's."""

import importlib
import sys

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError, install_import_hook

from rlvr_lib import Responses, gradient_gap
from rlvr_lib.theory import gap

SAMPLE = """
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

if False:
    from somewhere import Unknown


def scale(x: Float[np.ndarray, "n d"], weight: Float[np.ndarray, " n"], y: Unknown = None) -> Float[np.ndarray, " n"]:
    if np.ndim(x) != 2:
        raise ValueError("x must have two axes")
    return np.sum(x, 1) * weight


def norm(x: Float[torch.Tensor, "n d"] | None) -> Float[torch.Tensor, " d"]:
    return x.norm(dim=1)


@dataclass
class Pair:
    first: Float[np.ndarray, " n"]
    second: Float[np.ndarray, " n"] | None = None
"""


@pytest.fixture
def sample(tmp_path, monkeypatch):
    (tmp_path / "sample_of_shapes.py").write_text(SAMPLE)
    monkeypatch.syspath_prepend(tmp_path)
    with install_import_hook("sample_of_shapes", "shapes.checked"):
        yield importlib.import_module("sample_of_shapes")
    del sys.modules["sample_of_shapes"]


def test_a_wrong_shape_is_caught(sample):
    for x, weight in ((np.ones((2, 3)), np.ones(1)), (np.ones((2, 3)), np.ones((1, 2)))):
        with pytest.raises(TypeCheckError):
            sample.scale(x, weight)
    with pytest.raises(TypeCheckError):
        sample.norm(torch.ones(2, 3))  # its result is [n]
    with pytest.raises(TypeCheckError):
        sample.Pair(np.ones(2), np.ones(3))


def test_what_the_library_converts_or_refuses_is_left_to_it(sample):
    assert sample.scale([[1.0, 2], [3, 4]], [1.0, 1]).tolist() == [3, 7]
    assert sample.scale(np.array([[1, 2], [3, 4]]), np.array([0.5, 1])).tolist() == [1.5, 7]
    with pytest.raises(ValueError, match="two axes"):
        sample.scale(np.ones(2), np.ones(2))


def test_a_wrong_type_is_caught_in_results_and_tensors(sample):
    with pytest.raises(TypeCheckError):
        sample.scale(np.ones((2, 2), dtype=int), np.ones(2, dtype=int))
    with pytest.raises(TypeCheckError):
        sample.norm(torch.ones(2, 2, dtype=torch.complex64))
    assert len(sample.norm(torch.ones(2, 2))) == 2


def test_the_library_is_checked(monkeypatch):
    r = Responses(reward=[1, 0], score=[[1.0, 0.0], [0.0, 1.0]])
    assert gradient_gap(r).tolist() == [1, -1]
    monkeypatch.setattr(gap, "conditional_means", lambda r: (r.score, r.score))
    with pytest.raises(TypeCheckError):
        gradient_gap(r)
