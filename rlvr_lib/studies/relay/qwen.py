"""Chapter 3 on small Qwens: GRPO on words of several lengths, after a warm start whose teacher errs on purpose.

The testbeds are given, so that checkpoints are a sample like prompts and seeds. Responses to words of sixteen elements
are too many to enumerate, so success is counted, on prompts that stay the same along all runs of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from rlvr_lib.arguments import integer, open_unit, require
from rlvr_lib.studies.curves import first_time
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.group_tasks import WordProblem
from rlvr_lib.testbeds.qwen import QwenTestbed, WarmStart, checkpoints
from rlvr_lib.theory.groups import symmetric_group
from rlvr_lib.theory.relay import normalized_success

NOISE = 0.4
"""How often the teacher of the warm start replaces a step by a uniform element."""
SETTINGS = grpo.GRPO(learning_rate=0.03, largest_gradient=3.0)
"""Plain SGD; without the cut, at the size of most gradients, many runs crash as success nears one."""
BATCH, LOOKS = 8, 10
"""Words of a step, and how often a run is looked at after its start."""


class Ladder(NamedTuple):
    """Word lengths in eighths of the longest: those that may be trained, those that never are, and all in order."""

    trained: tuple[int, ...]
    unseen: tuple[int, ...]
    every: tuple[int, ...]

    @classmethod
    def of(cls, longest: int) -> Ladder:
        """The ladder up to a longest length, a multiple of 8."""
        require(integer("longest", longest, low=8) % 8 == 0, "longest", longest, "a multiple of 8")
        trained, unseen = ([longest * k // 8 for k in eighths] for eighths in ((1, 2, 4, 8), (3, 6)))
        return cls(tuple(trained), tuple(unseen), tuple(sorted(trained + unseen)))

    @property
    def spectra(self) -> dict[str, tuple[int, ...]]:
        """What the runs train on: ``smooth``, ``rough`` or ``single``, the longest alone."""
        return {"smooth": self.trained, "rough": (self.trained[0], self.trained[-1]), "single": self.trained[-1:]}


def warm_starts(model: str, count: int, first: int, longest: int, clean_steps: int) -> list[QwenTestbed]:
    """``count`` warm starts on words over S3, of the seeds from ``first`` on; a loaded model is a sample of one."""
    task = WordProblem(symmetric_group(3), tuple(range(1, longest + 1)))
    if model != "tiny":
        return [QwenTestbed(task, model)]
    settings = WarmStart(noise=NOISE, batch=64, clean_steps=clean_steps, noisy_steps=3 * clean_steps // 4)
    return checkpoints(range(first, first + count), settings, task=task)


def of_length(qwen: QwenTestbed, *lengths: int) -> QwenTestbed:
    """The same model, asked for words of these lengths only."""
    return qwen.with_task(WordProblem(qwen.task.group, lengths, width=qwen.task.width))


class Counts(NamedTuple):
    """How many of ``asked`` responses to the words of every length are right; the last axis of ``right`` is length."""

    lengths: tuple[int, ...]
    right: Int[np.ndarray, "... lengths"]
    asked: int
    order: int

    @property
    def y(self) -> Float[np.ndarray, "... lengths"]:
        """Success above chance."""
        return normalized_success(self.right / self.asked, self.order)

    def at(self, *lengths: int) -> Counts:
        """Only these lengths."""
        places = [self.lengths.index(length) for length in lengths]
        return self._replace(lengths=lengths, right=self.right[..., places])


def counts(qwen: QwenTestbed, lengths: Sequence[int], prompts: int, seed: int) -> Counts:
    """Right responses to random words that the seed fixes, sixteen to a word."""
    right = []
    for length in lengths:
        asked, generator = of_length(qwen, length), torch.Generator().manual_seed(seed)
        rollout = asked.rollout(asked.task.draw(prompts, generator), SETTINGS.group_size, generator)
        right.append(int(rollout.reward.sum()))
    return Counts(tuple(lengths), np.array(right), prompts * SETTINGS.group_size, qwen.task.group.order)


def run(
    qwen: QwenTestbed, spectrum: Sequence[int], lengths: Sequence[int], steps: int, prompts: int, seed: int
) -> Counts:
    """GRPO on words of a spectrum's lengths in turn: counts [looks, lengths] at the start and after every tenth of it.

    Args:
        lengths: those that are looked at, which changes nothing in the run.
        steps: a multiple of ten.
    """
    require(integer("steps", steps, low=LOOKS) % LOOKS == 0, "steps", steps, f"a multiple of {LOOKS}")
    learner = of_length(qwen.at(qwen.theta), *spectrum)
    found = [counts(learner, lengths, prompts, seed)]

    def words(generator: torch.Generator) -> list[int]:
        asked = [spectrum[k % len(spectrum)] for k in range(BATCH)]
        drawn = (torch.randint(learner.task.group.order, (n,), generator=generator).tolist() for n in asked)
        return [learner.task.prompt(word) for word in drawn]

    def look(step: grpo.Step) -> None:
        if (step.number + 1) % (steps // LOOKS) == 0:
            found.append(counts(learner, lengths, prompts, seed))

    grpo.train(learner, words, SETTINGS, steps, seed, on_step=look)
    return found[0]._replace(right=np.array([seen.right for seen in found]))


def runs(
    qwens: Sequence[QwenTestbed], spectrum: Sequence[int], lengths: Sequence[int], steps: int, prompts: int, seed: int
) -> Counts:
    """``run`` from every checkpoint, with words of its own: counts [checkpoints, looks, lengths]."""
    found = [run(qwen, spectrum, lengths, steps, prompts, seed + number) for number, qwen in enumerate(qwens)]
    return found[0]._replace(right=np.array([each.right for each in found]))


def relays(
    y: Float[np.ndarray, "runs looks 2"], floor: float = 0.1, mastered: float = 0.9
) -> Bool[np.ndarray, " runs"]:
    """Whether the longer of two lengths leaves the floor, and no later than the shorter is mastered."""
    look = np.arange(y.shape[1])
    found = first_time(look, y[..., 1], floor)
    return np.isfinite(found) & (found <= first_time(look, y[..., 0], mastered))


def measured_length(lengths: Sequence[int], y: Float[np.ndarray, " lengths"], level: float) -> float:
    """The length at which y first falls to a level, on straight lines in ln y; within the lengths."""
    fallen = -np.log(np.clip(y, 1e-3, 1.0) / open_unit("level", level))
    return float(np.interp(0.0, np.maximum.accumulate(fallen), lengths))
