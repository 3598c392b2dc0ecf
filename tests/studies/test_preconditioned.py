"""Boundaries on quadratics, a network's own tilt against its enumeration, passes against a loop over groups."""

import itertools

import numpy as np
import pytest
from scipy.special import log_softmax
from transformer_policies import make

from rlvr_lib.studies import preconditioned as study
from rlvr_lib.testbeds.lines import TokenChain
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.clipping import clipped_weights
from rlvr_lib.theory.preconditioned import largest_stable_rate, preconditioned_curvature, sign_plateau


def test_growth_on_a_quadratic():
    hessian, scale = np.diag([-3.0, -1.0]), np.array([1.0, 5.0])
    rate = largest_stable_rate(preconditioned_curvature(hessian, scale), 0.9)
    top, nudge = np.array([1.0, 2.0]), np.array([0.0, 0.1])
    for factor in (0.97, 1.03):
        grown = study.growth(lambda x: hessian @ (x - top), top, nudge, factor * rate, scale, 0.9, 200)
        assert (grown < 1) == (factor < 1)


def test_own_tilt_of_a_transformer():
    policy = make("content-softmax-fixed")
    own, r = study.OwnTilt(policy, 4, 0.5), policy.enumerate(4)
    assert np.abs(own.gradient(own.theta)).max() < 1e-13
    np.testing.assert_allclose(own.success_gradient(), policy.exact(4)[1], atol=1e-12)
    scale = np.exp(np.random.default_rng(0).standard_normal(len(own.theta)))
    fisher = 0.5 * (r.prob[:, None] * r.score).T @ r.score
    value, vector = own.top_eigenvector(scale, 2000)
    assert value == pytest.approx(preconditioned_curvature(-fisher, scale), rel=1e-6)
    root = np.sqrt(scale)
    np.testing.assert_allclose(root * (fisher @ (root * vector)), value * vector, atol=1e-3 * value)


def test_signs_and_momentum_on_a_line():
    chain = TokenChain.with_peak(length=8, success=0.5)
    peak = chain.along(0.0)
    end, position = study.signs_on_a_line(chain, np.linspace(-0.3, -0.2, 7), 0.01, 100)
    low, high = sign_plateau(0.01, peak.curvature)
    loss = peak.log_success - end
    assert ((loss >= 0.99 * low) & (loss <= 1.01 * high)).all()
    assert (np.abs(position) <= 0.01).all()
    run = study.momentum_on_a_line(chain, -0.05, 0.5 * largest_stable_rate(peak.curvature), 0.0, 100)
    assert run.ratio[0] == pytest.approx(0.5, rel=0.01)
    assert abs(run.last) < 1e-9


@pytest.mark.parametrize("clip", [None, 0.2])
def test_several_passes_by_a_loop_over_groups(clip):
    law, reward, rate = log_softmax([0.3, -0.2, 0.5]), np.array([1.0, 0.0, 1.0]), 1.5
    total = np.zeros((3, 3))
    for group in itertools.product(range(3), repeat=2):
        group = list(group)
        advantage, now = group_advantages(reward[group], "grpo"), law.copy()
        for k in range(3):
            weight = clipped_weights(advantage, (now - law)[group], clip)
            step = sum(w * (np.eye(3)[arm] - np.exp(now)) for w, arm in zip(weight, group, strict=True)) / 2
            now = log_softmax(now + rate * step)
            total[k] += np.exp(law)[group].prod() * (now - law)
    np.testing.assert_allclose(study.several_passes(law, reward, 2, rate, 3, clip, "grpo"), total, atol=1e-13)
