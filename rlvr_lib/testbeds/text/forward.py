"""The plain Qwen forward on text: prompts and responses of different lengths, row by row or packed without padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int

from rlvr_lib.testbeds.qwen.forward import Parameters, PlainQwen, Tap, _untapped
from rlvr_lib.testbeds.qwen.prefixes import block_attention
from rlvr_lib.testbeds.text.sums import PAD


class TextQwen(PlainQwen):
    """Log-probabilities of responses to prompts that are padded on the right; the softmax is over all tokens."""

    def row_log_probs(
        self, p: Parameters, prompts: Int[torch.Tensor, "B P"], tokens: Int[torch.Tensor, "B T"], tap: Tap = _untapped
    ) -> Float[torch.Tensor, "B T"]:
        """Log-probability of each token of B responses, every row as wide as the widest: also under ``torch.func``."""
        rows, length = joined(prompts, tokens)
        positions = torch.arange(rows.shape[1]).repeat(len(rows))
        hidden, _ = self.states(p, rows.flatten(), positions, _by_rows(rows), tap=tap)
        emits = (length - 1 + torch.arange(tokens.shape[1]))[..., None]
        emitting = hidden.view(*rows.shape, -1).gather(1, emits.expand(-1, -1, hidden.shape[-1]))
        return self.read(p, emitting, tap).gather(-1, tokens[..., None])[..., 0]

    def packed_log_probs(
        self, p: Parameters, prompts: Int[torch.Tensor, "B P"], tokens: Int[torch.Tensor, "B T"],
        mask: Bool[torch.Tensor, "B T"],
    ) -> Float[torch.Tensor, "B T"]:  # fmt: skip
        """The same, 0 where masked; only attention computes with padding."""
        rows, length = joined(prompts, tokens)
        count, width = rows.shape
        place = torch.arange(width)
        # The last token of a response is not read.
        (slots,) = torch.where((place < length + mask.sum(1, keepdim=True) - 1).flatten())
        members = torch.zeros(count * width, dtype=torch.int64).index_copy(0, slots, torch.arange(len(slots)))
        attend = block_attention(members.view(count, width), slots, place <= place[:, None])
        hidden, _ = self.states(p, rows.flatten()[slots], slots % width, attend)
        row, step = torch.where(mask)
        emits = members[row * width + (length[:, 0] - 1)[row] + step]
        log_probs = self.read(p, hidden.index_select(0, emits)).gather(1, tokens[mask][:, None])[:, 0]
        order = torch.where(mask, mask.flatten().cumsum(0).view(mask.shape) - 1, len(row))
        return F.pad(log_probs, (0, 1)).index_select(0, order.flatten()).view(mask.shape)


class PackedQwen(TextQwen):
    """The same forward, packed, for what asks for rows and tells padding by its token: supervised training."""

    def row_log_probs(self, p, prompts, tokens, tap: Tap = _untapped) -> Float[torch.Tensor, "B T"]:
        """As ``packed_log_probs`` with every token that is not padding."""
        return self.packed_log_probs(p, prompts, tokens, tokens != PAD)


def joined(
    prompts: Int[torch.Tensor, "B P"], tokens: Int[torch.Tensor, "B T"]
) -> tuple[Int[torch.Tensor, "B W"], Int[torch.Tensor, "B 1"]]:
    """Each prompt and what follows it without padding between them, the last token left out; lengths of the prompts."""
    length = (prompts != PAD).sum(1, keepdim=True)
    both = torch.cat([prompts, tokens[:, :-1]], 1)
    place = torch.arange(both.shape[1])
    source = torch.where(place < length, place, place - length + prompts.shape[1])
    return both.gather(1, source.clamp(max=both.shape[1] - 1)), length


def _by_rows(rows: Int[torch.Tensor, "B W"]):
    count, width = rows.shape
    place = torch.arange(width)
    members = torch.arange(count * width)
    return block_attention(members.view(count, width), members, place <= place[:, None])
