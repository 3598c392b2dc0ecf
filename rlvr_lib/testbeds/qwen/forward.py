"""Qwen2 and Qwen3 as one plain-tensor forward, on the parameters of the real ``transformers`` model.

Left out of the forward: dropout, sliding windows, training mode, everything that is not a decoder with full causal
attention. It takes a forest of prefixes (see ``prefixes``) instead of a padded batch, and any float type.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int

from rlvr_lib.arguments import require
from rlvr_lib.testbeds.group_tasks import END, EQUALS, FILLER, PAD, GroupTask
from rlvr_lib.testbeds.qwen.prefixes import Attention, Forest, row_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Parameters = Mapping[str, torch.Tensor]
Cache = list[tuple[torch.Tensor, torch.Tensor]]
Tap = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]

FAMILIES = ("qwen2", "qwen3")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MOST_POSITIONS = 512
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def tiny_model(vocabulary: int, seed: int, family: str = "qwen3") -> PreTrainedModel:
    """A real Qwen of 2 layers, width 64, 4 heads on 2 key-value heads: 75,136 parameters with 16 symbols (Qwen3).

    Symbol 0 pads, symbol 1 ends a response. Initial weights depend on the seed only.
    """
    require(family in FAMILIES, "family", family, f"one of {', '.join(FAMILIES)}")
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family, vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=MOST_POSITIONS,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, **({"head_dim": 16} if family == "qwen3" else {}),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()


def load_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a local checkpoint folder, without the network, or of a name on the hub.

    Reads safetensors only, never runs code that comes with a checkpoint, and refuses other models with a ValueError.
    """
    local = name != "" and Path(name).is_dir()
    require(local or HUB_NAME.fullmatch(name) is not None, "model", name, "a folder, or a name on the hub")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = {"trust_remote_code": False, "local_files_only": local}
    with _reading(name):
        config = AutoConfig.from_pretrained(name, **where)
    require(config.model_type in FAMILIES, "model", config.model_type, f"of type {' or '.join(FAMILIES)}")
    full = set(config.layer_types) == {"full_attention"} and config.hidden_act == "silu"
    require(full, "model", f"{config.layer_types}, {config.hidden_act}", "with full attention and silu")
    with _reading(name):
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, use_safetensors=True, **where)
        return model.eval(), AutoTokenizer.from_pretrained(name, **where)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        with quiet():
            yield
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"model must be a readable checkpoint or a reachable name, got {name!r}: {reason}") from None


def task_vocabulary(
    tokenizer: PreTrainedTokenizerBase, task: GroupTask, emitted: Sequence[int]
) -> Int[torch.Tensor, " S"]:
    """The model's token for every symbol; symbols that are never used become the end."""
    tokens = {END: tokenizer.eos_token_id} | ({PAD: tokenizer.pad_token_id} if PAD in emitted else {})
    for symbol in sorted({FILLER, EQUALS, *task.answers, *emitted} - {END, PAD}):
        text = task.symbols[symbol]
        encoded = tokenizer.encode(text, add_special_tokens=False)
        single = len(encoded) == 1 and encoded[0] != tokenizer.unk_token_id
        require(single, "model", f"a tokenizer that turns {text!r} into {encoded}", "one with a token for each symbol")
        tokens[symbol] = encoded[0]
    distinct = len(set(tokens.values())) == len(tokens) and None not in tokens.values()
    require(distinct, "model", f"tokens {list(tokens.values())}", "one whose tokenizer tells symbols and end apart")
    return torch.tensor([tokens.get(symbol, tokens[END]) for symbol in range(len(task.symbols))])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Reading and writing of checkpoints without the bars of ``transformers``."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _untapped(name: str, inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    return outputs


class PlainQwen:
    """The forward of a Qwen2 or Qwen3, its parameters left out: methods take these by name, as ``p``.

    Attributes:
        layers, heads, kv_heads, head_dim, epsilon: from the model's configuration.
        cos, sin: [positions, head_dim], the model's rotary tables (float32 numbers: the model has no finer ones).
        vocabulary: [S], the model's token for every symbol; None where these are the same numbers.
        alphabet: [A], symbols the policy may emit: its softmax is over these.
        column: [C], place of every symbol in the alphabet, -1 for those that are not in it.
    """

    def __init__(
        self, model: PreTrainedModel, vocabulary: Int[torch.Tensor, " S"] | None, emitted: Sequence[int]
    ) -> None:
        config = model.config
        self.layers, self.epsilon = config.num_hidden_layers, config.rms_norm_eps
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        positions = torch.arange(min(MOST_POSITIONS, config.max_position_embeddings))
        self.cos, self.sin = (table[0] for table in model.model.rotary_emb(torch.zeros(1), positions[None]))
        self.vocabulary, self.alphabet = vocabulary, torch.tensor(emitted)
        self.column = torch.full((max(emitted) + 1,), -1)
        self.column[self.alphabet] = torch.arange(len(emitted))

    def branch_log_probs(self, p: Parameters, forest: Forest) -> Float[torch.Tensor, "M A"]:
        """Log-probability of each symbol of the alphabet after each branch of a forest."""
        hidden, _ = self.states(p, forest.tokens, forest.positions, forest.attention())
        return self.read(p, hidden[forest.branch_rows])

    def row_log_probs(
        self, p: Parameters, prompts: Int[torch.Tensor, "B P"], tokens: Int[torch.Tensor, "B T"], tap: Tap = _untapped
    ) -> Float[torch.Tensor, "B T"]:
        """Log-probability of each token of B responses, row by row: nothing is shared between rows."""
        rows = torch.cat([prompts, tokens[:, :-1]], 1)
        positions = torch.arange(rows.shape[1]).repeat(len(rows))
        hidden, _ = self.states(p, rows.flatten(), positions, row_attention(*rows.shape), tap=tap)
        emitting = hidden.view(*rows.shape, -1)[:, prompts.shape[1] - 1 :]
        return self.read(p, emitting, tap).gather(-1, self.column[tokens].clamp(min=0)[..., None])[..., 0]

    def response_log_probs(
        self, p: Parameters, prompts, tokens, mask: Bool[torch.Tensor, "B T"], tap: Tap = _untapped
    ) -> Float[torch.Tensor, " B"]:
        """Log-probability of whole responses, likewise."""
        return torch.where(mask, self.row_log_probs(p, prompts, tokens, tap), 0.0).sum(-1)

    def read(self, p: Parameters, hidden: Float[torch.Tensor, "... h"], tap: Tap = _untapped) -> torch.Tensor:
        """Log-probabilities [..., A] over the alphabet from final hidden states."""
        name = HEAD if HEAD in p else EMBEDDING
        logits = tap(name, hidden, F.linear(hidden, self._symbol_rows(p, name)))
        return torch.log_softmax(logits.index_select(-1, self.alphabet), -1)

    def states(
        self,
        p: Parameters,
        tokens: Int[torch.Tensor, " N"],
        positions: Int[torch.Tensor, " N"],
        attend: Attention,
        past: Cache | None = None,
        tap: Tap = _untapped,
    ) -> tuple[Float[torch.Tensor, "N h"], Cache]:
        """Final hidden states of N symbols at their positions, and the keys and values of all tokens so far.

        Args:
            attend: which tokens attend to which, the ``past`` counted first.
            past: keys and values of earlier tokens, a pair for every layer.
            tap: called with parameter name, input and output of every product with a parameter; its answer is used
                in place of the output.
        """
        x = tap(EMBEDDING, tokens, F.embedding(tokens, self._symbol_rows(p, EMBEDDING)))
        cos, sin = (table[positions].to(x.dtype)[:, None] for table in (self.cos, self.sin))
        cache = []
        for layer in range(self.layers):
            name = f"model.layers.{layer}."
            own = name + "self_attn."
            normed = self._norm(p, name + "input_layernorm", x, tap)
            q, k, v = (
                self._linear(p, f"{own}{part}_proj", normed, tap).view(len(x), -1, self.head_dim) for part in "qkv"
            )
            if own + "q_norm.weight" in p:
                q, k = self._norm(p, own + "q_norm", q, tap), self._norm(p, own + "k_norm", k, tap)
            joined = torch.cat([q, k], 1)
            first, second = joined.chunk(2, -1)
            q, k = (joined * cos + torch.cat([-second, first], -1) * sin).split([self.heads, self.kv_heads], 1)
            if past is not None:
                k, v = torch.cat([past[layer][0], k]), torch.cat([past[layer][1], v])
            cache.append((k, v))
            q = (q * self.head_dim**-0.5).unflatten(1, (self.kv_heads, -1))
            x = x + self._linear(p, own + "o_proj", attend(q, k, v).flatten(1), tap)
            normed = self._norm(p, name + "post_attention_layernorm", x, tap)
            gate = F.silu(self._linear(p, name + "mlp.gate_proj", normed, tap))
            up = self._linear(p, name + "mlp.up_proj", normed, tap)
            x = x + self._linear(p, name + "mlp.down_proj", gate * up, tap)
        return self._norm(p, "model.norm", x, tap), cache

    def _norm(self, p, name, x, tap):
        normed = x * ((x * x).mean(-1, keepdim=True) + self.epsilon).rsqrt()
        return tap(name + ".weight", normed, normed * p[name + ".weight"])

    def _linear(self, p, name, x, tap):
        return tap(name + ".weight", x, F.linear(x, p[name + ".weight"], p.get(name + ".bias")))

    def _symbol_rows(self, p: Parameters, name: str) -> Float[torch.Tensor, "S h"]:
        return p[name] if self.vocabulary is None else p[name].index_select(0, self.vocabulary)
