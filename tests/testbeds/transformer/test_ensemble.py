"""Training of many runs at once against one run at a time."""

import numpy as np
import pytest
import torch
from transformer_policies import FALSE_ALARM, S3

from rlvr_lib import group_gain
from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy
from rlvr_lib.testbeds.transformer.ensemble import draw_multipliers, expected_weight, train
from rlvr_lib.testbeds.transformer.problems import (
    WordProblems,
    draw_problems,
    running_products,
)
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.groups import cyclic_group

POLICY = AttentionPolicy(4)
PROBLEMS = draw_problems(S3, (2, 3), 2, 0, names=4)


def test_expected_grpo_weight_at_the_ends():
    weight = expected_weight("grpo", 16)(torch.tensor([0.0, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(weight, np.sqrt(15))


def plain_loop(policy, problems, theta, rates, weight):
    """One run of expected updates, prompt by prompt through ``exact``."""
    theta, successes = theta.numpy().copy(), []
    for rate in [*rates, None]:
        testbed = TransformerTestbed(policy, problems, theta)
        pairs = [testbed.exact(prompt) for prompt in range(len(problems))]
        successes.append([np.mean([s for s, _ in pairs[:4]]), np.mean([s for s, _ in pairs[4:]])])
        if rate is not None:
            theta = theta + rate * np.mean([weight(success) * gradient for success, gradient in pairs], axis=0)
    return theta, np.array(successes)


@pytest.mark.parametrize("estimator", ["reinforce", "dr_grpo", "grpo"])
@pytest.mark.parametrize("shared", [False, True])
def test_vectorised_training_equals_one_seed_at_a_time(estimator, shared):
    policy, rates = AttentionPolicy(5, sharpness=6.0), np.array([3.0, 2.0, 1.0, 2.0])
    problems = draw_problems(S3, (2, 4), 4, 0 if shared else [0, 1, 2], names=5)
    theta = torch.stack([policy.initial(weight) for weight in (0.5, 1.0, 1.5)])
    record = train(policy, theta, problems, 4, np.outer(rates, np.ones(3)), estimator, 4, keep_parameters=True)
    weight = {
        "reinforce": lambda success: 1.0,
        "dr_grpo": lambda success: 3 / 4,
        "grpo": lambda success: group_gain(success, 4) / (success * (1 - success)),
    }[estimator]
    for run in range(3):
        own = problems if shared else WordProblems(S3, problems.horizon, problems.name[run], problems.element[run])
        final, successes = plain_loop(policy, own, theta[run], rates, weight)
        np.testing.assert_allclose(record.theta[run], final, rtol=0, atol=1e-12)
        np.testing.assert_allclose(record.success[:, run], successes, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(record.snapshots[-1], record.theta)
    np.testing.assert_array_equal(record.iteration, np.arange(5))
    assert (record.success[-1] > record.success[0]).all()


@pytest.mark.parametrize("estimator", ["reinforce", "grpo", "grpo_batch", "rloo"])
def test_sampled_runs_do_not_depend_on_their_neighbours(estimator):
    policy = AttentionPolicy(6, sharpness=6.0)
    arguments = {"iterations": 5, "learning_rate": 3.0, "estimator": estimator, "group_size": 4, "record_every": 2}

    def run(seeds):
        problems = draw_problems(S3, (2, 5), 4, seeds, names=6)
        theta = policy.initial(1.0).expand(len(seeds), -1)
        return train(policy, theta, problems, seeds=seeds, **arguments)

    together = run([3, 4, 5])
    np.testing.assert_array_equal(together.iteration, [0, 2, 4, 5])
    for place, seed in enumerate([3, 4, 5]):
        alone = run([seed])
        np.testing.assert_allclose(together.theta[place], alone.theta[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(together.error[:, place], alone.error[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(run([3, 4, 5]).theta, together.theta)
    assert np.abs(together.theta[0] - together.theta[1]).max() > 1e-3


@pytest.mark.parametrize("estimator", ["reinforce", "rloo", "grpo"])
def test_sampled_updates_have_the_expected_mean(estimator):
    """Hoeffding on the projection onto the expected update, false-alarm rate FALSE_ALARM; half of it would be seen."""
    runs, group_size, policy = 6000, 4, AttentionPolicy(3, sharpness=2.0)
    problems = draw_problems(cyclic_group(3), (1, 2), 1, 1, names=3)
    theta = policy.initial(1.0)
    arguments = {"iterations": 1, "learning_rate": 1.0, "estimator": estimator, "group_size": group_size}
    expected = train(policy, theta[None], problems, **arguments).theta[0] - theta.numpy()
    size = np.linalg.norm(expected)
    sampled = train(policy, theta.expand(runs, -1), problems, seeds=range(runs), **arguments).theta - theta.numpy()
    projection = sampled @ expected / size
    testbed = TransformerTestbed(policy, problems, theta)
    largest = np.mean([np.abs(testbed.enumerate(prompt).score @ expected).max() / size for prompt in range(2)])
    # |advantage| averages at most 1 over a group: rewards and mean-free rewards directly, GRPO by Cauchy-Schwarz,
    # and RLOO's are 4/3 of the mean-free ones, whose mean modulus is at most 1/2.
    radius = largest * np.sqrt(2 * np.log(2 / FALSE_ALARM) / runs)
    assert np.abs(projection).max() <= largest
    assert abs(projection.mean() - size) <= radius
    assert radius < size / 2


def test_a_sampled_update_by_hand():
    policy, problems = AttentionPolicy(4, sharpness=3.0), draw_problems(S3, (1, 3), 8, 0, names=4)
    theta = policy.initial(1.5)
    record = train(policy, theta[None], problems, 1, 1.0, estimator="grpo_batch", group_size=4, seeds=[3])
    law = policy.step_law(theta.requires_grad_(True), problems)
    drawn = draw_multipliers(law.detach()[None], problems, 4, [torch.Generator().manual_seed(3)])[0]  # [P, G, T]
    reward = (running_products(S3, drawn)[..., -1] == problems.target[:, None]).double()
    advantage = torch.tensor(group_advantages(reward.numpy(), "grpo_batch"))
    each = law.log()[torch.arange(3), drawn, torch.arange(16)[:, None, None]]
    log_prob = (each * (torch.arange(3) < problems.horizon[:, None, None])).sum(-1)
    (gradient,) = torch.autograd.grad((advantage * log_prob).mean(), theta)
    np.testing.assert_allclose(record.theta[0], theta.detach() + gradient, rtol=0, atol=1e-13)


def test_learning_rates_and_fresh_prompts():
    policy, theta = AttentionPolicy(5), AttentionPolicy(5).initial(1.0).expand(2, -1)
    rates = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    fixed = draw_problems(S3, (3,), 4, [0, 1], names=5)
    record = train(policy, theta, fixed, 3, rates, keep_parameters=True)
    moved = np.abs(np.diff(record.snapshots, axis=0)).max(-1) > 0
    np.testing.assert_array_equal(moved, rates > 0)
    fresh = train(policy, theta, lambda i: draw_problems(S3, (3,), 4, [[0, i], [1, i]], names=5), 3, 2.0)
    again = train(policy, theta, lambda i: draw_problems(S3, (3,), 4, [[0, i], [1, i]], names=5), 3, 2.0)
    np.testing.assert_array_equal(fresh.theta, again.theta)
    assert (fresh.theta[0] != fresh.theta[1]).any()


def test_a_chain_is_learned_from_its_end_reward():
    policy = AttentionPolicy(12, sharpness=10.0)
    problems = draw_problems(S3, (4, 12), 64, [0, 1], names=12, context="chain")
    start = policy.initial(0.6).expand(2, -1)
    record = train(policy, start, problems, 150, 0.3 * 12, estimator="grpo", group_size=16)
    assert (record.success[0, :, 1] < 0.25).all()
    assert (record.success[-1] > 0.95).all()
    assert (record.error[-1, ..., 0] > 0.99).all()
    np.testing.assert_allclose(record.error.sum(-1), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"theta": np.zeros(16)}, "theta"),
        ({"theta": np.zeros((2, 15))}, "theta"),
        ({"iterations": 0}, "iterations"),
        ({"learning_rate": np.ones(4)}, "learning_rate"),
        ({"learning_rate": np.inf}, "learning_rate"),
        ({"estimator": "ppo"}, "estimator"),
        ({"estimator": "grpo"}, "group_size"),
        ({"seeds": [0]}, "seeds"),
        ({"seeds": [0, 1]}, "group_size"),
        ({"seeds": [0, 1], "group_size": 1, "estimator": "rloo"}, "group_size"),
        ({"seeds": [0, 1], "group_size": 4, "estimator": torch.ones_like}, "estimator"),
        ({"record_every": 0}, "record_every"),
        ({"problems": draw_problems(S3, (2, 3), 2, [0], names=4)}, "problems"),
        ({"problems": draw_problems(S3, (2, 3), 2, 0, names=5)}, "problems"),
        ({"problems": lambda i: draw_problems(S3, (2, 3 + i), 2, 0, names=4)}, "problems"),
    ],
)
def test_bad_training_input(changes, named):
    arguments = {"theta": np.zeros((2, 16)), "problems": PROBLEMS, "iterations": 1, "learning_rate": 1.0}
    with pytest.raises(ValueError, match=named):
        train(POLICY, **(arguments | changes))
