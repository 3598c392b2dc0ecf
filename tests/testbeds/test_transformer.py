"""The synthetic transformer: identities by enumeration, dynamic programming, samplers, training."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from rlvr_lib import gradient_gap, group_gain, policy_gradient, success_rate
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.testbeds.transformer import problems as chains
from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy, group_head, group_layer
from rlvr_lib.testbeds.transformer.ensemble import draw_multipliers, expected_weight, train
from rlvr_lib.testbeds.transformer.problems import (
    WordProblems,
    draw_problems,
    quotients,
    running_products,
    step_errors,
    success_and_sensitivity,
    success_probability,
)
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.groups import alternating_group, cyclic_group, symmetric_group

FALSE_ALARM = 1e-6
S3 = symmetric_group(3)
EMBEDDING = np.random.default_rng(7).standard_normal((4, 3))
CASES = {
    "content-linear-fixed": (S3, AttentionPolicy(4), "fixed"),
    "content-linear-chain": (S3, AttentionPolicy(4), "chain"),
    "content-softmax-fixed": (S3, AttentionPolicy(4, sharpness=4.0), "fixed"),
    "embedding-softmax-chain": (cyclic_group(4), AttentionPolicy(4, sharpness=3.0, embedding=EMBEDDING), "chain"),
    "relative-linear-fixed": (S3, AttentionPolicy(4, "relative"), "fixed"),
    "relative-softmax-chain": (cyclic_group(5), AttentionPolicy(4, "relative", sharpness=5.0), "chain"),
}


def make(case, horizons=(1, 2, 3), per_horizon=2, seed=0):
    group, policy, context = CASES[case]
    consecutive = policy.addressing == "relative"
    problems = draw_problems(
        group, horizons, per_horizon, seed, names=policy.names, context=context, consecutive=consecutive
    )
    noise = np.random.default_rng(seed).standard_normal(policy.size)
    return TransformerTestbed(policy, problems, policy.initial(1.0).numpy() + 0.5 * noise)


def reference_law(testbed, prompt, theta=None):
    """[h, n]: the policy from its description, clause by clause, without tensors."""
    policy, problems = testbed.policy, testbed.problems
    theta = testbed.theta.detach().numpy() if theta is None else theta
    order = problems.group.order
    rows = []
    for step in range(int(problems.horizon[prompt])):
        query, weights, mass = int(problems.name[prompt, step]), {}, np.zeros(order)
        for key in range(policy.names):
            if problems.element[prompt, key] >= 0:
                if policy.addressing == "relative":
                    logit = theta[key - query + policy.names - 1]
                elif policy.embedding is None:
                    logit = theta[query * policy.names + key]
                else:
                    logit = EMBEDDING[query] @ theta.reshape(3, 3) @ EMBEDDING[key]
                weights[key] = np.exp(logit)
        for key, weight in weights.items():
            mass[int(problems.element[prompt, key])] += weight / sum(weights.values())
        if policy.sharpness is not None:
            mass = np.exp(policy.sharpness * mass)
        rows.append(mass / mass.sum())
    return np.array(rows)


def reference_responses(testbed, prompt, theta=None):
    """Running products [M, h], probabilities and rewards of all responses, in the order of ``enumerate``."""
    law, table = reference_law(testbed, prompt, theta), testbed.problems.group.table
    h, order = law.shape
    right = [int(testbed.problems.element[prompt, name]) for name in testbed.problems.name[prompt, :h]]
    target = 0
    for element in right:
        target = table[target, element]
    products = np.array(list(itertools.product(range(order), repeat=h)))
    prob = np.ones(len(products))
    for row, response in enumerate(products):
        current = 0
        for step, product in enumerate(response):
            prob[row] *= law[step, list(table[current]).index(product)]
            current = product
    return products, prob, (products[:, -1] == target).astype(float)


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
    theta = testbed.theta.detach().numpy()
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
    mean, gradient = testbed.mean_gradient()
    assert abs(mean - successes.mean()) < 1e-13
    np.testing.assert_allclose(gradient, gradients.mean(0), rtol=0, atol=1e-13)
    by_horizon = testbed.success_by_horizon()
    np.testing.assert_allclose(list(by_horizon.values()), successes.reshape(3, 2).mean(1), rtol=0, atol=1e-13)
    assert list(by_horizon) == [1, 2, 4]


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
    ahead, behind = (testbed.with_parameters(policy.initial(3.0).numpy() + s * 1e-4 * direction) for s in (1, -1))
    slope = (ahead.exact(0)[0] - behind.exact(0)[0]) / 2e-4
    assert slope == pytest.approx(gradient @ direction, rel=1e-5)


def hessian_of(function):
    return torch.func.jacrev(torch.func.jacrev(function))  # jacfwd raises torch's own deprecation warning


def log_prob_hessians(testbed, prompt):
    """[M, d, d], the Hessian of the log-probability of every response (all responses possible)."""
    chosen = testbed.problems.select([prompt])

    def log_law(theta):
        return testbed.policy.step_law(theta, chosen)[..., 0].log()

    hessian = hessian_of(log_law)(testbed.theta.detach()).numpy()  # [h, n, d, d]
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
        np.testing.assert_allclose(hessian(testbed.theta.detach()).numpy(), expected, rtol=0, atol=1e-10)
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


@given(success=st.floats(1e-6, 1 - 1e-6), group_size=st.integers(2, 64))
@settings(max_examples=50, deadline=None)
def test_expected_grpo_weight_is_the_gain_over_the_variance(success, group_size):
    weight = expected_weight("grpo", group_size)(torch.tensor(success, dtype=torch.float64)).item()
    assert weight == pytest.approx(group_gain(success, group_size) / (success * (1 - success)), rel=1e-9)


def test_expected_grpo_weight_at_the_ends():
    weight = expected_weight("grpo", 16)(torch.tensor([0.0, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(weight, np.sqrt(15))


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
    np.testing.assert_allclose(weights @ testbed.scores(rollout), expected, rtol=0, atol=1e-11)


def test_the_group_head_is_a_relu_layer_that_multiplies_on_the_right():
    group = S3
    inputs, outputs = group_layer(group)
    assert inputs.shape == (36, 12)
    assert outputs.shape == (6, 36)
    mixture = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(6)))
    for x in range(6):
        mass = np.zeros(6)
        for g, k in itertools.product(range(6), range(6)):
            mass[group.table[g, k]] += max(0.0, (g == x) + mixture[k].item() - 1)
        np.testing.assert_allclose(group_head(group, torch.tensor(x), mixture), mass, rtol=0, atol=1e-15)
        moved = np.zeros(6)
        moved[group.table[x]] = mixture
        np.testing.assert_allclose(mass, moved, rtol=0, atol=1e-15)


def test_errors_are_conjugated_by_the_clauses_still_to_come():
    rng, table = np.random.default_rng(0), torch.tensor(S3.table)
    right, done = torch.tensor(rng.integers(0, 6, (2, 50, 5)))
    errors = quotients(S3, right, done)
    expected = running_products(S3, right)[:, -1]
    for step in range(5):
        suffix = running_products(S3, torch.cat([torch.zeros(50, 1, dtype=torch.long), right[:, step + 1 :]], 1))[:, -1]
        inverse = quotients(S3, suffix, torch.zeros_like(suffix))
        expected = table[table[table[expected, inverse], errors[:, step]], suffix]
    assert torch.equal(running_products(S3, done)[:, -1], expected)


@pytest.mark.parametrize("case", CASES)
def test_step_errors_by_enumeration(case):
    testbed = make(case)
    problems, group = testbed.problems, testbed.problems.group
    measured = step_errors(testbed.policy.step_law(testbed.theta.detach(), problems), problems).numpy()
    assert measured.shape == (3, group.order)
    expected = np.zeros_like(measured)
    for prompt in range(6):
        products, prob, _ = reference_responses(testbed, prompt)
        h = products.shape[1]
        previous = np.concatenate([np.zeros_like(products[:, :1]), products[:, :-1]], 1)
        for step in range(h):
            right = group.table[previous[:, step], int(problems.right[step, prompt])]
            error = quotients(group, torch.tensor(right), torch.tensor(products[:, step])).numpy()
            expected[prompt // 2] += np.bincount(error, prob, minlength=group.order) / h / 2
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-12)


def test_relative_addressing_shares_parameters_over_positions():
    policy = AttentionPolicy(6, "relative", sharpness=3.0)
    theta = torch.randn(policy.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    element = torch.tensor([2, 5, 1])
    laws = []
    for start in range(4):
        clauses = torch.full((1, 6), -1)
        clauses[0, start : start + 3] = element
        problems = WordProblems(S3, torch.tensor([3]), torch.arange(start, start + 3)[None], clauses)
        laws.append(policy.step_law(theta, problems))
    for law in laws[1:]:
        torch.testing.assert_close(law, laws[0], rtol=0, atol=1e-15)
    content = AttentionPolicy(6, sharpness=3.0)
    assert (policy.size, content.size) == (11, 36)


def test_attention_on_the_right_clause():
    weight = np.log(4)
    for context, expected in (("chain", [1 / (1 + (h - 1) / 4) for h in (2, 6)]), ("fixed", [4 / (4 + 8)] * 2)):
        policy = AttentionPolicy(9)
        problems = draw_problems(S3, (2, 6), 5, seed=[0], names=9, context=context)
        record = train(policy, policy.initial(weight)[None], problems, 1, 0.0)
        np.testing.assert_allclose(record.attention[0, 0], expected)
        np.testing.assert_allclose(record.attention[1], record.attention[0])


def test_extreme_parameters_stay_finite():
    policy = AttentionPolicy(4, sharpness=3.0)
    problems = draw_problems(S3, (2,), 6, 0, names=4, context="chain")
    towards_absent = torch.full((4, 4), 0.0, dtype=torch.float64)
    chain = problems.name[0]
    towards_absent[:, ~torch.isin(torch.arange(4), chain)] = 1e4
    _, own = policy.attend(towards_absent.flatten(), problems.step_name[:, :1], problems.values[..., :1])
    np.testing.assert_allclose(own, 0.5)
    for theta in (towards_absent.flatten(), np.random.default_rng(0).choice([-1e4, 1e4], 16)):
        success, gradient = TransformerTestbed(policy, problems, theta).exact_all()
        assert np.isfinite(success).all()
        assert np.isfinite(gradient).all()


def test_cutting_products_into_blocks_changes_nothing(monkeypatch):
    testbed = make("content-softmax-fixed", horizons=(1, 3), per_horizon=3)
    law = testbed.policy.step_law(testbed.theta.detach(), testbed.problems)
    whole = success_and_sensitivity(law, testbed.problems)
    for entries in (1, 80):  # one row, and a few rows of products at once
        monkeypatch.setattr(chains, "CACHED_ENTRIES", entries)
        for cut, expected in zip(success_and_sensitivity(law, testbed.problems), whole, strict=True):
            torch.testing.assert_close(cut, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("case", CASES)
def test_backward_pass_against_autograd(case):
    testbed = make(case, horizons=(1, 3, 4), per_horizon=3)
    law = testbed.policy.step_law(testbed.theta.detach(), testbed.problems).requires_grad_()
    success = success_probability(law, testbed.problems)
    (expected,) = torch.autograd.grad(success.sum(), law)
    again, sensitivity = success_and_sensitivity(law.detach(), testbed.problems)
    torch.testing.assert_close(again, success.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(sensitivity, expected, rtol=0, atol=1e-13)


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
    record = train(policy, theta, problems, 4, rates, estimator=estimator, group_size=4, keep_parameters=True)
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
    if estimator == "reinforce":
        arguments["baseline_decay"] = 0.9

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


def test_moving_average_baseline():
    """Two iterations by hand: the first has baseline 0, the second (1 - decay) times the first mean reward."""
    policy = AttentionPolicy(3, sharpness=2.0)
    problems = draw_problems(S3, (2,), 8, 1, names=3)
    theta = policy.initial(1.0)
    common = {"learning_rate": 1.0, "estimator": "reinforce", "group_size": 4, "seeds": [9]}
    record = train(policy, theta[None], problems, 2, baseline_decay=0.75, keep_parameters=True, **common)
    generator, baseline, expected = torch.Generator().manual_seed(9), 0.0, theta.clone()
    for iteration in range(2):
        testbed = TransformerTestbed(policy, problems, expected)
        law = policy.step_law(testbed.theta, problems)
        drawn = draw_multipliers(law.detach()[None], problems, 4, [generator])[0]  # [P, G, T]
        reward = (running_products(S3, drawn)[..., -1] == problems.target[:, None]).double()
        steps, prompts = torch.arange(2), torch.arange(8)[:, None, None]
        log_prob = law.log()[steps, drawn, prompts].sum(-1)
        (gradient,) = torch.autograd.grad(((reward - baseline) * log_prob).mean(), testbed.theta)
        baseline += 0.25 * (reward.mean().item() - baseline)
        expected = expected + gradient
        np.testing.assert_allclose(record.snapshots[iteration + 1, 0], expected, rtol=0, atol=1e-13)


def test_mixtures_train_only_their_horizons():
    policy, theta = AttentionPolicy(6), AttentionPolicy(6).initial(2.0)
    problems = draw_problems(S3, (2, 5), 6, 0, names=6)
    mixtures = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    record = train(policy, theta.expand(3, -1), problems, 6, 4.0, mixture=mixtures)
    for run, prompts in ((0, range(6)), (1, range(6, 12))):
        alone = train(policy, theta[None], problems.select(list(prompts)), 6, 4.0)
        np.testing.assert_allclose(record.theta[run], alone.theta[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(record.success[:, run, run], alone.success[:, 0, 0], rtol=0, atol=1e-12)
    for estimator in ("rloo", "grpo_batch"):
        sampled = train(
            policy, theta[None], problems, 3, 4.0, mixture=[1.0, 0.0], estimator=estimator, group_size=4, seeds=[0]
        )
        untouched = torch.tensor(sampled.theta[0] - theta.numpy()).reshape(6, 6).abs().sum(1) == 0
        assert untouched[~np.isin(np.arange(6), problems.name[:6, :2])].all()


def test_statistics_of_the_batch_leave_out_what_is_not_trained_on():
    policy, problems = AttentionPolicy(4, sharpness=3.0), draw_problems(S3, (1, 3), 8, 0, names=4)
    theta = policy.initial(1.5)
    arguments = {"estimator": "grpo_batch", "group_size": 4, "seeds": [3], "mixture": [1.0, 0.0]}
    record = train(policy, theta[None], problems, 1, 1.0, **arguments)
    testbed = TransformerTestbed(policy, problems, theta)
    law = policy.step_law(testbed.theta, problems)
    drawn = draw_multipliers(law.detach()[None], problems, 4, [torch.Generator().manual_seed(3)])[0, :8, :, 0]
    reward = (drawn == problems.target[:8, None]).double()
    advantage = torch.tensor(group_advantages(reward.numpy(), "grpo_batch"))
    log_prob = law.log()[0, drawn, torch.arange(8)[:, None]]
    (gradient,) = torch.autograd.grad((advantage * log_prob).mean(), testbed.theta)
    np.testing.assert_allclose(record.theta[0], theta + gradient, rtol=0, atol=1e-13)


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
    assert (record.accuracy[-1] > 0.99).all()
    np.testing.assert_allclose(record.error.sum(-1), 1, rtol=0, atol=1e-12)


def test_the_generic_grpo_loop_trains_it():
    policy = AttentionPolicy(6, sharpness=8.0)
    testbed = TransformerTestbed(policy, draw_problems(S3, (2, 4), 4, 0, names=6), policy.initial(1.0))
    before = testbed.success_by_horizon()
    settings = grpo.GRPO(group_size=8, estimator="rloo", learning_rate=4.0)
    grpo.train(testbed, range(8), settings, steps=60, seed=0)
    after = testbed.success_by_horizon()
    assert before[4] < 0.5
    assert all(after[horizon] > 0.9 for horizon in (2, 4))


def test_drawn_problems():
    law = np.array([0, 0.5, 0.5, 0, 0, 0])
    problems = draw_problems(S3, (7, 3), 20, [11, 12], names=9, context="chain", law=law)
    assert problems.horizons == (3, 7)
    assert problems.starts == [0, 0, 0, 20, 20, 20, 20]
    np.testing.assert_array_equal((problems.element >= 0).sum(-1), np.tile(np.repeat([3, 7], 20), (2, 1)))
    assert set(problems.element.unique().tolist()) == {-1, 1, 2}
    for p, h in enumerate(problems.horizon.tolist()):
        for run in range(2):
            names = problems.name[run, p, :h].tolist()
            assert len(set(names)) == h
            product = 0
            for name in names:
                product = S3.table[product, int(problems.element[run, p, name])]
            assert product == problems.target[run, p]
    alone = draw_problems(S3, (3, 7), 20, 12, names=9, context="chain", law=law)
    assert torch.equal(alone.element, problems.element[1])
    positions = draw_problems(S3, (3, 7), 20, 0, names=9, consecutive=True)
    assert (positions.name[20:].diff(dim=-1) == 1).all()
    assert (positions.name[:20, :3].diff(dim=-1) == 1).all()
    assert len(positions.name[:20, 0].unique()) > 2
    part = problems.select([1, 4])
    assert part.name.shape == (2, 2, 3)


POLICY = AttentionPolicy(4)
PROBLEMS = draw_problems(S3, (2, 3), 2, 0, names=4)


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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"theta": np.zeros(16)}, "theta"),
        ({"theta": np.zeros((2, 15))}, "theta"),
        ({"iterations": 0}, "iterations"),
        ({"learning_rate": np.ones(4)}, "learning_rate"),
        ({"learning_rate": np.inf}, "learning_rate"),
        ({"mixture": [1.0, -1.0]}, "mixture"),
        ({"mixture": [1.0]}, "mixture"),
        ({"estimator": "ppo"}, "estimator"),
        ({"estimator": "grpo"}, "group_size"),
        ({"baseline_decay": 0.9}, "baseline_decay"),
        ({"seeds": [0]}, "seeds"),
        ({"seeds": [0, 1]}, "group_size"),
        ({"seeds": [0, 1], "group_size": 1, "estimator": "rloo"}, "group_size"),
        ({"seeds": [0, 1], "group_size": 4, "estimator": torch.ones_like}, "estimator"),
        ({"seeds": [0, 1], "group_size": 4, "estimator": "rloo", "baseline_decay": 0.9}, "baseline_decay"),
        ({"seeds": [0, 1], "group_size": 4, "baseline_decay": 1.5}, "baseline_decay"),
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
