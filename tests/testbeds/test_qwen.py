"""The Qwen testbed: forward, tree of responses, identities by enumeration, tasks, warm start, cache, checkpoints."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.stats import binom

from rlvr_lib import gradient_gap, group_gain, log_odds, policy_gradient, success_rate
from rlvr_lib.responses import conditional_weights
from rlvr_lib.testbeds.checkpoint import cache_folder, load_tensors, save_tensors
from rlvr_lib.testbeds.group_tasks import END, EQUALS, FILLER, FIRST, PAD, ManyAnswers, WordProblem, builtin_task
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.qwen import forward as qwen_model
from rlvr_lib.testbeds.qwen.forward import PlainQwen, tiny_model
from rlvr_lib.testbeds.qwen.prefixes import Forest, all_responses, shared_prefixes
from rlvr_lib.testbeds.qwen.warm_start import WarmStart, cache_key
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.groups import alternating_group, cyclic_group, dihedral_group, symmetric_group

# Loading torch's rules of forward-mode differentiation warns about its own use of torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
FALSE_ALARM = 1e-6
S3 = symmetric_group(3)


@pytest.fixture(scope="module")
def warm():
    """The default testbed, warm start included, from the shared cache."""
    return QwenTestbed()


def scrambled(seed, **arguments):
    """An untrained tiny testbed in float64 whose parameters are all random, norms and biases too."""
    testbed = QwenTestbed(warm_start=None, dtype=torch.float64, **arguments)
    noise = np.random.default_rng(seed).standard_normal(len(testbed.theta))
    return testbed.at(testbed.theta + 0.2 * noise)


@pytest.fixture(scope="module")
def short():
    """A float64 testbed on words of two elements, 259 responses each, with a policy far from uniform."""
    return scrambled(3, task=WordProblem(S3, (2,), 3))


# ---------------------------------------------------------------- the forward


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_forward_equals_hugging_face(family, dtype, tolerance):
    """float64 too agrees only to float32 accuracy: HF normalises in float32 whatever the parameters are."""
    testbed = scrambled(0, family=family, alphabet="vocabulary")
    testbed.model.to(dtype)
    tokens = torch.randint(16, (5, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = testbed.model(tokens).logits.log_softmax(-1)[:, 3:-1].gather(-1, tokens[:, 4:, None])[..., 0]
        ours = testbed.plain.row_log_probs(testbed.named, tokens[:, :4], tokens[:, 4:])
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
def test_forward_is_exact_in_float64(family, monkeypatch):
    """With HF's normalisation done in float64, nothing but rounding is left between the two."""
    from transformers.models.qwen2 import modeling_qwen2
    from transformers.models.qwen3 import modeling_qwen3

    def normalise(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(modeling_qwen2.Qwen2RMSNorm, "forward", normalise)
    monkeypatch.setattr(modeling_qwen3.Qwen3RMSNorm, "forward", normalise)
    testbed = scrambled(1, family=family, alphabet="vocabulary")
    tokens = torch.randint(16, (5, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = testbed.model(tokens).logits.log_softmax(-1)[:, 3:-1].gather(-1, tokens[:, 4:, None])[..., 0]
        ours = testbed.plain.row_log_probs(testbed.named, tokens[:, :4], tokens[:, 4:])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_trial_model_has_75136_parameters():
    assert len(QwenTestbed(warm_start=None).theta) == 75_136


@pytest.mark.parametrize("prompts", [(300, 7, 300), tuple(range(40, 44))])
def test_shared_prefixes_change_nothing(prompts):
    """Training on a forest, the row-by-row forward and the cached keys of the sampler agree."""
    testbed = scrambled(4)
    rollout = testbed.rollout(prompts, 40, torch.Generator().manual_seed(0))
    forest, emits = shared_prefixes(testbed.task.prompt_tokens(prompts), rollout.tokens, rollout.mask)
    assert len(forest.tokens) < rollout.mask.sum()
    assert emits.shape == rollout.tokens.shape
    rows = testbed.plain.row_log_probs(
        testbed.named, testbed.task.prompt_tokens(prompts).repeat_interleave(40, 0), rollout.tokens
    )
    shared = testbed.token_log_probs(rollout)
    torch.testing.assert_close(shared, torch.where(rollout.mask, rows, 0.0), rtol=1e-12, atol=1e-12)


def test_cached_keys_and_both_attentions_agree(short):
    """One forest three ways: level by level with cached keys, at once by lists, at once in blocks."""
    from rlvr_lib.testbeds.qwen.attention import list_attention

    forest = Forest(short.task.prompt_tokens([3, 30]))
    generator = torch.Generator().manual_seed(0)
    hidden, cache = short.plain.states(short.named, forest.tokens, forest.positions, list_attention(forest.visible[0]))
    levels, parents = [hidden], torch.tensor([0, 0, 1])
    for _ in range(3):
        new = forest.grow(parents, torch.randint(16, (len(parents),), generator=generator))
        rows = slice(-len(new), None)
        hidden, cache = short.plain.states(
            short.named, forest.tokens[rows], forest.positions[rows], list_attention(forest.visible[-1]), cache
        )
        levels.append(hidden)
        parents = new.repeat_interleave(2)
    widest = forest.visible[-1].shape[1]
    visible = torch.cat([torch.nn.functional.pad(v, (0, widest - v.shape[1]), value=-1) for v in forest.visible])
    at_once, _ = short.plain.states(short.named, forest.tokens, forest.positions, list_attention(visible))
    blocks, _ = short.plain.states(short.named, forest.tokens, forest.positions, forest.attention())
    torch.testing.assert_close(torch.cat(levels), at_once, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(blocks, at_once, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- the tree of responses


@pytest.mark.parametrize(
    ("alphabet", "depth", "count"), [("answers", 4, 1_555), ("answers", 5, 9_331), ("vocabulary", 4, 54_241)]
)
def test_responses_are_all_sequences(alphabet, depth, count):
    symbols = (END, *range(FIRST, FIRST + 6)) if alphabet == "answers" else (END, PAD, *range(2, 16))
    tokens, length = all_responses(symbols, depth)
    assert len(tokens) == count
    listed = {tuple(row[:n]) for row, n in zip(tokens.tolist(), length.tolist(), strict=True)}
    ended = {(*body, END) for n in range(depth) for body in itertools.product(symbols[1:], repeat=n)}
    assert listed == ended | set(itertools.product(symbols[1:], repeat=depth))


@pytest.mark.parametrize("alphabet", ["answers", "vocabulary"])
def test_enumeration_is_exact(alphabet):
    testbed = scrambled(5, task=WordProblem(S3, (1,), 2), alphabet=alphabet)
    responses = testbed.enumerate(4)
    tokens, length = testbed.responses(4)
    assert len(responses) == len(tokens) == (43 if alphabet == "answers" else 241)
    assert abs(responses.prob.sum() - 1) < 1e-13
    rows = testbed.plain.row_log_probs(testbed.named, testbed.task.prompt_tokens([4]).expand(len(tokens), -1), tokens)
    mask = torch.arange(tokens.shape[1]) < length[:, None]
    expected = torch.where(mask, rows, 0.0).sum(-1).exp().detach().numpy()
    np.testing.assert_allclose(responses.prob, expected, rtol=1e-11)
    correct = [[FIRST + 4, END]]
    assert [row[: int(n)] for row, n, r in zip(tokens.tolist(), length, responses.reward, strict=True) if r] == correct
    np.testing.assert_array_equal(responses.length, length)


def test_exact_needs_no_scores(short):
    for prompt in (0, 20, 35):
        responses, (success, gradient) = short.enumerate(prompt), short.exact(prompt)
        assert abs(success - success_rate(responses)) < 1e-12 * success
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(policy_gradient(responses), gradient, rtol=1e-10, atol=1e-10 * scale)


def test_exact_derivatives_against_differences(short):
    rng, prompt, h = np.random.default_rng(0), 21, 1e-4
    direction = rng.standard_normal(len(short.theta))
    direction /= np.linalg.norm(direction)
    success, slope, second = short.derivatives_along(prompt, direction)
    exact, gradient = short.exact(prompt)
    below, above = (short.at(short.theta + sign * h * direction).exact(prompt)[0] for sign in (-1, 1))
    assert success == pytest.approx(exact, rel=1e-12)
    assert slope == pytest.approx(gradient @ direction, rel=1e-10)
    assert slope == pytest.approx((above - below) / (2 * h), rel=1e-4)
    assert second == pytest.approx((above + below - 2 * exact) / h**2, rel=1e-3)


def test_log_odds_and_gap_are_those_of_the_enumeration(short):
    r = short.enumerate(21)
    value, gap = short.log_odds_and_gap(21)
    assert value == pytest.approx(float(log_odds(success_rate(r))), rel=1e-11)
    np.testing.assert_allclose(gap, gradient_gap(r), rtol=1e-9, atol=1e-9 * np.abs(gap).max())
    direction = np.random.default_rng(1).standard_normal(len(gap)) / 100
    J, first, second = short.derivatives_along(21, direction)
    odds, slope, curvature = short.derivatives_along(21, direction, of="log_odds")
    variance = J * (1 - J)
    assert odds == pytest.approx(value, rel=1e-12)
    assert slope == pytest.approx(first / variance, rel=1e-9)
    assert curvature == pytest.approx(second / variance - (1 - 2 * J) * (first / variance) ** 2, rel=1e-8)
    with pytest.raises(ValueError, match="of must be success or log_odds"):
        short.derivatives_along(21, direction, of="failure")


def test_log_odds_stay_exact_where_success_rounds_to_one(short):
    testbed, odds = short, 0.0
    for _ in range(60):
        odds, gap = testbed.log_odds_and_gap(21)
        if odds > 40:
            break
        testbed = testbed.at(testbed.theta + 0.5 * gap / np.linalg.norm(gap))
    assert odds > 40
    assert 1 - testbed.exact(21)[0] < 1e-15
    h, unit = 1e-5, gap / np.linalg.norm(gap)
    below, above = (testbed.at(testbed.theta + sign * h * unit).log_odds_and_gap(21)[0] for sign in (-1, 1))
    assert (above - below) / (2 * h) == pytest.approx(np.linalg.norm(gap), rel=1e-4)


def test_large_trees_are_refused(warm):
    six = warm.task.prompt((0,) * 6)
    with pytest.raises(ValueError, match="prompt must be such that scores"):
        warm.enumerate(six)
    with pytest.raises(ValueError, match="n must be such that scores"):
        warm.sample(0, 10_000_000, 0)
    wide = QwenTestbed(WordProblem(S3, (9,)), warm_start=None)
    with pytest.raises(ValueError, match="prompt must be one of at most 60000, got .* prefixes"):
        wide.exact(0)


# ---------------------------------------------------------------- identities


def hessian_products(testbed, prompt, weights, vector):
    """sum_i c_i H_i v for each row c of the weights, by differentiating sum_i c_i s_i along v, and <s_i, v>."""
    p = {name: value.detach().clone().requires_grad_() for name, value in testbed.named.items()}
    log_probs = testbed._all_log_probs(prompt, p)
    products = []
    for weight in weights:
        gradient = torch.autograd.grad(log_probs @ torch.tensor(weight), p.values(), create_graph=True)
        along = torch.cat([part.flatten() for part in gradient]) @ torch.tensor(vector)
        second = torch.autograd.grad(along, p.values(), retain_graph=True)
        products.append(torch.cat([part.flatten() for part in second]).numpy())
    return products


def close(actual, expected, scale=None):
    scale = np.abs(expected).max() if scale is None else scale
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10 * scale)


def test_i0_bartlett(short):
    responses, vector = short.enumerate(17), np.random.default_rng(1).standard_normal(len(short.theta))
    outer = (responses.prob * (responses.score @ vector)) @ responses.score
    (hessian,) = hessian_products(short, 17, [responses.prob.copy()], vector)
    close(responses.prob @ responses.score, 0, np.abs(responses.score).max())
    close(hessian, -outer)


def test_i1_the_gap_is_the_gradient_of_the_log_odds(short):
    p = {name: value.detach().clone().requires_grad_() for name, value in short.named.items()}
    success = short.success(17, p)
    gradient = torch.autograd.grad(torch.logit(success), p.values())
    responses = short.enumerate(17)
    close(gradient_gap(responses), torch.cat([part.flatten() for part in gradient]).numpy())
    assert log_odds(success_rate(responses)) == pytest.approx(float(torch.logit(success.detach())), rel=1e-10)


def test_i4_reward_variance_scales_the_curvature(short):
    prompt, vector = 17, np.random.default_rng(2).standard_normal(len(short.theta))
    responses = short.enumerate(prompt)
    correct, wrong = conditional_weights(responses)
    difference, success = correct - wrong, success_rate(responses)
    (hessian,) = hessian_products(short, prompt, [difference], vector)
    predicted = success * (1 - success) * (hessian + (difference * (responses.score @ vector)) @ responses.score)
    p = {name: value.detach().clone().requires_grad_() for name, value in short.named.items()}
    gradient = torch.autograd.grad(short.success(prompt, p), p.values(), create_graph=True)
    along = torch.cat([part.flatten() for part in gradient]) @ torch.tensor(vector)
    measured = torch.cat([part.flatten() for part in torch.autograd.grad(along, p.values())]).numpy()
    close(predicted, measured)
    assert vector @ measured == pytest.approx(short.derivatives_along(prompt, vector)[2], rel=1e-9)


def test_i5_tokens_add_up_like_martingale_differences(short):
    """E[s <s, v>] = sum_t E[s_t <s_t, v>], with the token scores from an independent forward and backward."""
    prompt, vector = 17, np.random.default_rng(3).standard_normal(len(short.theta))
    responses = short.enumerate(prompt)
    tokens, length = short.responses(prompt)
    prompts, mask = short.task.prompt_tokens([prompt]).expand(len(tokens), -1), torch.arange(3) < length[:, None]
    p = {name: value.detach() for name, value in short.named.items()}

    def by_token(p):
        return torch.where(mask, short.plain.row_log_probs(p, prompts, tokens), 0.0)

    _, along = torch.func.jvp(by_token, (p,), (short.unflatten("vector", vector),))
    _, pull = torch.func.vjp(by_token, p)
    parts = pull(torch.tensor(responses.prob.copy())[:, None] * along)[0].values()
    of_tokens = torch.cat([part.flatten() for part in parts]).numpy()
    close((responses.prob * (responses.score @ vector)) @ responses.score, of_tokens)
    squared = (responses.prob * responses.length * (along.numpy() ** 2).sum(1)).sum()
    assert abs(squared / (vector @ of_tokens) - 1) > 0.1  # the sum over token pairs would be larger than that


@pytest.mark.parametrize(("estimator", "group_size"), [("dr_grpo", 3), ("rloo", 4), ("grpo", 5)])
def test_i6_the_expected_update_is_a_gain_times_the_gap(short, estimator, group_size):
    """Expectation over all reward patterns of a group, given which the responses are independent."""
    responses = short.enumerate(17)
    correct, wrong = (weight @ responses.score for weight in conditional_weights(responses))
    success, gap = success_rate(responses), gradient_gap(responses)
    patterns = np.array(list(itertools.product([0.0, 1.0], repeat=group_size)))
    probability = np.prod(np.where(patterns == 1, success, 1 - success), axis=1)
    weight = probability[:, None] * group_advantages(patterns, estimator) / group_size
    update = (weight * patterns).sum() * correct + (weight * (1 - patterns)).sum() * wrong
    gain = success * (1 - success) if estimator == "rloo" else group_gain(success, group_size, estimator == "grpo")
    close(update, gain * gap)


# ---------------------------------------------------------------- samples


def surprise(count, prob):
    """Smallest two-sided exact binomial tail over the cells, times the number of cells: at most its level by chance."""
    n = count.sum()
    tail = np.minimum(binom.cdf(count, n, prob), binom.sf(count - 1, n, prob))
    return 2 * tail.min() * len(count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sampler_frequencies(short, dtype):
    """Exact binomial test of every response, false alarm 1e-6 in all; a policy a little off is rejected."""
    testbed = QwenTestbed(short.task, warm_start=None, dtype=dtype).at(short.theta)
    responses, (tokens, length) = short.enumerate(17), short.responses(17)
    index = {(*row, n): i for i, (row, n) in enumerate(zip(tokens.tolist(), length.tolist(), strict=True))}
    rollout = testbed.rollout([17], 40_000, torch.Generator().manual_seed(0))
    drawn = [index[(*row, n)] for row, n in zip(rollout.tokens.tolist(), rollout.length.tolist(), strict=True)]
    count = np.bincount(drawn, minlength=len(tokens))
    assert surprise(count, responses.prob) > FALSE_ALARM
    tempered = responses.prob**1.1
    assert surprise(count, tempered / tempered.sum()) < FALSE_ALARM
    np.testing.assert_array_equal(rollout.reward[0], responses.reward[drawn])


def test_sample_is_a_population(short):
    """Rewards, scores and lengths of a sample are those of the enumeration; the seed decides which."""
    sample, responses = short.sample(17, 50, seed=1), short.enumerate(17)
    assert abs(sample.prob - 0.02).max() < 1e-15
    distance = np.abs(sample.score[:, None, -50:] - responses.score[None, :, -50:]).max(-1)
    match = distance.argmin(1)
    assert distance.min(1).max() < 1e-9
    np.testing.assert_array_equal(sample.reward, responses.reward[match])
    np.testing.assert_array_equal(sample.length, responses.length[match])
    np.testing.assert_array_equal(sample.score, short.sample(17, 50, seed=1).score)
    assert not np.array_equal(sample.length, short.sample(17, 50, seed=2).length)


def test_sampled_gradient_covers_the_exact_one(short):
    """Along a random direction, within 5.1 standard errors (false alarm 4e-7, normal approximation of 4,000 terms)."""
    direction = np.random.default_rng(0).standard_normal(len(short.theta))
    sample, exact = short.sample(17, 1_000, seed=0), short.exact(17)[1] @ direction
    terms = sample.reward * (sample.score @ direction)
    assert abs(terms.mean() - exact) < 5.1 * terms.std() / np.sqrt(len(terms))


def test_mixed_lengths_stop_at_their_own_limit(warm):
    prompts = [warm.task.prompt((1,) * n) for n in (6, 2, 4)]
    rollout = warm.rollout(prompts, 200, torch.Generator().manual_seed(0))
    longest = rollout.length.view(3, 200).max(1).values
    assert (longest <= torch.tensor([7, 3, 5])).all()
    assert (rollout.tokens[~rollout.mask] == PAD).all()
    assert (rollout.mask.int().diff(dim=1) <= 0).all()


# ---------------------------------------------------------------- tasks


@pytest.mark.parametrize("group", [S3, cyclic_group(5), dihedral_group(4)], ids=str)
def test_word_problem_against_a_plain_verifier(group):
    task = WordProblem(group, (1, 3), 4)
    assert task.prompt_count == group.order + group.order**3
    for prompt in (0, group.order - 1, group.order, task.prompt_count - 1, 57):
        (word,) = task.words([prompt])
        assert task.prompt(word) == prompt
        shown = task.prompt_tokens([prompt])[0].tolist()
        assert shown == [FIRST + g for g in word] + [FILLER] * (4 - len(word)) + [EQUALS]
        product = 0
        for g in word:
            product = group.table[product, g]
        tokens, length = all_responses((END, FILLER, *range(FIRST, FIRST + group.order)), 3)
        reward = task.reward([prompt], tokens[None], length[None])[0].tolist()
        for row, n, r in zip(tokens.tolist(), length.tolist(), reward, strict=True):
            body = row[: n - 1]
            right = row[n - 1] == END and body and FILLER not in body and body[-1] == FIRST + product
            assert r == bool(right)


def test_demonstrations_of_words():
    task, generator = WordProblem(S3, (2, 5), 6), torch.Generator().manual_seed(0)
    prompts = task.draw(6_000, generator)
    tokens, mask = task.demonstrations(prompts, 0.0, generator)
    words = task.words(prompts)
    assert {len(word) for word in words} == {2, 5}
    assert mask.sum(1).tolist() == [len(word) + 1 for word in words]
    assert task.reward(prompts, tokens[:, None], mask.sum(1)[:, None]).all()
    tokens, mask = task.demonstrations(prompts, 0.25, generator)
    right = task.reward(prompts, tokens[:, None], mask.sum(1)[:, None])[:, 0].numpy()
    for length in (2, 5):
        of_length = np.array([len(word) == length for word in words])
        predicted = 1 / 6 + 5 / 6 * 0.75**length
        count = np.array([right[of_length].sum(), of_length.sum() - right[of_length].sum()])
        assert surprise(count, np.array([predicted, 1 - predicted])) > FALSE_ALARM
        assert surprise(count, np.array([predicted + 0.08, 0.92 - predicted])) < FALSE_ALARM


@pytest.mark.parametrize(("accepted", "needed"), [(1, 1), (3, 2), (5, 3)])
def test_many_answers_has_the_fraction_it_says(accepted, needed):
    task = ManyAnswers(S3, length=3, accepted=accepted, needed=needed)
    tokens, length = all_responses((END, FILLER, *task.answers[1:]), task.response_limit(4))
    reward = task.reward([4], tokens[None], length[None])[0]
    for row, n, r in zip(tokens.tolist(), length.tolist(), reward.tolist(), strict=True):
        form = n == 4 and row[3] == END and FILLER not in row
        assert r == (form and sum(S3.table[4, token - FIRST] < accepted for token in row[:3]) >= needed)
    assert reward.sum() / 216 == pytest.approx(task.fraction)
    assert task.fraction == pytest.approx(binom.sf(needed - 1, 3, accepted / 6))
    prompts, generator = [4] * 4_000, torch.Generator().manual_seed(0)
    tokens, mask = task.demonstrations(prompts, 0.0, generator)
    assert task.reward(prompts, tokens[:, None], mask.sum(1)[:, None]).all()
    assert len(torch.unique(tokens, dim=0)) == round(216 * task.fraction)  # one missing: chance below 1e-6
    tokens, mask = task.demonstrations(prompts, 1.0, generator)
    count = int(task.reward(prompts, tokens[:, None], mask.sum(1)[:, None]).sum())
    assert surprise(np.array([count, 4_000 - count]), np.array([task.fraction, 1 - task.fraction])) > FALSE_ALARM


def test_task_arguments():
    for lengths in ((), (0, 2), (3, 3), (2.5,)):
        with pytest.raises(ValueError, match="lengths"):
            WordProblem(S3, lengths)
    with pytest.raises(ValueError, match="width"):
        WordProblem(S3, (4,), 3)
    for name, value in {"accepted": 6, "needed": 4, "length": 0}.items():
        with pytest.raises(ValueError, match=name):
            ManyAnswers(S3, **{name: value})
    with pytest.raises(ValueError, match="lengths"):
        ManyAnswers(S3, lengths=(2,))
    with pytest.raises(ValueError, match="task"):
        builtin_task("sorting")
    task = WordProblem(S3, (2,))
    for prompt in (-1, 36, 1.5, True):
        with pytest.raises(ValueError, match="prompt"):
            task.words([prompt])
    with pytest.raises(ValueError, match="word"):
        task.prompt((1, 2, 3))
    with pytest.raises(ValueError, match="word"):
        task.prompt((1, 6))


def test_tokenizer_of_a_large_group():
    task = WordProblem(alternating_group(5), (2,))
    tokenizer = task.tokenizer()
    assert len(tokenizer) == len(task.symbols) == 64
    (row,) = task.prompt_tokens([3599]).tolist()
    assert tokenizer.encode(" ".join(task.symbols[token] for token in row)) == row
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (PAD, END)


# ---------------------------------------------------------------- warm start and its cache


def test_warm_start_follows_the_teacher(warm):
    """Success at each length is that of a teacher wrong with probability 1 - lambda a step, one lambda for all.

    Sampled success is within .04 (sampling, Hoeffding at 1e-6 in all) plus .02 (the policy's own deviation) of it.
    """
    generator, n, rates = torch.Generator().manual_seed(5), 6_000, []
    for length in (2, 3, 4, 5, 6):
        task = WordProblem(S3, (length,), 6)
        rollout = warm.with_task(task).rollout(task.draw(n, generator), 1, generator)
        rates.append(rollout.reward.mean())
    rates, length = np.array(rates), np.arange(2, 7)
    assert 0.3 < rates.mean() < 0.5
    fits = np.linspace(0.5, 1, 501)
    residual = np.abs(1 / 6 + 5 / 6 * fits[:, None] ** length - rates)
    best = residual.max(1).argmin()
    sampling = np.sqrt(np.log(2 * len(length) / FALSE_ALARM) / (2 * n))
    assert residual[best].max() < sampling + 0.02
    assert abs(fits[best] - 0.75) < 0.03


TINY = WarmStart(clean_steps=2, noisy_steps=1, batch=4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLVR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trained():
    return QwenTestbed(WordProblem(S3, (2,)), warm_start=TINY).theta


def flip(data, bit):
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def foreign(data):
    tensors = safetensors.torch.load(data)
    return safetensors.torch.save({name: value + 1 for name, value in tensors.items()})


DAMAGES = {
    "empty": lambda data: b"",
    "text": lambda data: b"not tensors at all",
    "truncated": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "bit of the content": lambda data: flip(data, 8 * len(data) - 4_000),
    "bit of the header": lambda data: flip(data, 8 * 60),
    "foreign": foreign,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_rebuilt(cache, damage):
    expected = trained()
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    np.testing.assert_array_equal(trained(), expected)
    assert [file.name for file in cache.iterdir()] == [path.name]
    assert path.read_bytes() == whole


def test_cache_of_other_settings_is_not_used(cache):
    """A whole file of another key, put in the place of this one, is replaced."""
    expected = trained()
    (path,) = cache.iterdir()
    tensors, info = load_tensors(path)
    save_tensors(path, {name: value + 1 for name, value in tensors.items()}, {"key": "another"})
    np.testing.assert_array_equal(trained(), expected)
    save_tensors(path, {name: value + 1 for name, value in tensors.items()}, info)
    np.testing.assert_allclose(trained(), expected + 1, rtol=1e-6)  # so the cache is what is read


def test_any_flipped_bit_is_detected_or_harmless(tmp_path):
    path, rng = tmp_path / "some.safetensors", np.random.default_rng(0)
    tensors, info = {"a": torch.randn(7), "b": torch.arange(3)}, {"key": "k", "steps": [1, 2]}
    save_tensors(path, tensors, info)
    whole, detected = path.read_bytes(), 0
    for bit in rng.permutation(8 * len(whole))[:600]:
        path.write_bytes(flip(whole, int(bit)))
        try:
            read, described = load_tensors(path)
        except ValueError:
            detected += 1
        else:
            assert described == info
            assert all(torch.equal(read[name], value) for name, value in tensors.items())
    assert detected > 550
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "none.safetensors")


def test_cache_key_depends_on_everything(monkeypatch):
    task = WordProblem(S3, (2,))
    model = tiny_model(16, 0)

    def key(model=model, task=task, settings=TINY, alphabet=None):
        alphabet = task.answers if alphabet is None else alphabet
        return cache_key(model, PlainQwen.of(model, None, alphabet), task, settings)

    others = [
        key(model=tiny_model(16, 0, "qwen2")),
        key(task=WordProblem(S3, (2,), 3)),
        key(task=WordProblem(S3, (2, 3), 3)),
        key(task=WordProblem(cyclic_group(6), (2,))),
        key(task=ManyAnswers(S3)),
        key(task=ManyAnswers(S3, accepted=2)),
        key(task=ManyAnswers(S3, length=4)),
        key(task=ManyAnswers(S3, needed=1)),
        key(alphabet=range(1, 16)),
        *(
            key(settings=replace(TINY, **{name: getattr(TINY, name) + 1}))
            for name in ("seed", "batch", "ramp", "decay")
        ),
        *(key(settings=replace(TINY, **{name: 5})) for name in ("clean_steps", "noisy_steps", "largest_gradient")),
        *(key(settings=replace(TINY, **{name: 0.1})) for name in ("noise", "learning_rate")),
    ]
    assert key() == key()
    monkeypatch.setattr(torch, "__version__", "0.0")
    others.append(key())
    assert len({key(), *others}) == len(others)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RLVR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RLVR_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "rlvr")


def test_a_cache_that_cannot_be_written_is_named_and_left_as_it_was(cache, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        trained()
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    cache.rmdir()
    cache.write_text("in the way")
    monkeypatch.setenv("RLVR_CACHE", str(cache))
    with pytest.raises(OSError, match=str(cache)):
        trained()


SCRIPT = """
import hashlib
from rlvr_lib.theory.groups import symmetric_group
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.group_tasks import WordProblem
from rlvr_lib.testbeds.qwen.warm_start import WarmStart
settings = WarmStart(clean_steps=6, noisy_steps=6, batch=16)
theta = QwenTestbed(WordProblem(symmetric_group(3), (2,)), warm_start=settings).theta
print(hashlib.sha256(theta.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_at_once(cache):
    runs = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    output = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], output
    assert output[0][0] == output[1][0] != ""
    (path,) = cache.iterdir()
    load_tensors(path)


def test_warm_start_arguments():
    for name in ("seed", "clean_steps", "noisy_steps", "batch", "noise", "learning_rate"):
        with pytest.raises(ValueError, match=name):
            WarmStart(**{name: -1})


# ---------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, short):
    folder = tmp_path_factory.mktemp("checkpoint")
    short.save(folder)
    return folder


def test_a_saved_testbed_is_a_checkpoint(checkpoint, short):
    """from_pretrained reads model and tokenizer, offline, and the policy is the same."""
    loaded = QwenTestbed(short.task, model=str(checkpoint), dtype=torch.float64)
    assert loaded.plain.vocabulary.tolist()[FIRST : FIRST + 6] == list(range(FIRST, FIRST + 6))
    assert loaded.exact(17)[0] == pytest.approx(short.exact(17)[0], rel=1e-5)
    with pytest.raises(ValueError, match="model must be one with a token for each symbol"):
        QwenTestbed(WordProblem(alternating_group(5), (2,)), model=str(checkpoint))


def test_other_vocabularies_and_untied_heads(tmp_path, short):
    """A checkpoint whose tokenizer numbers the symbols differently, in a larger vocabulary, with its own head."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    symbols = ["<eos>", "x", "y", *reversed(short.task.symbols[FILLER : FIRST + 6]), "<unk>"]
    words = Tokenizer(WordLevel({symbol: index for index, symbol in enumerate(symbols)}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", unk_token="<unk>").save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=1, head_dim=8, tie_word_embeddings=False, max_position_embeddings=64,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    with qwen_model.quiet():
        model.save_pretrained(tmp_path)
    testbed = QwenTestbed(short.task, model=str(tmp_path))
    assert "lm_head.weight" in testbed.named
    responses = testbed.enumerate(5)
    assert abs(responses.prob.sum() - 1) < 1e-12
    assert responses.score.shape[1] == sum(value.numel() for value in model.parameters())
    tokens, length = testbed.responses(5)
    ids = testbed.plain.vocabulary
    inputs = ids[torch.cat([short.task.prompt_tokens([5]).expand(len(tokens), -1), tokens[:, :-1]], 1)]
    with torch.no_grad():
        logits = model.eval()(inputs).logits[:, 3:][..., ids[testbed.plain.alphabet]].log_softmax(-1)
    column = {symbol: index for index, symbol in enumerate(testbed.plain.alphabet.tolist())}
    for i in (0, 3, 40, 200):
        picked = [logits[i, t, column[int(tokens[i, t])]] for t in range(int(length[i]))]
        assert responses.prob[i] == pytest.approx(float(sum(picked).exp()), rel=1e-4)
    with pytest.raises(ValueError, match="token for each symbol"):
        QwenTestbed(short.task, model=str(tmp_path), alphabet="vocabulary")


def test_what_is_not_a_qwen_is_refused(tmp_path, short):
    from transformers import LlamaConfig

    LlamaConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model must be of type qwen2 or qwen3, got 'llama'"):
        QwenTestbed(short.task, model=str(tmp_path))
    for name in ("no/such/folder", "../elsewhere", "", "a b"):
        with pytest.raises(ValueError, match="model must be a folder, or a name on the hub"):
            QwenTestbed(short.task, model=name)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises((OSError, ValueError), match="empty"):
        QwenTestbed(short.task, model=str(empty))


def test_code_in_a_checkpoint_never_runs(tmp_path, checkpoint, short):
    folder, marker = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "qwen9", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(ValueError, match="custom code"):
        QwenTestbed(short.task, model=str(folder))
    assert not marker.exists()


# ---------------------------------------------------------------- the rest of the face


def test_testbed_arguments(short):
    with pytest.raises(ValueError, match="alphabet"):
        QwenTestbed(warm_start=None, alphabet="letters")
    with pytest.raises(ValueError, match="family"):
        QwenTestbed(warm_start=None, family="llama")
    with pytest.raises(ValueError, match="task"):
        short.with_task(WordProblem(S3, (2,), 4))
    with pytest.raises(ValueError, match="theta"):
        short.at(np.zeros(3))
    with pytest.raises(ValueError, match="direction"):
        short.derivatives_along(0, np.zeros(3))
    with pytest.raises(ValueError, match="prompt"):
        short.exact(36)
    with pytest.raises(ValueError, match="n must be"):
        short.sample(0, 0, 0)
    with pytest.raises(ValueError, match="seed"):
        short.sample(0, 1, -1)
    with pytest.raises(ValueError, match="group_size"):
        short.rollout([0], 0, torch.Generator())
    with pytest.raises(ValueError, match="prompts"):
        short.rollout([], 2, torch.Generator())


def test_tokens_outside_the_alphabet_are_refused(short):
    tokens = torch.tensor([[FILLER, END, PAD]])
    rollout = Rollout((0,), tokens, torch.tensor([[True, True, False]]), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="tokens"):
        short.token_log_probs(rollout)


def test_flat_vectors_follow_the_model(short):
    moved = short.at(short.theta + 1)
    start = 0
    for name, value in short.model.named_parameters():
        flat = short.theta[start : start + value.numel()]
        np.testing.assert_array_equal(flat, value.detach().double().numpy().ravel())
        np.testing.assert_allclose(dict(moved.model.named_parameters())[name].detach(), value.detach() + 1)
        start += value.numel()
    assert start == len(short.theta)
    assert next(iter(short.named)) == "model.embed_tokens.weight"
