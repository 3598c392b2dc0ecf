"""Sums in words: numbering, teacher, tokenizer, verifier."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from text_policies import SHORT

from rlvr_lib.testbeds.text import Sums, sums, verifier
from rlvr_lib.testbeds.text.sums import END

TASK = Sums()
STEP = re.compile(r"(\d+) (plus|minus) (\d+) is (\d+)")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def response(task, text, end=True):
    return [*task.tokens.encode(text).ids, *([END] if end else [])]


def test_every_problem_has_one_number():
    small = Sums(largest=3, steps=(2, 1))
    found = [small.totals(prompt) for prompt in range(4**3 + 4**2)]
    assert len(set(found)) == 80
    assert [small.prompt(totals) for totals in found] == list(range(80))
    with pytest.raises(ValueError, match="prompt must be below 80, got 80"):
        small.totals(80)
    with pytest.raises(ValueError, match="totals must be from 0 to 3"):
        small.prompt((1, 4))
    with pytest.raises(ValueError, match="totals must be of a start"):
        small.prompt((1, 2, 3, 1))


def test_question_in_words_has_the_answer_that_counts():
    for prompt in TASK.draw(200, seeded()):
        words = TASK.question(prompt).removeprefix("What is ").removesuffix("?").split()
        value = int(words[0])
        for sign, number in zip(words[1::2], words[2::2], strict=True):
            value += {"plus": 1, "minus": -1}[sign] * int(number)
            assert 0 <= value <= 99
        assert value == TASK.totals(prompt)[-1]


def test_held_out_problems_are_never_drawn_for_training():
    training, held_out = TASK.draw(3000, seeded()), TASK.draw(500, seeded(1), held_out=True)
    assert not any(TASK.held_out(prompt) for prompt in training)
    assert all(TASK.held_out(prompt) for prompt in held_out)
    share = sum(map(Sums().held_out, range(10_000))) / 10_000
    assert share == pytest.approx(0.1, abs=0.01)
    steps = Counter(len(TASK.totals(prompt)) - 1 for prompt in training)
    assert set(steps) == {1, 2, 3}
    assert min(steps.values()) > 850


def test_teacher_without_noise_is_right_and_says_true_steps():
    generator = np.random.default_rng(0)
    for prompt in TASK.draw(200, seeded()):
        said = TASK.solution(prompt, 0.0, generator)
        steps = STEP.findall(said)
        assert len(steps) >= len(TASK.totals(prompt)) - 1
        assert all(int(a) + (1 if sign == "plus" else -1) * int(b) == int(c) for a, sign, b, c in steps)
        assert TASK.judge(prompt, response(TASK, said))


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_noise_makes_the_teacher_wrong_as_often_as_it_says(noise):
    task, n, level = Sums(largest=9, steps=(2,)), 4000, 1e-6
    prompts = task.draw(n, seeded(2))
    tokens, mask = task.demonstrations(prompts, noise, seeded(3))
    right = int(task.reward(prompts, tokens[:, None], mask.sum(1)[:, None]).sum())
    # A result out of range is redrawn too, after which the answer is uniform as well.
    least = 0.1 + 0.9 * (1 - noise) ** 2
    assert binom.cdf(right, n, least) > level
    assert binom.sf(right - 1, n, least) > level


def test_responses_have_10_to_60_tokens_and_differ_in_length():
    _, mask = TASK.demonstrations(TASK.draw(1000, seeded()), 0.0, seeded(1))
    length = mask.sum(1)
    assert length.min() >= 10
    assert length.max() <= 60
    assert length.double().std() > 8
    _, mask = TASK.demonstrations([TASK.prompt((12, 30, 25, 61))] * 50, 0.0, seeded(1))
    assert len(set(mask.sum(1).tolist())) >= 4


def test_demonstrations_follow_the_generator():
    prompts = SHORT.draw(20, seeded())
    first, again, other = (SHORT.demonstrations(prompts, 0.5, seeded(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


@given(text=st.text(max_size=40))
@settings(max_examples=50, deadline=None)
def test_tokenizer_reads_any_text(text):
    assert TASK.tokens.decode(TASK.tokens.encode(text).ids, skip_special_tokens=False) == text


def test_tokenizer_merges_words_and_never_digits():
    ids = TASK.tokens.encode("What is 12 plus 30?").ids
    assert [TASK.tokens.decode([token]) for token in ids] == ["What is ", "1", "2", " plus ", "3", "0", "?"]
    assert 256 + 2 < len(TASK.tokenizer()) < 512
    assert TASK.tokenizer()(["What is 12 plus 30?"])["input_ids"] == [ids]


def test_tokenizer_is_the_same_whenever_it_is_trained():
    first = SHORT.tokens.to_str()
    sums._trained_tokenizer.cache_clear()
    assert Sums(largest=9, steps=(1, 2), longest=99).tokens.to_str() == first


SAID = "<think>1 plus 4 is 5</think><answer>{}</answer>"


@pytest.mark.parametrize(
    ("text", "end", "right"),
    [
        (SAID.format(5), True, True),
        ("<think></think>\n<answer>5</answer>", True, True),
        (SAID.format(" 5 "), True, True),
        (SAID.format("5.0"), True, True),
        (SAID.format(6), True, False),
        (SAID.format(5), False, False),
        (SAID.format(""), True, False),
        (SAID.format(5) + " or so", True, False),
        ("5", True, False),
        ("<answer>5</answer>", True, False),
        (SAID.format("no number"), True, False),
        ("", True, False),
        ("", False, False),
    ],
)
def test_verifier(text, end, right):
    assert verifier.verifier() == "math-verify"
    prompt = SHORT.prompt((1, 5))
    ids = response(SHORT, text, end)
    assert SHORT.judge(prompt, ids) == right
    if ids:
        tokens = torch.tensor([[[*ids, 0, 0]]])
        assert SHORT.reward([prompt], tokens, torch.tensor([[len(ids)]])).tolist() == [[right]]


def test_without_math_verify_whole_numbers_are_read(monkeypatch):
    monkeypatch.setattr(verifier, "_math_verify", lambda: None)
    verifier.same_number.cache_clear()
    try:
        assert verifier.verifier() == "integers"
        judged = [verifier.same_number(text, 5) for text in ("5", " 5", "05", "6", "5.0", "-5", "", "five", "\u0665")]
        assert judged == [True, True, True, False, False, False, False, False, False]
    finally:
        verifier.same_number.cache_clear()


def test_both_verifiers_agree_on_whole_numbers():
    for text in map(str, range(100)):
        assert verifier.same_number(text, 42) == (text == "42")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"largest": 0}, "largest"), ({"steps": ()}, "steps"), ({"steps": (1, 1)}, "steps"), ({"steps": (0,)}, "steps"),
     ({"again": 1.5}, "again"), ({"longest": 0}, "longest")],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Sums(**arguments)
