"""The study of graded rewards, at small sizes and against plain references."""

import itertools

import numpy as np
import pytest
from qwen_policies import S3, scrambled
from transformer_policies import make

from rlvr_lib.studies import graded as study
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.testbeds.group_tasks import WordProblem
from rlvr_lib.theory.climb import group_potential, harmed_share_bound
from rlvr_lib.theory.gap import policy_gradient
from rlvr_lib.theory.graded import noisy_gap_factor, noisy_rate_factor

RATES = (0.2, 0.05)


def networks():
    yield study.transformer_credit(make("content-softmax-fixed", horizons=(3,)), RATES)
    yield study.qwen_credit(scrambled(1, task=WordProblem(S3, (2,))), [5], 2, RATES)


def test_credit_of_both_networks_obeys_the_coin_lemma():
    for found in networks():
        for own in found:
            np.testing.assert_allclose(own.coin, own.wanted, atol=1e-9)
            np.testing.assert_allclose(own.whole, own.gap, atol=1e-9)
            np.testing.assert_allclose(own.noisy, noisy_gap_factor(own.success, *RATES) * own.gap, atol=1e-9)
            assert own.thrown - own.graded == pytest.approx(own.spared, rel=1e-9)
            assert own.deviation**2 < own.mean * (1 - own.mean)
            assert max(own.turned[0.0, G] for G in study.GROUPS) < 1e-7
            assert min(own.turned[1.0, G] for G in study.GROUPS) > 1e-4


def test_sine_of_known_angles():
    assert study.sine(np.array([2.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(np.sqrt(0.5))
    assert study.sine(np.array([1.0, 1e-12]), np.array([1.0, 0.0])) == pytest.approx(1e-12)


def test_mean_update_of_verdicts_is_that_of_all_groups_of_verdicts():
    r, (b, a), G = SoftmaxBandit.random(3, arms=3, correct=1).enumerate(), RATES, 3
    pairs = [(o, verdict) for o in range(len(r)) for verdict in (0, 1)]
    chance = {
        (o, verdict): r.prob[o] * (accepted if verdict else 1 - accepted)
        for o, verdict in pairs
        for accepted in [1 - b if r.reward[o] else a]
    }
    total = np.zeros(r.score.shape[1])
    for group in itertools.product(pairs, repeat=G):
        reward = np.array([verdict for _, verdict in group], float)
        if reward.std() > 0:
            advantage = (reward - reward.mean()) / reward.std()
            total += np.prod([chance[pair] for pair in group]) * advantage @ r.score[[o for o, _ in group]] / G
    np.testing.assert_allclose(study.mean_update(r, RATES, G, 1.0), total, atol=1e-12)
    np.testing.assert_allclose(study.mean_update(r, (0.0, 0.0), None, 0.0), policy_gradient(r), atol=1e-12)


def test_critical_rates_grow_by_the_known_factor():
    for seed in range(40):
        bandit = SoftmaxBandit.random(seed)
        r = bandit.enumerate()
        if np.isfinite(study.critical_rate(bandit, policy_gradient(r))):
            break
    found = study.critical_ratio(bandit, RATES, 8, 1.0)
    assert found == pytest.approx(noisy_rate_factor(r.prob @ r.reward, *RATES, "grpo", 8), rel=1e-9)


def test_work_is_the_difference_of_the_potential():
    bandit = SoftmaxBandit.random(0, prompts=2)
    line = study.Line.of(bandit, (0, 1), np.array([0.3, -0.2, 0.5, 0.1]), nodes=24)
    climbed = np.diff(group_potential(line.ends, 4).sum(1))[0]
    assert line.work(4) == pytest.approx(climbed, rel=1e-10)


def test_a_short_step_with_fair_signs_harms_no_more_than_the_bound():
    for number in range(6):
        found = study.all_signs((1, number), 0.01, others=6)
        assert 0 < found.slack < 1
        assert found.harmed <= harmed_share_bound(found.overlap, found.slack) + 1e-12
        assert found.opposed in (0, 1)
    shares = [study.all_signs((2, number), 1e-6, others=8, dimension=2).harmed for number in range(20)]
    assert 0 < max(shares) <= 0.5


def test_interference_of_three_prompts_by_hand():
    found = study.interference(np.array([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0]]))
    assert found.harmed == 1
    assert found.negative == pytest.approx(1 / 3)
    assert found.against == pytest.approx(-1)
    assert found.along == 0
    assert found.bound == pytest.approx(harmed_share_bound([4.0, 0.25, 0.0]).sum())
    assert study.interference(np.eye(2) + 1).against == 0
