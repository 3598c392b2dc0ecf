"""Adam against torch's own."""

import numpy as np
import pytest
import torch

from rlvr_lib.testbeds.adam import Adam


@pytest.mark.parametrize("second", [0.9, 0.999])
def test_adam_is_that_of_torch(second):
    rng, theta, adam = np.random.default_rng(1), np.ones(5), Adam(second)
    leaf = torch.ones(5, dtype=torch.float64, requires_grad=True)
    other = torch.optim.Adam([leaf], lr=0.01, betas=(0.9, second))
    for gradient in rng.standard_normal((20, 5)):
        leaf.grad = -torch.tensor(gradient)
        other.step()
        theta = theta + 0.01 * adam(gradient)
    assert np.allclose(theta, leaf.detach().numpy(), rtol=1e-12)


def test_an_expected_square_takes_the_place_of_the_square():
    noisy, given = Adam(), Adam()
    for _ in range(3):
        np.testing.assert_allclose(noisy(np.array([2.0])), given(np.array([2.0]), np.array([4.0])))
    assert given(np.array([2.0]), np.array([16.0])) < noisy(np.array([2.0]))


def test_bad_memory_is_named():
    with pytest.raises(ValueError, match="second"):
        Adam(1.0)
