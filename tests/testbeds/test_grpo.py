"""The GRPO loop: its expected gradient, its options, determinism, resuming, learning, and the measured run."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from math import factorial

import numpy as np
import pytest
import torch

from rlvr_lib import gradient_gap, power_gain, success_rate
from rlvr_lib.testbeds.group_tasks import ManyAnswers, WordProblem
from rlvr_lib.testbeds.grpo import GRPO, Step, flat, one_thread, surrogate_loss, train, update
from rlvr_lib.testbeds.measured_run import along_step, diagnose, prompt_gradients, train_builtin
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.qwen.warm_start import WarmStart
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.groups import cyclic_group, symmetric_group
from rlvr_lib.theory.threshold import AlongStep

S3 = symmetric_group(3)


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    with one_thread():
        yield


def tiny(dtype=torch.float64, seed=0, **arguments):
    """Words of one element of Z2: 7 responses a prompt, one of them correct."""
    testbed = QwenTestbed(WordProblem(cyclic_group(2), (1,)), warm_start=None, dtype=dtype, **arguments)
    return testbed.at(testbed.theta + 0.1 * np.random.default_rng(seed).standard_normal(len(testbed.theta)))


def everything(testbed, prompt):
    """All responses of a prompt as a rollout of one group."""
    tokens, length = testbed.responses(prompt)
    mask = torch.arange(tokens.shape[1]) < length[:, None]
    reward = testbed.task.reward([prompt], tokens[None], length[None]).double().numpy()
    return Rollout((prompt,), tokens, mask, reward)


# ---------------------------------------------------------------- the expected gradient


@pytest.mark.parametrize("length_normalize", [False, True])
@pytest.mark.parametrize("estimator", ["reinforce", "dr_grpo", "rloo", "grpo", "grpo_variance", "grpo_batch"])
def test_expected_gradient_over_all_groups(estimator, length_normalize):
    """The gradient of the loop's own loss, averaged over all groups of 4 of the 7 responses, against I6.

    With length normalisation the expectation is not a multiple of the gap; there it is summed from the scores.
    """
    testbed, settings = tiny(), GRPO(group_size=4, estimator=estimator, length_normalize=length_normalize)
    responses, whole = testbed.enumerate(1), everything(testbed, 1)
    groups = np.array(list(itertools.combinations_with_replacement(range(len(responses)), 4)))
    orders = np.array([24 / np.prod([factorial(n) for n in Counter(group).values()]) for group in groups.tolist()])
    probability = orders * responses.prob[groups].prod(1)
    assert abs(probability.sum() - 1) < 1e-12
    rows = groups.ravel()
    rollout = Rollout((1,) * len(groups), whole.tokens[rows], whole.mask[rows], responses.reward[groups])
    advantages = np.concatenate(
        [settings.advantages(testbed, replace(rollout, prompts=(1,), reward=reward[None])) for reward in rollout.reward]
    )
    log_probs, loss = testbed.token_log_probs(rollout), 0.0
    for group, weight in enumerate(probability):
        part = slice(4 * group, 4 * group + 4)
        old, advantage = log_probs[part].detach(), torch.tensor(advantages[group])
        loss = loss + weight * surrogate_loss(log_probs[part], old, rollout.mask[part], advantage, settings)
    ascent = -flat(torch.autograd.grad(loss, testbed.parameters())).numpy()
    success, gap = success_rate(responses), gradient_gap(responses)
    if length_normalize:
        weight = probability[:, None] * advantages / responses.length[groups] / 4
        expected = weight.ravel() @ responses.score[rows]
        bend = np.abs(expected - (expected @ gap) / (gap @ gap) * gap).max()
        assert (bend > 0.01 * np.abs(expected).max()) == (estimator != "reinforce")  # one length is correct
    elif estimator in ("reinforce", "rloo"):
        expected = success * (1 - success) * gap
    else:
        power = {"dr_grpo": 0, "grpo_variance": 2}.get(estimator, 1)
        expected = power_gain(success, power, 4) * gap
    np.testing.assert_allclose(ascent, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def test_one_step_of_sgd_is_the_weighted_sum_of_scores():
    testbed = tiny()
    rollout = testbed.rollout([0, 1], 6, torch.Generator().manual_seed(0))
    scores, before = testbed.scores(rollout).numpy(), testbed.theta
    records, steps = [], []
    settings = GRPO(group_size=6, estimator="rloo", learning_rate=0.3)
    records = train(testbed, [0, 1], settings, 1, 0, on_step=steps.append)
    np.testing.assert_array_equal(steps[0].rollout.tokens, rollout.tokens)
    expected = 0.3 / 12 * group_advantages(rollout.reward, "rloo").ravel() @ scores
    np.testing.assert_allclose(testbed.theta - before, expected, rtol=1e-9, atol=1e-12)
    assert records[0]["update_norm"] == pytest.approx(np.linalg.norm(expected), rel=1e-9)
    assert records[0]["gradient_norm"] == pytest.approx(np.linalg.norm(expected) / 0.3, rel=1e-9)
    assert records[0]["success_rate"] == rollout.reward.mean()
    np.testing.assert_allclose(steps[0].after - steps[0].before, expected, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- options


def test_a_baseline_handed_in():
    """A constant baseline, and one that looks at the policy: the advantage is the reward minus it."""
    testbed = tiny()
    rollout = testbed.rollout([0, 1], 5, torch.Generator().manual_seed(0))
    constant = GRPO(baseline=lambda policy, rollout: 0.25).advantages(testbed, rollout)
    np.testing.assert_array_equal(constant, rollout.reward - 0.25)

    def optimal(policy, rollout):
        norms = policy.squared_norms(rollout).numpy().reshape(rollout.reward.shape)
        return (rollout.reward * norms).sum(1, keepdims=True) / norms.sum(1, keepdims=True)

    seen = GRPO(baseline=optimal).advantages(testbed, rollout)
    assert seen.shape == (2, 5)
    assert np.ptp(rollout.reward - seen, axis=1).max() < 1e-12


def test_clipped_ratios_stop_the_gradient():
    """Beyond the clip range in the direction of the advantage, as in PPO, and only there."""
    settings, mask = GRPO(clip=0.2), torch.ones(4, 1, dtype=torch.bool)
    old = torch.zeros(4, 1, dtype=torch.float64)
    log_probs = torch.tensor([[1.3], [1.3], [0.7], [0.7]], dtype=torch.float64).log().requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    (gradient,) = torch.autograd.grad(surrogate_loss(log_probs, old, mask, advantages, settings), log_probs)
    np.testing.assert_allclose(gradient[:, 0], [0, 1.3 / 4, -0.7 / 4, 0], atol=1e-15)
    free = surrogate_loss(log_probs, old, mask, advantages, replace(settings, clip=None))
    (gradient,) = torch.autograd.grad(free, log_probs)
    np.testing.assert_allclose(gradient[:, 0], [-1.3 / 4, 1.3 / 4, -0.7 / 4, 0.7 / 4], atol=1e-15)


def test_minibatches_and_passes():
    """Two passes over two parts are four updates; with vanishing steps they add up to the update on all at once."""
    rate, rollout = 1e-7, tiny().rollout([0, 1, 0, 1], 8, torch.Generator().manual_seed(0))
    moves = []
    for settings in (GRPO(learning_rate=rate), GRPO(learning_rate=rate, minibatches=2, passes=2)):
        testbed = tiny()
        optimizer, before = torch.optim.SGD(testbed.parameters(), lr=rate), testbed.theta
        update(testbed, optimizer, rollout, settings.advantages(testbed, rollout), settings)
        moves.append(testbed.theta - before)
    np.testing.assert_allclose(moves[1], 4 * moves[0], atol=1e-4 * np.abs(moves[1]).max())
    with pytest.raises(ValueError, match="minibatches"):
        train(tiny(), [0, 1], GRPO(minibatches=3), 1, 0)


def test_off_policy_updates_are_clipped():
    """Many passes with a large rate: with a clip the policy stays closer to the one that sampled."""
    rollout, distance = tiny().rollout([0, 1], 32, torch.Generator().manual_seed(0)), {}
    for clip in (0.1, None):
        testbed, settings = tiny(), GRPO(passes=30, clip=clip, estimator="dr_grpo")
        with torch.no_grad():
            old = testbed.token_log_probs(rollout)
        optimizer = torch.optim.SGD(testbed.parameters(), lr=0.05)
        update(testbed, optimizer, rollout, settings.advantages(testbed, rollout), settings)
        with torch.no_grad():
            distance[clip] = float((testbed.token_log_probs(rollout) - old).abs().max())
    assert distance[0.1] < 0.5 * distance[None]


def test_gradients_are_cut_and_rates_follow_the_step():
    testbed, steps = tiny(), []
    settings = GRPO(largest_gradient=1e-3, learning_rate=lambda step: 0.5 / (1 + step), estimator="reinforce")
    records = train(testbed, [0, 1], settings, 3, 0, on_step=steps.append)
    assert [record["learning_rate"] for record in records] == [0.5, 0.25, 0.5 / 3]
    for record in records:
        assert record["gradient_norm"] > 1e-3
        assert record["update_norm"] == pytest.approx(1e-3 * record["learning_rate"], rel=1e-3)


def test_settings_are_checked():
    for name, value in {
        "group_size": 0, "passes": 0, "minibatches": 1.5, "estimator": "ppo", "optimizer": "lion",
        "learning_rate": -0.1, "largest_gradient": 0, "clip": -0.2,
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=name):
            GRPO(**{name: value})
    for name, value in {"steps": -1, "seed": 1.5, "checkpoint_every": 0}.items():
        arguments = {"steps": 1, "seed": 0, name: value}
        with pytest.raises(ValueError, match=name):
            train(tiny(), [0], GRPO(), **arguments)


def test_one_thread_is_restored():
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError), one_thread():
            1 / (torch.get_num_threads() - 1)
        assert torch.get_num_threads() == 2
        threads = []
        train(tiny(), [0], GRPO(group_size=2), 1, 0, on_step=lambda _: threads.append(torch.get_num_threads()))
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(1)


# ---------------------------------------------------------------- determinism and resuming


def draw(task):
    return lambda generator: task.draw(4, generator)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_same_seed_same_run(optimizer):
    runs, settings = [], GRPO(group_size=4, optimizer=optimizer, learning_rate=0.01)
    for seed in (0, 0, 1):
        testbed = tiny(torch.float32)
        runs.append((train(testbed, draw(testbed.task), settings, 5, seed), testbed.theta))
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_resumed_runs_are_the_same_bit_by_bit(tmp_path, optimizer, dtype):
    settings = GRPO(group_size=4, optimizer=optimizer, learning_rate=0.01)
    straight = tiny(dtype)
    expected = train(straight, draw(straight.task), settings, 7, 3)
    path, first = tmp_path / "run" / "checkpoint.safetensors", tiny(dtype)

    def killed(step: Step):
        if step.number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(first, draw(first.task), settings, 7, 3, on_step=killed, checkpoint=path, checkpoint_every=2)
    second = tiny(dtype, seed=9)
    records = train(second, draw(second.task), settings, 7, 3, checkpoint=path, checkpoint_every=2)
    assert records == expected
    np.testing.assert_array_equal(second.theta, straight.theta)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert train(second, draw(second.task), settings, 7, 3, checkpoint=path) == expected


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    path, settings = tmp_path / "checkpoint.safetensors", GRPO(group_size=2)
    train(tiny(), [0, 1], settings, 2, 0, checkpoint=path)
    for arguments in ({"seed": 1}, {"settings": GRPO(group_size=3)}, {"label": "another"}):
        call = {"settings": settings, "seed": 0, "label": ""} | arguments
        with pytest.raises(ValueError, match="checkpoint"):
            train(tiny(), [0, 1], steps=3, checkpoint=path, **call)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="damaged"):
        train(tiny(), [0, 1], settings, 3, 0, checkpoint=path)


def test_extra_measurements_join_the_record():
    records = train(tiny(), [0], GRPO(group_size=2), 2, 0, on_step=lambda step: {"twice": 2 * step.number})
    assert [record["twice"] for record in records] == [0, 2]


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("settings", [GRPO(learning_rate=0.01), GRPO(optimizer="adamw", learning_rate=5e-4)], ids=str)
def test_grpo_reaches_nine_tenths_from_the_warm_start(settings):
    warm = QwenTestbed()
    testbed = warm.at(warm.theta)
    fresh, generator = testbed.task.draw(400, torch.Generator().manual_seed(99)), torch.Generator().manual_seed(98)
    before = testbed.rollout(fresh, 10, generator).reward.mean()
    train(testbed, lambda generator: testbed.task.draw(8, generator), settings, 120, 0)
    after = testbed.rollout(fresh, 10, generator).reward.mean()
    assert 0.3 < before < 0.5
    assert after > 0.9


def test_grpo_learns_the_task_with_many_answers():
    settings = WarmStart(clean_steps=100, noisy_steps=50, noise=0.7, batch=64)
    testbed = QwenTestbed(ManyAnswers(S3, length=2), warm_start=settings)
    before = np.mean([testbed.exact(prompt)[0] for prompt in range(6)])
    train(testbed, range(6), GRPO(optimizer="adamw", learning_rate=1e-3), 60, 0)
    after = np.mean([testbed.exact(prompt)[0] for prompt in range(6)])
    assert before < 0.8
    assert after > 0.9


# ---------------------------------------------------------------- measured quantities


def test_sampled_derivatives_against_exact_ones():
    """Mean of 40 independent estimates within 6 of their standard errors; a flipped sign is not."""
    warm = QwenTestbed()
    testbed, prompts = warm.with_task(WordProblem(S3, (2,), 6)), [3, 20, 31]
    direction = np.mean([testbed.exact(prompt)[1] for prompt in prompts], axis=0)
    direction /= np.linalg.norm(direction)
    exact = np.mean([testbed.along(prompt, direction) for prompt in prompts], axis=0)
    generator = torch.Generator().manual_seed(0)
    estimates = [along_step(testbed, testbed.rollout(prompts, 64, generator), direction) for _ in range(40)]
    for name, truth in zip(("success", "slope", "second"), exact, strict=True):
        values = np.array([getattr(estimate, name) for estimate in estimates])
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - truth) < 6 * error
        assert abs(values.mean() + truth) > 6 * error


def test_critical_rate_of_an_exact_update_is_2c():
    """For an update of gain times gap the rate is 2 (1 - J) / (gain l), l the curvature of log J along it."""
    testbed = QwenTestbed().with_task(WordProblem(S3, (2,), 6))
    success, gradient = testbed.exact(3)
    rate, gain = 0.01, success * (1 - success)
    move = rate * gradient
    _, slope, second = testbed.along(3, move / np.linalg.norm(move))
    curvature = (slope / success) ** 2 - second / success
    measured = AlongStep(success, slope, second).critical_step * rate / np.linalg.norm(move)
    assert measured == pytest.approx(2 * (1 - success) / (gain * curvature), rel=1e-9)


@pytest.mark.parametrize("length_normalize", [False, True])
def test_prompt_gradients_add_up_to_the_loss(length_normalize):
    testbed, settings = tiny(), GRPO(group_size=4, length_normalize=length_normalize)
    rollout = testbed.rollout([0, 1, 1], 4, torch.Generator().manual_seed(2))
    log_probs = testbed.token_log_probs(rollout)
    advantages = torch.tensor(settings.advantages(testbed, rollout).ravel())
    loss = surrogate_loss(log_probs, log_probs.detach(), rollout.mask, advantages, settings)
    expected = -flat(torch.autograd.grad(loss, testbed.parameters()))
    torch.testing.assert_close(prompt_gradients(testbed, rollout, settings).mean(0), expected, rtol=1e-9, atol=1e-12)


def test_diagnosis_leaves_the_run_alone_and_survives_silent_steps():
    """Nothing to learn from: no direction, no signal, but a baseline; and the run is the same with and without."""
    plain, measured, settings = tiny(), tiny(), GRPO(group_size=4, learning_rate=0.05)
    records = train(plain, [0, 1], settings, 3, 0)
    also = train(measured, [0, 1], settings, 3, 0, on_step=lambda step: diagnose(measured, step, settings, 0))
    np.testing.assert_array_equal(plain.theta, measured.theta)
    assert [record["update_norm"] for record in also] == [record["update_norm"] for record in records]
    silent = replace(settings, baseline=lambda policy, rollout: rollout.reward)
    (record,) = train(tiny(), [0, 1], silent, 1, 0, on_step=lambda step: diagnose(measured, step, silent, 0))
    undefined = ("gap_alignment", "critical_learning_rate", "gradient_snr")
    assert [record[name] for name in undefined] == [None, None, None]
    assert record["optimal_baseline"] is not None
    (alone,) = train(tiny(), [0], settings, 1, 0, on_step=lambda step: diagnose(measured, step, settings, 0))
    assert alone["gradient_snr"] is None


@pytest.mark.parametrize("task", ["word", "many"])
def test_train_builtin_writes_metrics(tmp_path, task, monkeypatch):
    settings = GRPO(group_size=4, estimator="rloo")
    train_builtin(task, 3, tmp_path / "a", seed=1, settings=settings, prompts_per_step=3)
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    names = ("success_rate", "gap_alignment", "gradient_snr", "critical_learning_rate", "optimal_baseline")
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(name in line for line in lines for name in names)
    assert ["world_size" in line for line in lines] == [True, False, False]
    assert all(0 <= line["optimal_baseline"] <= 1 for line in lines)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["metrics.jsonl", "model"]
    train_builtin(task, 2, tmp_path / "b", model=str(tmp_path / "a" / "model"), settings=settings, prompts_per_step=3)
    with pytest.raises(ValueError, match="task"):
        train_builtin("sort", 2, tmp_path / "c")
    with pytest.raises(ValueError, match="steps"):
        train_builtin(task, 0, tmp_path / "c")
    assert not (tmp_path / "c").exists()
