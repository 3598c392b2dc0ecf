"""Chapter 5 on small Qwens: prices over all responses and from one batch, one step, and training at tuned rates.

The testbeds are given, so that checkpoints are a sample. A word has one right answer, which a chain of thought reaches;
of the triples of the other task half are right. An energy is |s|^2 of one response.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, require
from rlvr_lib.studies.threshold.qwen import words
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.group_tasks import ManyAnswers, WordProblem
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed, WarmStart, checkpoints
from rlvr_lib.testbeds.qwen.prefixes import shared_prefixes
from rlvr_lib.testbeds.scores import Recorder
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.baseline import LaggedBaseline, baseline_of_sums, second_moment, token_energies
from rlvr_lib.theory.groups import symmetric_group

WORD, MANY = "word problem", "many answers"
METHODS = RLOO, ZERO, LAGGED = "RLOO", "zero baseline", "lagged b*"
EXACT, LENGTH, STAND_INS = "exact", "length", ("last layer", "output head", "token proxy")
"""Of the stand-ins two are the part of the energy in these parameters, the third is that in the logits."""
BATCH, GROUP, GUESS, FARTHEST = 8, 4, 0.02, 5
"""Prompts a step, responses a prompt, the rate tried first, and how many doublings away from it others may lie."""


def warm_starts(model: str, count: int, first: int = 0) -> dict[str, list[QwenTestbed]]:
    """For each task ``count`` warm starts, of the seeds from ``first`` on; a loaded model is a sample of one."""
    group, seeds = symmetric_group(3), range(first, first + count)
    many = ManyAnswers(group)
    if model == "tiny":
        one, several = checkpoints(seeds), checkpoints(seeds, WarmStart(noise=0.5), task=many)
    else:
        one, several = [QwenTestbed(model=model)], [QwenTestbed(many, model=model)]
    return {WORD: [qwen.with_task(WordProblem(group, (3,), 6)) for qwen in one], MANY: several}


def prompts(qwen: QwenTestbed, count: int, seed: int | Sequence[int]) -> list[int]:
    """Different random prompts of the task, as a seed orders them, or all of them where there are not so many."""
    (length,) = qwen.task.lengths
    return words(qwen, length, min(count, qwen.task.group.order**length), seed)


@torch.no_grad()
def success(qwen: QwenTestbed, judges: Sequence[int]) -> float:
    """Mean success rate of some prompts, over all responses."""
    with grpo.one_thread():
        return float(np.mean([qwen.success(prompt, qwen.named).item() for prompt in judges]))


def energies(qwen: QwenTestbed, rollout: Rollout, kind: str = EXACT) -> Float[np.ndarray, " B"]:
    """The energy of every response, a stand-in for it, or the ``length`` of the response."""
    require(kind in (EXACT, LENGTH, *STAND_INS), "kind", kind, f"{EXACT}, {LENGTH}, {', '.join(STAND_INS)}")
    trunks = qwen.task.prompt_tokens(rollout.prompts)
    if kind == LENGTH:
        return rollout.length.double().numpy()
    if kind == "token proxy":
        forest, emits = shared_prefixes(trunks, rollout.tokens, rollout.mask)
        with torch.no_grad():
            collision = (2 * qwen.plain.branch_log_probs(qwen.named, forest).double()).exp().sum(-1)[emits]
            log_prob = qwen.token_log_probs(rollout).double()
        return token_energies(log_prob, collision.clamp(max=1.0), rollout.mask.double())
    p, recorder = {name: value.detach() for name, value in qwen.named.items()}, Recorder()
    rows = trunks.repeat_interleave(rollout.reward.shape[1], 0)
    log_prob = torch.where(rollout.mask, qwen.plain.row_log_probs(p, rows, rollout.tokens, recorder), 0.0).sum(-1)
    if kind != EXACT:  # embeddings that are looked up, by whole numbers, are not the head
        last, head = (f"model.layers.{qwen.plain.layers - 1}.",), ("lm_head.weight", "model.embed_tokens.weight")
        products, kept = recorder.products, last if kind == "last layer" else head
        recorder.products = [part for part in products if part[0].startswith(kept) and part[1].is_floating_point()]
    return recorder.squared_norms(log_prob, p).double().numpy()


class Point(NamedTuple):
    """A prompt of a policy, over all responses: success J, |grad J|^2, E[r |s|^2], E[(1 - r) |s|^2], best baselines."""

    success: float
    signal: float
    right: float
    wrong: float
    best: dict[str, float]

    @property
    def ratio(self) -> float:
        """The energy ratio x = e- / e+."""
        return self.wrong * self.success / (self.right * (1 - self.success))

    @property
    def snr(self) -> float:
        """|grad J|^2 over the variance of one response under b*."""
        return self.signal / self.variance(self.best[EXACT])

    def variance(self, baseline: float) -> float:
        """Of the gradient from one response."""
        return float(second_moment(self.right, self.wrong, np.float64(baseline))) - self.signal

    def excess(self, baseline: float) -> float:
        """The ratio of variances with this baseline and with b*."""
        return self.variance(baseline) / self.variance(self.best[EXACT])


def point(qwen: QwenTestbed, prompt: int, kinds: Sequence[str] = ()) -> Point:
    """The point of one prompt; ``best`` has b* from the energies and from other ``kinds`` of them."""
    (tokens, length), (J, gradient) = qwen.responses(prompt), qwen.exact(prompt)
    reward = qwen.task.reward([prompt], tokens[None], length[None]).double().numpy()
    rollout = Rollout((prompt,), tokens, torch.arange(tokens.shape[1]) < length[:, None], reward)
    with grpo.one_thread():
        with torch.no_grad():
            prob = qwen.token_log_probs(rollout).double().sum(-1).exp().numpy()
        weight = {kind: prob * energies(qwen, rollout, kind) for kind in (EXACT, *kinds)}
    best = {kind: float(baseline_of_sums(w @ reward[0], w.sum())) for kind, w in weight.items()}
    right, wrong = weight[EXACT] @ reward[0], weight[EXACT] @ (1 - reward[0])
    return Point(J, float(gradient @ gradient), float(right), float(wrong), best)


def read_batch(qwen: QwenTestbed, prompt: int, size: int, seed: Sequence[int]) -> list[tuple[float, float]]:
    """Success and energy ratio as a batch of one prompt shows them, from energies and from the token proxy.

    The ratio is not a number where all responses are right, or wrong.
    """
    with grpo.one_thread():
        generator = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**32)))
        rollout = qwen.rollout([prompt], size, generator)
        energy, right = [energies(qwen, rollout, kind) for kind in (EXACT, "token proxy")], rollout.reward[0] == 1
    ratios = [e[~right].mean() / e[right].mean() if 0 < right.sum() < size else np.nan for e in energy]
    return [(float(right.mean()), float(ratio)) for ratio in ratios]


class Run(NamedTuple):
    """The share of right responses in every batch, success in the end, and parameters at first, half-way and then."""

    curve: Float[np.ndarray, " steps"]
    final: float
    theta: list[np.ndarray]


def train(qwen: QwenTestbed, method: str, rate: float, steps: int, seed: int, judges: Sequence[int]) -> Run:
    """Plain gradient steps on fresh prompts; success in the end is that of the judges, over all responses."""
    require(method in METHODS, "method", method, f"one of {', '.join(METHODS)}")
    policy, lagged, theta = qwen.at(qwen.theta), LaggedBaseline(), []

    def past(policy: Any, rollout: Rollout) -> Float[np.ndarray, ""]:
        value = np.asarray(lagged.value)
        lagged.update(rollout.reward, energies(policy, rollout).reshape(rollout.reward.shape))
        return value

    def keep(step: grpo.Step) -> None:
        if step.number in (0, steps // 2):
            theta.append(step.before.double().numpy())

    baseline = past if method == LAGGED else None
    settings = grpo.GRPO(GROUP, "rloo" if method == RLOO else "reinforce", baseline, learning_rate=rate)
    rows = grpo.train(policy, partial(policy.task.draw, BATCH), settings, steps, seed, keep)
    return Run(np.array([row["success_rate"] for row in rows]), success(policy, judges), [*theta, policy.theta])


class Tuned(NamedTuple):
    """Runs on fresh seeds at the rate that was best on the tuning seeds, and whether worse ones lie on both sides."""

    rate: float
    interior: bool
    runs: list[Run]

    @property
    def final(self) -> Float[np.ndarray, " runs"]:
        """Success in the end."""
        return np.array([run.final for run in self.runs])


def tuned(qwen: QwenTestbed, method: str, steps: int, tuning: int, fresh: int, seed: int) -> Tuned:
    """Doublings of a rate are tried until the best of them, in mean final success, has a worse one on either side.

    The seeds count up from ``seed``: so many ``fresh`` ones, then those for ``tuning``.
    """
    judges, found, best = prompts(qwen, 12, seed), dict[int, float](), 0

    def runs(k: int, first: int, count: int) -> list[Run]:
        return [train(qwen, method, GUESS * 2.0**k, steps, first + one, judges) for one in range(count)]

    while not {best - 1, best + 1} <= found.keys() and abs(best) < FARTHEST:
        for k in {best - 1, best, best + 1} - found.keys():
            found[k] = float(np.mean([run.final for run in runs(k, seed + fresh, tuning)]))
        best = max(found, key=found.__getitem__)
    return Tuned(GUESS * 2.0**best, abs(best) < FARTHEST, runs(best, seed, fresh))


class OneStep(NamedTuple):
    """Exact mean gain of a sampled step at multiples of a rate, the mean slope and curvature on the way, and the SNR.

    The rate of one is that at the top of the parabola of slope and curvature, or at its mirror image's if it has none.
    """

    gain: Float[np.ndarray, " multiples"]
    slope: float
    curvature: float
    snr: float

    def promised(self, multiple: ArrayLike, curved: bool = True) -> Reals:
        """The gain of the parabola, or of its tangent, at multiples of the rate."""
        x, bend = np.asarray(multiple, float), np.sign(self.curvature) * curved
        return self.slope**2 / abs(self.curvature) * (x + bend * x**2 / 2)


def one_step(qwen: QwenTestbed, chosen: Sequence[int], replicas: int, multiples: ArrayLike, seed: int) -> OneStep:
    """Steps of RLOO in groups of sixteen; slope and curvature of success are exact, along the sampled gradients."""
    generator, rows = torch.Generator().manual_seed(seed), []
    with grpo.one_thread():
        for _ in range(replicas):
            rollout = qwen.rollout(chosen, 16, generator)
            advantage = torch.tensor(group_advantages(rollout.reward, "rloo")).flatten()
            gain = (qwen.token_log_probs(rollout).sum(-1) * advantage).mean()
            rows.append(grpo.flat(torch.autograd.grad(gain, qwen.parameters())).double().numpy())
    _, slope, curvature = np.mean([[qwen.along(prompt, row) for prompt in chosen] for row in rows], axis=(0, 1))
    rates, exact = np.asarray(multiples) * slope / abs(curvature), np.mean([qwen.exact(q)[1] for q in chosen], 0)
    ends = [[success(qwen.at(qwen.theta + rate * row), chosen) for rate in rates] for row in rows]
    noise = np.mean([((row - exact) ** 2).sum() for row in rows])
    gains = np.mean(ends, 0) - success(qwen, chosen)
    return OneStep(gains, float(slope), float(curvature), float(exact @ exact / noise))
