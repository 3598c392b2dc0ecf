"""Two tasks over a finite group, in symbols: prompts, verifiers, teachers and a tokenizer.

``WordProblem`` has one right answer (the product of a word) that a chain of thought reaches step by step;
``ManyAnswers`` accepts a chosen fraction of all responses of the right form. A verifier sees the response only.
"""

from __future__ import annotations

import string
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int

from rlvr_lib.arguments import closed_interval, integer, require
from rlvr_lib.theory.groups import FiniteGroup, symmetric_group

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, FILLER, EQUALS, FIRST = range(5)
"""Symbols of every task; element g of the group is symbol FIRST + g."""

SMALLEST_VOCABULARY = 16
Tokens = Int[torch.Tensor, "..."]
Taught = tuple[Int[torch.Tensor, "Q T"], Bool[torch.Tensor, "Q T"]]


@dataclass(frozen=True, eq=False)
class GroupTask:
    """What the two tasks share: the symbols, and prompts of equal length that are numbered from 0.

    Attributes:
        group: whose elements are shown and written.
        lengths: how many elements a prompt shows, in the order of their numbers.
        width: places for these elements in every prompt; the longest length when not given.
    """

    group: FiniteGroup
    lengths: tuple[int, ...]
    width: int = None  # type: ignore[assignment]  # a number from __post_init__ on

    def __post_init__(self) -> None:
        distinct = 0 < len(self.lengths) == len(set(self.lengths))
        require(distinct, "lengths", self.lengths, "at least one length, none of them twice")
        object.__setattr__(self, "lengths", tuple(integer("lengths", length, low=1) for length in self.lengths))
        width = max(self.lengths) if self.width is None else integer("width", self.width, low=max(self.lengths))
        object.__setattr__(self, "width", width)

    @property
    def table(self) -> Int[torch.Tensor, "order order"]:
        """The group's Cayley table."""
        return torch.tensor(self.group.table)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Text of every symbol: single characters for up to 62 elements, at least 16 symbols in all."""
        names = string.digits + string.ascii_letters
        order = self.group.order
        elements = tuple(names[:order]) if order <= len(names) else tuple(f"g{index}" for index in range(order))
        unused = (f"<unused{index}>" for index in range(SMALLEST_VOCABULARY - FIRST - order))
        return ("<pad>", "<end>", "_", "=", *elements, *unused)

    @property
    def answers(self) -> tuple[int, ...]:
        """Symbols that a well-formed response consists of: the end, then the elements."""
        return (END, *range(FIRST, FIRST + self.group.order))

    @cached_property
    def _starts(self) -> list[int]:
        """The first prompt of every length, and the number of prompts."""
        return list(accumulate((self.group.order**length for length in self.lengths), initial=0))

    def words(self, prompts: Sequence[int]) -> list[tuple[int, ...]]:
        """The elements each prompt shows."""
        return [self._word(prompt) for prompt in prompts]

    def prompt(self, word: Sequence[int]) -> int:
        """The number of the prompt that shows a word."""
        order = self.group.order
        require(len(word) in self.lengths, "word", word, f"of a length in {self.lengths}")
        require(all(0 <= element < order for element in word), "word", word, f"of elements below {order}")
        return self._starts[self.lengths.index(len(word))] + sum(g * order**place for place, g in enumerate(word))

    def _word(self, prompt: int) -> tuple[int, ...]:
        order, prompt = self.group.order, integer("prompt", prompt, low=0)
        require(prompt < self._starts[-1], "prompt", prompt, f"below {self._starts[-1]}")
        which = bisect_right(self._starts, prompt) - 1
        return tuple((prompt - self._starts[which]) // order**place % order for place in range(self.lengths[which]))

    def draw(self, n: int, generator: torch.Generator) -> tuple[int, ...]:
        """n random prompts: a length, each equally likely, then independent uniform elements."""
        lengths = torch.randint(len(self.lengths), (n,), generator=generator).tolist()
        elements = torch.randint(self.group.order, (n, self.width), generator=generator).tolist()
        return tuple(self.prompt(word[: self.lengths[choice]]) for choice, word in zip(lengths, elements, strict=True))

    def prompt_tokens(self, prompts: Sequence[int]) -> Int[torch.Tensor, "Q P"]:
        """[Q, width + 1]: the word, fillers up to the window, an equals sign, so that operands sit at fixed places."""
        words = self.words(prompts)
        return torch.tensor([[FIRST + g for g in w] + [FILLER] * (self.width - len(w)) + [EQUALS] for w in words])

    def _well_formed(self, tokens: Tokens, length: Tokens) -> Bool[torch.Tensor, "..."]:
        """Elements, at least one, then the end; length counts the end."""
        before_end = torch.arange(tokens.shape[-1]) < length[..., None] - 1
        element = (tokens >= FIRST) & (tokens < FIRST + self.group.order)
        last = tokens.gather(-1, length[..., None] - 1)[..., 0]
        return (element | ~before_end).all(-1) & (last == END) & (length >= 2)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A word-level tokenizer of the symbols, separated by spaces; ``save_pretrained`` makes it part of a model."""
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import WhitespaceSplit
        from transformers import PreTrainedTokenizerFast

        pad, end = self.symbols[PAD], self.symbols[END]
        words = Tokenizer(WordLevel({symbol: index for index, symbol in enumerate(self.symbols)}, unk_token=pad))
        words.pre_tokenizer = WhitespaceSplit()
        special = {"pad_token": pad, "unk_token": pad, "eos_token": end}
        return PreTrainedTokenizerFast(tokenizer_object=words, padding_side="left", **special)


class WordProblem(GroupTask):
    """The product of a word of group elements, by writing the running products g1, g1 g2, ... and then the end.

    The verifier reads the last element before the end; responses of another form are wrong.
    """

    def response_limit(self, prompt: int) -> int:
        """Longest response to a prompt: as many elements as the word has, and the end."""
        return len(self._word(prompt)) + 1

    def reward(self, prompts: Sequence[int], tokens: Tokens, length: Tokens) -> Bool[torch.Tensor, "Q G"]:
        """Whether each response is correct, from tokens [Q, G, T] and lengths [Q, G]."""
        target = torch.tensor([reduce(lambda x, g: self.group.table[x, g], word, 0) for word in self.words(prompts)])
        answer = tokens.gather(-1, (length[..., None] - 2).clamp(min=0))[..., 0] - FIRST
        return self._well_formed(tokens, length) & (answer == target[:, None])

    def demonstrations(self, prompts: Sequence[int], noise: float, generator: torch.Generator) -> Taught:
        """One chain of thought for each prompt, and its mask; noise makes a step uniform, and the chain goes on.

        The teacher is right with probability 1/n + (1 - 1/n) (1 - noise)^length.
        """
        words = self.words(prompts)
        length = torch.tensor([len(word) for word in words])
        operands = torch.tensor([[*word, *[0] * (self.width - len(word))] for word in words])
        tokens = torch.full((len(words), self.width + 1), PAD)
        product, table = torch.zeros(len(words), dtype=torch.int64), self.table
        for step in range(self.width):
            random = torch.randint(self.group.order, product.shape, generator=generator)
            replaced = torch.rand(product.shape, generator=generator) < noise
            product = torch.where(replaced, random, table[product, operands[:, step]])
            tokens[:, step] = torch.where(step < length, FIRST + product, PAD)
        tokens.scatter_(1, length[:, None], END)
        return tokens, torch.arange(self.width + 1) <= length[:, None]


@dataclass(frozen=True, eq=False)
class ManyAnswers(GroupTask):
    """Write ``length`` elements, at least ``needed`` of them good: g is good where x g is low, x the element shown.

    A chosen fraction of all responses of the right form is correct, so correct responses are many and diverse.

    Attributes:
        lengths: (1,): a prompt shows one element, so its number is that element.
        length: elements a response must have before its end.
        accepted: how many elements are good, 1 to order - 1: those with x g below this.
        needed: good elements for success, 1 to ``length``.
    """

    lengths: tuple[int, ...] = (1,)
    length: int = 3
    accepted: int = 3
    needed: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lengths == (1,), "lengths", self.lengths, "(1,)")
        integer("length", self.length, low=1)
        closed_interval("accepted", integer("accepted", self.accepted, low=1), 1, self.group.order - 1)
        closed_interval("needed", integer("needed", self.needed, low=1), 1, self.length)

    def response_limit(self, prompt: int) -> int:
        """Longest response: ``length`` elements and the end."""
        self._word(prompt)
        return self.length + 1

    def reward(self, prompts: Sequence[int], tokens: Tokens, length: Tokens) -> Bool[torch.Tensor, "Q G"]:
        """Whether each response is correct, from tokens [Q, G, T] and lengths [Q, G]."""
        right_form = self._well_formed(tokens, length) & (length == self.length + 1)
        elements = torch.where(right_form[..., None], tokens - FIRST, 0)[..., : self.length].clamp(min=0)
        shown = torch.tensor(self.words(prompts))[..., None]
        good = self.table[shown, elements] < self.accepted
        return right_form & (good.sum(-1) >= self.needed)

    def demonstrations(self, prompts: Sequence[int], noise: float, generator: torch.Generator) -> Taught:
        """A uniform correct response to each prompt, its elements then replaced by uniform ones with ``noise``."""
        shape, order = (len(prompts), self.length), self.group.order
        tokens = torch.full((len(prompts), self.length + 1), END)
        length, correct = torch.full((len(prompts), 1), self.length + 1), torch.zeros(len(prompts), 1, dtype=torch.bool)
        while not correct.all():
            again = FIRST + torch.randint(order, shape, generator=generator)
            tokens[:, :-1] = torch.where(correct, tokens[:, :-1], again)
            correct = self.reward(prompts, tokens[:, None], length)
        random = FIRST + torch.randint(order, shape, generator=generator)
        replaced = torch.rand(shape, generator=generator) < noise
        tokens[:, :-1] = torch.where(replaced, random, tokens[:, :-1])
        return tokens, torch.ones(tokens.shape, dtype=torch.bool)


Task = WordProblem | ManyAnswers


def builtin_task(name: str) -> Task:
    """``word`` (words of 2 to 6 elements of S3) or ``many`` (half of all triples over S3 are correct)."""
    require(name in ("word", "many"), "task", name, "word or many")
    group = symmetric_group(3)
    return WordProblem(group, (2, 3, 4, 5, 6)) if name == "word" else ManyAnswers(group)
