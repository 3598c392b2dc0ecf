"""Sums of the scores of sampled responses of any causal ``transformers`` model, on all or on some of its parameters.

One batched forward pass records the inputs of the chosen modules, one backward pass to their outputs the gradients;
their product is the score of each response. No gradient of a parameter is touched. Left out: modules other than linear
layers, embeddings and root-mean-square norms.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import nn

from rlvr_lib.arguments import require
from rlvr_lib.testbeds.scores import score_factors

CHOICES = ("all", "last-layer", "head")
MOST_COORDINATES = 2**18
MOST_NUMBERS_AT_ONCE = 2**27
HEAD = "output head"


@dataclass(frozen=True)
class Sampled:
    """B sampled responses as a causal model reads them; masks are 1 where there is no padding.

    Prompts are padded on the left, completions on the right.
    """

    prompt_ids: Int[torch.Tensor, "B P"]
    prompt_mask: Int[torch.Tensor, "B P"]
    completion_ids: Int[torch.Tensor, "B T"]
    completion_mask: Int[torch.Tensor, "B T"]

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def rows(self, part: slice) -> Sampled:
        """Some of the responses."""
        return Sampled(*(tensor[part] for tensor in vars(self).values()))

    @property
    def length(self) -> Int[torch.Tensor, " B"]:
        """Tokens of each response."""
        return self.completion_mask.sum(1)


@dataclass(frozen=True)
class Scored:
    """Which parameters scores are taken with respect to.

    Attributes:
        choice: ``all`` (every trainable parameter; with LoRA these are the adapters), ``last-layer`` (the trainable
            ones of the last block) or ``head`` (the output projection, trained or not).
        parameters: the chosen tensors by name.
        of: how many numbers are trainable in all.
        coordinates: by name, those of which sums are kept; None for all of them.
    """

    choice: str
    parameters: dict[str, torch.Tensor]
    of: int
    coordinates: dict[str, torch.Tensor] | None = None

    def __str__(self) -> str:
        kept = "" if self.coordinates is None else f", inner products over {self.width:,} of them drawn at random"
        return f"{self.choice}: {self.total:,} numbers, {self.of:,} are trained{kept}"

    @property
    def total(self) -> int:
        """Numbers in the chosen tensors."""
        return sum(numbers(value) for value in self.parameters.values())

    @property
    def width(self) -> int:
        """Length of a flat vector of kept coordinates."""
        return self.total if self.coordinates is None else sum(len(kept) for kept in self.coordinates.values())


def is_sharded(model: nn.Module) -> bool:
    """Whether the parameters lie in pieces on several processes (FSDP2 or DeepSpeed ZeRO-3)."""
    return any(hasattr(parameter, "ds_id") or hasattr(parameter, "full_tensor") for parameter in model.parameters())


def numbers(parameter: torch.Tensor) -> int:
    """How many numbers a parameter has, on all processes: ZeRO-3 leaves it empty on each."""
    return getattr(parameter, "ds_numel", None) or parameter.numel()


def last_block(model: nn.Module) -> nn.Module:
    """The last of the model's blocks: the last entry of its longest list of modules."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    require(bool(lists), "scores", "last-layer for a model without a list of blocks", "all or head")
    return max(lists, key=len)[-1]


def choose(model: Any, choice: str | None = None, most: int = MOST_COORDINATES, seed: int = 0) -> Scored:
    """The parameters of a causal language model to take scores of.

    Args:
        choice: one of ``CHOICES``; not given, ``head`` where parameters are sharded, else ``all`` for LoRA or at most
            ``most`` trainable numbers, else ``last-layer``.
        most, seed: coordinates kept in sums; of more, that many are drawn with the seed.
    """
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    of, lora = sum(numbers(value) for value in trained.values()), any("lora_" in name for name in trained)
    if choice is None:
        choice = "head" if is_sharded(model) else "all" if lora or of <= most else "last-layer"
    require(choice in CHOICES, "scores", choice, f"one of {', '.join(CHOICES)}")
    whole = choice == "head" or not is_sharded(model)
    require(whole, "scores", f"{choice} with sharded parameters", "head where parameters are sharded")
    if choice == "head":
        parameters = {HEAD: model.get_output_embeddings().weight}
    else:
        inside = {id(value) for value in (model if choice == "all" else last_block(model)).parameters()}
        parameters = {name: value for name, value in trained.items() if id(value) in inside}
        require(bool(parameters), "scores", f"{choice}, where nothing is trained", "a choice with something trained")
        _owners(model, parameters)
    chosen = Scored(choice, parameters, of)
    if chosen.total <= most:
        return chosen
    generator, kept = torch.Generator().manual_seed(seed), {}
    for name, value in parameters.items():
        share = -(-most * numbers(value) // chosen.total)
        kept[name] = torch.randint(numbers(value), (share,), generator=generator).to(value.device)
    return replace(chosen, coordinates=kept)


def log_probs(model: nn.Module, sampled: Sampled, temperature: float = 1.0) -> Float[torch.Tensor, " B"]:
    """Log-probability of each response under the model's softmax at a temperature, summed over its tokens."""
    return _picked(_logits(model, sampled, temperature), sampled)


def score_sums(
    model: nn.Module, sampled: Sampled, weights: Float[torch.Tensor, "K B"], scored: Scored, temperature: float = 1.0
) -> tuple[Float[torch.Tensor, "K width"], Float[torch.Tensor, " B"], Float[torch.Tensor, " B"]]:
    """Weighted sums of the scores of B responses, their squared norms, and their log-probabilities.

    Args:
        model, sampled, temperature: what sampled the responses, and these.
        weights: [K, B], one row a sum.
        scored: the parameters, and the coordinates of the sums that are kept; squared norms are over all coordinates.
    """
    rows = max(1, MOST_NUMBERS_AT_ONCE // max(numbers(value) for value in scored.parameters.values()))
    sums = weights.new_zeros(len(weights), scored.width)
    energy, log_prob = weights.new_zeros(len(sampled)), weights.new_zeros(len(sampled))
    with still(model):
        for start in range(0, len(sampled), rows):
            part = slice(start, start + rows)
            log_prob[part], factors = _factors(model, sampled.rows(part), scored, temperature)
            place = 0
            for name, (left, right) in factors.items():
                score = torch.bmm(left.mT, right).flatten(1)
                energy[part] += score.square().sum(1)
                kept = score if scored.coordinates is None else score[:, scored.coordinates[name]]
                sums[:, place : place + kept.shape[1]] += weights[:, part] @ kept
                place += kept.shape[1]
    # So inner products over the kept coordinates are unbiased for those over all chosen ones.
    return sums * (scored.total / scored.width) ** 0.5, energy, log_prob


@contextlib.contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Evaluation mode: no dropout, no gradient checkpointing."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _factors(
    model: nn.Module, sampled: Sampled, scored: Scored, temperature: float
) -> tuple[Float[torch.Tensor, " B"], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Log-probability of each response, and for each parameter two factors [B, t, o], [B, t, i] of its scores."""
    if scored.choice == "head":
        return _head_factors(model, sampled, temperature)
    products: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []

    def record(module, inputs, output):
        products.append((module, inputs[0].detach(), output))

    def start_the_graph(module, inputs):
        torch.set_grad_enabled(True)

    with contextlib.ExitStack() as hooks, torch.set_grad_enabled(scored.choice == "all"):
        for module in _owners(model, scored.parameters):
            hooks.enter_context(module.register_forward_hook(record))
        if scored.choice == "last-layer":
            # What comes before the block needs no graph; inside the caller's ``no_grad`` it gets none.
            hooks.enter_context(last_block(model).register_forward_pre_hook(start_the_graph))
        logits = _logits(model, sampled, temperature)
        with torch.enable_grad():
            log_prob = _picked(logits, sampled)
    gradients = torch.autograd.grad(log_prob.sum(), [output for _, _, output in products])
    names = {id(value): name for name, value in scored.parameters.items()}
    factors: dict[str, Any] = {}
    for (module, inputs, _), gradient in zip(products, gradients, strict=True):
        for parameter, *pair in _product(module, inputs, _wide(gradient), len(sampled)):
            if name := names.get(id(parameter)):
                before = factors.get(name)
                factors[name] = [torch.cat(sides, 1) for sides in zip(before, pair, strict=True)] if before else pair
    return log_prob.detach(), {name: tuple(factors[name]) for name in scored.parameters if name in factors}


def _product(module: Any, inputs: torch.Tensor, gradient: torch.Tensor, batch: int):
    """Each parameter of a module, with the two factors of the gradient of every row."""
    inputs = _wide(inputs) if inputs.is_floating_point() else inputs
    if hasattr(module, "variance_epsilon"):
        inputs = inputs * (inputs.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
    left, right = score_factors(module.weight, inputs, gradient, batch)
    if getattr(module, "padding_idx", None) is not None:
        left[..., module.padding_idx] = 0  # as autograd has it
    yield module.weight, left, right
    if getattr(module, "bias", None) is not None:
        yield module.bias, *score_factors(module.bias, torch.ones_like(gradient), gradient, batch)


@torch.no_grad()
def _head_factors(model: Any, sampled: Sampled, temperature: float):
    """The factors of the output projection in closed form: nothing is differentiated, so parameters may be sharded."""
    seen: list[torch.Tensor] = []
    with model.get_output_embeddings().register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])):
        logits = _logits(model, sampled, temperature)
    hidden = _wide(seen[0][:, -1 - sampled.completion_ids.shape[1] : -1])
    error = -logits.softmax(-1) / temperature
    error.scatter_add_(2, sampled.completion_ids[..., None], torch.full_like(error[..., :1], 1 / temperature))
    return _picked(logits, sampled), {HEAD: (error * sampled.completion_mask[..., None], hidden)}


def _logits(model: nn.Module, sampled: Sampled, temperature: float) -> Float[torch.Tensor, "B T V"]:
    """Logits over the temperature at the places that emit the response, in at least float32."""
    ids = torch.cat([sampled.prompt_ids, sampled.completion_ids], 1)
    mask = torch.cat([sampled.prompt_mask, sampled.completion_mask], 1)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return _wide(logits[:, -1 - sampled.completion_ids.shape[1] : -1]) / temperature


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """In at least float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _picked(logits: torch.Tensor, sampled: Sampled) -> Float[torch.Tensor, " B"]:
    chosen = torch.log_softmax(logits, -1).gather(-1, sampled.completion_ids[..., None])[..., 0]
    return torch.where(sampled.completion_mask.bool(), chosen, 0.0).sum(1)


def _owners(model: nn.Module, parameters: dict[str, torch.Tensor]) -> list[nn.Module]:
    """The modules that own the parameters, each of a kind whose scores are known."""
    wanted, owners = {id(value): name for name, value in parameters.items()}, []
    for module in model.modules():
        own = [id(value) for value in module.parameters(recurse=False) if id(value) in wanted]
        if own:
            known = isinstance(module, nn.Linear | nn.Embedding) or hasattr(module, "variance_epsilon")
            kind = f"{wanted[own[0]]} in a {type(module).__name__}"
            require(known, "scores", kind, "parameters of linear layers, embeddings and root-mean-square norms")
            owners.append(module)
    return owners
