"""A Qwen testbed: sampled and trained like any policy, and enumerated exactly in float64.

The policy answers a ``GroupTask``. Its softmax is over an alphabet of symbols, and a response ends with the end
symbol or at the task's limit, so the tree of all responses is finite and their probabilities sum to 1: 1,555
responses to a word of 3 elements of a group of order 6, or 54,241 with all 16 symbols.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, integer, real_array, require, require_shape
from rlvr_lib.responses import Responses
from rlvr_lib.testbeds.group_tasks import END, PAD, Task, builtin_task
from rlvr_lib.testbeds.grpo import flat, one_thread
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen.forward import Parameters, PlainQwen, load_model, quiet, task_vocabulary, tiny_model
from rlvr_lib.testbeds.qwen.prefixes import Forest, all_prefixes, all_responses, list_attention, shared_prefixes
from rlvr_lib.testbeds.qwen.warm_start import WarmStart, warm_started
from rlvr_lib.testbeds.scores import Recorder, per_sample_scores

MOST_PREFIXES = 60_000
MOST_SCORE_BYTES = 4 * 2**30


class QwenTestbed:
    """A Qwen2 or Qwen3 that answers a task; a ``TrainableTestbed``.

    Flat vectors (scores, gradients, directions) have one entry for each trainable number, in the order of
    ``named_parameters()`` of the ``transformers`` model, row-major; a tied embedding counts once. Prompts of more than
    60,000 prefixes that go on are refused, and scores of more than 4 GiB (``exact`` needs none).

    Args:
        task: what it answers; the word problem over S3 when not given.
        model: ``tiny`` (a new Qwen of about 75,000 parameters), a folder with a checkpoint, or a name on the hub. The
            symbols of the task must be single tokens of a loaded model's tokenizer.
        warm_start: supervised training of the tiny model, cached; None leaves it untrained. A loaded model gets none.
        alphabet: ``answers`` (the end and the group's elements) or ``vocabulary`` (all symbols).
        family: ``qwen3`` or ``qwen2``, of the tiny model.
        dtype: of the trained parameters. The exact methods always compute in float64 at these parameters.
        progress: show a bar while the warm start trains.
    """

    def __init__(
        self,
        task: Task | None = None,
        model: str = "tiny",
        warm_start: WarmStart | None = WarmStart(),  # noqa: B008 - immutable
        alphabet: str = "answers",
        family: str = "qwen3",
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
    ):
        self.task = builtin_task("word") if task is None else task
        require(alphabet in ("answers", "vocabulary"), "alphabet", alphabet, "answers or vocabulary")
        symbols = len(self.task.symbols)
        everything = (END, *(symbol for symbol in range(symbols) if symbol != END))
        emitted = self.task.answers if alphabet == "answers" else everything
        if model == "tiny":
            self.model = tiny_model(symbols, warm_start.seed if warm_start else 0, family)
            self.tokenizer = self.task.tokenizer()
            self.plain = PlainQwen(self.model, None, emitted)
            if warm_start:
                warm_started(self.model, self.plain, self.task, warm_start, progress)
        else:
            self.model, self.tokenizer = load_model(model)
            self.plain = PlainQwen(self.model, task_vocabulary(self.tokenizer, self.task, emitted), emitted)
        self.model.to(dtype)
        self.named = dict(self.model.named_parameters())

    def save(self, folder: Path) -> None:
        """Write model and tokenizer as a checkpoint that ``model=folder`` and ``from_pretrained`` read."""
        with quiet():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def with_task(self, task: Task) -> QwenTestbed:
        """The same model, its parameters shared, on another task of the same symbols and prompt width."""
        same = task.symbols == self.task.symbols and task.width == self.task.width
        require(same, "task", f"width {task.width}", f"of the same symbols and width {self.task.width}")
        other = copy.copy(self)
        other.task = task
        return other

    @property
    def theta(self) -> Float[np.ndarray, " d"]:
        """A copy of all parameters, [d], float64."""
        return flat(self.parameters()).double().numpy()

    def at(self, theta: ArrayLike) -> QwenTestbed:
        """A copy of the testbed at other parameters [d], rounded to its dtype."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.named = dict(other.model.named_parameters())
        with torch.no_grad():
            for name, value in self.unflatten("theta", theta).items():
                other.named[name].copy_(value)
        return other

    def parameters(self) -> list[torch.Tensor]:
        """The trainable tensors, in the order of flat vectors."""
        return list(self.named.values())

    def rollout(self, prompts: Sequence[int], group_size: int, generator: torch.Generator) -> Rollout:
        """Sample a group of responses to each prompt, in the parameters' own precision."""
        require(len(prompts) > 0, "prompts", prompts, "at least one prompt")
        integer("group_size", group_size, low=1)
        return self._rollout(self.named, prompts, group_size, generator)

    @torch.no_grad()
    def _rollout(self, p: Parameters, prompts, group_size, generator) -> Rollout:
        limit = torch.tensor([self.task.response_limit(prompt) for prompt in prompts]).repeat_interleave(group_size)
        rows, steps, symbols = len(limit), int(limit.max()), len(self.task.symbols)
        tokens, mask = torch.full((rows, steps), PAD), torch.zeros(rows, steps, dtype=torch.bool)
        forest, going_on = Forest(self.task.prompt_tokens(prompts)), torch.ones(rows, dtype=torch.bool)
        hidden, cache = self.plain.states(p, forest.tokens, forest.positions, list_attention(forest.visible[0]))
        hidden = hidden[forest.branch_rows]
        branch = torch.arange(len(prompts)).repeat_interleave(group_size)
        for step in range(steps):
            cumulative = self.plain.read(p, hidden).double().exp().cumsum(-1)[branch]
            threshold = torch.rand(rows, 1, generator=generator, dtype=torch.float64) * cumulative[:, -1:]
            token = self.plain.alphabet[(cumulative < threshold).sum(-1)]
            tokens[:, step], mask[:, step] = torch.where(going_on, token, PAD), going_on
            going_on = going_on & (token != END) & (limit > step + 1)
            if not going_on.any():
                break
            distinct, which = torch.unique(branch[going_on] * symbols + token[going_on], return_inverse=True)
            forest.grow(distinct // symbols, distinct % symbols)
            branch = torch.zeros_like(branch).index_put((going_on,), which)
            level = slice(-len(distinct), None)
            hidden, cache = self.plain.states(
                p, forest.tokens[level], forest.positions[level], list_attention(forest.visible[-1]), cache
            )
        groups = len(prompts), group_size
        reward = self.task.reward(prompts, tokens.view(*groups, steps), mask.sum(-1).view(groups))
        return Rollout(tuple(prompts), tokens, mask, reward.double().numpy())

    def token_log_probs(self, rollout: Rollout, parameters: Parameters | None = None) -> Float[torch.Tensor, "B T"]:
        """Log-probability of each response token (0 where masked), at the testbed's parameters or at others."""
        column = self.plain.column[rollout.tokens]
        emitted = bool(((column >= 0) | ~rollout.mask).all())
        require(emitted, "tokens", rollout.tokens[rollout.mask & (column < 0)].tolist(), "in the policy's alphabet")
        forest, emits = shared_prefixes(self.task.prompt_tokens(rollout.prompts), rollout.tokens, rollout.mask)
        log_probs = self.plain.branch_log_probs(self.named if parameters is None else parameters, forest)
        place = emits * log_probs.shape[1] + column.clamp(min=0)
        picked = log_probs.flatten().index_select(0, place.flatten()).view(place.shape)
        return torch.where(rollout.mask, picked, 0.0)

    def scores(self, rollout: Rollout) -> Float[torch.Tensor, "B d"]:
        """Score of every response of a rollout, in the parameters' own precision."""
        return self._scores(self.named, self._prompt_rows(rollout), rollout.tokens, rollout.mask)

    def squared_norms(self, rollout: Rollout) -> Float[torch.Tensor, " B"]:
        """|s|^2 of every response of a rollout, without the scores."""
        p, recorder = {name: value.detach() for name, value in self.named.items()}, Recorder()
        rows = self._prompt_rows(rollout), rollout.tokens, rollout.mask
        return recorder.squared_norms(self.plain.response_log_probs(p, *rows, recorder), p)

    def _prompt_rows(self, rollout: Rollout) -> Int[torch.Tensor, "B P"]:
        return self.task.prompt_tokens(rollout.prompts).repeat_interleave(rollout.reward.shape[1], 0)

    def _scores(self, p: Parameters, *rows: torch.Tensor) -> Float[torch.Tensor, "n d"]:
        def log_prob(p, *row):
            return self.plain.response_log_probs(p, *(x[None] for x in row))[0]

        return per_sample_scores(log_prob, p, *rows)

    def responses(self, prompt: int) -> tuple[Int[torch.Tensor, "n T"], Int[torch.Tensor, " n"]]:
        """All n responses to a prompt and their lengths: by the place of their end, those without an end last."""
        depth, ways = self.task.response_limit(prompt), len(self.plain.alphabet) - 1
        prefixes = sum(ways**level for level in range(depth))
        require(prefixes <= MOST_PREFIXES, "prompt", f"{prefixes} prefixes", f"one of at most {MOST_PREFIXES}")
        return all_responses(tuple(self.plain.alphabet.tolist()), depth)

    def success(self, prompt: int, parameters: Parameters) -> Float[torch.Tensor, ""]:
        """Success rate J of a prompt as a differentiable function of the parameters, over all responses."""
        log_probs, correct = self._judged(prompt, parameters)
        return log_probs[correct].exp().sum()

    def log_odds(self, prompt: int, parameters: Parameters) -> Float[torch.Tensor, ""]:
        """log(J / (1 - J)) likewise; exact also where J rounds to 1."""
        log_probs, correct = self._judged(prompt, parameters)
        return log_probs[correct].logsumexp(0) - log_probs[~correct].logsumexp(0)

    def _judged(self, prompt: int, p: Parameters) -> tuple[Float[torch.Tensor, " n"], Bool[torch.Tensor, " n"]]:
        """Log-probability of every response, in the order of ``responses``, and whether it is correct."""
        tokens, length = self.responses(prompt)
        forest = all_prefixes(self.task.prompt_tokens([prompt])[0], self.plain.alphabet[1:], tokens.shape[1])
        log_probs = self.plain.branch_log_probs(p, forest)
        path, ended, start = log_probs.new_zeros(1), [], 0
        for _ in range(tokens.shape[1]):
            level = log_probs[start : start + len(path)]
            start += len(path)
            ended.append(path + level[:, 0])
            path = (path[:, None] + level[:, 1:]).flatten()
        return torch.cat([*ended, path]), self.task.reward([prompt], tokens[None], length[None])[0]

    def exact(self, prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
        """Success rate J and its gradient [d] at a prompt, over all responses; each prefix is evaluated once."""
        return self._with_gradient(self.success, prompt)

    def log_odds_and_gap(self, prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
        """Log-odds of success and their gradient, the gradient gap [d], over all responses."""
        return self._with_gradient(self.log_odds, prompt)

    @one_thread()
    def _with_gradient(self, function, prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
        p = self._in_float64(True)
        value = function(prompt, p)
        return float(value.detach()), flat(torch.autograd.grad(value, list(p.values()))).numpy()

    @one_thread()
    def along(self, prompt: int, direction: ArrayLike, of: str = "success") -> tuple[float, float, float]:
        """Success or ``log_odds``, and its first and second derivative along a direction [d], over all responses."""
        require(of in ("success", "log_odds"), "of", of, "success or log_odds")
        towards, p = self.unflatten("direction", direction).values(), self._in_float64(True)
        value = getattr(self, of)(prompt, p)
        gradient = torch.autograd.grad(value, list(p.values()), create_graph=True)
        slope = sum(((g * w).sum() for g, w in zip(gradient, towards, strict=True)), torch.zeros(()))
        hessian_product = torch.autograd.grad(slope, list(p.values()))
        second = sum((h * w).sum() for h, w in zip(hessian_product, towards, strict=True))
        return float(value.detach()), float(slope.detach()), float(second)

    @one_thread()
    @torch.no_grad()
    def odds_along(self, prompt: int, direction: ArrayLike, steps: ArrayLike) -> Reals:
        """Log-odds of success at theta + step * direction for every step, in the shape of ``steps``; in float64."""
        towards, p, steps = self.unflatten("direction", direction), self._in_float64(), real_array("steps", steps)
        moved = ({name: x.add(towards[name], alpha=h) for name, x in p.items()} for h in steps.ravel().tolist())
        odds = [float(self.log_odds(prompt, there)) for there in moved]
        return np.reshape(odds, steps.shape)[()]

    @one_thread()
    def enumerate(self, prompt: int) -> Responses:
        """All responses to a prompt with their probabilities and scores, every malformed one included."""
        tokens, length = self.responses(prompt)
        self._require_space("prompt", prompt, len(tokens))
        p = self._in_float64()
        with torch.no_grad():
            prob = self._judged(prompt, p)[0].exp()
        return self._scored(p, prompt, tokens, length, prob.numpy())

    @one_thread()
    def sample(self, prompt: int, n: int, seed: int) -> Responses:
        """n independent responses to a prompt, each with weight 1/n."""
        integer("n", n, low=1)
        self._require_space("n", n, n)
        p = self._in_float64()
        rollout = self._rollout(p, [prompt], n, torch.Generator().manual_seed(integer("seed", seed, low=0)))
        return self._scored(p, prompt, rollout.tokens, rollout.length, None)

    def _scored(self, p: Parameters, prompt: int, tokens, length, prob) -> Responses:
        mask = torch.arange(tokens.shape[1]) < length[:, None]
        score = self._scores(p, self.task.prompt_tokens([prompt]).expand(len(tokens), -1), tokens, mask)
        reward = self.task.reward([prompt], tokens[None], length[None])[0]
        return Responses(reward.numpy(), score.numpy(), prob, length.numpy())

    def _require_space(self, name: str, value: int, rows: int) -> None:
        size = 8 * rows * sum(parameter.numel() for parameter in self.parameters())
        require(size <= MOST_SCORE_BYTES, name, value, f"such that scores take at most {MOST_SCORE_BYTES} bytes")

    def _in_float64(self, differentiable: bool = False) -> dict[str, torch.Tensor]:
        return {name: value.detach().double().requires_grad_(differentiable) for name, value in self.named.items()}

    def unflatten(self, name: str, vector: ArrayLike) -> dict[str, torch.Tensor]:
        """A flat vector as float64 tensors in the shapes of the parameters."""
        vector, sizes = real_array(name, vector), [value.numel() for value in self.named.values()]
        require_shape(name, vector, (sum(sizes),))
        parts = torch.tensor(vector).split(sizes)
        return {name: part.view_as(value) for part, (name, value) in zip(parts, self.named.items(), strict=True)}


def checkpoints(seeds: Sequence[int], warm_start: WarmStart = WarmStart(), **options) -> list[QwenTestbed]:  # noqa: B008
    """Tiny models that share nothing but their settings: from each seed other initial weights and other traces.

    The seeds are those of the warm starts, all different, each cached by itself; the options are ``QwenTestbed``'s.
    """
    require(len(set(seeds)) == len(seeds), "seeds", seeds, "all different")
    require(options.get("model", "tiny") == "tiny", "model", options.get("model"), "tiny: a loaded one has no seed")
    return [QwenTestbed(warm_start=replace(warm_start, seed=seed), **options) for seed in seeds]
