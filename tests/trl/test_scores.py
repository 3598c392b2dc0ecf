"""Scores of a Hugging Face model by recorded modules, against the book's own scores and against autograd."""

import numpy as np
import pytest
import torch

from rlvr_lib.testbeds.group_tasks import PAD, ManyAnswers, WordProblem
from rlvr_lib.testbeds.grpo import one_thread
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.theory.groups import cyclic_group, symmetric_group
from rlvr_lib.trl.scores import CHOICES, HEAD, Sampled, choose, is_sharded, log_probs, score_sums

# What peft and trl call, and transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    with one_thread():
        yield


def untrained(family="qwen3", dtype=torch.float64, task=None):
    task = task or WordProblem(symmetric_group(3), (2, 3))
    testbed = QwenTestbed(task, warm_start=None, dtype=dtype, alphabet="vocabulary", family=family)
    return testbed.at(testbed.theta + 0.1 * np.random.default_rng(0).standard_normal(len(testbed.theta)))


def sampled_of(testbed, prompts=(0, 40), group_size=5, padding=0):
    rollout = testbed.rollout(prompts, group_size, torch.Generator().manual_seed(0))
    ids = testbed.task.prompt_tokens(rollout.prompts).repeat_interleave(group_size, 0)
    mask = torch.ones_like(ids)
    pad = torch.zeros(len(ids), padding, dtype=ids.dtype)
    sampled = Sampled(torch.cat([pad, ids], 1), torch.cat([pad, mask], 1), rollout.tokens, rollout.mask.long())
    return rollout, sampled


def autograd_scores(model, sampled, parameters, temperature=1.0):
    rows = []
    for row in range(len(sampled)):
        log_prob = log_probs(model, sampled.rows(slice(row, row + 1)), temperature).sum()
        gradients = torch.autograd.grad(log_prob, parameters, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("choice", ["all", "last-layer"])
def test_scores_are_those_of_autograd(choice, family):
    testbed = untrained(family)
    _, sampled = sampled_of(testbed, padding=2)
    scored = choose(testbed.model, choice)
    each, energy, log_prob = score_sums(testbed.model, sampled, torch.eye(10, dtype=torch.float64), scored, 0.7)
    expected = autograd_scores(testbed.model, sampled, list(scored.parameters.values()), 0.7)
    torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(energy, expected.square().sum(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log_prob, log_probs(testbed.model, sampled, 0.7).detach(), rtol=1e-9, atol=1e-9)
    assert all(value.grad is None for value in testbed.model.parameters())


def test_all_scores_are_those_of_the_testbed():
    testbed = untrained(dtype=torch.float32)
    rollout, sampled = sampled_of(testbed)
    each, _, log_prob = score_sums(testbed.model, sampled, torch.eye(10), choose(testbed.model, "all"))
    # Autograd, and so every trainer, leaves the padding symbol's embedding alone; the testbed does not.
    plain = ~((rollout.tokens == PAD) & rollout.mask).any(1)
    assert plain.sum() >= 8
    torch.testing.assert_close(each[plain], testbed.scores(rollout)[plain], rtol=1e-3, atol=2e-5)
    torch.testing.assert_close(log_prob, testbed.token_log_probs(rollout).sum(1).detach(), rtol=1e-4, atol=1e-4)


def test_the_head_is_scored_in_closed_form():
    """Against autograd with the head untied, where its gradient stands alone."""
    testbed = untrained()
    model = testbed.model
    head = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.lm_head.weight = head
    _, sampled = sampled_of(testbed)
    each, energy, _ = score_sums(model, sampled, torch.eye(10, dtype=torch.float64), choose(model, "head"), 1.3)
    expected = autograd_scores(model, sampled, [head], 1.3)
    torch.testing.assert_close(each, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(energy, expected.square().sum(1), rtol=1e-6, atol=1e-7)


def test_lora_scores_are_those_of_the_adapters():
    from peft import LoraConfig, get_peft_model

    testbed = untrained(dtype=torch.float32)
    model = get_peft_model(testbed.model, LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.3))
    generator = torch.Generator().manual_seed(1)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data = 0.1 * torch.randn(value.shape, generator=generator)
    _, sampled = sampled_of(testbed)
    scored = choose(model.train())
    assert scored.choice == "all"
    assert all("lora_" in name for name in scored.parameters)
    each, _, _ = score_sums(model, sampled, torch.eye(10), scored)
    assert model.training
    expected = autograd_scores(model.eval(), sampled, list(scored.parameters.values()))
    torch.testing.assert_close(each, expected, rtol=1e-3, atol=1e-5)


def test_sums_are_weighted_and_drawn_coordinates_keep_inner_products():
    testbed = untrained(dtype=torch.float32)
    _, sampled = sampled_of(testbed, group_size=8)
    weights = torch.randn(3, 16, generator=torch.Generator().manual_seed(2))
    whole = choose(testbed.model, "all")
    each, energy, _ = score_sums(testbed.model, sampled, torch.eye(16), whole)
    sums, _, _ = score_sums(testbed.model, sampled, weights, whole)
    torch.testing.assert_close(sums, weights @ each, rtol=1e-4, atol=1e-4)
    exact, grams = sums @ sums.T, []
    for seed in range(40):
        few = choose(testbed.model, "all", most=4000, seed=seed)
        part, same_energy, _ = score_sums(testbed.model, sampled, weights, few)
        assert part.shape[1] == few.width < 4100
        assert "drawn at random" in str(few)
        torch.testing.assert_close(same_energy, energy, rtol=1e-4, atol=1e-4)
        grams.append(part @ part.T)
    grams = torch.stack(grams)
    error = grams.std(0) / len(grams) ** 0.5
    assert bool(((grams.mean(0) - exact).abs() < 6 * error).all())
    assert bool(((2 * grams.mean(0) - exact).abs() > 6 * error).diagonal().all())  # without the scale it is caught


def test_choices_are_made_and_refused():
    model = untrained(dtype=torch.float32).model
    assert choose(model).choice == "all"
    assert choose(model, most=1000).choice == "last-layer"
    assert "75,136 are trained" in str(choose(model, "last-layer"))
    assert list(choose(model, "head").parameters) == [HEAD]
    with pytest.raises(ValueError, match="scores must be one of"):
        choose(model, "first-layer")
    for parameter in model.model.layers[-1].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="where nothing is trained"):
        choose(model, "last-layer")
    model.odd = torch.nn.Conv1d(1, 1, 1)
    with pytest.raises(ValueError, match=r"odd.weight in a Conv1d"):
        choose(model, "all")
    with pytest.raises(ValueError, match="without a list of blocks"):
        choose(torch.nn.Linear(2, 2), "last-layer")


def test_sharded_parameters_allow_the_head_only():
    testbed = untrained(dtype=torch.float32, task=ManyAnswers(cyclic_group(2), length=1, accepted=1, needed=1))
    for parameter in testbed.model.parameters():
        parameter.ds_id = 0
    assert is_sharded(testbed.model)
    assert choose(testbed.model).choice == "head"
    for choice in set(CHOICES) - {"head"}:
        with pytest.raises(ValueError, match="sharded"):
            choose(testbed.model, choice)
