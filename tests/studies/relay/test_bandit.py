"""The runs of chapter 3 on the bandit: against enumeration, finite differences, the flow, and the hand-off law."""

import itertools

import numpy as np
import pytest

from rlvr_lib.studies.relay import bandit
from rlvr_lib.theory.relay import (
    clause_attention,
    escape_time,
    handoff_exponent,
    relay_velocity,
    saturated_decay,
    saturated_exponent,
)


@pytest.mark.parametrize("horizon", [1, 3, 6])
def test_the_mean_over_chains_by_enumeration(horizon):
    decay = np.random.default_rng(horizon).uniform(0.1, 1, (2, 6))
    every = [decay[:, list(chain)].prod(1) for chain in itertools.combinations(range(6), horizon)]
    np.testing.assert_allclose(bandit.mean_over_chains(decay, horizon), np.mean(every, 0), rtol=1e-12)


def test_uneven_names_are_harder_for_long_chains_than_one_logit_says():
    decay = np.random.default_rng(0).uniform(0.3, 1, (20, 30))
    roots = [bandit.mean_over_chains(decay, h) ** (1 / h) for h in (2, 5, 15, 30)]
    assert (np.diff(roots, axis=0) < 0).all()


@pytest.mark.parametrize("head", [bandit.linear, bandit.softmax(10.0)])
def test_a_head_knows_its_slope(head):
    a = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(head(a)[1], (head(a + 1e-6)[0] - head(a - 1e-6)[0]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("dilute", [False, True])
def test_the_flow_moves_with_the_velocity_of_the_theorem(dilute):
    mixture = (5, 15, 45)
    flow = bandit.flow(mixture, bandit.linear, dilute, 1.0, stop=9.0)
    w = np.linspace(1.0, 9.0, len(flow.time))
    velocity = relay_velocity(w, mixture, bandit.ORDER, mixture if dilute else 2)
    np.testing.assert_allclose(np.gradient(w, flow.time[:, 0])[100:-100], velocity[100:-100], rtol=1e-3)
    a = clause_attention(w[:, None], mixture if dilute else 2)
    np.testing.assert_allclose(flow.y[:, 0], a ** np.array(mixture), rtol=1e-12)


def test_one_length_alone_escapes_in_the_closed_form():
    flow = bandit.flow((5,), bandit.linear, False, 0.0)
    found = flow.when(0.5)[0, 0]
    assert found == pytest.approx(escape_time(5, 0.5, 0.5 ** (1 / 5), bandit.ORDER), rel=1e-5)


def test_even_names_follow_the_flow():
    run = bandit.relay((3, 6), 2, 0, spread=0.0, names=6, start=1.0, step=0.004)
    flow = bandit.flow((3, 6), bandit.linear, True, 1.0)
    np.testing.assert_allclose(run.when(0.5), np.tile(flow.when(0.5), (2, 1)), rtol=0.1)


@pytest.mark.parametrize("estimator", bandit.ESTIMATORS)
@pytest.mark.parametrize("dilute", [False, True])
def test_uneven_names_hand_over_by_the_exponent(estimator, dilute):
    run = bandit.relay((4, 12), 3, 5, dilute=dilute, names=12, start=0.5, estimator=estimator, spread=0.5)
    ratio = run.exponent_ratios((4, 12), lambda R, h, y: handoff_exponent(R, *((h, y) if dilute else ())))
    np.testing.assert_allclose(ratio, 1, atol=0.1)
    if not dilute:
        assert (ratio >= 1).all()  # Maclaurin's inequality


def test_a_saturating_head_hands_over_by_its_own_exponent():
    head = bandit.softmax(10.0)
    run = bandit.relay((5, 15), 3, 5, head=head, start=0.6, names=15, spread=0.3)
    law = lambda R, h, y: saturated_exponent(R, h, y, 10.0, bandit.ORDER)  # noqa: E731
    np.testing.assert_allclose(run.exponent_ratios((5, 15), law), 1, atol=0.1)
    assert head(np.array([0.5]))[0] == saturated_decay([0.5], 10.0, bandit.ORDER)


def test_dropping_a_mastered_length_lengthens_a_wide_wait():
    waits = []
    for kept in (True, False):
        run = bandit.relay((3, 30), 2, 1, start=1.0, names=30, kept=kept, until=0.2, spread=0.3)
        waits.append(run.wait(0.1, 0.9))
    assert (waits[1] > 2 * waits[0]).all()


def test_the_wait_of_even_names_is_that_of_the_flow():
    for kept in (True, False):
        found = bandit.wait(bandit.linear, np.log(4), 3, kept, runs=2, seed=0, step=0.02)
        np.testing.assert_allclose(found, bandit.flow_wait(bandit.linear, np.log(4), 3, kept), rtol=0.1)


def test_times_of_levels():
    relay = bandit.Relay(np.arange(4.0)[:, None], np.array([[0, 0], [0.2, 0], [0.6, 0.05], [1, 0.2]])[:, None])
    np.testing.assert_allclose(relay.when(0.1), [[0.5, 2 + 1 / 3]])
    np.testing.assert_allclose(relay.when(0.5), [[1.75, np.inf]])
    np.testing.assert_allclose(relay.wait(), [[2 + 1 / 3 - 2.75]])
    assert np.isnan(relay.wait_over_rise()).all() or (relay.wait_over_rise() == 0).all()


def test_turns_are_where_they_are_predicted_and_not_elsewhere():
    assert bandit.turns_where_predicted(0.1, 0.9, 3, 0).all()
    assert not bandit.turns_where_predicted(0.1, 0.9, 3, 0, ratio=6.0).any()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("estimator", lambda: bandit.relay((2, 3), 1, 0, estimator="PPO")),
        ("names", lambda: bandit.relay((2, 30), 1, 0, names=20)),
        ("runs", lambda: bandit.relay((2, 3), 0, 0)),
        ("until", lambda: bandit.relay((2, 3), 1, 0, until=1.0)),
        ("sharpness", lambda: bandit.softmax(0.0)),
    ],
)
def test_bad_input_is_refused(name, call):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()
