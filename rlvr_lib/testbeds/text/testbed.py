"""A Qwen that reads text, as a testbed: sampled, trained and measured with the words of the other testbeds.

Its responses are far too many to enumerate, so the exact methods refuse every prompt; what they give elsewhere comes
from samples here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int

from rlvr_lib.arguments import integer, require
from rlvr_lib.testbeds.grpo import one_thread
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.qwen.forward import Parameters, load_model
from rlvr_lib.testbeds.qwen.prefixes import list_attention
from rlvr_lib.testbeds.qwen.testbed import MOST_SCORE_BYTES
from rlvr_lib.testbeds.qwen.warm_start import WarmStart
from rlvr_lib.testbeds.scores import per_sample_scores
from rlvr_lib.testbeds.text.forward import TextQwen
from rlvr_lib.testbeds.text.sums import END, PAD, Sums
from rlvr_lib.testbeds.text.warm_start import WARM_START, warm_started

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_POSITIONS = 256
SCORED = ("all", "last-layer")


@dataclass(frozen=True)
class Shape:
    """Size of the model; these make 0.63 million parameters.

    Attributes:
        width: of the hidden states.
        layers, heads, kv_heads: blocks; query heads, and key-value heads that they share.
        hidden: units of the gated layer.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 256

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            integer(name, value, low=1)
        require(self.width % self.heads == 0, "heads", self.heads, f"a divisor of the width {self.width}")
        require(self.heads % self.kv_heads == 0, "kv_heads", self.kv_heads, f"a divisor of the {self.heads} heads")


class Success(NamedTuple):
    """A success rate from independent prompts, one response each.

    Attributes:
        rate, error: share of correct responses, and its standard error.
        length: mean length of a response in tokens.
        responses: their number.
    """

    rate: float
    error: float
    length: float
    responses: int


def text_model(vocabulary: int, shape: Shape, seed: int) -> PreTrainedModel:
    """A real Qwen3 with tied embeddings; its initial weights depend on the seed only."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=shape.width, intermediate_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.width // shape.heads,
        tie_word_embeddings=True, max_position_embeddings=MOST_POSITIONS, pad_token_id=PAD, bos_token_id=None,
        eos_token_id=END,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).eval()


class TextTestbed(QwenTestbed):
    """A Qwen3 that answers ``Sums``, with the softmax over its whole vocabulary.

    ``sample``, ``rollout``, ``token_log_probs``, ``scores``, ``squared_norms``, ``at``, ``save`` and the GRPO loop are
    those of ``QwenTestbed``. Flat vectors have its order, except scores of the last layer, which have fewer entries.

    Args:
        task: what it answers.
        model: ``tiny`` for a new one, or a folder that ``save`` or a trainer wrote, with the task's own tokenizer.
        warm_start: supervised training of a new model, cached; None leaves it untrained.
        shape: of a new model.
        scored: which parameters ``sample`` and ``scores`` take scores of, ``all`` or those of the ``last-layer``.
        dtype, progress: as for ``QwenTestbed``.
    """

    task: Sums  # type: ignore[assignment]  # it has the methods that are used
    plain: TextQwen

    def __init__(
        self,
        task: Sums | None = None,
        model: str = "tiny",
        warm_start: WarmStart | None = WARM_START,
        shape: Shape = Shape(),
        scored: str = "all",
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
    ):
        require(scored in SCORED, "scored", scored, f"one of {', '.join(SCORED)}")
        self.task, self.scored = task or Sums(), scored
        self.tokenizer = self.task.tokenizer()
        if model == "tiny":
            self.model = text_model(len(self.tokenizer), shape, warm_start.seed if warm_start else 0)
            if warm_start:
                warm_started(self.model, self.task, warm_start, progress)
        else:
            self.model, found = load_model(model)
            same = found.get_vocab() == self.tokenizer.get_vocab()
            require(same, "model", f"{model} with another vocabulary", "one with the tokenizer of the task")
        self.plain = TextQwen(self.model, None, range(self.model.config.vocab_size))
        self.model.to(dtype)
        self.named = dict(self.model.named_parameters())

    def with_task(self, task) -> QwenTestbed:
        """Refused: the tokenizer belongs to the task."""
        raise ValueError(f"task must be the one that the testbed was made with, got {task}")

    def responses(self, prompt: int) -> tuple[Int[torch.Tensor, "n T"], Int[torch.Tensor, " n"]]:
        """Refused: there are more responses than can be enumerated."""
        self.task.totals(prompt)
        raise ValueError(f"prompt must be one of few responses, which no text has, got {prompt}; use sample")

    @one_thread()
    def success_of(self, prompts: Sequence[int], seed: int) -> Success:
        """Success rate on independent prompts, from one response to each."""
        require(len(prompts) > 1, "prompts", prompts, "at least two")
        rollout = self.rollout(prompts, 1, torch.Generator().manual_seed(integer("seed", seed, low=0)))
        rate, n = float(rollout.reward.mean()), len(prompts)
        return Success(rate, (rate * (1 - rate) / n) ** 0.5, float(rollout.length.double().mean()), n)

    def held_out_success(self, n: int, seed: int) -> Success:
        """Success rate on n held-out prompts, drawn with the seed."""
        generator = torch.Generator().manual_seed(integer("seed", seed, low=0))
        return self.success_of(self.task.draw(integer("n", n, low=2), generator, held_out=True), seed)

    @torch.no_grad()
    def _rollout(self, p: Parameters, prompts, group_size, generator) -> Rollout:
        asked = self.task.prompt_tokens(prompts)
        real, place = asked != PAD, torch.arange(asked.shape[1])
        path = torch.where(real, real.flatten().cumsum(0).view(real.shape) - 1, -1)
        visible = torch.where(place <= place[:, None], path[:, None], -1)[real]
        total, length = len(visible), real.sum(1)
        hidden, cache = self.plain.states(p, asked[real], place.expand(real.shape)[real], list_attention(visible))
        # All responses to a prompt read it once.
        hidden = hidden[path.gather(1, length[:, None] - 1)[:, 0]].repeat_interleave(group_size, 0)
        path, position = path.repeat_interleave(group_size, 0), length.repeat_interleave(group_size)
        rows, limit = torch.arange(len(hidden)), self.task.longest
        tokens, mask = torch.full((len(rows), limit), PAD), torch.zeros(len(rows), limit, dtype=torch.bool)
        for step in range(limit):
            cumulative = self.plain.read(p, hidden).double().exp().cumsum(-1)
            # One number a row at every step, so that no response depends on when another ends.
            uniform = torch.rand(len(tokens), 1, generator=generator, dtype=torch.float64)[rows]
            token = (cumulative < uniform * cumulative[:, -1:]).sum(-1)
            tokens[rows, step], mask[rows, step] = token, True
            going_on = token != END
            if step + 1 == limit or not going_on.any():
                break
            rows, token, path, position = rows[going_on], token[going_on], path[going_on], position[going_on]
            path = torch.cat([path, torch.arange(total, total + len(rows))[:, None]], 1)
            total += len(rows)
            hidden, cache = self.plain.states(p, token, position, list_attention(path), cache)
            position = position + 1
        width = int(mask.sum(1).max())
        tokens, mask = tokens[:, :width], mask[:, :width]
        groups = len(prompts), group_size
        reward = self.task.reward(prompts, tokens.view(*groups, width), mask.sum(1).view(groups))
        return Rollout(tuple(prompts), tokens, mask, reward.double().numpy())

    def token_log_probs(self, rollout: Rollout, parameters: Parameters | None = None) -> Float[torch.Tensor, "B T"]:
        """Log-probability of each response token (0 where masked), at the testbed's parameters or at others."""
        p = self.named if parameters is None else parameters
        return self.plain.packed_log_probs(p, self._prompt_rows(rollout), rollout.tokens, rollout.mask)

    def _scored_names(self) -> list[str]:
        last = f"model.layers.{self.plain.layers - 1}."
        return [name for name in self.named if self.scored == "all" or name.startswith(last)]

    def _scores(self, p: Parameters, *rows: torch.Tensor) -> Float[torch.Tensor, "n d"]:
        fixed = {name: value.detach() for name, value in p.items()}

        def log_prob(scored, *row):
            return self.plain.response_log_probs({**fixed, **scored}, *(x[None] for x in row))[0]

        return per_sample_scores(log_prob, {name: fixed[name] for name in self._scored_names()}, *rows)

    def _require_space(self, name: str, value: int, rows: int) -> None:
        size = 8 * rows * sum(self.named[each].numel() for each in self._scored_names())
        require(size <= MOST_SCORE_BYTES, name, value, f"such that scores take at most {MOST_SCORE_BYTES} bytes")


def checkpoints(seeds: Sequence[int], warm_start: WarmStart = WARM_START, **options) -> list[TextTestbed]:
    """Models that share nothing but their settings and their tokenizer; seeds of the warm starts, all different."""
    require(len(set(seeds)) == len(seeds), "seeds", seeds, "all different")
    return [TextTestbed(warm_start=replace(warm_start, seed=seed), **options) for seed in seeds]
