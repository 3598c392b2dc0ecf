"""Scores of single responses of a torch model: exact gradients by ``torch.func``, and their norms without them.

A matrix W that maps activations a_t to outputs W a_t has the per-response gradient sum_t g_t a_t', where g_t is the
gradient with respect to the output, so its squared norm is sum_tu <g_t, g_u> <a_t, a_u>. One backward pass to the
outputs, without the gradient of any parameter, gives the norms of all responses of a batch ("ghost norms").
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float

CHUNK = 64
"""Responses differentiated at once, a balance of memory against calls."""


def per_sample_scores(
    log_prob: Callable[..., Float[torch.Tensor, ""]], parameters: Mapping[str, torch.Tensor], *rows: torch.Tensor
) -> Float[torch.Tensor, "n d"]:
    """Gradient of ``log_prob(parameters, *row)`` for each of n rows, flat in the order of the parameters.

    The function is traced by ``torch.func``; entry i of each of the rows, [n, ...], belongs to response i.
    """
    gradients = torch.func.vmap(torch.func.grad(log_prob), in_dims=(None, *[0] * len(rows)))
    parameters = {name: value.detach() for name, value in parameters.items()}
    width = sum(value.numel() for value in parameters.values())
    scores = torch.empty(len(rows[0]), width, dtype=next(iter(parameters.values())).dtype)
    for target, *part in zip(scores.split(CHUNK), *(row.split(CHUNK) for row in rows), strict=True):
        torch.cat([gradient.flatten(1) for gradient in gradients(parameters, *part).values()], 1, out=target)
    return scores


@dataclass
class Recorder:
    """A tap for a forward pass: keeps parameter name, input and output of every product with a parameter.

    Run the forward on detached parameters; the first product, the look-up of embeddings, then starts the graph.
    """

    products: list[tuple[str, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def __call__(self, name: str, inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Record one product and return its output."""
        if not outputs.requires_grad:
            outputs.requires_grad_()
        self.products.append((name, inputs.detach(), outputs))
        return outputs

    def squared_norms(
        self, log_prob: Float[torch.Tensor, " B"], parameters: Mapping[str, torch.Tensor]
    ) -> Float[torch.Tensor, " B"]:
        """|gradient of log_prob[i]|^2 with respect to all parameters, for each i.

        The forward pass was over B rows that do not interact, in every product one after the other with equally many
        positions each. A vector multiplies elementwise; a matrix multiplies, or is looked up by integer inputs, or both
        (a tied embedding: the cross term counts). ``X.bias`` is added by the product with ``X.weight``.
        """
        batch = len(log_prob)
        gradients = torch.autograd.grad(log_prob.sum(), [outputs for _, _, outputs in self.products])
        norms = torch.zeros_like(log_prob)
        factors: dict[str, list[Any]] = {}
        for (name, inputs, _), gradient in zip(self.products, gradients, strict=True):
            factors.setdefault(name, []).append(score_factors(parameters[name], inputs, gradient, batch))
            bias = name.removesuffix("weight") + "bias"
            if bias in parameters:
                factors[bias] = [score_factors(parameters[bias], torch.ones_like(gradient), gradient, batch)]
        for pairs in factors.values():
            norms += _squared_norm_of_product(*(torch.cat(side, 1) for side in zip(*pairs, strict=True)))
        return norms.detach()


def score_factors(
    weight: torch.Tensor, inputs: torch.Tensor, gradient: torch.Tensor, batch: int
) -> tuple[Float[torch.Tensor, "B t o"], Float[torch.Tensor, "B t i"]]:
    """Two factors whose product left' right is the gradient of each of B rows with respect to a parameter.

    The weight is a vector that multiplies the inputs elementwise (a bias multiplies ones), or a matrix [o, i] that
    multiplies them, or whose rows [o] are looked up by integer inputs. Inputs of the product, and the gradient with
    respect to its outputs, hold the rows one after the other, equally long.
    """
    if weight.ndim == 1:
        each = (gradient * inputs).reshape(batch, -1, len(weight)).sum(1, keepdim=True)
        return each, each.new_ones(batch, 1, 1)
    left, right = gradient, inputs
    if not inputs.is_floating_point():
        left, right = F.one_hot(inputs, len(weight)).to(gradient.dtype), gradient
    return left.reshape(batch, -1, left.shape[-1]), right.reshape(batch, -1, right.shape[-1])


def _squared_norm_of_product(left: Float[torch.Tensor, "B t o"], right: Float[torch.Tensor, "B t i"]) -> torch.Tensor:
    """|left' right|^2 for each row, by the cheaper of the inner products of positions and the product itself."""
    positions, outputs, inputs = left.shape[1], left.shape[2], right.shape[2]
    if positions * (outputs + inputs) < outputs * inputs:
        return (torch.bmm(left, left.mT) * torch.bmm(right, right.mT)).sum((1, 2))
    return torch.bmm(left.mT, right).square().sum((1, 2))


def second_order(
    function: Callable[[Mapping[str, torch.Tensor]], torch.Tensor],
    parameters: Mapping[str, torch.Tensor],
    direction: Mapping[str, torch.Tensor],
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """((f, f'), (f', f'')) of a function of the parameters along a direction, by forward mode twice."""
    zero = torch.zeros((), dtype=next(iter(parameters.values())).dtype)

    def along(distance):
        return function({name: value + distance * direction[name] for name, value in parameters.items()})

    def first_order(distance):
        return torch.func.jvp(along, (distance,), (torch.ones_like(distance),))

    with warnings.catch_warnings():
        # Torch loads its rules of forward mode at the first use, and warns that it scripts them.
        warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated", DeprecationWarning)
        both: Any = torch.func.jvp(first_order, (zero,), (torch.ones_like(zero),))
        return both
