"""Estimators of theorem 5 against sums over all outcomes of a group, written-out loops and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lib.responses import score_energies, success_rate
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.baseline import (
    baseline_loss,
    gradient_variance,
    mean_baseline_loss,
    mean_of_others,
    optimal_baseline,
    squared_signal,
    two_gradient_baseline,
)
from rlvr_lib.theory.gap import policy_gradient
from rlvr_lib.theory.signal import (
    LaggedBaseline,
    RunningSnr,
    group_squared_signal,
    leave_one_out_loss,
    leave_one_out_variance,
    token_energies,
)

seeds = st.integers(0, 2**32 - 1)
open_unit = st.floats(1e-6, 1 - 1e-6)
ratios = st.floats(1e-3, 1e3)


def bandit_responses(seed, arms=4, correct=2):
    return SoftmaxBandit.random(seed, arms=arms, dimension=3, correct=correct).enumerate()


def groups(r, size):
    """Probability [o], reward [o, size] and score [o, size, d] of every ordered group."""
    arms = np.array(list(itertools.product(range(len(r)), repeat=size)))
    return r.prob[arms].prod(1), r.reward[arms], r.score[arms]


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("correct", [1, 2])
def test_leave_one_out_variance_over_all_groups(size, correct):
    r = bandit_responses(size, arms=3, correct=correct)
    prob, reward, score = groups(r, size)
    advantage = reward - mean_of_others(reward, np.ones_like(reward))
    estimate = (advantage[..., None] * score).mean(1)
    mean = prob @ estimate
    expected = prob @ ((estimate - mean) ** 2).sum(1)
    assert leave_one_out_variance(r, size) == pytest.approx(expected, rel=1e-12)
    assert gradient_variance(r, success_rate(r), samples=size) != pytest.approx(expected, rel=1e-6)


@given(seeds, st.integers(2, 9))
def test_leave_one_out_loss_is_the_second_moment_of_one_term(seed, size):
    r = bandit_responses(seed)
    J, (correct, wrong) = success_rate(r), score_energies(r)
    energy = (r.score**2).sum(1)
    least = r.prob @ ((r.reward - optimal_baseline(r)) ** 2 * energy)
    count = np.arange(size)
    weight = np.array([np.prod(range(size - k, size)) / np.prod(range(1, k + 1)) for k in count])
    law = weight * J**count * (1 - J) ** (size - 1 - count)
    terms = [r.prob @ ((r.reward - k / (size - 1)) ** 2 * energy) for k in count]
    assert leave_one_out_loss(J, wrong / correct, size) == pytest.approx(law @ terms / least, rel=1e-6)


@given(open_unit, ratios)
def test_leave_one_out_loss_tends_to_that_of_the_mean(J, ratio):
    losses = [leave_one_out_loss(J, ratio, size) for size in (2, 4, 100)]
    assert losses[0] > losses[1] > losses[2] > mean_baseline_loss(J, ratio)
    assert leave_one_out_loss(J, ratio, 10**9) == pytest.approx(mean_baseline_loss(J, ratio), rel=1e-4)


def test_rare_successes_make_leave_one_out_worse_than_no_baseline():
    assert leave_one_out_loss(1e-6, 1.0, 4) == pytest.approx(4 / 3, rel=1e-4)
    assert baseline_loss(1e-6, 1.0, 0.0) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_pairs_with_a_baseline_from_outside_are_unbiased(size):
    r = bandit_responses(8, arms=3, correct=1)
    prob, reward, score = groups(r, size)
    truth = (policy_gradient(r) ** 2).sum()
    assert prob @ group_squared_signal(reward, score) == pytest.approx(truth, rel=1e-12)
    advantage = reward - mean_of_others(reward, np.ones_like(reward))
    within = prob @ [squared_signal(rows) for rows in advantage[..., None] * score]
    assert within / truth == pytest.approx(1 + 1 / (size - 1) ** 2, rel=1e-12)


@given(seeds, st.integers(3, 6))
def test_group_squared_signal_written_out(seed, size):
    rng = np.random.default_rng(seed)
    reward, score = rng.integers(0, 2, size).astype(float), rng.standard_normal((size, 2))
    total = 0.0
    for i, j in itertools.permutations(range(size), 2):
        b = np.mean([reward[k] for k in range(size) if k not in (i, j)])
        total += (reward[i] - b) * (reward[j] - b) * (score[i] @ score[j])
    assert group_squared_signal(reward, score) == pytest.approx(total / size / (size - 1), abs=1e-12)


@given(seeds, st.integers(2, 9), st.integers(1, 5))
def test_token_energy_is_the_squared_gradient_in_the_logits(seed, vocabulary, length):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(length, vocabulary, generator=generator, dtype=torch.float64, requires_grad=True)
    token = torch.randint(vocabulary, (length,), generator=generator)
    law = torch.log_softmax(logits, -1)
    taken = law[torch.arange(length), token]
    (gradient,) = torch.autograd.grad(taken[1:].sum(), logits)
    energy = token_energies(taken.detach(), (2 * law).exp().sum(-1).detach(), np.arange(length) >= 1)
    assert energy == pytest.approx(float(gradient.square().sum()), abs=1e-12)


def test_lagged_baseline_of_two_batches_and_of_two_runs():
    lagged = LaggedBaseline(decay=0.5, initial=0.25)
    assert lagged.value == 0.25
    reward = np.array([[[1, 0], [1, 1]], [[0, 0], [1, 0]]], float)
    energy = np.array([[[1, 2], [3, 4]], [[1, 1], [2, 4]]], float)
    lagged.update(reward, energy)
    np.testing.assert_allclose(lagged.value, [8 / 10, 2 / 8])
    lagged.update(1 - reward, energy)
    np.testing.assert_allclose(lagged.value, [(4 + 2) / 15, (1 + 6) / 12])


def test_lagged_baseline_from_two_gradients_is_the_two_gradient_baseline():
    rng, lagged = np.random.default_rng(2), LaggedBaseline(decay=0.0)
    for _ in range(2):  # with decay 0 only the last batch counts
        correct, wrong = rng.standard_normal((2, 1, 3))
        total = correct + wrong
        lagged.count((correct * total).sum(), (total**2).sum())
    assert lagged.value == pytest.approx(two_gradient_baseline(correct, wrong), rel=1e-12)


def test_lagged_baseline_without_energy_keeps_its_start():
    lagged = LaggedBaseline(initial=0.5)
    lagged.update(np.ones((2, 2)), np.zeros((2, 2)))
    assert lagged.value == 0.5


def test_lagged_baseline_finds_the_optimum_on_a_fixed_policy():
    r = bandit_responses(3)
    rng, lagged = np.random.default_rng(0), LaggedBaseline(decay=0.999)
    drawn = rng.choice(len(r), p=r.prob, size=(3000, 4, 8))
    for batch in drawn:
        lagged.update(r.reward[batch], (r.score**2).sum(1)[batch])
    assert lagged.value == pytest.approx(optimal_baseline(r), abs=0.02)


def test_running_snr_is_a_ratio_of_means():
    rng = np.random.default_rng(1)
    batches = rng.standard_normal((3, 2, 4, 5)) + 0.5
    running = RunningSnr(decay=0.5)
    np.testing.assert_array_equal(running.value, 0)
    for batch in batches:
        running.update(batch)
    weight = np.array([0.25, 0.5, 1.0])
    for run in range(2):
        signal = sum(w * squared_signal(rows[run]) for w, rows in zip(weight, batches, strict=True))
        noise = sum(w * rows[run].var(axis=0, ddof=1).sum() / 4 for w, rows in zip(weight, batches, strict=True))
        snr = max(signal, 0) / noise
        assert running.value[run] == pytest.approx(snr, rel=1e-12)
        assert running.shrinkage[run] == pytest.approx(snr / (1 + snr), rel=1e-12)


def test_running_snr_at_the_ends():
    running = RunningSnr()
    assert running.shrinkage == 0
    running.update([[1.0, 0.0], [1.0, 0.0]])
    assert running.value == np.inf
    assert running.shrinkage == 1
    running = RunningSnr()
    running.update([[1.0, 0.0], [-1.0, 0.0]])
    assert running.value == 0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: leave_one_out_variance(bandit_responses(0), 1), "group_size"),
        (lambda: leave_one_out_loss(0.0, 1.0, 4), "success"),
        (lambda: leave_one_out_loss(0.5, 0.0, 4), "energy_ratio"),
        (lambda: leave_one_out_loss(0.5, 1.0, 1), "group_size"),
        (lambda: group_squared_signal(np.ones(2), np.ones((2, 1))), "reward"),
        (lambda: group_squared_signal(np.ones(3), np.ones((2, 1))), "score"),
        (lambda: group_squared_signal(np.ones(3), np.ones(3)), "score"),
        (lambda: token_energies(np.zeros(2), np.ones(3), np.ones(2)), "collision"),
        (lambda: token_energies(np.zeros(2), np.full(2, 1.5), np.ones(2)), "collision"),
        (lambda: token_energies(np.zeros(2), np.ones(2), np.ones(3)), "mask"),
        (lambda: LaggedBaseline(decay=1.0), "decay"),
        (lambda: LaggedBaseline(initial=[0.5]), "initial"),
        (lambda: LaggedBaseline().update([1.0], [1.0]), "score_energy"),
        (lambda: LaggedBaseline().update([[1.0]], [[1.0, 2.0]]), "score_energy"),
        (lambda: LaggedBaseline().update([[1.0]], [[-1.0]]), "score_energy"),
        (lambda: LaggedBaseline().count(1.0, -1.0), "total"),
        (lambda: LaggedBaseline().count([1.0], [1.0, 1.0]), "total"),
        (lambda: RunningSnr(decay=-0.1), "decay"),
        (lambda: RunningSnr().update([[1.0]]), "gradients"),
        (lambda: RunningSnr().update([1.0, 2.0]), "gradients"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()
