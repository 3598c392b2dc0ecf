"""Chains with a delay against roots of their recursion, and stale runs against the loop that has no delay."""

import numpy as np
import pytest

from rlvr_lib import Responses, policy_gradient
from rlvr_lib.studies import delay as study
from rlvr_lib.studies.closed_loop import warm_starts
from rlvr_lib.studies.threshold.transformer import short_chain
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.testbeds.grpo import GRPO
from rlvr_lib.theory.delay import delay_factor


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_straight_lines_are_stable_up_to_the_factor(delay):
    bend = np.array([0.5, 2.0, 40.0])
    found = study.critical_factors(lambda x: -bend * x.clip(-1, 1), np.full(3, 1e-3), 2 / bend, delay)
    assert found == pytest.approx(np.full(3, delay_factor(delay)), abs=2e-4)


def test_of_two_directions_the_steeper_decides():
    bend = np.array([1.0, 5.0])
    found = study.critical_factors(lambda x: -bend * x.clip(-1, 1), np.full((1, 2), 1e-3), np.array([2 / 5]), 2)
    assert found == pytest.approx([delay_factor(2)], abs=2e-4)


def test_peaks_are_where_the_gradient_vanishes_and_as_curved_as_they_say():
    peaks, h = study.random_peaks(3, 5), 1e-5
    assert np.abs(peaks.drift(np.zeros((5, 2)))).max() < 1e-12
    columns = [(peaks.drift(h * e) - peaks.drift(-h * e)) / (2 * h) for e in np.eye(2)[:, None].repeat(5, 1)]
    steepest = np.linalg.eigvalsh(-np.stack(columns, 1))[:, -1]
    assert peaks.critical == pytest.approx(2 / steepest, rel=1e-6)


def test_the_drift_is_the_gradient_of_a_bandit():
    peaks, deviation = study.random_peaks(4, 2), np.array([[0.3, -0.2], [1.0, 0.5]])
    for number, moved in enumerate(peaks.best + deviation):
        reward = (np.arange(7) == 0).astype(float)
        bandit = SoftmaxBandit(moved, peaks.features[number][None], reward[None])
        responses = bandit.enumerate()
        assert isinstance(responses, Responses)
        assert peaks.drift(deviation)[number] == pytest.approx(policy_gradient(responses), rel=1e-10)


def test_a_line_has_the_maximum_and_the_bend_of_its_testbed():
    testbed, unit = short_chain("crowded names", 3, 1)
    line = study.line_through(testbed, 0, 64.0)
    if line is None:
        testbed, unit = short_chain("crowded names", 3, 2)
        line = study.line_through(testbed, 0, 64.0)
    J, slope, second = testbed.at(testbed.theta + line.maximum * unit).along(0, unit)
    assert abs(slope) < 1e-9 * J
    assert line.critical == pytest.approx(-2 / second, rel=1e-6)
    assert study.line_factors([line], 1) == pytest.approx([0.5], abs=1e-3)


def test_a_line_without_a_maximum_is_none():
    rising = SoftmaxBandit(np.zeros(1), np.array([[[1.0], [0.0]]]), np.array([[1.0, 0.0]]))
    assert study.line_through(rising, 0) is None


@pytest.fixture(scope="module")
def qwen():
    return warm_starts("tiny", 1)[0]


@pytest.mark.parametrize("weights", ["none", "full", "clipped"])
def test_without_delay_weights_make_no_difference_and_runs_repeat(qwen, weights):
    settings = GRPO(estimator="dr_grpo", group_size=4)
    runs = [study.stale_run(qwen, 0.05, settings, 0, w, 2, 5, 7) for w in (weights, "none")]
    assert runs[0].success == pytest.approx(runs[1].success)
    assert len(runs[0].success) == 2
    assert not runs[0].collapsed


def test_a_delay_changes_nothing_before_it_can(qwen):
    settings = GRPO(estimator="dr_grpo", group_size=4)
    fresh, stale = (study.stale_run(qwen, 0.0, settings, k, "none", 2, 5, 7) for k in (0, 3))
    assert fresh.success == pytest.approx(stale.success)


@pytest.mark.parametrize(
    ("changes", "named"), [({"weights": "half"}, "weights"), ({"delay": -1}, "delay"), ({"rate": -1.0}, "rate")]
)
def test_bad_arguments_are_named(qwen, changes, named):
    arguments = {"rate": 0.1, "delay": 1, "weights": "none"} | changes
    with pytest.raises(Exception, match=named):
        study.stale_run(qwen, settings=GRPO(), length=2, steps=1, seed=0, **arguments)
