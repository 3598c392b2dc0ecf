"""The runs of chapter 2 on the transformer: against differences, a hand-made training loop, and their own sabotages."""

import numpy as np
import pytest
import torch

from rlvr_lib.studies.threshold import sampled_slope_error
from rlvr_lib.studies.threshold import transformer as study
from rlvr_lib.theory.advantages import group_gain
from rlvr_lib.theory.threshold import log_success_curvature

SEED = 7


@pytest.fixture(scope="module")
def crowded():
    start = study.starts("crowded names", 8, 4, SEED)
    return start, study.first_return(start)


def second_difference(function, step):
    return (function(step) - 2 * function(0.0) + function(-step)) / step**2


@pytest.mark.parametrize("kind", study.KINDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_starts_have_the_success_asked_for_and_the_derivatives_along_their_gap(kind, batch):
    start = study.starts(kind, 4, 3, SEED, success=0.7, batch=batch, own_tables=True)
    here, one = start.here, np.ones(3)
    np.testing.assert_allclose(here.success, 0.7, rtol=1e-9)
    np.testing.assert_allclose(start.direction.norm(dim=-1), 1, rtol=1e-12)

    def log_success(step):
        return start.moved(step * one).log_success().numpy()

    np.testing.assert_allclose(here.slope, (log_success(1e-4) - log_success(-1e-4)) / 2e-4, rtol=1e-6)
    np.testing.assert_allclose(here.curvature, -second_difference(log_success, 1e-3), rtol=1e-4)
    across = torch.randn(start.direction.shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    across -= (across * start.direction).sum(-1, keepdim=True) * start.direction
    sideways = start._replace(direction=across / across.norm(dim=-1, keepdim=True))
    np.testing.assert_allclose(sideways.here.slope, 0, atol=1e-9)  # the direction is the gradient's


def test_every_crowded_name_is_closest_to_itself_so_that_success_has_no_ceiling():
    start = study.starts("crowded names", 32, 8, SEED, success=1 - 1e-6, own_tables=True)
    names = start.policy.embedding
    assert bool(((names @ names.mT).argmax(-1) == torch.arange(study.NAMES)).all())
    np.testing.assert_allclose(start.here.failure, 1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", study.KINDS)
def test_a_row_does_not_depend_on_the_others(kind):
    few, many = (study.starts(kind, 8, rows, SEED, own_tables=True) for rows in (2, 4))
    some = many.rows(np.array([1, 0, 1]))
    for found, expected in ((some.theta, few.theta), (some.direction, few.direction)):
        np.testing.assert_allclose(found, expected[[1, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(some.here.curvature, few.here.curvature[[1, 0, 1]], rtol=1e-9)


@pytest.mark.parametrize("kind", study.KINDS)
@pytest.mark.parametrize("length", [2, 3])
def test_the_curvature_of_log_success_from_all_responses(kind, length):
    testbed, w = study.short_chain(kind, length, SEED)
    r = testbed.enumerate(0)
    possible = r.prob > 0

    def log_prob(step):
        return np.log(testbed.at(testbed.theta + step * w).enumerate(0).prob[possible])

    second, slope = second_difference(log_prob, 1e-3), r.score[possible] @ w
    J, rise, bend = testbed.along(0, w)
    exact = (rise / J) ** 2 - bend / J
    found = [log_success_curvature(r.reward[possible], slope, sign * second, r.prob[possible]) for sign in (1, 0, -1)]
    assert found[0] == pytest.approx(exact, rel=1e-5)
    assert abs(found[1] / exact - 1) > 0.1  # second derivatives left out
    assert abs(found[2] / exact - 1) > 0.1  # and with the wrong sign


def test_exponents_of_length_are_those_of_chains_and_not_of_other_ones():
    found, chains = study.exponents_of_length(3, SEED)
    assert np.abs(found - chains).max() < 0.05
    assert np.round(chains[:2, 0]).tolist() == [1, 0]
    for broken in ({"exchanged": True}, {"swapped": True}):
        found, chains = study.exponents_of_length(3, SEED, **broken)
        assert np.abs(found - chains).max() > 0.3


@pytest.mark.parametrize("kind", study.KINDS)
def test_curvature_falls_with_the_failure_rate_so_that_the_step_need_not(kind):
    curvature, step = study.exponents_of_failure(kind, 3, SEED)
    assert step < 0.5 < curvature
    constant, shorter = study.exponents_of_failure(kind, 3, SEED, constant="curvature")
    assert abs(constant) < 1e-9
    assert shorter > 0.9
    assert study.exponents_of_failure(kind, 3, SEED, constant="slope")[1] < -0.5
    with pytest.raises(ValueError, match="^constant must be"):
        study.exponents_of_failure(kind, 3, SEED, constant="step")


def test_the_measured_step_is_the_first_return(crowded):
    start, measured = crowded
    assert np.isfinite(measured).all()
    level = start.log_success()
    np.testing.assert_allclose(start.moved(measured).log_success(), level, atol=1e-3)
    for share in np.linspace(0.05, 0.95, 19):
        assert bool((start.moved(share * measured).log_success() > level).all())


@pytest.mark.parametrize("kind", study.KINDS[:2])
def test_success_never_returns_where_no_logit_moves_at_the_cost_of_another(kind):
    assert np.isinf(study.first_return(study.starts(kind, 4, 3, SEED))).all()


@pytest.mark.parametrize("estimator", study.ESTIMATORS)
def test_the_guaranteed_rate_is_safe_and_the_predicted_one_exact_at_a_ridge(crowded, estimator):
    shares = study.guaranteed_over_measured(*crowded, estimator)
    assert ((shares > 0) & (shares <= 1)).all()
    assert study.guaranteed_over_measured(*crowded, estimator, gain_power=2.0).max() > shares.max()
    error = [np.abs(study.ridge_ratios(*crowded, distance, estimator) - 1).max() for distance in (1e-1, 1e-2, 1e-3)]
    assert error[0] > error[1] > error[2]
    assert error[2] < 0.02
    assert np.abs(study.ridge_ratios(*crowded, estimator=estimator, gain_power=2.0) - 1).max() > 1


def test_the_predicted_step_is_exact_at_a_ridge(crowded):
    assert np.abs(study.ridge_ratios(*crowded) - 1).max() < 0.02
    assert np.abs(study.ridge_ratios(*crowded, old_curvature=True) - 1).max() > 0.02


def test_starts_without_a_return_are_left_out(crowded):
    start, measured = crowded
    few = np.where(np.arange(len(measured)) == 1, measured, np.inf)
    for function in (study.guaranteed_over_measured, study.ridge_ratios):
        every, one = (function(start, steps, estimator="grpo") for steps in (measured, few))
        np.testing.assert_allclose(one, every[1:2], rtol=1e-6)


@pytest.mark.parametrize("kind", study.KINDS)
def test_expected_training_is_gradient_ascent(kind):
    run = study.trained(kind, "reinforce", [0.5, 2.0], 2, 4, SEED, sampled=False, lengths=[3])
    start = study.starts(kind, 3, 2, SEED, batch=study.BATCH, degree=3, own_tables=True)
    for at, multiple in enumerate(run.multiples):
        theta = start.theta.clone()
        for _ in range(4):
            success = torch.func.grad(lambda x: start.log_success(x).exp().sum())
            gain = group_gain(0.5, study.GROUP_SIZE, normalize=False) / 0.25
            theta = theta + multiple * run.predicted[0] * gain * success(theta)
        np.testing.assert_allclose(run.final[0, :, at], start.log_success(theta).exp(), rtol=1e-9)


def test_training_depends_on_its_seed_only_and_fails_far_above_the_predicted_rate():
    multiples = [0.5, 64.0]
    few, many = (study.trained("crowded names", "grpo", multiples, seeds, 16, SEED, lengths=[4]) for seeds in (2, 3))
    np.testing.assert_allclose(few.final, many.final[:, :2], atol=1e-9)
    assert few.predicted == pytest.approx(many.predicted)
    assert many.final.shape == (1, 3, 2)
    assert (many.final[..., 1] < many.final[..., 0]).all()
    assert set(many.boundary.ravel()) <= {0.0, np.sqrt(32), np.inf}
    other = study.trained("crowded names", "grpo", multiples, 2, 16, SEED + 1, lengths=[4])
    assert np.abs(other.final - few.final).max() > 1e-3


@pytest.mark.parametrize("kind", study.KINDS)
def test_a_sample_gives_the_slope_of_all_responses(kind):
    testbed, w = study.short_chain(kind, 3, SEED)
    assert sampled_slope_error(testbed, w, 10_000, SEED, 1e-9) < 1
    assert sampled_slope_error(testbed, w, 10_000, SEED, 1e-9, shuffled=True) > 1
    moved = testbed.at(testbed.theta + 10 * w)
    assert sampled_slope_error(testbed, w, 10_000, SEED, 1e-9, sampler=moved) > 1


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("kind", lambda: study.starts("logits", 4, 2, SEED)),
        ("horizons", lambda: study.starts("own logits", 34, 2, SEED)),
        ("rows", lambda: study.starts("own logits", 4, 0, SEED)),
        ("success", lambda: study.starts("own logits", 4, 2, SEED, success=1.0)),
        ("multiples", lambda: study.trained("own logits", "grpo", [0.0], 2, 8, SEED)),
        ("steps", lambda: study.trained("own logits", "grpo", [1.0], 2, 3, SEED)),
        ("estimator", lambda: study.trained("own logits", "ppo", [1.0], 2, 8, SEED)),
    ],
)
def test_bad_arguments_are_named(name, call):
    with pytest.raises(ValueError, match=name):
        call()
