"""Forests of prefixes: each distinct prefix of the responses to some prompts once, and attention along them.

A causal model computes the same for a prefix that responses share. Prompts are the trunks of a forest, responses its
branches: sampling grows one level by level, training evaluates the branches of a rollout, the oracle all of them.

An ``Attention`` is softmax(q k') v: it maps queries [N, groups, heads a group, size], and keys and values
[M, groups, size] that the heads of a group share, to [N, groups, heads a group, size]. By lists it suits many branches
and cached keys, by blocks whole prefixes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int

LARGEST_BLOCK = 128  # tokens of a prompt and its branches; beyond, a list for each token is cheaper than all pairs
VECTORIZED = 16  # torch's softmax over fewer entries is about ten times slower
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def list_attention(visible: Int[torch.Tensor, "N W"]) -> Attention:
    """Each token attends to its own list of tokens; -1 is none."""
    visible = F.pad(visible, (0, max(0, VECTORIZED - visible.shape[1])), value=-1)
    bias = torch.where(visible < 0, -torch.inf, 0.0)[:, None, None]
    seen = visible.clamp(min=0).flatten()

    def attend(q, k, v):
        shape = *visible.shape, *k.shape[1:]
        keys, values = (x.flatten(1).index_select(0, seen).view(shape).transpose(1, 2)[:, :, None] for x in (k, v))
        # With a few keys a token, products and sums are faster than batched matrix products.
        score = (q[:, :, :, None] * keys).sum(-1)
        return (torch.softmax(score + bias.to(q.dtype), -1)[..., None] * values).sum(-2)

    return attend


def block_attention(
    members: Int[torch.Tensor, "Q n"], place: Int[torch.Tensor, " N"], visible: Bool[torch.Tensor, "... n n"]
) -> Attention:
    """Tokens attend within blocks.

    Args:
        members: the tokens of every block; blocks that are not full repeat any token.
        place: where each token is among the Qn members.
        visible: for each block, or for all alike, whether a member (row) attends to a member (column).
    """
    blocks, size = members.shape
    bias = torch.where(visible, 0.0, -torch.inf)[..., None, None, :, :]

    def attend(q, k, v):
        _, groups, per_group, width = q.shape
        joined = torch.cat([q, k[:, :, None], v[:, :, None]], 2).flatten(1).index_select(0, members.flatten())
        joined = joined.view(blocks, size, groups, per_group + 2, width).permute(0, 2, 3, 1, 4)
        # The heads of a group and the tokens become one axis: one product serves all queries of a group.
        q, k, v = joined[:, :, :-2].flatten(2, 3), joined[:, :, -2], joined[:, :, -1]
        weight = torch.softmax((q @ k.mT).view(blocks, groups, per_group, size, size) + bias.to(q.dtype), -1)
        mixed = (weight.flatten(2, 3) @ v).view(blocks, groups, per_group, size, width)
        return mixed.permute(0, 3, 1, 2, 4).flatten(0, 1).index_select(0, place)

    return attend


def row_attention(rows: int, width: int) -> Attention:
    """Causal attention within each of the rows of a batch, tokens row after row."""
    members = torch.arange(rows * width).view(rows, width)
    causal = torch.arange(width) <= torch.arange(width)[:, None]
    return block_attention(members, members.flatten(), causal)


class Forest:
    """The tokens of Q prompts of P tokens each, then levels of branches, numbered by their place in their level.

    Attributes:
        tokens, positions: [N], symbol of every token and its place in its sequence.
        visible: one [n, width] array a level, the tokens that each token attends to, itself included; -1 for none.
        branch_rows: [M], the token that ends each branch, the prompts themselves first.
    """

    def __init__(self, prompts: Int[torch.Tensor, "Q P"]):
        count, self.width = prompts.shape
        self._path = torch.arange(prompts.numel()).view(count, self.width)
        causal = torch.arange(self.width) <= torch.arange(self.width)[:, None]
        self.tokens, self.positions = prompts.flatten(), torch.arange(self.width).repeat(count)
        self.visible = [torch.where(causal, self._path[:, None], -1).flatten(0, 1)]
        self.branch_rows = self._path[:, -1]

    def grow(self, parent: Int[torch.Tensor, " n"], token: Int[torch.Tensor, " n"]) -> None:
        """Append a level of n tokens to branches of the last level."""
        row = torch.arange(len(self.tokens), len(self.tokens) + len(token))
        self._path = torch.cat([self._path[parent], row[:, None]], 1)
        self.tokens = torch.cat([self.tokens, token])
        self.positions = torch.cat([self.positions, torch.full_like(token, self._path.shape[1] - 1)])
        self.branch_rows = torch.cat([self.branch_rows, row])
        self.visible.append(self._path)

    def attention(self) -> Attention:
        """Attention of every token to its own prefix: in one block a prompt where these are small, else by lists."""
        longest = self.visible[-1].shape[1]
        visible = torch.cat([F.pad(level, (0, longest - level.shape[1]), value=-1) for level in self.visible])
        trunk = visible[:, 0] // self.width
        sizes = trunk.bincount()
        size = int(sizes.max())
        if size > LARGEST_BLOCK:
            return list_attention(visible)
        by_trunk = torch.sort(trunk, stable=True)
        inside = torch.arange(len(trunk)) - torch.searchsorted(by_trunk.values, by_trunk.values)
        slot = torch.empty_like(inside).index_copy(0, by_trunk.indices, inside)
        place = trunk * size + slot
        members = torch.zeros(len(sizes) * size, dtype=torch.int64)
        members[place] = torch.arange(len(trunk))
        # A column more for the absent tokens; members that only fill a block attend to all of it.
        seen = torch.ones(len(members), size + 1, dtype=torch.bool)
        seen[place] = torch.zeros(len(trunk), size + 1, dtype=torch.bool).scatter(
            1, torch.where(visible < 0, size, slot[visible]), True
        )
        return block_attention(members.view(-1, size), place, seen[:, :size].view(-1, size, size))


def shared_prefixes(
    prompts: Int[torch.Tensor, "Q P"], tokens: Int[torch.Tensor, "B T"], mask: Bool[torch.Tensor, "B T"]
) -> tuple[Forest, Int[torch.Tensor, "B T"]]:
    """The forest of B = QG responses, group after group, and for each of their tokens the branch that emits it."""
    forest, symbols, first = Forest(prompts), int(tokens.max()) + 1, 0
    branch = torch.arange(len(prompts)).repeat_interleave(len(tokens) // len(prompts))
    emits = [branch]
    for step in range(1, tokens.shape[1]):
        going_on = mask[:, step]
        if going_on.any():
            first = len(forest.branch_rows)
            code = branch[going_on] * symbols + tokens[going_on, step - 1]
            distinct, which = torch.unique(code, return_inverse=True)
            forest.grow(distinct // symbols, distinct % symbols)
            branch = torch.zeros_like(branch).index_put((going_on,), which)
        emits.append(first + branch)
    return forest, torch.stack(emits, 1)


def all_prefixes(prompt: Int[torch.Tensor, " P"], continuations: Int[torch.Tensor, " a"], depth: int) -> Forest:
    """The forest of one prompt and all sequences of fewer than ``depth`` continuations; children are neighbours."""
    forest = Forest(prompt[None])
    for level in range(depth - 1):
        parents = torch.arange(len(continuations) ** level)
        forest.grow(parents.repeat_interleave(len(continuations)), continuations.repeat(len(parents)))
    return forest


def all_responses(alphabet: tuple[int, ...], depth: int) -> tuple[Int[torch.Tensor, "n T"], Int[torch.Tensor, " n"]]:
    """Tokens [n, depth] and lengths [n] of all responses of at most ``depth`` tokens, padded on the right with 0.

    The first symbol of the alphabet ends a response. Shorter responses come first, those without an end last.
    """
    tokens, length = _all_responses(alphabet, depth)
    return torch.tensor(tokens), torch.tensor(length)


@functools.lru_cache(maxsize=8)
def _all_responses(alphabet: tuple[int, ...], depth: int) -> tuple[np.ndarray, np.ndarray]:
    """In NumPy: tensors made, and kept, while ``torch.func`` differentiates would belong to that derivative."""
    tokens, length = [], []
    for level in range(depth + 1):
        bodies = np.array(list(itertools.product(alphabet[1:], repeat=level)), dtype=np.int64)
        rows = np.pad(bodies, ((0, 0), (0, depth - level)))
        rows[:, level : level + 1] = alphabet[0]
        tokens.append(rows)
        length.append(np.full(len(rows), min(level + 1, depth)))
    return np.concatenate(tokens), np.concatenate(length)
