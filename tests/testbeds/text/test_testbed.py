"""The text testbed: forward, sampler, scores, warm start, training."""

import dataclasses

import numpy as np
import pytest
import torch
from text_policies import BRIEF, SHORT, SMALL, scrambled

from rlvr_lib.testbeds.grpo import GRPO, train
from rlvr_lib.testbeds.measured_run import diagnose
from rlvr_lib.testbeds.qwen import warm_start as training
from rlvr_lib.testbeds.qwen.prefixes import row_attention
from rlvr_lib.testbeds.text import Shape, Sums, TextTestbed
from rlvr_lib.testbeds.text.sums import END, PAD
from rlvr_lib.testbeds.text.testbed import checkpoints, text_model
from rlvr_lib.testbeds.text.warm_start import cache_key

# Loading torch's rules of forward-mode differentiation warns about its own use of torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def testbed():
    return scrambled(1)


@pytest.fixture(scope="module")
def rollout(testbed):
    found = testbed.rollout(testbed.task.draw(4, seeded()), 3, seeded(1))
    assert len(set(found.length.tolist())) > 1
    return found


def test_the_model_of_the_book_is_a_real_qwen3_of_628352_parameters():
    testbed = TextTestbed(warm_start=None)
    assert type(testbed.model).__name__ == "Qwen3ForCausalLM"
    assert len(testbed.theta) == 628_352


def test_forward_equals_hugging_face_with_padding_on_the_left(testbed, rollout):
    """To float32 accuracy, in which theirs normalises."""
    questions = [testbed.task.question(prompt) for prompt in rollout.prompts for _ in range(3)]
    asked = testbed.tokenizer(questions, padding=True, return_tensors="pt")
    assert (asked.attention_mask == 0).any()
    ids = torch.cat([asked.input_ids, rollout.tokens], 1)
    attention = torch.cat([asked.attention_mask, rollout.mask.long()], 1)
    start = asked.input_ids.shape[1] - 1
    with torch.no_grad():
        theirs = testbed.model(ids, attention_mask=attention).logits.log_softmax(-1)[:, start:-1]
        ours = testbed.token_log_probs(rollout)
    theirs = torch.where(rollout.mask, theirs.gather(-1, rollout.tokens[..., None])[..., 0], 0.0)
    assert theirs[rollout.mask].std() > 0.3
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_packing_changes_nothing(testbed, rollout):
    rows = testbed.plain.row_log_probs(testbed.named, testbed._prompt_rows(rollout), rollout.tokens)
    packed = testbed.token_log_probs(rollout)
    torch.testing.assert_close(packed, torch.where(rollout.mask, rows, 0.0), rtol=1e-12, atol=1e-12)


def test_sampler_draws_from_the_softmax_at_every_step(testbed, rollout):
    """Its cached forward, replayed: each token is where the same number falls in the law of the plain forward."""
    uniform, asked, laws = seeded(1), testbed._prompt_rows(rollout), []
    for row, tokens in zip(asked, rollout.tokens, strict=True):
        ids = torch.cat([row[row != PAD], tokens])
        hidden, _ = testbed.plain.states(testbed.named, ids, torch.arange(len(ids)), row_attention(1, len(ids)))
        laws.append(testbed.plain.read(testbed.named, hidden[-len(tokens) - 1 : -1]).detach().exp().cumsum(-1))
    for step in range(rollout.tokens.shape[1]):
        drawn = torch.rand(len(asked), 1, generator=uniform, dtype=torch.float64)
        replayed = (torch.stack(laws)[:, step] < drawn).sum(1)
        alive = rollout.mask[:, step]
        assert torch.equal(replayed[alive], rollout.tokens[alive, step])
    ended = rollout.tokens.gather(1, rollout.length[:, None] - 1)[:, 0] == END
    assert bool((ended | (rollout.length == testbed.task.longest)).all())
    assert ended.any()


def test_samples_follow_their_seed(testbed):
    prompts = testbed.task.draw(5, seeded())
    first, again, other = (testbed.rollout(prompts, 2, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.tokens, again.tokens)
    assert first.tokens.shape != other.tokens.shape or not torch.equal(first.tokens, other.tokens)


@pytest.mark.parametrize("scored", ["all", "last-layer"])
def test_sampled_scores_are_gradients_of_log_probabilities(testbed, rollout, scored):
    chosen = scrambled(1, scored=scored)
    scores, names = chosen.scores(rollout), chosen._scored_names()
    assert len(names) == len(chosen.named) if scored == "all" else all(".layers.1." in name for name in names)
    log_probs = chosen.token_log_probs(rollout).sum(1)
    for row in (0, 5):
        gradient = torch.autograd.grad(log_probs[row], [chosen.named[name] for name in names], retain_graph=True)
        expected = torch.cat([part.flatten() for part in gradient])
        torch.testing.assert_close(scores[row], expected, rtol=1e-9, atol=1e-12)


def test_squared_norms_are_those_of_the_scores(testbed, rollout):
    torch.testing.assert_close(
        testbed.squared_norms(rollout), testbed.scores(rollout).square().sum(1), rtol=1e-9, atol=1e-12
    )


def test_sample_gives_responses_of_different_length(testbed):
    prompt = testbed.task.prompt((3, 8))
    responses = testbed.sample(prompt, 40, 2)
    again = testbed.sample(prompt, 40, 2)
    assert len(set(responses.length.tolist())) > 1
    assert responses.score.shape == (40, len(testbed.theta))
    for name in ("reward", "score", "length"):
        assert np.array_equal(getattr(responses, name), getattr(again, name))


def test_what_needs_all_responses_is_refused(testbed):
    for method in (testbed.exact, testbed.enumerate, testbed.log_odds_and_gap):
        with pytest.raises(ValueError, match="prompt must be one of few responses"):
            method(3)
    with pytest.raises(ValueError, match="prompt must be below 1100"):
        testbed.exact(10**4)
    with pytest.raises(ValueError, match="task must be the one"):
        testbed.with_task(Sums())
    with pytest.raises(ValueError, match="n must be such that scores take at most"):
        testbed.sample(3, 10**8, 0)


def test_scores_of_the_last_layer_leave_room_for_more_responses():
    prompt, rows = SHORT.prompt((3, 8)), 4 * 2**30 // (8 * 8_000)
    with pytest.raises(ValueError, match="n must be such that scores"):
        scrambled(0).sample(prompt, rows, 0)
    scrambled(0, scored="last-layer")._require_space("n", rows, rows)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLVR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def warm(cache):
    return TextTestbed(SHORT, warm_start=BRIEF, shape=SMALL)


def test_warm_start_learns_and_is_cached(warm, monkeypatch):
    prompts = SHORT.draw(50, seeded(5))
    tokens, mask = SHORT.demonstrations(prompts, 0.0, seeded(6))
    fresh = TextTestbed(SHORT, warm_start=None, shape=SMALL)
    loss = [
        float(-t.plain.packed_log_probs(t.named, SHORT.prompt_tokens(prompts), tokens, mask)[mask].mean().detach())
        for t in (fresh, warm)
    ]
    assert loss[1] < 0.7 * loss[0]
    monkeypatch.setattr(training, "supervise", None)
    again = TextTestbed(SHORT, warm_start=BRIEF, shape=SMALL)
    assert np.array_equal(again.theta, warm.theta)
    with pytest.raises(TypeError):
        TextTestbed(SHORT, warm_start=dataclasses.replace(BRIEF, seed=1), shape=SMALL)


def test_cache_key_depends_on_model_task_and_settings():
    def key(task=SHORT, shape=SMALL, settings=BRIEF, seed=0):
        return cache_key(text_model(len(task.tokenizer()), shape, seed), task, settings)

    others = [
        key(task=dataclasses.replace(SHORT, again=0.5)),
        key(shape=dataclasses.replace(SMALL, hidden=64)),
        key(settings=dataclasses.replace(BRIEF, batch=17)),
    ]
    assert key() == key()
    assert len({key(), *others}) == 4


def test_checkpoints_share_no_weights(cache):
    pair = checkpoints((0, 1), BRIEF, task=SHORT, shape=SMALL)
    assert not np.array_equal(pair[0].theta, pair[1].theta)
    with pytest.raises(ValueError, match="seeds must be all different"):
        checkpoints((1, 1), BRIEF)


def test_success_is_the_share_of_correct_responses(warm):
    found = warm.held_out_success(60, 3)
    assert found == warm.held_out_success(60, 3)
    assert found.error == pytest.approx((found.rate * (1 - found.rate) / 60) ** 0.5)
    prompts = warm.task.draw(60, seeded(3), held_out=True)
    rollout = warm.rollout(prompts, 1, seeded(3))
    assert found.rate == rollout.reward.mean()
    assert found.length == float(rollout.length.double().mean())
    with pytest.raises(ValueError, match="prompts must be at least two"):
        warm.success_of([3], 0)


def test_built_in_loop_trains_and_measures(warm):
    testbed = warm.at(warm.theta)
    settings = GRPO(group_size=4, estimator="dr_grpo", optimizer="adamw", learning_rate=1e-3)
    prompts = SHORT.draw(3, seeded())
    before = testbed.theta
    records = train(testbed, prompts, settings, 2, 0, lambda step: diagnose(testbed, step, settings, 0))
    again = warm.at(warm.theta)
    assert train(again, prompts, settings, 2, 0, lambda step: diagnose(again, step, settings, 0)) == records
    assert {"gap_alignment", "critical_learning_rate", "optimal_baseline"} <= records[0].keys()
    moved = records[0]["update_norm"] > 0
    assert moved == (not np.array_equal(testbed.theta, before))


def test_saved_model_is_read_again(warm, tmp_path):
    warm.save(tmp_path)
    again = TextTestbed(SHORT, model=str(tmp_path))
    assert np.array_equal(again.theta, warm.theta)
    prompts = SHORT.draw(3, seeded())
    assert torch.equal(again.rollout(prompts, 2, seeded()).tokens, warm.rollout(prompts, 2, seeded()).tokens)
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text().replace("What is ", "Who is "))
    other = Sums(largest=9, steps=(1, 2), again=1.0)
    if other.tokens.get_vocab() != SHORT.tokens.get_vocab():
        with pytest.raises(ValueError, match="model must be one with the tokenizer of the task"):
            TextTestbed(other, model=str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "name"), [({"width": 0}, "width"), ({"heads": 3}, "heads"), ({"kv_heads": 3}, "kv_heads")]
)
def test_bad_shapes_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Shape(**arguments)


def test_bad_choice_of_scores_is_named():
    with pytest.raises(ValueError, match="scored must be one of all, last-layer, got 'head'"):
        TextTestbed(SHORT, warm_start=None, shape=SMALL, scored="head")
