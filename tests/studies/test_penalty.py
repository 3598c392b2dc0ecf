"""Penalised ascents end where the theory says, on small laws and on small networks."""

import numpy as np
import pytest
from scipy.special import log_softmax, logit
from transformer_policies import make

from rlvr_lib.studies import penalty as study
from rlvr_lib.theory.penalty import penalised_critical_rate, penalised_log_odds, tilted

REWARD = np.array([1.0, 1, 0, 0, 0])
LAW = log_softmax(np.random.default_rng(0).standard_normal(5))


@pytest.mark.parametrize("natural", [True, False])
def test_runs_lead_and_end_at_their_tilts(natural):
    betas = np.array([0.7, 2.0])
    end = study.expected_ascent(LAW, REWARD, betas, 0.5, 4000, natural=natural)
    np.testing.assert_allclose(end.after, [tilted(LAW, REWARD, beta) for beta in betas], atol=1e-9)
    np.testing.assert_allclose(end.moved, 1 / betas, atol=1e-9)
    np.testing.assert_allclose(end.turned, 0, atol=1e-9)


def test_forward_and_groups():
    success = np.exp(LAW) @ REWARD
    for way, name, size in (("forward", "reinforce", None), ("reverse", "grpo", 3), ("reverse", "reinforce", 4)):
        end = study.expected_ascent(LAW, REWARD, 1.2, 0.1, 4000, way, name, size)
        assert end.moved == pytest.approx(penalised_log_odds(success, 1.2, way, name, size) - logit(success), abs=1e-9)
        assert end.success == pytest.approx(1 / (1 + np.exp(-end.moved - logit(success))))


def test_least_beta_and_stable_rate():
    assert study.least_beta(0.5, steps=1500, spacing=0.05) == pytest.approx(1.509, abs=0.06)
    goal = np.exp(tilted(LAW, REWARD, 0.8))
    rate = penalised_critical_rate(np.eye(5) - goal, goal, 0.8)
    found = study.stable_rate(LAW, REWARD, 0.8, rate * np.array([0.5, 0.97, 1.03, 2.0]))
    assert found == pytest.approx(0.97 * rate)
    assert study.stable_rate(LAW, REWARD, 0.8, [50 * rate]) == 0


def test_all_responses_of_a_transformer_are_those_of_its_enumeration():
    policy = make("content-softmax-fixed")
    for prompt in (2, 4):
        rollout, r = study.every_response(policy, prompt), policy.enumerate(prompt)
        law = study.log_law(policy, rollout).detach().numpy()
        np.testing.assert_allclose(np.exp(law), r.prob, atol=1e-12)
        np.testing.assert_array_equal(rollout.reward[0], r.reward)
        slope = study.mean_gradient(policy, rollout, np.exp(law) * rollout.reward[0])
        np.testing.assert_allclose(slope, policy.exact(prompt)[1], atol=1e-12)


def test_a_network_climbs_and_its_original_stays():
    policy = make("content-softmax-fixed")
    before = policy.theta
    end = study.exact_ascent(policy, 0, 1.0, 60)  # one step: tabular, but for elements that no clause carries
    assert end.moved > 0.3
    assert study.distance_to_tilt(end, 1.0) < study.distance_to_tilt(end._replace(after=end.before), 1.0)
    forward = study.exact_ascent(policy, 0, 1.0, 60, "forward")
    assert 0 < forward.moved < end.moved
    free = study.exact_ascent(policy, 0, None, 100, enough=0.8)
    assert free.success >= 0.8
    np.testing.assert_array_equal(policy.theta, before)
