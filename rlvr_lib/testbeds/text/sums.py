"""Sums in words: problems, a teacher that thinks aloud in tags, a byte-level BPE tokenizer, and a verifier.

"What is 10 plus 30 minus 7?" is answered by "<think>10 plus 30 is 40, 40 minus 7 is 33</think><answer>33</answer>". The
teacher sometimes says a step twice, so responses to one problem differ in length; all text is made here.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Int

from rlvr_lib.arguments import closed_interval, integer, require
from rlvr_lib.testbeds.text.verifier import same_number

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD, END = 0, 1
SPECIAL = ("<|pad|>", "<|end|>")
FORM = re.compile(r"<think>.*</think>\s*<answer>([^<>]{1,24})</answer>", re.DOTALL)
HASH, TENTH = 2_654_435_761, 2**32 // 10
Tokens = Int[torch.Tensor, "..."]


@dataclass(frozen=True)
class Sums:
    """Numbered problems: a start and some additions and subtractions, every running total from 0 to ``largest``.

    A problem is the list of its running totals, so each list has a number, and answers are uniform. A tenth of all
    problems, chosen by a hash of their numbers, is held out: it is never drawn for training.

    Attributes:
        largest: the largest running total.
        steps: how many additions and subtractions a problem may have, in the order of their numbers.
        again: probability that the teacher says a step a second time.
        longest: tokens after which a response is cut, and wrong.
    """

    largest: int = 99
    steps: tuple[int, ...] = (1, 2, 3)
    again: float = 0.25
    longest: int = 64

    def __post_init__(self) -> None:
        integer("largest", self.largest, low=1)
        distinct = 0 < len(self.steps) == len(set(self.steps))
        require(distinct, "steps", self.steps, "at least one number of steps, none of them twice")
        object.__setattr__(self, "steps", tuple(integer("steps", step, low=1) for step in self.steps))
        closed_interval("again", self.again, 0, 1)
        integer("longest", self.longest, low=1)

    @cached_property
    def _starts(self) -> list[int]:
        """The first problem of every number of steps, and the number of problems."""
        return list(accumulate(((self.largest + 1) ** (step + 1) for step in self.steps), initial=0))

    def totals(self, prompt: int) -> tuple[int, ...]:
        """The start of a problem, then its running totals; the last one is the answer."""
        base, prompt = self.largest + 1, integer("prompt", prompt, low=0)
        require(prompt < self._starts[-1], "prompt", prompt, f"below {self._starts[-1]}")
        which = bisect_right(self._starts, prompt) - 1
        number = prompt - self._starts[which]
        return tuple(number // base**place % base for place in range(self.steps[which] + 1))

    def prompt(self, totals: Sequence[int]) -> int:
        """The number of the problem with these running totals."""
        base = self.largest + 1
        require(len(totals) - 1 in self.steps, "totals", totals, f"of a start and {self.steps} more")
        require(all(0 <= total < base for total in totals), "totals", totals, f"from 0 to {self.largest}")
        return self._starts[self.steps.index(len(totals) - 1)] + sum(t * base**place for place, t in enumerate(totals))

    def held_out(self, prompt: int) -> bool:
        """Whether a problem is never trained on."""
        return prompt * HASH % 2**32 < TENTH

    def draw(self, n: int, generator: torch.Generator, held_out: bool = False) -> tuple[int, ...]:
        """n random problems: a number of steps, each equally likely, then uniform totals; held-out ones or others."""
        found: list[int] = []
        while len(found) < n:
            choice = torch.randint(len(self.steps), (n,), generator=generator).tolist()
            totals = torch.randint(self.largest + 1, (n, max(self.steps) + 1), generator=generator).tolist()
            drawn = (self.prompt(row[: self.steps[k] + 1]) for k, row in zip(choice, totals, strict=True))
            found += [prompt for prompt in drawn if self.held_out(prompt) == held_out]
        return tuple(found[:n])

    def question(self, prompt: int) -> str:
        """A problem in words."""
        totals = self.totals(prompt)
        return f"What is {totals[0]}{''.join(_change(*pair) for pair in pairwise(totals))}?"

    def solution(self, prompt: int, noise: float, generator: np.random.Generator) -> str:
        """What the teacher says; with probability ``noise`` a result is a uniform number, and the thought goes on.

        The teacher's answer is right with probability 1/n + (1 - 1/n) (1 - noise)^steps, n numbers being possible.
        """
        totals = self.totals(prompt)
        now, said = totals[0], []
        for pair in pairwise(totals):
            before, now = now, now + pair[1] - pair[0]
            if generator.random() < noise or not 0 <= now <= self.largest:
                now = int(generator.integers(self.largest + 1))
            step = f"{before}{_change(*pair)} is {now}"
            said += [step, step] if generator.random() < self.again else [step]
        return f"<think>{', '.join(said)}</think><answer>{now}</answer>"

    @cached_property
    def tokens(self) -> Tokenizer:
        """Byte-level BPE, trained on problems and their solutions; a digit is a token, as are the words between."""
        return _trained_tokenizer(Sums(self.largest, self.steps, self.again))

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The same tokenizer as part of a ``transformers`` model, padding on the left."""
        from transformers import PreTrainedTokenizerFast

        pad, end = SPECIAL
        return PreTrainedTokenizerFast(
            tokenizer_object=self.tokens, padding_side="left", pad_token=pad, eos_token=end,
            clean_up_tokenization_spaces=False,
        )  # fmt: skip

    def prompt_tokens(self, prompts: Sequence[int]) -> Int[torch.Tensor, "Q P"]:
        """The questions, padded on the right."""
        return _padded([self.tokens.encode(self.question(prompt)).ids for prompt in prompts])

    def response_limit(self, prompt: int) -> int:
        """Longest response to any problem."""
        self.totals(prompt)
        return self.longest

    def demonstrations(
        self, prompts: Sequence[int], noise: float, generator: torch.Generator
    ) -> tuple[Int[torch.Tensor, "Q T"], Bool[torch.Tensor, "Q T"]]:
        """What the teacher says about each problem, with the end, and its mask."""
        closed_interval("noise", noise, 0, 1)
        numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        said = [[*self.tokens.encode(self.solution(prompt, noise, numbers)).ids, END] for prompt in prompts]
        tokens = _padded(said)
        return tokens, torch.arange(tokens.shape[1]) < torch.tensor([len(ids) for ids in said])[:, None]

    def reward(self, prompts: Sequence[int], tokens: Tokens, length: Tokens) -> Bool[torch.Tensor, "Q G"]:
        """Whether each response is correct, from tokens [Q, G, T] and lengths [Q, G]."""
        groups = [
            [self.judge(prompt, ids[:n]) for ids, n in zip(rows, lengths, strict=True)]
            for prompt, rows, lengths in zip(prompts, tokens.tolist(), length.tolist(), strict=True)
        ]
        return torch.tensor(groups, dtype=torch.bool).view(length.shape)

    def judge(self, prompt: int, ids: Sequence[int]) -> bool:
        """Whether a response has ended, has the form of thought and answer, and its answer is the problem's."""
        if not ids or ids[-1] != END:
            return False
        found = FORM.fullmatch(self.tokens.decode(list(ids[:-1]), skip_special_tokens=False))
        return found is not None and same_number(found[1], self.totals(prompt)[-1])


def _change(before: int, after: int) -> str:
    return f" plus {after - before}" if after >= before else f" minus {before - after}"


def _padded(rows: Sequence[Sequence[int]]) -> Int[torch.Tensor, "Q n"]:
    width = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])


@functools.cache
def _trained_tokenizer(task: Sums, texts: int = 400) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    prompts, generator = task.draw(texts, torch.Generator().manual_seed(0)), np.random.default_rng(0)
    text = [line for prompt in prompts for line in (task.question(prompt), task.solution(prompt, 0.0, generator))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=512, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    return tokenizer
