"""Estimators of theorem 5 against sums over all outcomes of a group, written-out loops and closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.theory.baseline import mean_of_others
from rlvr_lib.theory.gap import policy_gradient
from rlvr_lib.theory.signal import (
    RunningSnr,
    gradient_snr,
    group_squared_signal,
    signal_and_noise,
    snr_learning_rate,
    squared_signal,
)

seeds = st.integers(0, 2**32 - 1)


def bandit_responses(seed, arms=4, correct=2):
    return SoftmaxBandit.random(seed, arms=arms, dimension=3, correct=correct).enumerate()


def groups(r, size):
    """Probability [o], reward [o, size] and score [o, size, d] of every ordered group."""
    arms = np.array(list(itertools.product(range(len(r)), repeat=size)))
    return r.prob[arms].prod(1), r.reward[arms], r.score[arms]


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


@given(seeds, st.integers(2, 7), st.integers(1, 4))
def test_squared_signal_is_the_mean_over_pairs(seed, n, d):
    gradients = np.random.default_rng(seed).standard_normal((n, d))
    pairs = [gradients[i] @ gradients[j] for i in range(n) for j in range(n) if i != j]
    assert squared_signal(gradients) == pytest.approx(np.mean(pairs), abs=1e-12)


@given(seeds, st.integers(2, 7), st.integers(1, 4))
def test_signal_and_noise_from_inner_products_written_out(seed, n, d):
    gradients = np.random.default_rng(seed).standard_normal((2, n, d)) + 0.5
    signal, noise = signal_and_noise(gram=gradients @ gradients.swapaxes(1, 2))
    for k, rows in enumerate(gradients):
        pairs = [rows[i] @ rows[j] for i in range(n) for j in range(n) if i != j]
        assert signal[k] == pytest.approx(np.mean(pairs), abs=1e-12)
        assert noise[k] == pytest.approx(rows.var(axis=0, ddof=1).sum() / n, abs=1e-12)
    assert signal_and_noise(gram=np.ones((3, 3))) == (1, 0)


def test_signal_and_snr_may_be_negative():
    assert squared_signal([[1.0, 0.0], [-1.0, 0.0]]) == -1
    assert gradient_snr([[1.0, 0.0], [-1.0, 0.0]]) == -1
    assert snr_learning_rate(-1.0, 2.0) == 0


@pytest.mark.parametrize("drawn", [2, 3, 4])
def test_statistic_between_prompts_with_and_without_replacement(drawn):
    gradients = np.random.default_rng(9).standard_normal((5, 3))
    mean = gradients.mean(0)
    spread = ((gradients - mean) ** 2).sum(1).mean()
    with_replacement = [squared_signal(gradients[list(q)]) for q in itertools.product(range(5), repeat=drawn)]
    assert np.mean(with_replacement) == pytest.approx(mean @ mean, rel=1e-12)
    without = [squared_signal(gradients[list(q)]) for q in itertools.permutations(range(5), drawn)]
    assert np.mean(without) == pytest.approx(mean @ mean - spread / 4, rel=1e-12)


@given(seeds, st.integers(2, 7), st.integers(1, 4), st.floats(1e-250, 1e250))
def test_snr_is_rows_over_the_noise_scale_and_free_of_units(seed, n, d, scale):
    gradients = np.random.default_rng(seed).standard_normal((n, d)) + 1.0
    noise_scale = gradients.var(axis=0, ddof=1).sum() / squared_signal(gradients)
    assert gradient_snr(scale * gradients) == pytest.approx(n / noise_scale, rel=1e-9, abs=1e-12)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_snr_learning_rate_is_the_top_of_the_parabola(signal, noise, smoothness):
    def gain(rate):
        return rate * signal - smoothness / 2 * rate**2 * (signal + noise)

    snr = signal / noise
    best = snr_learning_rate(snr, smoothness)
    assert gain(best) == pytest.approx(signal / (2 * smoothness) * snr / (1 + snr), rel=1e-9)
    assert gain(best) > max(gain(0.9 * best), gain(1.1 * best))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: group_squared_signal(np.ones(2), np.ones((2, 1))), "reward"),
        (lambda: group_squared_signal(np.ones(3), np.ones((2, 1))), "score"),
        (lambda: group_squared_signal(np.ones(3), np.ones(3)), "score"),
        (lambda: RunningSnr(decay=-0.1), "decay"),
        (lambda: RunningSnr().update([[1.0]]), "gradients"),
        (lambda: RunningSnr().update([1.0, 2.0]), "gradients"),
        (lambda: signal_and_noise(), "gradients"),
        (lambda: signal_and_noise(np.eye(2), gram=np.eye(2)), "gram"),
        (lambda: signal_and_noise(gram=np.ones((2, 3))), "gram"),
        (lambda: signal_and_noise(gram=[[1.0]]), "gram"),
        (lambda: squared_signal([[1.0, 2.0]]), "gradients"),
        (lambda: squared_signal([1.0, 2.0]), "gradients"),
        (lambda: squared_signal([[1.0], [np.nan]]), "gradients"),
        (lambda: gradient_snr([[1.0, 2.0]]), "gradients"),
        (lambda: gradient_snr([[0.1, 0.2]] * 3), "gradients"),
        (lambda: gradient_snr([[0.0], [0.0]]), "gradients"),
        (lambda: snr_learning_rate(1.0, 0.0), "smoothness"),
        (lambda: snr_learning_rate(np.nan, 1.0), "snr"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()
