"""The Qwen testbed: enumeration, identities, samples, loaded models, arguments."""

import itertools
import json

import numpy as np
import pytest
import torch
from qwen_policies import FALSE_ALARM, S3, scrambled, surprise

from rlvr_lib import gradient_gap, group_gain, success_rate
from rlvr_lib.responses import conditional_weights
from rlvr_lib.testbeds.group_tasks import END, FILLER, FIRST, PAD, WordProblem
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.qwen import forward as qwen_model
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.groups import alternating_group

# Loading torch's rules of forward-mode differentiation warns about its own use of torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


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


def test_large_trees_are_refused(warm):
    six = warm.task.prompt((0,) * 6)
    with pytest.raises(ValueError, match="prompt must be such that scores"):
        warm.enumerate(six)
    with pytest.raises(ValueError, match="n must be such that scores"):
        warm.sample(0, 10_000_000, 0)
    wide = QwenTestbed(WordProblem(S3, (9,)), warm_start=None)
    with pytest.raises(ValueError, match="prompt must be one of at most 60000, got .* prefixes"):
        wide.exact(0)


def hessian_products(testbed, prompt, weights, vector):
    """sum_i c_i H_i v for each row c of the weights, by differentiating sum_i c_i s_i along v, and <s_i, v>."""
    p = {name: value.detach().clone().requires_grad_() for name, value in testbed.named.items()}
    log_probs, _ = testbed._judged(prompt, p)
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
    assert vector @ measured == pytest.approx(short.along(prompt, vector)[2], rel=1e-9)


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


def test_mixed_lengths_stop_at_their_own_limit(warm):
    prompts = [warm.task.prompt((1,) * n) for n in (6, 2, 4)]
    rollout = warm.rollout(prompts, 200, torch.Generator().manual_seed(0))
    longest = rollout.length.view(3, 200).max(1).values
    assert (longest <= torch.tensor([7, 3, 5])).all()
    assert (rollout.tokens[~rollout.mask] == PAD).all()
    assert (rollout.mask.int().diff(dim=1) <= 0).all()


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
        short.along(0, np.zeros(3))
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
