"""The tasks: verifiers, teachers, numbers of prompts, tokenizer."""

import numpy as np
import pytest
import torch
from qwen_policies import FALSE_ALARM, S3, surprise
from scipy.stats import binom

from rlvr_lib.testbeds.group_tasks import END, EQUALS, FILLER, FIRST, PAD, ManyAnswers, WordProblem, builtin_task
from rlvr_lib.testbeds.qwen.prefixes import all_responses
from rlvr_lib.theory.groups import alternating_group, cyclic_group, dihedral_group


@pytest.mark.parametrize("group", [S3, cyclic_group(5), dihedral_group(4)], ids=str)
def test_word_problem_against_a_plain_verifier(group):
    task = WordProblem(group, (1, 3), 4)
    count = group.order + group.order**3
    with pytest.raises(ValueError, match=f"^prompt must be below {count}"):
        task.words([count])
    for prompt in (0, group.order - 1, group.order, count - 1, 57):
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
    fraction = binom.sf(needed - 1, 3, accepted / 6)
    assert reward.sum() / 216 == pytest.approx(fraction)
    prompts, generator = [4] * 4_000, torch.Generator().manual_seed(0)
    tokens, mask = task.demonstrations(prompts, 0.0, generator)
    assert task.reward(prompts, tokens[:, None], mask.sum(1)[:, None]).all()
    assert len(torch.unique(tokens, dim=0)) == round(216 * fraction)  # one missing: chance below 1e-6
    tokens, mask = task.demonstrations(prompts, 1.0, generator)
    count = int(task.reward(prompts, tokens[:, None], mask.sum(1)[:, None]).sum())
    assert surprise(np.array([count, 4_000 - count]), np.array([fraction, 1 - fraction])) > FALSE_ALARM


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
