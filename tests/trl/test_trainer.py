"""The measured trainer: its gradient is the loop's, its numbers are those of the enumeration, its actions act."""

import importlib
import json
import logging
import math
import resource
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from trl import GRPOTrainer
from trl_runs import build, logged, replayed, warm

from rlvr_lib import group_gain, log_odds
from rlvr_lib.testbeds.grpo import GRPO, flat, one_thread, surrogate_loss
from rlvr_lib.testbeds.measured_run import along_step, prompt_gradients
from rlvr_lib.theory.signal import RunningSnr
from rlvr_lib.theory.threshold import AlongStep
from rlvr_lib.trl import Act, Measure, MeasuredGRPOTrainer, Memory, watch
from rlvr_lib.trl.reward_watch import UNSEEN
from rlvr_lib.trl.rollouts import Rollouts, RunFailed, success_of
from rlvr_lib.trl.scores import Sampled
from rlvr_lib.trl.step import Groups
from rlvr_lib.trl.tasks import TrainingTask, group_task

# What peft and trl call, and transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def testbed():
    return warm()


def own_copy(testbed):
    return testbed.at(testbed.theta)


class Noting(MeasuredGRPOTrainer):
    """Keeps the gradient of the first step."""

    def before_update(self):
        if not hasattr(self, "gradient"):
            self.gradient = flat([value.grad for value in self._trained()])
        super().before_update()


# ---------------------------------------------------------------- the gradient


@pytest.mark.parametrize("scale", ["none", "group"])
@pytest.mark.parametrize("loss_type", ["dr_grpo", "grpo", "dapo"])
def test_gradient_is_that_of_the_built_in_loop(testbed, loss_type, scale):
    """On the same rollouts, to 1e-5. TRL divides by the sample deviation plus 1e-4; the factor a group is known."""
    (rollout,), replay, task = replayed(testbed, [3, 20, 31, 8], 6)
    copied = own_copy(testbed)
    trainer = build(Noting, copied, 4, 6, task=task, rollout_func=replay,
                    arguments={"loss_type": loss_type, "scale_rewards": scale, "shuffle_dataset": False})  # fmt: skip
    trainer.measure = Measure(every=10**6)
    trainer.train()
    settings = GRPO(group_size=6, estimator="dr_grpo" if scale == "none" else "grpo",
                    length_normalize=loss_type == "grpo")  # fmt: skip
    advantages = settings.advantages(testbed, rollout)
    if scale == "group":
        sample = rollout.reward.std(1, ddof=1, keepdims=True)
        advantages = advantages * rollout.reward.std(1, keepdims=True) / (sample + 1e-4)
    log_probs = testbed.token_log_probs(rollout)
    weight = torch.tensor(advantages.ravel())
    loss = surrogate_loss(log_probs, log_probs.detach(), rollout.mask, weight, settings)
    expected = flat(torch.autograd.grad(loss, testbed.parameters()))
    factor = {"dr_grpo": 1 / task.longest, "grpo": 1.0, "dapo": len(rollout.mask) / float(rollout.mask.sum())}
    expected = expected * factor[loss_type]
    assert (rollout.reward.std(1) > 0).any()
    difference = (trainer.gradient - expected).norm() / expected.norm()
    assert difference < 1e-5
    assert (trainer.gradient - 1.001 * expected).norm() / expected.norm() > 1e-5


# ---------------------------------------------------------------- the numbers


def group_moments(r, size, advantages):
    """Mean and mean square of (1/G) sum A_i s_i over all groups of independent responses, exactly.

    ``advantages(k)`` are those of a correct and of a wrong response in a group with k correct ones.
    """
    success = float(r.prob @ r.reward)
    weights = [r.prob * r.reward / success, r.prob * (1 - r.reward) / (1 - success)]
    means = [weight @ r.score for weight in weights]
    energies = [float(weight @ (r.score**2).sum(1)) for weight in weights]
    mean, square = np.zeros(r.score.shape[1]), 0.0
    for k in range(size + 1):
        probability, (a, b), w = binom.pmf(k, size, success), advantages(k), size - k
        mean = mean + probability * (a * k * means[0] + b * w * means[1]) / size
        pairs = a**2 * (k * energies[0] + k * (k - 1) * means[0] @ means[0])
        pairs += b**2 * (w * energies[1] + w * (w - 1) * means[1] @ means[1])
        square += probability * (pairs + 2 * a * b * k * w * means[0] @ means[1]) / size**2
    return mean, square


@pytest.fixture(scope="module")
def short():
    """One-element words: 241 responses to each of 6 prompts, all enumerated."""
    testbed = warm((1,))
    return testbed, [testbed.enumerate(prompt) for prompt in range(6)]


PROMPTS, SIZE, STEPS = 16, 6, 10


@pytest.fixture(scope="module")
def measured(short):
    """Ten measured steps that hardly move, each on 16 prompts drawn at random; the updates noted."""
    testbed, _ = short

    class Moves(MeasuredGRPOTrainer):
        updates = ()

        def _react(self, along, move):
            step = torch.cat([(b - a).flatten() for a, b in zip(move.before, move.after, strict=True)])
            self.updates = (*self.updates, step.double().numpy())
            super()._react(along, move)

    copied, task = own_copy(testbed), group_task(testbed.task, rows=640)
    trainer = build(Moves, copied, PROMPTS, SIZE, STEPS, 1e-3, task, {"loss_type": "dr_grpo"})
    trainer.train()
    return trainer


def exact_values(responses):
    """What each logged number estimates, over the population of prompts; without std the advantage is r - mean."""
    success = np.array([r.prob @ r.reward for r in responses])
    gradients = np.array([(r.prob * (r.reward - j)) @ r.score for r, j in zip(responses, success, strict=True)])
    mean, variance = success.mean(), success.mean() * (1 - success.mean())
    moments = [group_moments(r, SIZE, lambda k: (1 - k / SIZE, -k / SIZE)) for r in responses]
    follow, square = np.mean([m for m, _ in moments], 0), np.mean([s for _, s in moments])
    energy = [r.prob * (r.score**2).sum(1) for r in responses]
    correct = sum(float(e @ r.reward) for e, r in zip(energy, responses, strict=True))
    wrong = sum(float(e @ (1 - r.reward)) for e, r in zip(energy, responses, strict=True))
    best = correct / (correct + wrong)
    used = sum(
        float(e @ (r.reward - j) ** 2) + j * (1 - j) / (SIZE - 1) * float(e.sum())
        for e, r, j in zip(energy, responses, success, strict=True)
    )
    noise = (square - follow @ follow) / PROMPTS
    return {
        "success_rate": mean,
        "success_std": group_gain(success, SIZE).mean(),
        "dead_groups": (success**SIZE + (1 - success) ** SIZE).mean(),
        "gap_norm": np.linalg.norm(gradients.mean(0)) / variance,
        "gradient_snr": follow @ follow / noise,
        "noise_scale": PROMPTS * noise / (follow @ follow),
        "optimal_baseline": best,
        "baseline_loss": used / ((1 - best) ** 2 * correct + best**2 * wrong),
    }


def test_numbers_are_those_of_the_enumeration_within_their_errors(short, measured):
    """Each step's number within 6 of its own standard errors, and their mean within 4 of the error of ten steps.

    False alarm below 1e-3 for a normal law; ratios are judged by their median, which noise in their denominators
    moves less.
    """
    exact = exact_values(short[1])
    for name in ("gap_norm", "gradient_snr", "optimal_baseline", "baseline_loss"):
        # A step whose error is undefined, with too few prompts that tell, logs none.
        steps = [(e.get(f"rlvr/{name}"), e.get(f"rlvr/{name}_error")) for e in measured.state.log_history]
        known = [(value, error) for value, error in steps if value is not None and error is not None]
        assert len(known) >= 0.7 * STEPS, name
        assert all(abs(value - exact[name]) < 6 * error for value, error in known), name
        center, spread = np.median([v for v, _ in known]), np.median([e for _, e in known])
        assert abs(center - exact[name]) < 4 * 1.25 * spread / math.sqrt(len(known)), name
    for name in ("success_rate", "success_std", "dead_groups"):
        values = np.array(logged(measured, name))
        assert abs(values.mean() - exact[name]) < 5 * values.std(ddof=1) / math.sqrt(STEPS), name


def test_directional_numbers_are_those_of_the_enumeration_along_the_actual_update(short, measured):
    testbed, _ = short
    names = "gap_alignment", "critical_learning_rate"
    for step, update in enumerate(measured.updates):
        length = np.linalg.norm(update)
        assert logged(measured, "update_norm")[step] == pytest.approx(length, rel=1e-4)
        derivatives = np.mean([testbed.along(prompt, update / length) for prompt in range(6)], 0)
        exact = AlongStep(*derivatives)
        truth = exact.gap_alignment, exact.critical_step * 1e-3 / length
        for name, value in zip(names, truth, strict=True):
            found, error = logged(measured, name)[step], logged(measured, f"{name}_error")[step]
            assert abs(found - value) < 6 * error, (name, step)
        ratio = logged(measured, "learning_rate_ratio")[step] * logged(measured, "critical_learning_rate")[step]
        assert ratio == pytest.approx(1e-3, rel=1e-6)
    assert len(measured.updates) == STEPS
    ours = np.array(logged(measured, "gap_alignment"))
    assert (ours > 0).all()  # a flipped sign of the update fails here


def test_central_differences_are_the_derivatives_of_the_built_in_loop(testbed):
    """On one rollout and one direction: the slope to 1e-4, the second derivative to 1e-2, whatever the step length."""
    from rlvr_lib.trl.rollouts import Move, along_move

    prompts, size = [3, 20, 31], 32
    (rollout,), replay, _ = replayed(testbed, prompts, size)
    rng = np.random.default_rng(0)
    direction = testbed.exact(3)[1] + 0.05 * rng.standard_normal(len(testbed.theta)) / 270
    direction /= np.linalg.norm(direction)
    expected = along_step(testbed, rollout, direction)
    ones = torch.ones_like(replay.prompts)
    sampled = Sampled(replay.prompts, ones, replay.tokens[0], replay.mask[0].long())
    rollouts = Rollouts(sampled, torch.tensor(rollout.reward.ravel()), 0, size, torch.zeros(96))
    for length in (1e-4, 1e-2, 1.0):
        before, moved = own_copy(testbed), own_copy(testbed)
        after = testbed.theta + length * direction
        for value, part in zip(moved.parameters(), moved.unflatten("after", after).values(), strict=True):
            value.data.copy_(part)
        kept = flat(moved.parameters())
        move = Move(moved.parameters(), before.parameters())
        found, distance = along_move(moved.model, rollouts, move, 0.1)
        again, same = along_move(moved.model, rollouts, move, 0.1, distance)
        assert same == pytest.approx(distance)
        assert again.slope.mean() == pytest.approx(found.slope.mean(), rel=1e-6)
        assert bool((flat(moved.parameters()) == kept).all())
        assert move.length == pytest.approx(length, rel=1e-2)
        assert found.slope.mean() == pytest.approx(expected.slope, rel=5e-3)
        assert found.second.mean() == pytest.approx(expected.second, rel=3e-2)


def test_cosines_and_signal_are_those_of_the_prompt_gradients(testbed):
    """On the step's own rollout, against the built-in loop's prompt gradients; and scores on parts of the model."""
    from rlvr_lib import gradient_cosines, gradient_snr

    (rollout,), replay, task = replayed(testbed, [3, 20, 31, 8], 8)
    settings = GRPO(group_size=8, estimator="grpo")
    gradients = prompt_gradients(testbed, rollout, settings).numpy()
    alive = np.abs(gradients).max(1) > 0
    values = {}
    for scores in ("all", "last-layer", "head"):
        trainer = build(
            MeasuredGRPOTrainer, own_copy(testbed), 4, 8, task=task, rollout_func=replay,
            arguments={"scale_rewards": "group", "shuffle_dataset": False},
            measure=Measure(fresh=False, scores=scores),
        )  # fmt: skip
        trainer.train()
        assert str(trainer.scored).startswith(scores)
        values[scores] = {
            name: logged(trainer, name)[0] for name in ("gradient_snr", "cosine_mean", "optimal_baseline")
        }
    assert values["all"]["gradient_snr"] == pytest.approx(gradient_snr(gradients), rel=1e-2)
    assert values["all"]["cosine_mean"] == pytest.approx(gradient_cosines(gradients[alive]).mean(), abs=1e-3)
    for scores in ("last-layer", "head"):
        assert values[scores]["optimal_baseline"] == pytest.approx(values["all"]["optimal_baseline"], abs=0.05)


def test_measuring_leaves_the_run_alone(testbed):
    """Every step's parameters are the same bit by bit with and without, fresh rollouts and all."""
    ends, metrics = [], []
    for measure in (Measure(every=10**6), Measure(), Measure(fresh=False, scores="head")):
        copied = own_copy(testbed)
        trainer = build(MeasuredGRPOTrainer, copied, steps=3, learning_rate=0.1, measure=measure)
        trainer.memory.measured = 0 if measure.every > 1 else None
        trainer.train()
        ends.append(flat(copied.parameters()))
        metrics.append([(entry["num_tokens"], entry["reward"]) for entry in trainer.state.log_history[:-1]])
    assert bool((ends[0] == ends[1]).all())
    assert bool((ends[0] == ends[2]).all())
    assert metrics[0] == metrics[1] == metrics[2]


def test_lora_is_measured_on_its_adapters(testbed):
    from peft import LoraConfig

    trainer = build(
        MeasuredGRPOTrainer, own_copy(testbed), steps=2, learning_rate=1.0,
        peft_config=LoraConfig(r=4, target_modules="all-linear"),
    )  # fmt: skip
    trainer.train()
    assert trainer.scored.choice == "all"
    assert trainer.scored.width == trainer.scored.of < 30_000
    assert None not in logged(trainer, "optimal_baseline")
    assert logged(trainer, "update_norm")[0] > 0


def test_measured_steps_are_as_far_apart_as_asked(testbed):
    trainer = build(MeasuredGRPOTrainer, own_copy(testbed), steps=5, measure=Measure.cheap(every=2))
    trainer.train()
    assert ["rlvr/gradient_snr" in entry for entry in trainer.state.log_history[:-1]] == [True, False] * 2 + [True]
    assert len(logged(trainer, "success_rate")) == 5
    assert logged(trainer, "world_size") == [1]
    assert (Measure.cheap().every, Measure.cheap().fresh) == (25, True)


@pytest.mark.parametrize(
    ("arguments", "measured"),
    [
        ({"gradient_accumulation_steps": 2}, [True] * 4),
        ({"num_iterations": 2}, [True, False] * 2),
        ({"steps_per_generation": 2}, [True, False] * 2),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 1}, [True] * 4),
    ],
)
def test_each_rollout_is_measured_with_the_first_update_that_follows_it(testbed, arguments, measured):
    trainer = build(MeasuredGRPOTrainer, own_copy(testbed), steps=4, learning_rate=0.1, arguments=arguments)
    trainer.train()
    for name in ("gradient_snr", "gap_alignment"):
        assert [f"rlvr/{name}" in entry for entry in trainer.state.log_history[:-1]] == measured, name
        assert None not in logged(trainer, name)


def judged_by(testbed, judge):
    """The task with another verifier, which gets the verdicts and the responses."""
    task = group_task(testbed.task, rows=64)

    def verifier(completion_ids, **columns):
        return judge(task.reward(completion_ids=completion_ids, **columns), completion_ids)

    return TrainingTask(task.data, verifier, task.longest)


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_steps_without_a_gap_are_undefined(testbed, verdict):
    task = judged_by(testbed, lambda verdicts, _: [verdict] * len(verdicts))
    trainer = build(MeasuredGRPOTrainer, own_copy(testbed), steps=2, task=task)
    trainer.train()
    for name in ("gap_norm", "gap_alignment", "critical_learning_rate", "learning_rate_ratio", "gradient_snr"):
        assert logged(trainer, name) == [None, None], name
    assert logged(trainer, "success_rate") == [verdict] * 2
    assert logged(trainer, "dead_groups") == [1.0] * 2


def test_partial_credit_needs_a_threshold(testbed):
    task = judged_by(testbed, lambda verdicts, _: [0.1 + 0.5 * verdict for verdict in verdicts])
    with pytest.raises(ValueError, match="success_threshold"):
        build(MeasuredGRPOTrainer, own_copy(testbed), task=task).train()
    trainer = build(MeasuredGRPOTrainer, own_copy(testbed), task=task, measure=Measure(success_threshold=0.5))
    trainer.train()
    assert 0 < logged(trainer, "success_rate")[0] < 1
    with pytest.raises(ValueError, match="success_threshold must be None with a baseline"):
        build(
            MeasuredGRPOTrainer, own_copy(testbed), task=task, measure=Measure(success_threshold=0.5),
            act=Act(baseline="lagged"),
        )  # fmt: skip


def test_responses_without_a_reward_do_not_count():
    reward = torch.tensor([1.0, 0, math.nan, 1, math.nan, 0, math.nan, math.nan])
    success = success_of(reward, None)
    sampled = Sampled(*(torch.ones(8, 1, dtype=torch.long) for _ in range(4)))
    rollouts = Rollouts(sampled, success, 0, 4, torch.zeros(8))
    assert rollouts.groups().count.tolist() == [3]
    np.testing.assert_allclose(rollouts.centred()[:4], [1 / 6, -1 / 3, 0, 1 / 6], atol=1e-12)
    np.testing.assert_allclose(rollouts.mean_of_others()[[0, 1, 3]], [0.5, 1, 0.5])
    nothing = Rollouts(sampled, torch.full((8,), math.nan), 0, 4, torch.zeros(8))
    with pytest.raises(ValueError, match="no group with two rewards"):
        nothing.groups()


# ---------------------------------------------------------------- the actions


def test_optimal_baselines_replace_the_advantages(testbed):
    """Pooled: each group gets b* of the other groups, from scores of the whole model; lagged: one earlier number."""
    from rlvr_lib import pooled_baselines

    (rollout,), replay, task = replayed(testbed, [3, 20, 31, 8], 6)
    energy = testbed.squared_norms(rollout).double().numpy().reshape(4, 6)
    expected = rollout.reward - pooled_baselines(rollout.reward, energy)[:, None]
    seen = {}
    for kind in ("pooled", "lagged"):

        class Spy(MeasuredGRPOTrainer):
            def _generate_and_score_completions(self, inputs, kind=kind):
                output = super()._generate_and_score_completions(inputs)
                seen[kind] = output["advantages"].double().numpy().reshape(4, 6), self.memory.baseline
                return output

        build(
            Spy, own_copy(testbed), 4, 6, task=task, rollout_func=replay, arguments={"shuffle_dataset": False},
            act=Act(baseline=kind),
        ).train()  # fmt: skip
    np.testing.assert_allclose(seen["pooled"][0], expected, atol=1e-4)
    np.testing.assert_allclose(seen["lagged"][0], rollout.reward - seen["lagged"][1], atol=1e-6)
    overall = (rollout.reward * energy).sum() / energy.sum()
    assert seen["lagged"][1] == pytest.approx(overall, rel=1e-4)
    with pytest.raises(ValueError, match="scale_rewards"):
        build(MeasuredGRPOTrainer, own_copy(testbed), arguments={"scale_rewards": "group"}, act=Act(baseline="pooled"))


def test_the_snr_rate_scales_the_schedule_and_is_logged(testbed):
    trainer = build(MeasuredGRPOTrainer, own_copy(testbed), steps=3, learning_rate=0.1, act=Act(snr_rate=True))
    trainer.train()
    used = logged(trainer, "learning_rate")
    assert len(used) == 3
    assert all(0 <= rate < 0.1 for rate in used)
    assert used[-1] == pytest.approx(0.1 * trainer.memory.snr_factor, rel=1e-9)
    assert Memory(snr=RunningSnr(signal=3.0, noise=1.0)).snr_factor == 0.75
    assert Memory(snr=RunningSnr(signal=-3.0, noise=1.0)).snr_factor == 0
    assert Memory().snr_factor == 1


def test_what_a_checkpoint_remembers_is_restored_or_refused():
    memory = Memory(measured=3, factor=0.5, snr=RunningSnr(signal=3.0, noise=1.0))
    assert Memory.restored(asdict(memory)) == memory
    for stored in ({"measured": 3}, asdict(memory) | {"energies": [1.0, 2.0]}):
        with pytest.raises(ValueError, match="checkpoint must be one of this version"):
            Memory.restored(stored)


def critical_rate(testbed, prompts, size):
    """The rate at which the first-order step of GRPO would no longer raise success, from the exact oracle."""
    success, gradients = zip(*(testbed.exact(prompt) for prompt in prompts), strict=True)
    gain = [group_gain(j, size) / (j * (1 - j)) for j in success]
    update = np.mean([g * gradient for g, gradient in zip(gain, gradients, strict=True)], 0)
    update *= math.sqrt((size - 1) / size) / (testbed.task.width + 1)
    length = np.linalg.norm(update)
    along = AlongStep(*np.mean([testbed.along(prompt, update / length) for prompt in prompts], 0))
    return along.critical_step / length


def run_at(times, testbed, seed, steps=5, beyond="warn"):
    """A run at a multiple of the critical rate: its trainer, and where the first warning and the first fall came."""
    prompts, size = [3, 7, 12, 20, 25, 31, 14, 33], 16
    task = group_task(testbed.task, rows=1)
    data = replayed(testbed, prompts, 2)[2].data
    task = TrainingTask(data, task.reward, testbed.task.width + 1)
    rate = times * critical_rate(testbed, prompts, size)
    trainer = build(
        MeasuredGRPOTrainer, own_copy(testbed), 8, size, steps, rate, task,
        {"scale_rewards": "group", "seed": seed}, act=Act(beyond=beyond),
    )  # fmt: skip
    trainer.train()
    warned = [step for step, count in enumerate(logged(trainer, "warnings")) if count > 0]
    success = logged(trainer, "success_rate")
    noise = 3 * math.sqrt(2 * success[0] * (1 - success[0]) / (8 * size))
    fell = [step for step, value in enumerate(success) if value < success[0] - noise]
    return trainer, (warned[0] if warned else None), (fell[0] if fell else None)


@pytest.mark.parametrize("seed", [0, 1])
def test_sixteen_times_the_critical_rate_warns_before_success_falls(testbed, seed, caplog):
    with caplog.at_level(logging.WARNING, "rlvr_lib.trl"):
        _, warned, fell = run_at(16, testbed, seed)
    assert fell is not None
    assert warned is not None
    assert warned < fell
    assert "times the critical one" in caplog.text or "off the gap" in caplog.text


@pytest.mark.parametrize("seed", [0, 1])
def test_half_of_the_critical_rate_does_not_warn(testbed, seed):
    _, warned, fell = run_at(0.5, testbed, seed)
    assert (warned, fell) == (None, None)


def test_a_rate_beyond_the_limit_is_lowered_and_success_does_not_fall(testbed):
    trainer, warned, fell = run_at(16, testbed, 0, beyond="lower")
    assert warned == 0
    assert fell is None
    assert logged(trainer, "rate_factor")[0] < 0.25
    assert logged(trainer, "success_rate")[-1] >= logged(trainer, "success_rate")[0] - 0.1


# ---------------------------------------------------------------- failures


def test_a_verifier_that_raises_is_named(testbed):
    def judge(verdicts, _):
        raise ZeroDivisionError("no denominator")

    trainer = build(MeasuredGRPOTrainer, own_copy(testbed), task=judged_by(testbed, judge))
    with pytest.raises(RunFailed, match="a verifier of verifier raised at step 0: ZeroDivisionError: no denominator"):
        trainer.train()


def test_a_loss_that_is_not_finite_stops_before_the_update(testbed):
    class Broken(MeasuredGRPOTrainer):
        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            return loss * math.nan if self.state.global_step == 1 else loss

    copied = own_copy(testbed)
    trainer = build(Broken, copied, steps=3, learning_rate=0.1)
    with pytest.raises(RunFailed, match="the loss is nan at step 1"):
        trainer.train()
    assert bool(flat(copied.parameters()).isfinite().all())


def test_a_full_disk_leaves_whole_checkpoints_only(testbed, tmp_path):
    """The limit on file sizes makes the second checkpoint fail in the middle, as a full disk does."""
    from rlvr_lib.trl.run import last_whole_checkpoint

    class Filling(MeasuredGRPOTrainer):
        def _save_checkpoint(self, model, trial):
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            if self.state.global_step == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            try:
                super()._save_checkpoint(model, trial)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    arguments = {"output_dir": str(tmp_path), "save_strategy": "steps", "save_steps": 1}
    trainer = build(Filling, own_copy(testbed), steps=3, arguments=arguments)
    with pytest.raises(RunFailed, match="checkpoint-2 could not be written .*; its parts are removed"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")


def test_settings_are_checked(testbed):
    for settings, name in (
        (lambda: Measure(every=0), "every"), (lambda: Measure(scores="first"), "scores"),
        (lambda: Act(baseline="mean"), "baseline"), (lambda: Act(beyond="stop"), "beyond"),
        (lambda: Act(limit=0.0), "limit"), (lambda: Act(errors=-1.0), "errors"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} must be"):
            settings()
    with pytest.raises(ValueError, match="generations"):
        build(MeasuredGRPOTrainer, own_copy(testbed), 4, 1)


# ---------------------------------------------------------------- a trainer of another class


def test_a_plain_trainer_is_watched_and_told_what_stays_unseen(testbed, tmp_path, caplog):
    (rollout,), replay, task = replayed(testbed, [3, 20, 31, 8], 6)
    trainer = build(
        GRPOTrainer, own_copy(testbed), 4, 6, steps=2, learning_rate=0.1, task=task, rollout_func=replay,
        arguments={"shuffle_dataset": False},
    )  # fmt: skip
    watch(trainer, rows=tmp_path / "groups.jsonl")
    with caplog.at_level(logging.WARNING, "rlvr_lib.trl.reward_watch"):
        trainer.train()
    expected = Groups(np.full(4, 6.0), rollout.reward.sum(1)).values()
    for name, value in expected.items():
        assert logged(trainer, name)[0] == pytest.approx(value, rel=1e-6)
    assert logged(trainer, "update_gradient_cosine")[0] == pytest.approx(1, abs=1e-4)
    assert logged(trainer, "update_norm")[0] > 0
    assert all(name in caplog.text for name in UNSEEN)
    assert not any(f"rlvr/{name}" in entry for entry in trainer.state.log_history for name in UNSEEN)
    rows = [json.loads(line) for line in (tmp_path / "groups.jsonl").read_text().splitlines()]
    assert Counter(row["step"] for row in rows) == {0: 24, 1: 24}
    assert [row["reward"] for row in rows[:24]] == rollout.reward.ravel().tolist()
    assert [row["length"] for row in rows[:24]] == rollout.length.tolist()


def test_the_function_is_what_the_package_exports():
    """Also after everything in it was imported: no module of the package is called as one of its functions."""
    package = importlib.import_module("rlvr_lib.trl")
    for file in Path(package.__file__).parent.glob("[!_]*.py"):
        importlib.import_module(f"rlvr_lib.trl.{file.stem}")
        assert file.stem not in package.__all__
    assert package.watch is watch
    assert callable(watch)


@pytest.mark.parametrize("kind", [GRPOTrainer, MeasuredGRPOTrainer])
def test_a_response_is_watched_once_whatever_rewards_it(testbed, tmp_path, kind):
    """Two reward functions, one a callable object, one that skips a response, and evaluations in between."""
    (rollout,), replay, task = replayed(testbed, [3, 20, 31, 8], 6)

    class Half:
        __name__ = "half"

        def __call__(self, completion_ids, **columns):
            verdicts = task.reward(completion_ids=completion_ids, **columns)
            return [None, *(np.float32(verdict) for verdict in verdicts[1:])]

    trainer = build(
        kind, own_copy(testbed), 4, 6, steps=2, rollout_func=replay, eval_dataset=task.data,
        task=TrainingTask(task.data, [Half(), Half()], task.longest),
        arguments={"shuffle_dataset": False, "eval_strategy": "steps", "eval_steps": 1, "reward_weights": [0.5, 0.5],
                   "per_device_eval_batch_size": 24},
    )  # fmt: skip
    watch(trainer, rows=str(tmp_path / "groups.jsonl"))
    trainer.train()
    rows = [json.loads(line) for line in (tmp_path / "groups.jsonl").read_text().splitlines()]
    assert Counter(row["step"] for row in rows) == {0: 23, 1: 23}
    assert [row["reward"] for row in rows[:23]] == rollout.reward.ravel().tolist()[1:]
    success = logged(trainer, "success_rate")
    assert len(success) == 2
    assert success[0] == pytest.approx((rollout.reward[0, 1:].mean() + rollout.reward[1:].mean(1).sum()) / 4)


def test_log_odds_of_the_population_is_not_at_an_edge(short):
    """The enumeration tests say something only where success is neither rare nor certain."""
    success = np.mean([r.prob @ r.reward for r in short[1]])
    assert abs(log_odds(success)) < 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: bf16 and CUDA were not tried here")
def test_on_cuda_in_bf16(testbed):
    arguments = {"use_cpu": False, "bf16": True}
    trainer = build(MeasuredGRPOTrainer, own_copy(testbed), steps=2, learning_rate=0.1, arguments=arguments)
    trainer.train()
    assert None not in logged(trainer, "optimal_baseline")
    assert None not in logged(trainer, "gap_alignment")
