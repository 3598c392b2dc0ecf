"""The synthetic transformer as a testbed: its responses enumerated, sampled, and trained by the GRPO loop.

The law of the element by which a step multiplies does not depend on the running product (``transformer_policy``), so
success of chains of any length is exact by dynamic programming (``chains``), and a response is scored by its
multipliers. A prompt is named by its index in the word problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from rlvr_lib.arguments import integer, real_array, require
from rlvr_lib.responses import Responses
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy, group_head
from rlvr_lib.testbeds.transformer.problems import (
    WordProblems,
    draw_problems,
    quotients,
    running_products,
    success_and_sensitivity,
)

__all__ = ["AttentionPolicy", "TransformerTestbed", "WordProblems", "draw_problems"]

MOST_SCORE_ENTRIES = 10**8


@dataclass(frozen=True, eq=False)
class TransformerTestbed:
    """The policy at one parameter vector, on a list of prompts; also what the GRPO loop trains.

    Attributes:
        policy: the architecture.
        problems: the prompts, without a run axis; a prompt is named by its index.
        theta: [d], a float64 leaf that requires gradients; optimisers change it in place.

    Raises:
        ValueError: a name table of another size than the policy's, a run axis, or a theta of another size.
    """

    policy: AttentionPolicy
    problems: WordProblems
    theta: Float[torch.Tensor, " d"]

    def __post_init__(self) -> None:
        shape = tuple(self.problems.element.shape)
        require(len(shape) == 2 and shape[-1] == self.policy.names, "problems", shape, f"[P, {self.policy.names}]")
        theta = self.theta.detach().numpy() if isinstance(self.theta, torch.Tensor) else self.theta
        theta = real_array("theta", theta, ndim=1)
        require(len(theta) == self.policy.size, "theta", f"length {len(theta)}", f"of length {self.policy.size}")
        object.__setattr__(self, "theta", torch.tensor(theta, requires_grad=True))

    def with_parameters(self, theta: ArrayLike) -> TransformerTestbed:
        """The same policy and prompts at other parameters [d], which are copied."""
        return replace(self, theta=theta)

    def step_scores(self, prompt: int) -> tuple[Float[np.ndarray, "h order"], Float[np.ndarray, "h order d"]]:
        """Law of the element each step multiplies by, and the gradient of its logarithm (zero where the law is zero).

        The score of a response is the sum over its steps; nats per unit parameter.
        """
        chosen = self._select(prompt)
        theta = self.theta.detach()

        def law_of(parameters: torch.Tensor) -> torch.Tensor:
            return self.policy.step_law(parameters, chosen)[..., 0]

        law, slope = law_of(theta).numpy(), torch.func.jacrev(law_of)(theta).numpy()
        return law, np.divide(slope, law[..., None], out=np.zeros_like(slope), where=law[..., None] > 0)

    def enumerate(self, prompt: int) -> Responses:
        """All order^h responses; row r has the running products that are the digits of r in base ``order``.

        Responses that the policy cannot give (linear head, a product no clause leads to) have probability and score 0.

        Raises:
            ValueError: not a prompt's index, or more than 10^8 entries in the scores.
        """
        chosen = self._select(prompt)
        order, steps = self.problems.group.order, chosen.name.shape[-1]
        entries = order**steps * self.policy.size
        require(entries <= MOST_SCORE_ENTRIES, "prompt", f"order^h d = {entries}", f"at most {MOST_SCORE_ENTRIES}")
        digits = torch.cartesian_prod(*[torch.arange(order)] * steps).reshape(-1, steps)
        multiplier = quotients(chosen.group, _previous(digits), digits).numpy()
        law, scores = self.step_scores(prompt)
        prob = law[np.arange(steps), multiplier].prod(1)
        score = _response_scores(scores, multiplier)
        score[prob == 0] = 0
        return Responses(self._reward(chosen, digits), score, prob / prob.sum(), np.full(len(prob), float(steps)))

    def sample(self, prompt: int, n: int, seed: int) -> Responses:
        """n independent responses, each with weight 1/n.

        Raises:
            ValueError: not a prompt's index, or n below 1.
        """
        chosen, n = self._select(prompt), integer("n", n, low=1)
        law, scores = self.step_scores(prompt)
        generator = torch.Generator().manual_seed(integer("seed", seed, low=0))
        multiplier = torch.multinomial(torch.tensor(law), n, replacement=True, generator=generator).T
        products = running_products(chosen.group, multiplier)
        score = _response_scores(scores, multiplier.numpy())
        return Responses(self._reward(chosen, products), score, length=np.full(n, float(len(scores))))

    def exact(self, prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
        """Success rate and its gradient [d], by dynamic programming, for chains of any length."""
        success = self.policy.success(self.theta, self._select(prompt))[0]
        (gradient,) = torch.autograd.grad(success, self.theta)
        return success.item(), gradient.numpy()

    def exact_all(self) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "P d"]]:
        """Success rates and gradients of all prompts at once."""
        with torch.no_grad():
            law = self.policy.step_law(self.theta, self.problems)
            success, sensitivity = success_and_sensitivity(law, self.problems)
        # A copy of theta for every prompt, which then is a run of its own, keeps the gradients apart.
        copies = self.theta.detach().expand(len(self.problems), -1).requires_grad_()
        name, values = self.problems.step_name.T[..., None], self.problems.values.movedim(-1, 0)[..., None]
        law = self.policy.head(self.policy.attend(copies, name, values)[0])
        (gradient,) = torch.autograd.grad(law, copies, sensitivity.movedim(-1, 0)[..., None])
        return success.numpy(), gradient.numpy()

    def success_by_horizon(self) -> dict[int, float]:
        """Exact success averaged over the prompts of each horizon."""
        with torch.no_grad():
            mean = self.problems.horizon_mean @ self.policy.success(self.theta, self.problems)
        return dict(zip(self.problems.horizons, mean.tolist(), strict=True))

    def mean_gradient(self) -> tuple[float, Float[np.ndarray, " d"]]:
        """Mean success over all prompts and its gradient [d]."""
        law = self.policy.step_law(self.theta, self.problems)
        success, sensitivity = success_and_sensitivity(law.detach(), self.problems)
        (gradient,) = torch.autograd.grad(law, self.theta, sensitivity / len(self.problems))
        return success.mean().item(), gradient.numpy()

    def parameters(self) -> list[torch.Tensor]:
        """The flat parameter vector, as a list of one tensor."""
        return [self.theta]

    def rollout(self, prompts: Sequence[int], group_size: int, generator: torch.Generator) -> Rollout:
        """``group_size`` responses to each prompt; tokens are running products, the last repeated as padding."""
        group_size = integer("group_size", group_size, low=1)
        distinct, place = np.unique([self._index(prompt) for prompt in prompts], return_inverse=True)
        chosen = self.problems.select(distinct)
        with torch.no_grad():
            law = self.policy.step_law(self.theta, chosen).movedim(-1, 0)  # [distinct, T, order]
        running = torch.arange(law.shape[1]) < chosen.horizon[:, None]
        law[~running] = torch.eye(law.shape[-1], dtype=torch.float64)[0]  # past the end: multiply by the identity
        drawn = torch.multinomial(law[place].flatten(0, 1), group_size, replacement=True, generator=generator)
        multiplier = drawn.unflatten(0, (len(place), -1)).transpose(1, 2)  # [Q, G, T]
        tokens = running_products(chosen.group, multiplier)
        reward = tokens[..., -1] == chosen.target[place][:, None]
        mask = running[place].repeat_interleave(group_size, 0)
        return Rollout(tuple(int(distinct[q]) for q in place), tokens.flatten(0, 1), mask, reward.double().numpy())

    def token_log_probs(self, rollout: Rollout) -> Float[torch.Tensor, "B T"]:
        """Log-probability of every running product given the one before, through the frozen ReLU layer."""
        distinct, place = np.unique(rollout.prompts, return_inverse=True)
        chosen = self.problems.select(distinct)
        mixture, _ = self.policy.attend(self.theta, chosen.step_name, chosen.values)
        group_size = len(rollout.tokens) // len(rollout.prompts)
        rows = mixture.movedim(-1, 0)[place].repeat_interleave(group_size, 0)  # [B, T, order]
        mass = group_head(chosen.group, _previous(rollout.tokens), rows)
        if self.policy.sharpness is None:
            taken = mass.gather(-1, rollout.tokens[..., None])[..., 0]
            return torch.where(rollout.mask, taken, 1.0).log()
        log_law = torch.log_softmax(self.policy.sharpness * mass, -1)
        return torch.where(rollout.mask, log_law.gather(-1, rollout.tokens[..., None])[..., 0], 0.0)

    def scores(self, rollout: Rollout) -> Float[torch.Tensor, "B d"]:
        """Score of every response of a rollout."""
        multiplier = quotients(self.problems.group, _previous(rollout.tokens), rollout.tokens).numpy()
        steps = {prompt: self.step_scores(prompt)[1] for prompt in set(rollout.prompts)}
        groups = zip(rollout.prompts, np.split(multiplier, len(rollout.prompts)), strict=True)
        scores = [_response_scores(steps[prompt], rows[:, : len(steps[prompt])]) for prompt, rows in groups]
        return torch.tensor(np.concatenate(scores)).reshape(-1, self.policy.size)

    def _index(self, prompt: int) -> int:
        prompt = integer("prompt", prompt, low=0)
        require(prompt < len(self.problems), "prompt", prompt, f"below {len(self.problems)}")
        return prompt

    def _select(self, prompt: int) -> WordProblems:
        return self.problems.select([self._index(prompt)])

    @staticmethod
    def _reward(chosen: WordProblems, products: Int[torch.Tensor, "n h"]) -> Float[np.ndarray, " n"]:
        return (products[:, -1] == chosen.target).double().numpy()


def _previous(products: Int[torch.Tensor, "n T"]) -> Int[torch.Tensor, "n T"]:
    """The running product before each step: the identity, then all but the last."""
    return torch.cat([torch.zeros_like(products[:, :1]), products[:, :-1]], 1)


def _response_scores(
    scores: Float[np.ndarray, "h order d"], multiplier: Int[np.ndarray, "n h"]
) -> Float[np.ndarray, "n d"]:
    """Sum over steps of the scores of the elements multiplied by, as one matrix product."""
    steps, order, size = scores.shape
    taken = (multiplier[..., None] == np.arange(order)).reshape(len(multiplier), steps * order)
    return taken.astype(float) @ scores.reshape(steps * order, size)
