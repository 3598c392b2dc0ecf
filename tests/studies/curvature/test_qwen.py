"""The runs of chapter 4 on a Qwen: all responses in one pass, matched rates, mean runs, and two arms that are one."""

import numpy as np
import pytest
import torch

from rlvr_lib.studies.curvature import ARMS
from rlvr_lib.studies.curvature import qwen as study
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.qwen import QwenTestbed, WarmStart

PACE = 0.01


@pytest.fixture(scope="module")
def batch():
    qwen = QwenTestbed(warm_start=WarmStart(clean_steps=30, noisy_steps=5, batch=32), dtype=torch.float64)
    return study.Batch(qwen, tuple(qwen.task.prompt(word) for word in [(1, 2), (4, 3), (5, 5), (2, 4)]))


def test_one_pass_over_all_responses_is_exact_success(batch):
    exact = [batch.qwen.exact(prompt) for prompt in batch.prompts]
    assert batch.success_of(batch.qwen).detach().numpy() == pytest.approx([J for J, _ in exact], rel=1e-9)
    assert batch.success == pytest.approx([J for J, _ in exact], rel=1e-9)
    np.testing.assert_allclose(batch.gradient, [gradient for _, gradient in exact], rtol=1e-7, atol=1e-12)


def test_curvature_is_the_second_difference_along_the_own_gradient(batch):
    unit, h = batch.gradient[0] / np.linalg.norm(batch.gradient[0]), 1e-4
    J = [batch.at(batch.qwen.theta + step * unit).success[0] for step in (-h, 0.0, h)]
    assert batch.curvature()[0] == pytest.approx(abs(J[0] - 2 * J[1] + J[2]) / h**2, rel=1e-3)


@pytest.mark.parametrize("arm", ARMS)
def test_a_mean_run_starts_at_its_pace(batch, arm):
    run = study.mean_run(batch, arm, 8, 1e-5, 2)
    assert np.diff(run.success.mean(1))[0] == pytest.approx(1e-5, rel=0.01)
    assert run.theta.shape == (3, len(batch.qwen.theta))


def test_the_mean_of_sampled_steps_is_the_step_of_the_mean_run(batch):
    rate, moved = batch.rate("std", 4, 1e-6), []

    def look(step):
        moved.append((step.after - step.before).numpy())

    grpo.train(batch.at(batch.qwen.theta).qwen, batch.prompts, grpo.GRPO(4, "grpo", learning_rate=rate), 225, 0, look)
    rise = np.array(moved) @ batch.gradient.mean(0)
    assert rise.mean() == pytest.approx(1e-6, abs=4 * rise.std() / 15)


def test_in_groups_of_two_dividing_by_the_deviation_changes_the_rate_only(batch):
    def trained(arm, group_size):
        policy = batch.at(batch.qwen.theta).qwen
        rate = batch.rate(arm, group_size, PACE)
        grpo.train(policy, batch.prompts, grpo.GRPO(group_size, ARMS[arm], learning_rate=rate), 5, 0)
        return policy.theta - batch.qwen.theta, rate

    bare, rate = trained("none", 2)
    for arm, factor in (("std", 2), ("variance", 4)):
        moved, own = trained(arm, 2)
        assert own == pytest.approx(rate / factor, rel=1e-9)
        np.testing.assert_allclose(moved, bare, rtol=1e-6, atol=1e-12)
    assert np.abs(trained("std", 4)[0] - trained("none", 4)[0]).max() > 1e-4


def test_the_rate_for_adam_does_not_depend_on_the_scale_of_the_gradient(batch):
    rates = [batch.rate(arm, 2, PACE, "adam", 3) for arm in ("none", "std")]
    assert rates[0] == pytest.approx(rates[1], rel=1e-4)  # epsilon aside
    assert batch.rate("none", 2, 2 * PACE, "adam", 3) == pytest.approx(2 * rates[0], rel=1e-9)


def test_runs_are_counted_by_looks_and_marked_where_they_do_not_arrive(batch):
    drawn = [batch, batch]
    short = study.sampled_runs(drawn, "sgd", "none", 4, PACE, 4, [0, 1])
    assert short.steps.shape == short.drop.shape == (2, 2)
    assert np.isinf(short.steps).all()
    assert (short.drop >= 0).all()
    assert short.rate == pytest.approx(batch.rate("none", 4, PACE), rel=1e-12)
    assert len(study.looks(batch, grpo.GRPO(4, learning_rate=0.01), 9, 0)) == 3  # before, and after steps 4 and 8


def test_steered_words_have_the_odds_asked_for_and_an_advantage_is_a_ratio(batch):
    odds = batch.gaps[0] + np.array([-0.3, 0.0, 0.2, 0.4])
    there = batch.steered(odds)
    assert np.abs(there.gaps[0] - odds).max() < 0.02
    assert batch.steered(batch.gaps[0]) is batch
    assert 0.3 < there.line_search_advantage() < 3


def test_places_of_a_run_go_from_its_start_to_its_best(batch):
    run = study.mean_run(batch, "std", 16, 0.02, 6)
    places = study.along_run(batch, run, 3)
    assert places[0].success == pytest.approx(batch.success, rel=1e-9)
    assert places[-1].success.mean() == pytest.approx(run.success.mean(1).max(), rel=1e-9)


def test_first_order_steps_are_those_of_a_short_run_and_know_the_group_size(batch):
    run = study.mean_run(batch, "none", 16, 1e-4, 6)
    places = study.along_run(batch, run, 4)
    assert study.first_order_steps(places, "none", 16, 1e-4) == pytest.approx(6, rel=0.05)
    far = study.along_run(batch, study.mean_run(batch, "none", 16, 0.02, 8), 4)
    plain = [study.first_order_steps(far, "none", size, PACE) for size in (4, 16)]
    assert plain[0] == pytest.approx(plain[1], rel=1e-9)
    assert study.first_order_steps(far, "std", 4, PACE) != pytest.approx(study.first_order_steps(far, "std", 16, PACE))


def test_batches_are_checkpoints_with_words_of_their_own(monkeypatch, batch):
    monkeypatch.setattr(study.threshold, "warm_starts", lambda model, count, first: [batch.qwen] * count)
    drawn = study.batches("tiny", 2, 0, 5, 0)
    assert drawn[0].prompts != drawn[1].prompts
    assert len(set(drawn[0].prompts)) == 5
