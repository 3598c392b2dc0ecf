"""The transformer testbed: identities by enumeration, samplers, the generic loop, arguments."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import binom
from transformer_policies import CASES, FALSE_ALARM, S3, make, reference_law, reference_responses

from rlvr_lib import gradient_gap, group_gain, policy_gradient, success_rate
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy
from rlvr_lib.testbeds.transformer.ensemble import draw_multipliers, expected_weight
from rlvr_lib.testbeds.transformer.problems import (
    WordProblems,
    draw_problems,
    quotients,
    running_products,
)
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.groups import alternating_group, cyclic_group

POLICY = AttentionPolicy(4)
PROBLEMS = draw_problems(S3, (2, 3), 2, 0, names=4)


@pytest.mark.parametrize("case", CASES)
def test_enumeration_matches_the_description_of_the_policy(case):
    testbed = make(case)
    for prompt in range(len(testbed.problems)):
        exact = testbed.enumerate(prompt)
        _, prob, reward = reference_responses(testbed, prompt)
        np.testing.assert_allclose(exact.prob, prob, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(exact.reward, reward)
        assert set(exact.length) == {int(testbed.problems.horizon[prompt])}


@pytest.mark.parametrize("case", CASES)
def test_scores_against_finite_differences(case):
    testbed, step = make(case), 1e-5
    prompt = len(testbed.problems) - 1
    exact = testbed.enumerate(prompt)
    possible = exact.prob > 0
    theta = testbed.theta
    for j in range(testbed.policy.size):
        shift = step * np.eye(len(theta))[j]
        up, down = (reference_responses(testbed, prompt, theta + sign * shift)[1] for sign in (1, -1))
        slope = (np.log(up[possible]) - np.log(down[possible])) / (2 * step)
        np.testing.assert_allclose(exact.score[possible, j], slope, rtol=0, atol=1e-8)
    assert not exact.score[~possible].any()


@pytest.mark.parametrize("case", CASES)
def test_dynamic_programming_and_i1_against_enumeration(case):
    testbed = make(case, horizons=(1, 2, 4))
    successes, gradients = testbed.exact_all()
    for prompt in range(len(testbed.problems)):
        responses = testbed.enumerate(prompt)
        success, gradient = testbed.exact(prompt)
        assert abs(success - success_rate(responses)) < 1e-12
        np.testing.assert_allclose(gradient, policy_gradient(responses), rtol=0, atol=1e-12)
        if 0 < success < 1 - 1e-12:
            gap = gradient_gap(responses)
            np.testing.assert_allclose(gradient, success * (1 - success) * gap, rtol=0, atol=1e-12)
        assert abs(successes[prompt] - success) < 1e-13
        np.testing.assert_allclose(gradients[prompt], gradient, rtol=0, atol=1e-13)


@pytest.mark.parametrize("order_of", ["S3", "A5"])
def test_long_chains_against_transition_matrices(order_of):
    group = {"S3": S3, "A5": alternating_group(5)}[order_of]
    policy = AttentionPolicy(45, sharpness=8.0)
    testbed = TransformerTestbed(policy, draw_problems(group, (45,), 1, 3, context="chain"), policy.initial(3.0))
    current = np.eye(group.order)[0]
    for law in reference_law(testbed, 0):
        transition = np.zeros((group.order, group.order))
        transition[np.arange(group.order)[:, None], group.table] = law  # from x to x k
        current = current @ transition
    assert abs(current.sum() - 1) < 1e-12
    success, gradient = testbed.exact(0)
    assert abs(success - current[int(testbed.problems.target[0])]) < 1e-12
    direction = np.random.default_rng(0).standard_normal(policy.size)
    ahead, behind = (testbed.at(policy.initial(3.0).numpy() + s * 1e-4 * direction) for s in (1, -1))
    slope = (ahead.exact(0)[0] - behind.exact(0)[0]) / 2e-4
    assert slope == pytest.approx(gradient @ direction, rel=1e-5)


def hessian_of(function):
    return torch.func.jacrev(torch.func.jacrev(function))  # jacfwd raises torch's own deprecation warning


def log_prob_hessians(testbed, prompt):
    """[M, d, d], the Hessian of the log-probability of every response (all responses possible)."""
    chosen = testbed.problems.select([prompt])

    def log_law(theta):
        return testbed.policy.step_law(theta, chosen)[..., 0].log()

    hessian = hessian_of(log_law)(torch.tensor(testbed.theta)).numpy()  # [h, n, d, d]
    products, _, _ = reference_responses(testbed, prompt)
    previous = np.concatenate([np.zeros_like(products[:, :1]), products[:, :-1]], 1)
    multiplier = quotients(chosen.group, torch.tensor(previous), torch.tensor(products)).numpy()
    return hessian[np.arange(products.shape[1]), multiplier].sum(1)


SMOOTH = [case for case in CASES if "softmax" in case]


@pytest.mark.parametrize("case", SMOOTH)
def test_i0_and_i4_by_enumeration(case):
    testbed, largest = make(case), 0.0
    for prompt in (2, 5):
        responses = testbed.enumerate(prompt)
        np.testing.assert_allclose(responses.prob @ responses.score, 0, rtol=0, atol=1e-10)
        curvature = log_prob_hessians(testbed, prompt) + np.einsum("ni,nj->nij", responses.score, responses.score)
        np.testing.assert_allclose(np.tensordot(responses.prob, curvature, 1), 0, rtol=0, atol=1e-10)
        success, chosen = success_rate(responses), testbed.problems.select([prompt])
        weight = responses.prob * (responses.reward / success - (1 - responses.reward) / (1 - success))
        expected = success * (1 - success) * np.tensordot(weight, curvature, 1)
        hessian = hessian_of(lambda theta, chosen=chosen: testbed.policy.success(theta, chosen)[0])
        np.testing.assert_allclose(hessian(torch.tensor(testbed.theta)).numpy(), expected, rtol=0, atol=1e-10)
        largest = max(largest, np.abs(expected).max())
    assert largest > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_i5_token_scores_are_uncorrelated(case):
    testbed = make(case)
    for prompt in (2, 5):
        responses = testbed.enumerate(prompt)
        fisher = (responses.score * responses.prob[:, None]).T @ responses.score
        law, scores = testbed.step_scores(prompt)
        tokens = np.einsum("tk,tki,tkj->ij", law, scores, scores)
        np.testing.assert_allclose(fisher, tokens, rtol=0, atol=1e-10)
        np.testing.assert_allclose(responses.prob @ responses.score, 0, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("estimator", "group_size"), [("grpo", 3), ("dr_grpo", 3), ("rloo", 2), ("grpo", 2), ("grpo_variance", 4)]
)
def test_i6_over_all_groups(estimator, group_size):
    problems = draw_problems(cyclic_group(3), (2,), 1, 1, names=3)
    policy = AttentionPolicy(3, sharpness=2.0)
    testbed = TransformerTestbed(policy, problems, policy.initial(1.0).numpy() + np.linspace(0, 1, 9))
    responses = testbed.enumerate(0)
    groups = np.array(list(itertools.product(range(len(responses)), repeat=group_size)))
    advantage = group_advantages(responses.reward[groups], estimator)
    update = np.einsum("q,qg,qgd->d", responses.prob[groups].prod(1), advantage, responses.score[groups]) / group_size
    success, gradient = testbed.exact(0)
    weight = expected_weight(estimator, group_size)(torch.tensor(success, dtype=torch.float64)).item()
    np.testing.assert_allclose(update, weight * gradient, rtol=0, atol=1e-10)
    gain = {
        "rloo": success * (1 - success),
        "grpo_variance": 1 - success**group_size - (1 - success) ** group_size,
    }.get(estimator, group_gain(success, group_size, estimator == "grpo"))
    np.testing.assert_allclose(update, gain * gradient_gap(responses), rtol=0, atol=1e-10)
    assert np.linalg.norm(update) > 1e-2


def frequencies_agree(counts, prob):
    """Exact binomial test of every frequency, family-wise false-alarm rate FALSE_ALARM by Bonferroni."""
    total = counts.sum()
    tail = 2 * np.minimum(binom.cdf(counts, total, prob), binom.sf(counts - 1, total, prob))
    return bool((tail >= FALSE_ALARM / len(prob)).all())


@pytest.mark.parametrize("case", CASES)
def test_sampler_frequencies(case):
    testbed, draws = make(case, horizons=(1, 3)), 20_000
    generator, prompt = torch.Generator().manual_seed(1), 3
    order = testbed.problems.group.order
    exact = testbed.enumerate(prompt)

    rollout = testbed.rollout([prompt, 0, prompt], draws // 2, generator)
    np.testing.assert_array_equal(rollout.length.numpy(), np.repeat([3, 1, 3], draws // 2))
    mine = np.array(rollout.prompts).repeat(draws // 2) == prompt
    row = rollout.tokens.numpy()[mine] @ order ** np.arange(3)[::-1]
    counts = np.bincount(row, minlength=order**3)
    np.testing.assert_array_equal(rollout.reward.flatten()[mine], exact.reward[row])
    assert frequencies_agree(counts, exact.prob)
    assert not frequencies_agree(counts, np.roll(exact.prob, 1))  # the check can fail

    law = torch.tensor(testbed.step_scores(prompt)[0])[None, ..., None]
    chosen = testbed.problems.select([prompt])
    multiplier = draw_multipliers(law, chosen, draws, [generator])[0, 0]
    row = running_products(chosen.group, multiplier).numpy() @ order ** np.arange(3)[::-1]
    assert frequencies_agree(np.bincount(row, minlength=order**3), exact.prob)

    sample = testbed.sample(prompt, draws, seed=5)
    correct = np.array([sample.reward.sum(), (1 - sample.reward).sum()])
    assert frequencies_agree(correct, np.array([success_rate(exact), 1 - success_rate(exact)]))


def test_samples_carry_the_scores_of_their_responses():
    testbed = make("content-softmax-fixed")
    exact, sample = testbed.enumerate(4), testbed.sample(4, 50, seed=0)
    pairs = {(reward, *np.round(score, 9)) for reward, score in zip(exact.reward, exact.score, strict=True)}
    assert all(
        (reward, *np.round(score, 9)) in pairs for reward, score in zip(sample.reward, sample.score, strict=True)
    )
    np.testing.assert_array_equal(sample.score, testbed.sample(4, 50, seed=0).score)
    assert not np.array_equal(sample.score, testbed.sample(4, 50, seed=1).score)
    np.testing.assert_array_equal(sample.prob, np.full(50, 1 / 50))


@pytest.mark.parametrize("case", CASES)
def test_token_log_probs_through_the_relu_layer(case):
    testbed = make(case)
    rollout = testbed.rollout([5, 0, 2], 7, torch.Generator().manual_seed(0))
    again = testbed.rollout([5, 0, 2], 7, torch.Generator().manual_seed(0))
    assert torch.equal(rollout.tokens, again.tokens)
    log_probs = testbed.token_log_probs(rollout)
    assert (log_probs[~rollout.mask] == 0).all()
    order = testbed.problems.group.order
    weights = torch.randn(21, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * log_probs.sum(-1)).sum(), testbed.parameters())
    expected = np.zeros(testbed.policy.size)
    for b, prompt in enumerate(np.repeat([5, 0, 2], 7)):
        exact, h = testbed.enumerate(int(prompt)), int(testbed.problems.horizon[prompt])
        row = rollout.tokens[b, :h].numpy() @ order ** np.arange(h)[::-1]
        assert log_probs[b].sum().item() == pytest.approx(np.log(exact.prob[row]), abs=1e-12)
        expected += weights[b].item() * exact.score[row]
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=0, atol=1e-11)


def test_the_generic_grpo_loop_trains_it():
    policy = AttentionPolicy(6, sharpness=8.0)
    testbed = TransformerTestbed(policy, draw_problems(S3, (2, 4), 4, 0, names=6), policy.initial(1.0))
    before = testbed.exact_all()[0]
    settings = grpo.GRPO(group_size=8, estimator="rloo", learning_rate=4.0)
    grpo.train(testbed, range(8), settings, steps=60, seed=0)
    after = testbed.exact_all()[0]
    assert before[4:].mean() < 0.5
    assert min(after[:4].mean(), after[4:].mean()) > 0.9


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: AttentionPolicy(0), "names"),
        (lambda: AttentionPolicy(4, "absolute"), "addressing"),
        (lambda: AttentionPolicy(4, sharpness=0.0), "sharpness"),
        (lambda: AttentionPolicy(4, sharpness=[1.0, 2.0]), "sharpness"),
        (lambda: AttentionPolicy(4, embedding=np.ones((3, 2))), "embedding"),
        (lambda: AttentionPolicy(4, "relative", embedding=np.ones((4, 2))), "embedding"),
        (lambda: draw_problems(S3, (), 2, 0), "horizons"),
        (lambda: draw_problems(S3, (2, 2), 2, 0), "horizons"),
        (lambda: draw_problems(S3, (46,), 2, 0), "horizons"),
        (lambda: draw_problems(S3, (0,), 2, 0), "horizons"),
        (lambda: draw_problems(S3, (2,), 0, 0), "per_horizon"),
        (lambda: draw_problems(S3, (2,), 2, 0, context="open"), "context"),
        (lambda: draw_problems(S3, (2,), 2, 0, law=np.ones(6)), "law"),
        (lambda: draw_problems(S3, (2,), 2, 0, law=[0.5, 0.5]), "law"),
        (lambda: WordProblems(S3, torch.tensor([2, 1]), torch.zeros(2, 1), torch.zeros(2, 4)), "name"),
        (lambda: WordProblems(S3, torch.tensor([2, 1]), PROBLEMS.name[:2], PROBLEMS.element[:2]), "horizon"),
        (lambda: WordProblems(S3, PROBLEMS.horizon, PROBLEMS.name[:, :2], PROBLEMS.element), "name"),
        (lambda: WordProblems(S3, PROBLEMS.horizon, PROBLEMS.name + 4, PROBLEMS.element), "name"),
        (lambda: WordProblems(S3, PROBLEMS.horizon, PROBLEMS.name, PROBLEMS.element[:2]), "element"),
        (lambda: WordProblems(S3, PROBLEMS.horizon, PROBLEMS.name, PROBLEMS.element + 6), "element"),
        (lambda: WordProblems(S3, PROBLEMS.horizon, PROBLEMS.name, PROBLEMS.element * 0 - 1), "name"),
        (lambda: TransformerTestbed(AttentionPolicy(5), PROBLEMS, POLICY.initial(1.0)), "problems"),
        (lambda: TransformerTestbed(POLICY, draw_problems(S3, (2,), 2, [0], names=4), POLICY.initial(1.0)), "problems"),
        (lambda: TransformerTestbed(POLICY, PROBLEMS, np.zeros(15)), "theta"),
        (lambda: TransformerTestbed(POLICY, PROBLEMS, np.full(16, np.nan)), "theta"),
        (lambda: make("content-linear-fixed").exact(6), "prompt"),
        (lambda: make("content-linear-fixed").exact(-1), "prompt"),
        (lambda: make("content-linear-fixed").enumerate(True), "prompt"),
        (lambda: make("content-linear-fixed").sample(0, 0, 0), "n must"),
        (lambda: make("content-linear-fixed").sample(0, 1, -1), "seed"),
        (lambda: make("content-linear-fixed").rollout([0], 0, torch.Generator()), "group_size"),
        (lambda: make("content-linear-fixed").rollout([9], 2, torch.Generator()), "prompt"),
        (lambda: expected_weight("grpo_batch", 4), "estimator"),
        (lambda: expected_weight("grpo", None), "group_size"),
        (lambda: expected_weight("dr_grpo", 1), "group_size"),
    ],
)
def test_bad_input(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_enumeration_refuses_what_does_not_fit():
    testbed = TransformerTestbed(AttentionPolicy(45), draw_problems(S3, (9,), 1, 0), AttentionPolicy(45).initial(1.0))
    with pytest.raises(ValueError, match="prompt"):
        testbed.enumerate(0)
