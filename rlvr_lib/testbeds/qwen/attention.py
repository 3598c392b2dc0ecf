"""Which tokens attend to which: softmax(q k') v by lists, which suit many branches and cached keys, or by blocks.

An ``Attention`` maps queries [N, groups, heads a group, size], and keys and values [M, groups, size] that the heads of
a group share, to [N, groups, heads a group, size].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

VECTORIZED = 16
"""Torch's softmax over fewer entries is about ten times slower."""


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
