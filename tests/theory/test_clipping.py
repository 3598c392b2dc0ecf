"""Weights of the clipped surrogate against autograd of the training loop's loss."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lib.testbeds.grpo import GRPO, surrogate_loss
from rlvr_lib.theory.clipping import clipped_weights


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0.1, 0.2]))
def test_weights_are_the_loops_own(seed, clip):
    rng = np.random.default_rng(seed)
    advantage, log_ratio = rng.standard_normal(6), rng.normal(0, 0.3, 6)
    leaf = torch.tensor(log_ratio[:, None], requires_grad=True)
    old, mask = torch.zeros(6, 1, dtype=torch.float64), torch.ones(6, 1, dtype=torch.bool)
    surrogate_loss(leaf, old, mask, torch.tensor(advantage), GRPO(clip=clip)).backward()
    np.testing.assert_allclose(clipped_weights(advantage, log_ratio, clip), -6 * leaf.grad[:, 0].numpy(), atol=1e-14)


def test_a_first_pass_is_not_clipped_and_the_far_side_never_is():
    np.testing.assert_array_equal(clipped_weights([1.0, -2.0], 0.0, 0.2), [1.0, -2.0])
    assert clipped_weights(1.0, -3.0, 0.2) == pytest.approx(np.exp(-3))
    assert clipped_weights(-1.0, 3.0, 0.2) == pytest.approx(-np.exp(3))
    assert clipped_weights(1.0, np.log(1.25), 0.2) == 0
    assert clipped_weights(1.0, np.log(1.25), 0.2, high=0.28) == pytest.approx(1.25)
    assert clipped_weights(-1.0, np.log(0.75), 0.2, high=0.28) == 0


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="clip must be strictly between"):
        clipped_weights(1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="high must be positive"):
        clipped_weights(1.0, 0.0, 0.2, high=0.0)
