"""Attention over clauses and a frozen group head: the architecture of the synthetic transformer, without a state.

Step l of a response asks for a name; attention over the clauses of the prompt (queries and keys are name embeddings,
values the one-hot elements) returns a mixture of elements; a frozen ReLU layer of order^2 neurons multiplies the
running product by it. Only W_QK, or a bias for every offset in the relative variant, is trained.

Left out on purpose: several heads and layers, a trained head or values, positions in the content variant. The
setting of P2, arXiv 2602.14872 v1, rebuilt from its description.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from rlvr_lib.arguments import integer, positive, real_array, require
from rlvr_lib.testbeds.transformer.problems import PerPrompt, WordProblems, running_laws, success_probability
from rlvr_lib.theory.groups import FiniteGroup

LARGEST_SPREAD = 700.0

Theta = Float[torch.Tensor, "*#runs d"]


@dataclass(frozen=True, eq=False)
class AttentionPolicy:
    """The architecture: pure functions of a flat parameter vector theta [..., d] and of word problems.

    Attributes:
        names: N, the size of the table of names (positions, in the relative variant).
        addressing: ``content``, the logit of query l and key m is e_l' W_QK e_m with W_QK = theta as a matrix;
            ``relative``, it is theta[m - l + N - 1], one bias for every offset.
        sharpness: None for the linear head, whose policy over the next product is the attention-weighted mixture of
            the clauses' outcomes; a positive number for the softmax head, whose logits are sharpness x that mixture.
        embedding: [N, e] for content addressing, or [R, N, e] for R runs with a table each; one-hot when not given.
    """

    names: int = 45
    addressing: str = "content"
    sharpness: float | None = None
    embedding: Float[torch.Tensor, "*runs N e"] | Float[np.ndarray, "*runs N e"] | None = None

    def __post_init__(self) -> None:
        integer("names", self.names, low=1)
        require(self.addressing in ("content", "relative"), "addressing", self.addressing, "content or relative")
        if self.sharpness is not None:
            sharpness = positive("sharpness", self.sharpness)
            require(sharpness.ndim == 0, "sharpness", self.sharpness, "one number, or None")
            object.__setattr__(self, "sharpness", float(sharpness))
        if self.embedding is not None:
            require(self.addressing == "content", "embedding", "one for relative addressing", "None there")
            embedding = real_array("embedding", self.embedding)
            fits = embedding.ndim in (2, 3) and embedding.shape[-2] == self.names
            require(fits, "embedding", f"shape {embedding.shape}", f"[{self.names}, e] or [R, {self.names}, e]")
            object.__setattr__(self, "embedding", torch.tensor(embedding))

    @property
    def size(self) -> int:
        """d, the number of parameters."""
        if self.addressing == "relative":
            return 2 * self.names - 1
        return (self.names if self.embedding is None else self.embedding.shape[-1]) ** 2

    def initial(self, weight: float) -> Float[torch.Tensor, " d"]:
        """W_QK = weight x identity, or a bias of ``weight`` at offset 0; all else zero.

        With one-hot names attention a on the right clause needs weight = logit(a) + log(clauses - 1).
        """
        if self.addressing == "content":
            return (weight * torch.eye(round(self.size**0.5), dtype=torch.float64)).flatten()
        theta = torch.zeros(self.size, dtype=torch.float64)
        theta[self.names - 1] = weight
        return theta

    def attention_logits(self, theta: Theta) -> Float[torch.Tensor, "*runs N N"]:
        """Logit of every query (rows) at every key (columns)."""
        if self.addressing == "relative":
            position = torch.arange(self.names)
            offset = position - position[:, None] + self.names - 1
            return theta.index_select(-1, offset.flatten()).unflatten(-1, offset.shape)
        side = round(self.size**0.5)
        weight = theta.unflatten(-1, (side, side))
        return weight if self.embedding is None else self.embedding @ weight @ self.embedding.mT

    def attend(
        self,
        theta: Theta,
        name: Int[torch.Tensor, "*#runs T P"],
        values: Float[torch.Tensor, "*#runs N order P"],
    ) -> tuple[Float[torch.Tensor, "*runs T order P"], Float[torch.Tensor, "*runs T P"]]:
        """Softmax attention of every step: the mixture of elements it reads, and its weight on the right clause.

        All queries of the table attend at once, and each step then looks up its own; every clause carries one
        element, so the mixture's sum is the softmax's normaliser. A weight below e^-700 of a query's largest over
        all names is rounded up to that, so that no context is empty in floating point.
        """
        logits = self.attention_logits(theta)
        weight = (logits - logits.amax(-1, keepdim=True)).clamp(min=-LARGEST_SPREAD).exp()
        read = (weight @ values.flatten(-2)).unflatten(-1, values.shape[-2:])
        name = name.expand(read.shape[:-3] + name.shape[-2:])
        mixture = read.gather(-3, name[..., :, None, :].expand(*name.shape[:-1], read.shape[-2], name.shape[-1]))
        total = mixture.sum(-2, keepdim=True)
        own = weight.diagonal(dim1=-2, dim2=-1)
        own = own.expand(*name.shape[:-2], self.names).gather(-1, name.flatten(-2)).unflatten(-1, name.shape[-2:])
        return mixture / total, own / total[..., 0, :]

    def head(self, mixture: Float[torch.Tensor, "*#runs T order P"]) -> Float[torch.Tensor, "*runs T order P"]:
        """Law of the element by which a step multiplies the running product, from the mixture that it read."""
        return mixture if self.sharpness is None else torch.softmax(self.sharpness * mixture, -2)

    def step_law(self, theta: Theta, problems: WordProblems) -> Float[torch.Tensor, "*runs T order P"]:
        """``head`` of ``attend``."""
        return self.head(self.attend(theta, problems.step_name, problems.values)[0])

    def success(self, theta: Theta, problems: WordProblems) -> PerPrompt:
        """Exact success of every prompt, differentiable in theta to any order (``torch.func`` included)."""
        return success_probability(self.step_law(theta, problems), problems)

    def log_odds(self, theta: Theta, problems: WordProblems) -> PerPrompt:
        """Log-odds of the success of every prompt, likewise; infinite where all responses are correct or all wrong."""
        last = running_laws(self.step_law(theta, problems), problems)[1]
        target = problems.target.expand(last.shape[:-2] + last.shape[-1:])[..., None, :]
        # Failure is summed over the wrong products, so nothing rounds to 1.
        return last.gather(-2, target)[..., 0, :].log() - last.scatter(-2, target, 0.0).sum(-2).log()


@functools.cache
def group_layer(group: FiniteGroup) -> tuple[Float[torch.Tensor, "neurons in"], Float[torch.Tensor, "order neurons"]]:
    """Frozen weights of the group head: input [neurons, 2 order], with bias -1, and output [order, neurons].

    Neuron (g, k), number g order + k, is relu(x_g + c_k - 1) for the running product x, one-hot, and the mixture c;
    it feeds the product gk. For one-hot x it equals x_g c_k, so the output is the mixture moved by x.
    """
    one_hot = torch.eye(group.order, dtype=torch.float64)
    g, k = torch.arange(group.order**2) // group.order, torch.arange(group.order**2) % group.order
    return torch.cat([one_hot[g], one_hot[k]], 1), one_hot[torch.tensor(group.table).flatten()].T.contiguous()


def group_head(
    group: FiniteGroup, running: Int[torch.Tensor, "*#batch"], mixture: Float[torch.Tensor, "*#batch order"]
) -> Float[torch.Tensor, "*batch order"]:
    """The frozen ReLU layer: mass of every next product, given the running one and the mixture read by attention."""
    inputs, outputs = group_layer(group)
    one_hot = torch.nn.functional.one_hot(running, group.order).double()
    neurons = torch.relu(torch.cat([one_hot, mixture], -1) @ inputs.T - 1)
    return neurons @ outputs.T
