"""The collapse meter: its identity, its bound on energy, and the false alarms of its rule."""

import numpy as np
import pytest

from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.meter import Rule, alarms, covariance_loss, energy_bound, ranks_above, surprise_excess

RNG = np.random.default_rng(3)


def test_loss_is_the_surprise_of_wrong_responses_over_that_of_correct_ones():
    reward, log_prob = np.array([1, 1, 0, 0, 0, 1, 0, 0.0]), -RNG.exponential(20, 8)
    loss = covariance_loss(group_advantages(reward[None], "grpo"), log_prob)
    excess = log_prob[reward == 1].mean() - log_prob[reward == 0].mean()
    assert surprise_excess(loss, reward.mean()) == pytest.approx(excess)


def test_energy_of_a_softmax_score_is_at_least_the_bound():
    for _ in range(50):
        p = RNG.dirichlet(np.ones(6) * 0.4)
        for token in np.flatnonzero(p > 1e-12):
            score = np.eye(6)[token] - p
            assert score @ score >= energy_bound([-np.log(p[token])]) - 1e-12
    assert energy_bound(np.full(8, np.log(2))) == pytest.approx(2)


def test_ranks_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    first, second = RNG.integers(0, 5, 20), RNG.integers(1, 6, 60)
    p = stats.mannwhitneyu(first, second, alternative="less", method="asymptotic").pvalue
    assert stats.norm.cdf(ranks_above(first, second)) == pytest.approx(p)


def test_false_alarms_stay_below_their_bound():
    """20,000 exchangeable steps with heavy tails expect at most 8.4 alarms of two kinds: 18 has a chance of 0.3%."""
    found = 0
    for _ in range(20):
        loss = np.exp(2.5 + 1.2 * RNG.normal(size=1000)) * (RNG.random(1000) < 0.45)
        found += len(alarms(np.arange(1000), loss, RNG.binomial(8, RNG.beta(0.4, 0.3, 1000)) / 8))
    assert found < 18
    assert Rule().false_alarms_per_thousand_steps() == pytest.approx(0.42)


def test_small_losses_and_steps_without_a_signal_say_nothing():
    loss = np.where(np.arange(200) < 120, 0.01, 0.5) * RNG.lognormal(0, 0.3, 200)
    assert alarms(np.arange(200), loss) == []
    assert [alarm.kind for alarm in alarms(np.arange(200), 100 * loss)] == ["loss"]
    assert alarms(np.arange(200), np.zeros(200)) == []
