"""Partial credit on the two networks: the share of right running products, as graded reward and as a mean of tasks.

A chain of h steps is graded by how many of its running products are right. As a reward of whole responses it is what
``coin_responses`` takes; as a mean of h tasks, "is step k right?", its mean and gradient come from the testbeds' own
exact methods, which know no graded rewards. So the two can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from rlvr_lib.arguments import integer, require
from rlvr_lib.testbeds.group_tasks import FIRST, Tokens, WordProblem
from rlvr_lib.testbeds.policy import Testbed
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.testbeds.transformer.problems import WordProblems, running_products


@dataclass(frozen=True, eq=False)
class StepRight(WordProblem):
    """A word problem of which one place is verified: does the response have the right running product there?

    Attributes:
        step: the place, counted from 1; past the end of a word nothing is right.
    """

    step: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("step", self.step, low=1)

    def reward(self, prompts: Sequence[int], tokens: Tokens, length: Tokens) -> Bool[torch.Tensor, "Q G"]:
        """Whether each response is right at that place, whatever its form, from tokens [Q, G, T] and lengths [Q, G]."""
        words = [word if len(word) >= self.step else None for word in self.words(prompts)]
        if self.step > tokens.shape[-1]:
            return torch.zeros(length.shape, dtype=torch.bool)
        product = [self._product(word) if word else -1 - FIRST for word in words]
        written = tokens[..., self.step - 1] == FIRST + torch.tensor(product)[:, None]
        return written & (length >= self.step)

    def _product(self, word: tuple[int, ...]) -> int:
        done = 0
        for element in word[: self.step]:
            done = int(self.group.table[done, element])
        return done


def qwen_steps(qwen: QwenTestbed, length: int) -> list[QwenTestbed]:
    """The same Qwen on ``length`` tasks: is the first running product right, is the second, and so on."""
    task = qwen.task
    return [
        qwen.with_task(StepRight(task.group, task.lengths, task.width, step))
        for step in range(1, integer("length", length, low=1) + 1)
    ]


def qwen_credit(steps: Sequence[QwenTestbed], prompt: int) -> Float[np.ndarray, " n"]:
    """The share of the steps that each response to a prompt has right, in the order of ``enumerate``."""
    tokens, length = steps[0].responses(prompt)
    right = [each.task.reward([prompt], tokens[None], length[None])[0] for each in steps]
    return torch.stack(right).double().mean(0).numpy()


def transformer_steps(testbed: TransformerTestbed) -> list[TransformerTestbed]:
    """The same transformer on the first step of its chains only, on the first two, and so on; one horizon for all."""
    problems = testbed.problems
    require(len(problems.horizons) == 1, "testbed", problems.horizons, "one of prompts of one horizon")
    return [
        TransformerTestbed(testbed.policy, _cut(problems, step), testbed.theta)
        for step in range(1, problems.horizons[0] + 1)
    ]


def _cut(problems: WordProblems, step: int) -> WordProblems:
    horizon = torch.full_like(problems.horizon, step)
    return WordProblems(problems.group, horizon, problems.name[:, :step], problems.element)


def transformer_credit(testbed: TransformerTestbed, prompt: int) -> Float[np.ndarray, " n"]:
    """The share of the running products that each response to a prompt has right, in the order of ``enumerate``."""
    chosen = testbed.problems.select([prompt])
    order, right = chosen.group.order, chosen.right[:, 0]
    digits: Int[torch.Tensor, "n h"] = torch.cartesian_prod(*[torch.arange(order)] * len(right)).reshape(-1, len(right))
    return (digits == running_products(chosen.group, right)).double().mean(1).numpy()


def mean_success(steps: Sequence[Testbed], prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
    """Mean of the success rates of several testbeds of the same parameters, and its gradient [d]."""
    values = [each.exact(prompt) for each in steps]
    return float(np.mean([J for J, _ in values])), np.mean([gradient for _, gradient in values], axis=0)
