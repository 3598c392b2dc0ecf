"""What ``rlvr train --engine trl`` trains on: prompts as a data set, and a verifier of their responses.

The group tasks of the book, GSM8K, MATH, and any file with a question and an answer a line. Answers in mathematics are
judged by TRL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlvr_lib.arguments import require
from rlvr_lib.testbeds.group_tasks import PAD, Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

GROUP_TASKS = {"group-word": "word", "word": "word", "many": "many"}
HUB = {"gsm8k": ("openai/gsm8k", "main"), "math": ("EleutherAI/hendrycks_math", None)}
MATH_SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip
QUESTIONS, ANSWERS = ("question", "problem", "prompt"), ("answer", "solution")
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
PROMPTS = ("chat", "plain")

Reward = Callable[..., Sequence[float | None]]


@dataclass(frozen=True)
class TrainingTask:
    """Prompts and the function that judges responses to them; ``longest`` bounds a response where the task does."""

    data: Dataset
    reward: Reward
    longest: int | None = None


def group_task(task: Task, rows: int = 4096, seed: int = 0) -> TrainingTask:
    """A task over a finite group, its prompts drawn with a seed, written as symbols with spaces between them."""
    from datasets import Dataset

    prompts = task.draw(rows, torch.Generator().manual_seed(seed))
    text = [" ".join(task.symbols[token] for token in row) for row in task.prompt_tokens(prompts).tolist()]

    def verifier(completion_ids: Sequence[Sequence[int]], prompt_number: Sequence[int], **_: Any) -> list[float]:
        length = torch.tensor([[len(row)] for row in completion_ids])
        tokens = torch.full((len(length), int(length.max())), PAD)
        for row, ids in zip(tokens, completion_ids, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return task.reward(prompt_number, tokens[:, None], length)[:, 0].double().tolist()

    data = Dataset.from_dict({"prompt": text, "prompt_number": list(prompts)})
    return TrainingTask(data, verifier, max(task.response_limit(prompt) for prompt in set(prompts)))


def math_task(name: str, data: str | None, tokenizer: PreTrainedTokenizerBase, style: str) -> TrainingTask:
    """Questions with an answer that math-verify can read: TRL would skip a row whose answer it cannot.

    Args:
        name: ``gsm8k``, ``math`` or a JSON-lines file with a question and an answer a line.
        data: for the first two, a local file or folder, or a name on the hub, in place of the usual one.
        tokenizer: of the model.
        style: ``chat`` (the tokenizer's chat template) or ``plain`` (question, instruction, nothing else).
    """
    from datasets import Dataset
    from math_verify import parse

    known = name in HUB or name.endswith((".jsonl", ".json"))
    require(known, "task", name, f"one of {', '.join([*GROUP_TASKS, *HUB])}, or a .jsonl file")
    require(style in PROMPTS, "prompt", style, f"one of {', '.join(PROMPTS)}")
    rows = _read(name, data)
    wanted = "one whose tokenizer has a chat template, or used with --prompt plain"
    require(style == "plain" or bool(tokenizer.chat_template), "model", "a tokenizer without a chat template", wanted)
    source = data or name
    questions = [_field(source, number, row, QUESTIONS) for number, row in enumerate(rows, 1)]
    answers = [final_answer(_field(source, number, row, ANSWERS)) for number, row in enumerate(rows, 1)]
    solutions = [f"\\boxed{{{answer}}}" for answer in answers]
    for number, (answer, solution) in enumerate(zip(answers, solutions, strict=True), 1):
        readable = answer.lstrip("-").isdigit() or bool(parse(solution))
        require(readable, f"row {number} of {source}", repr(answer), "an answer that math-verify can read")
    asked = [f"{question}\n{INSTRUCTION}" for question in questions]
    chats = [[{"role": "user", "content": prompt}] for prompt in asked]
    prompts = chats if style == "chat" else [f"{prompt}\n" for prompt in asked]
    return TrainingTask(Dataset.from_dict({"prompt": prompts, "solution": solutions}), math_verifier)


def math_verifier(completions: Sequence[Any], solution: Sequence[str], **columns: object) -> list[float | None]:
    """TRL's ``accuracy_reward``, also for responses that are not chats: 1 where the answer is the given one, else 0.

    An answer counts in a box, as the prompt asks for it, or in LaTeX that is said to be the answer.
    """
    from trl.rewards import accuracy_reward

    chats = [[{"content": said}] if isinstance(said, str) else said[-1:] for said in completions]
    return accuracy_reward(chats, solution, **columns)


def final_answer(text: str) -> str:
    """The answer in a worked solution: what follows ``####`` (GSM8K), or is in the last box (MATH), or all of it."""
    if "####" in text:
        return text.rsplit("####", 1)[1].strip().replace(",", "")
    start = text.rfind("\\boxed{")
    if start < 0:
        return text.strip()
    depth, inside = 1, start + len("\\boxed{")
    for place in range(inside, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[inside:place].strip()
    return text.strip()


def _read(name: str, data: str | None) -> Dataset:
    """The rows of a local file, a local folder, or a name on the hub."""
    from datasets import concatenate_datasets, load_dataset

    source = data or (name if name not in HUB else None)
    if source is not None and source.endswith((".jsonl", ".json")):
        require(Path(source).is_file(), "task" if data is None else "data", source, "a file that exists")
    repository, subset = (source, None) if source is not None else HUB[name]
    try:
        if Path(repository).is_file():
            kind = "parquet" if repository.endswith(".parquet") else "json"
            return load_dataset(kind, data_files=repository, split="train")
        if source is None and name == "math":
            return concatenate_datasets([load_dataset(repository, part, split="train") for part in MATH_SUBJECTS])
        return load_dataset(repository, subset, split="train")
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"data must be a readable file or folder, or a name that the hub can be asked for, got {repository!r}:"
            f" {reason}"
        ) from None


def _field(source: str, number: int, row: dict, names: Sequence[str]) -> str:
    found = [row[name] for name in names if row.get(name) not in (None, "")]
    require(bool(found), f"row {number} of {source}", sorted(row), f"one with {' or '.join(names)}")
    return str(found[0])
