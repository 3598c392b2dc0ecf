"""The tilt against a search over laws, the estimators against autograd, the fixed points against their updates."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logit

from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.advantages import gain_over_variance, group_advantages
from rlvr_lib.theory.penalty import (
    kept_share,
    penalised_critical_rate,
    penalised_log_odds,
    penalty_coefficients,
    penalty_gradient,
    relative_entropy,
    tilted,
)

seeds = st.integers(0, 2**32 - 1)
betas = st.floats(0.1, 5)


def laws(seed, n=5):
    rng = np.random.default_rng(seed)
    return log_softmax(rng.standard_normal((2, n)), -1)


@pytest.mark.parametrize("way", ["reverse", "forward"])
@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_fixed_points_are_what_a_search_over_laws_finds(way, beta):
    reference, _ = laws(3)
    reward = np.array([1.0, 1, 0, 0, 0])

    def loss(theta):
        law = log_softmax(theta)
        far = relative_entropy(law, reference) if way == "reverse" else relative_entropy(reference, law)
        return beta * far - np.exp(law) @ reward

    found = log_softmax(minimize(loss, reference, method="BFGS", options={"gtol": 1e-9}).x)
    success = np.exp(reference) @ reward
    assert logit(np.exp(found) @ reward) == pytest.approx(penalised_log_odds(success, beta, way), abs=1e-5)
    if way == "reverse":
        np.testing.assert_allclose(found, tilted(reference, reward, beta), atol=1e-5)
        assert penalised_log_odds(success, beta) == pytest.approx(logit(success) + 1 / beta, rel=1e-14)
    else:
        assert np.exp((found - reference).min()) > kept_share(beta)


@given(seeds, betas)
def test_penalised_objective_is_a_divergence_from_the_tilt(seed, beta):
    reference, law = laws(seed)
    reward = np.random.default_rng(seed).uniform(-1, 2, 5)
    log_z = np.log(np.exp(reference) @ np.exp(reward / beta))
    left = np.exp(law) @ reward - beta * relative_entropy(law, reference)
    right = beta * log_z - beta * relative_entropy(law, tilted(reference, reward, beta))
    assert left == pytest.approx(right, abs=1e-12)


@pytest.mark.parametrize(
    ("estimator", "placement", "reverse", "forward"),
    [
        ("k1", "loss", 0, 0),
        ("k2", "loss", 1, 0),
        ("k3", "loss", 0, 1),
        ("k1", "reward", 1, 0),
        ("k3", "reward", 1, -1),
    ],
)
def test_mean_gradients_of_the_estimators(estimator, placement, reverse, forward):
    rng = np.random.default_rng(5)
    features, (theta, other) = rng.standard_normal((5, 3)), rng.standard_normal((2, 3))
    leaf = torch.tensor(theta, requires_grad=True)
    law = torch.log_softmax(torch.tensor(features) @ leaf, 0)
    reference = torch.log_softmax(torch.tensor(features @ other), 0)
    value = reverse * (law.exp() @ (law - reference)) + forward * (reference.exp() @ (reference - law))
    (target,) = torch.autograd.grad(value, leaf)
    score = features - np.exp(law.detach().numpy()) @ features
    mean = penalty_gradient(law.detach().numpy(), reference.numpy(), score, estimator, placement)
    np.testing.assert_allclose(mean, target.numpy(), atol=1e-13)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_loss_is_the_derivative_of_the_reward_ones_value(estimator):
    law, reference = -1.3, np.linspace(-4, -0.1, 5)
    value = [penalty_coefficients(law + h, reference, estimator, "reward") for h in (1e-6, -1e-6)]
    slope = (value[0] - value[1]) / 2e-6
    np.testing.assert_allclose(penalty_coefficients(law, reference, estimator, "loss"), slope, atol=1e-7)


def test_mean_of_k2_in_the_reward_written_out():
    law, reference = laws(8)
    score = np.eye(5) - np.exp(law)
    total = sum(p * 0.5 * (a - b) ** 2 * s for p, a, b, s in zip(np.exp(law), reference, law, score, strict=True))
    np.testing.assert_allclose(penalty_gradient(law, reference, score, "k2", "reward"), total, atol=1e-15)


@pytest.mark.parametrize("way", ["reverse", "forward"])
@pytest.mark.parametrize(("estimator", "size"), [("reinforce", 4), ("grpo", 2), ("grpo", 3), ("grpo", None)])
def test_expected_group_updates_vanish_at_the_fixed_point(way, estimator, size):
    reference, beta = 0.4, 2.5
    odds = penalised_log_odds(reference, beta, way, estimator, size)
    assert odds > logit(reference)
    law, base = np.log([expit(odds), expit(-odds)]), np.log([reference, 1 - reference])
    prob, score, total = np.exp(law), np.eye(2) - np.exp(law), np.zeros(2)
    if size is None:
        total = (prob * np.array([1.0, 0.0]) / np.sqrt(prob.prod())) @ score
    else:
        for group in itertools.product(range(2), repeat=size):
            advantage = group_advantages(1.0 - np.array(group), "grpo" if estimator == "grpo" else "dr_grpo")
            total += prob[list(group)].prod() * advantage @ score[list(group)] / size
    pull = penalty_gradient(law, base, score, "k2" if way == "reverse" else "k3", "loss")
    np.testing.assert_allclose(total, beta * pull, atol=1e-12)


def test_first_fixed_point_of_several_and_none():
    # From 0.1 groups of 64 stop three times; the flow ends at the first.
    odds, beta = penalised_log_odds(0.5, 1.6, estimator="grpo", group_size=64), 1.6
    grid = np.linspace(1e-3, odds - 1e-6, 500)
    pull = gain_over_variance(expit(-grid), 1.0, 64) / beta
    assert (grid < pull).all()
    assert odds == pytest.approx(gain_over_variance(expit(-odds), 1.0, 64) / beta, rel=1e-12)
    assert penalised_log_odds(0.5, 1.508, estimator="grpo") == np.inf
    assert penalised_log_odds(0.5, 1.510, estimator="grpo") == pytest.approx(2 * np.arcsinh(1.51), rel=0.05)
    bessel = penalised_log_odds(0.5, 3.0, estimator="grpo", group_size=2, bessel=True)
    assert bessel == pytest.approx(penalised_log_odds(0.5, 3.0, estimator="grpo", group_size=2) * 0.5**0.5)


def test_small_penalties_have_their_ends():
    assert penalised_log_odds(0.5, 1e-4) == pytest.approx(1e4)
    assert penalised_log_odds(0.5, 1e-4, estimator="grpo", group_size=5) == pytest.approx(2e4)
    beta = 1e-12
    assert penalised_log_odds(0.3, beta, "forward") == pytest.approx(-np.log(beta * 0.7), rel=1e-9)


@given(seeds, betas)
def test_critical_rate_is_that_of_the_hessian_at_the_tilt(seed, beta):
    bandit = SoftmaxBandit.random(seed, arms=5, dimension=3)
    r, features = bandit.enumerate(), bandit.features[0]
    reference = torch.tensor(tilted(np.log(r.prob), -r.reward, beta))

    def objective(theta):
        law = torch.log_softmax(torch.tensor(features) @ theta, 0)
        return law.exp() @ (torch.tensor(r.reward) - beta * (law - reference))

    hessian = torch.autograd.functional.hessian(objective, torch.tensor(bandit.theta)).numpy()
    values, vectors = np.linalg.eigh(-hessian)
    assert penalised_critical_rate(r.score, r.prob, beta) == pytest.approx(2 / values[-1], rel=1e-8)
    along = penalised_critical_rate(r.score, r.prob, beta, 3 * vectors[:, -1])
    assert along == pytest.approx(2 / values[-1], rel=1e-8)
    assert penalised_critical_rate(0 * r.score, r.prob, beta) == np.inf


def test_errors_name_the_argument():
    law, other = laws(0)
    score = np.zeros((5, 2))
    with pytest.raises(ValueError, match="beta must be positive"):
        tilted(law, np.ones(5), 0.0)
    with pytest.raises(ValueError, match="log_reference must be logarithms of a law"):
        tilted(law + 1, np.ones(5), 1.0)
    with pytest.raises(ValueError, match="reward must be of shape"):
        tilted(law, np.ones(4), 1.0)
    with pytest.raises(ValueError, match="log_q must be of shape"):
        relative_entropy(law, laws(0, 4)[0])
    with pytest.raises(ValueError, match='estimator must be "k1", "k2" or "k3"'):
        penalty_gradient(law, other, score, "k4")
    with pytest.raises(ValueError, match='placement must be "reward" or "loss"'):
        penalty_gradient(law, other, score, "k3", "both")
    with pytest.raises(ValueError, match="score must be one row for each"):
        penalty_gradient(law, other, score[:4])
    with pytest.raises(ValueError, match='divergence must be "reverse" or "forward"'):
        penalised_log_odds(0.5, 1.0, "both")
    with pytest.raises(ValueError, match="estimator must be"):
        penalised_log_odds(0.5, 1.0, estimator="ppo")
    with pytest.raises(ValueError, match="direction must be a non-zero vector"):
        penalised_critical_rate(score, np.full(5, 0.2), 1.0, np.zeros(2))
    with pytest.raises(ValueError, match="prob must be of shape"):
        penalised_critical_rate(score, np.ones(4), 1.0)
