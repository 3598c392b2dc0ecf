"""What ``rlvr train --engine trl`` trains on: prompts as a data set, and a verifier of their responses.

Answers in mathematics are judged by TRL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets, load_dataset
from math_verify import parse
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from trl.rewards import accuracy_reward

from rlvr_lib.arguments import require
from rlvr_lib.testbeds.group_tasks import PAD, Task, builtin_task
from rlvr_lib.testbeds.text import Sums

GROUP_TASKS = {"group-word": "word", "word": "word", "many": "many"}
TEXT = "text"
MATH_SUBJECTS = "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus"
HUB = {"gsm8k": ("openai/gsm8k", ("main",)), "math": ("EleutherAI/hendrycks_math", MATH_SUBJECTS.split())}
QUESTIONS, ANSWERS = ("question", "problem", "prompt"), ("answer", "solution")
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
PROMPTS = ("chat", "plain")


@dataclass(frozen=True)
class TrainingTask:
    """Prompts and the function that judges responses to them; ``longest`` bounds a response where the task does."""

    data: Dataset
    reward: Callable[..., Sequence[float | None]]
    longest: int | None = None


def built_in(name: str, seed: int = 0) -> TrainingTask | None:
    """A task that the project makes, its prompts drawn with a seed; None for another name."""
    if name == TEXT:
        return text_task(Sums(), seed=seed)
    return group_task(builtin_task(GROUP_TASKS[name]), seed=seed) if name in GROUP_TASKS else None


def group_task(task: Task, rows: int = 4096, seed: int = 0) -> TrainingTask:
    """A task over a finite group, its prompts drawn with a seed, written as symbols with spaces between them."""
    prompts = task.draw(rows, torch.Generator().manual_seed(seed))
    text = [" ".join(task.symbols[token] for token in row) for row in task.prompt_tokens(prompts).tolist()]

    def verifier(completion_ids: Sequence[Sequence[int]], prompt_number: Sequence[int], **_: Any) -> list[float]:
        rows = [torch.tensor(ids, dtype=torch.long) for ids in completion_ids]
        tokens, length = pad_sequence(rows, True, PAD), torch.tensor([[len(row)] for row in rows])
        return task.reward(prompt_number, tokens[:, None], length)[:, 0].double().tolist()

    data = Dataset.from_dict({"prompt": text, "prompt_number": list(prompts)})
    return TrainingTask(data, verifier, max(task.response_limit(prompt) for prompt in set(prompts)))


def text_task(task: Sums, rows: int = 4096, seed: int = 0) -> TrainingTask:
    """Sums in words, none of them held out, drawn with a seed; answers are judged as the testbed judges them."""
    prompts = task.draw(rows, torch.Generator().manual_seed(seed))

    def verifier(completion_ids: Sequence[Sequence[int]], prompt_number: Sequence[int], **_: Any) -> list[float]:
        return [float(task.judge(*pair)) for pair in zip(prompt_number, completion_ids, strict=True)]

    data = Dataset.from_dict({"prompt": [task.question(prompt) for prompt in prompts], "prompt_number": list(prompts)})
    return TrainingTask(data, verifier, task.longest)


def math_task(name: str, data: str | None, tokenizer: PreTrainedTokenizerBase, style: str) -> TrainingTask:
    """Questions with an answer that math-verify can read: TRL would skip a row whose answer it cannot.

    Args:
        name: ``gsm8k``, ``math`` or a JSON-lines file with a question and an answer a line.
        data, style: see ``rlvr_lib.trl.run.Inputs``.
        tokenizer: of the model; for ``chat`` it needs a template.
    """
    known = name in HUB or name.endswith((".jsonl", ".json"))
    require(known, "task", name, f"one of {', '.join([*GROUP_TASKS, TEXT, *HUB])}, or a .jsonl file")
    require(style in PROMPTS, "prompt", style, f"one of {', '.join(PROMPTS)}")
    found, wanted = _read(name, data), "one whose tokenizer has a chat template, or used with --prompt plain"
    require(style == "plain" or bool(tokenizer.chat_template), "model", "a tokenizer without a chat template", wanted)
    rows: dict[str, list] = {"prompt": [], "solution": []}
    for number, row in enumerate(found, 1):
        where = f"row {number} of {data or name}"
        asked, answer = f"{_field(where, row, QUESTIONS)}\n{INSTRUCTION}", final_answer(_field(where, row, ANSWERS))
        solution = f"\\boxed{{{answer}}}"
        readable = answer.lstrip("-").isdigit() or bool(parse(solution))
        require(readable, where, repr(answer), "an answer that math-verify can read")
        rows["prompt"].append([{"role": "user", "content": asked}] if style == "chat" else f"{asked}\n")
        rows["solution"].append(solution)
    return TrainingTask(Dataset.from_dict(rows), math_verifier)


def math_verifier(completions: Sequence[Any], solution: Sequence[str], **columns: object) -> list[float | None]:
    """TRL's ``accuracy_reward``, also for responses that are not chats: 1 where the answer is the given one, else 0.

    An answer counts in a box, as the prompt asks for it, or in LaTeX that is said to be the answer.
    """
    chats = [[{"content": said}] if isinstance(said, str) else said[-1:] for said in completions]
    return accuracy_reward(chats, solution, **columns)


def final_answer(text: str) -> str:
    """The answer in a worked solution: what follows ``####`` (GSM8K), or is in the last box (MATH), or all of it."""
    if "####" in text:
        return text.rsplit("####", 1)[1].strip().replace(",", "")
    _, box, rest = text.rpartition("\\boxed{")
    depth = 1
    for place, letter in enumerate(rest if box else ""):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0:
            return rest[:place].strip()
    return text.strip()


def _read(name: str, data: str | None) -> Dataset:
    """The rows of a local file, a local folder, or a name on the hub."""
    source = data or (None if name in HUB else name)
    if source is not None and source.endswith((".jsonl", ".json")):
        require(Path(source).is_file(), "data" if data else "task", source, "a file that exists")
    repository, subsets = HUB[name] if source is None else (source, (None,))
    try:
        if Path(repository).is_file():
            kind = "parquet" if repository.endswith(".parquet") else "json"
            return load_dataset(kind, data_files=repository, split="train")
        return concatenate_datasets([load_dataset(repository, subset, split="train") for subset in subsets])
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        allowed = "a readable file or folder, or a name that the hub can be asked for"
        raise ValueError(f"data must be {allowed}, got {repository!r}: {reason}") from None


def _field(where: str, row: dict, names: Sequence[str]) -> str:
    found = [row[name] for name in names if row.get(name) not in (None, "")]
    require(bool(found), where, sorted(row), f"one with {' or '.join(names)}")
    return str(found[0])
