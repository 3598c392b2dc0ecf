"""What a trainable testbed and the GRPO loop exchange: sampled groups, and the log-probabilities of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Rollout:
    """Q groups of G sampled responses, B = Q G rows, group after group.

    Attributes:
        prompts: Q prompt indices of the testbed.
        tokens: [B, T], the response tokens, padded on the right.
        mask: [B, T], true on the tokens of the response (its end token included).
        reward: [Q, G], 0 or 1.
    """

    prompts: tuple[int, ...]
    tokens: Int[torch.Tensor, "B T"]
    mask: Bool[torch.Tensor, "B T"]
    reward: Float[np.ndarray, "Q G"]

    @property
    def length(self) -> Int[torch.Tensor, " B"]:
        """[B], response lengths in tokens."""
        return self.mask.sum(-1)


class TrainablePolicy(Protocol):
    """What the GRPO loop asks of a testbed."""

    def parameters(self) -> list[torch.Tensor]:
        """The trainable tensors, in a fixed order."""

    def rollout(self, prompts: Sequence[int], group_size: int, generator: torch.Generator) -> Rollout:
        """Sample ``group_size`` responses to each prompt from the current policy, without gradients."""

    def token_log_probs(self, rollout: Rollout) -> Float[torch.Tensor, "B T"]:
        """Log-probability of each response token under the current policy (0 where masked), differentiable."""
