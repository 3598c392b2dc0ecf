"""Shared prefixes and attention along them against rows that share nothing."""

import itertools

import pytest
import torch
from qwen_policies import scrambled

from rlvr_lib.testbeds.group_tasks import END, FIRST, PAD
from rlvr_lib.testbeds.qwen.prefixes import Forest, all_responses, list_attention, shared_prefixes


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
    forest = Forest(short.task.prompt_tokens([3, 30]))
    generator = torch.Generator().manual_seed(0)
    hidden, cache = short.plain.states(short.named, forest.tokens, forest.positions, list_attention(forest.visible[0]))
    levels, parents = [hidden], torch.tensor([0, 0, 1])
    for _ in range(3):
        forest.grow(parents, torch.randint(16, (len(parents),), generator=generator))
        rows = slice(-len(parents), None)
        hidden, cache = short.plain.states(
            short.named, forest.tokens[rows], forest.positions[rows], list_attention(forest.visible[-1]), cache
        )
        levels.append(hidden)
        parents = torch.arange(len(parents)).repeat_interleave(2)
    widest = forest.visible[-1].shape[1]
    visible = torch.cat([torch.nn.functional.pad(v, (0, widest - v.shape[1]), value=-1) for v in forest.visible])
    at_once, _ = short.plain.states(short.named, forest.tokens, forest.positions, list_attention(visible))
    blocks, _ = short.plain.states(short.named, forest.tokens, forest.positions, forest.attention())
    torch.testing.assert_close(torch.cat(levels), at_once, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(blocks, at_once, rtol=1e-12, atol=1e-12)


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
