"""The one interface of all testbeds, and what the trainable ones exchange with the GRPO loop.

``SoftmaxBandit``, ``TransformerTestbed`` and ``QwenTestbed`` use the same words. Their exact methods compute in float64
over all responses to a prompt; log-odds, and the gap as their gradient, keep their digits where success rounds to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals
from rlvr_lib.responses import Responses


class Testbed(Protocol):
    """A policy at parameters theta [d], whose responses to numbered prompts can be enumerated and sampled.

    ValueErrors name a number that is not a prompt, a vector that is not d finite numbers, another quantity, n below 1,
    a prompt with more responses than fit, and, for log-odds, one whose responses are all correct or all wrong.
    """

    @property
    def theta(self) -> Float[np.ndarray, " d"]:
        """A copy of the parameters."""

    def at(self, theta: ArrayLike) -> Self:
        """The same testbed at other parameters [d], which are copied."""

    def enumerate(self, prompt: int) -> Responses:
        """All responses to a prompt with their probabilities and scores."""

    def exact(self, prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
        """Success rate J and its gradient."""

    def sample(self, prompt: int, n: int, seed: int) -> Responses:
        """n independent responses, each with weight 1/n."""

    def log_odds_and_gap(self, prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
        """log(J / (1 - J)) and its gradient, the gradient gap."""

    def along(self, prompt: int, direction: ArrayLike, of: str = "success") -> tuple[float, float, float]:
        """``success`` or ``log_odds``, and its first and second derivative by multiples of a direction [d]."""

    def odds_along(self, prompt: int, direction: ArrayLike, steps: ArrayLike) -> Reals:
        """Log-odds of success at theta + step * direction for every step, in the shape of ``steps``."""


@dataclass(frozen=True)
class Rollout:
    """Q groups of G sampled responses, B = Q G rows, group after group.

    Attributes:
        prompts: Q prompt indices of the testbed.
        tokens: the response tokens, padded on the right.
        mask: true on the tokens of the response (its end token included).
        reward: 0 or 1.
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
    """What the GRPO loop asks of a policy."""

    def parameters(self) -> list[torch.Tensor]:
        """The trainable tensors, in a fixed order."""

    def rollout(self, prompts: Sequence[int], group_size: int, generator: torch.Generator) -> Rollout:
        """Sample ``group_size`` responses to each prompt from the current policy, without gradients."""

    def token_log_probs(self, rollout: Rollout) -> Float[torch.Tensor, "B T"]:
        """Log-probability of each response token under the current policy (0 where masked), differentiable."""
