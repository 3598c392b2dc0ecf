"""The synthetic transformer as a testbed: its responses enumerated, sampled, and trained by the GRPO loop.

The law of the element by which a step multiplies does not depend on the running product (``architecture``), so
success of chains of any length is exact by dynamic programming (``problems``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, integer, real_array, require, require_shape
from rlvr_lib.responses import Responses
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.scores import second_order
from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy, group_head
from rlvr_lib.testbeds.transformer.problems import WordProblems, quotients, running_products, success_and_sensitivity

MOST_SCORE_ENTRIES = 10**8


class TransformerTestbed:
    """The policy at one parameter vector, on a list of prompts; the GRPO loop can train it.

    Args:
        policy: the architecture.
        problems: the prompts, without a run axis; a prompt is named by its index.
        theta: [d], where the parameters start; copied.
    """

    def __init__(self, policy: AttentionPolicy, problems: WordProblems, theta: ArrayLike):
        shape = tuple(problems.element.shape)
        require(len(shape) == 2 and shape[-1] == policy.names, "problems", shape, f"[P, {policy.names}]")
        self.policy, self.problems = policy, problems
        self._leaf = torch.tensor(self._vector("theta", theta), requires_grad=True)

    @property
    def theta(self) -> Float[np.ndarray, " d"]:
        """A copy of the parameters, float64."""
        return self._leaf.detach().numpy().copy()

    def at(self, theta: ArrayLike) -> TransformerTestbed:
        """The same policy and prompts at other parameters [d], which are copied."""
        return TransformerTestbed(self.policy, self.problems, theta)

    def step_scores(self, prompt: int) -> tuple[Float[np.ndarray, "h order"], Float[np.ndarray, "h order d"]]:
        """Law of the element each step multiplies by, and the gradient of its logarithm (zero where the law is zero).

        The score of a response is the sum over its steps; nats per unit parameter.
        """
        law_of, theta = partial(self.policy.step_law, problems=self._select(prompt)), self._leaf.detach()
        law, slope = law_of(theta)[..., 0].numpy(), torch.func.jacrev(law_of)(theta)[..., 0, :].numpy()
        return law, np.divide(slope, law[..., None], out=np.zeros_like(slope), where=law[..., None] > 0)

    def enumerate(self, prompt: int) -> Responses:
        """All order^h responses; row r has the running products that are the digits of r in base ``order``.

        Those that the policy cannot give have probability and score 0. The scores may have 10^8 entries.
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
        reward = (digits[:, -1] == chosen.target).numpy()
        return Responses(reward, score, prob / prob.sum(), np.full(len(prob), float(steps)))

    def sample(self, prompt: int, n: int, seed: int) -> Responses:
        """n independent responses, each with weight 1/n, drawn as ``rollout`` draws them."""
        generator = torch.Generator().manual_seed(integer("seed", seed, low=0))
        rollout = self.rollout([prompt], integer("n", n, low=1), generator)
        multiplier = quotients(self.problems.group, _previous(rollout.tokens), rollout.tokens).numpy()
        score = _response_scores(self.step_scores(prompt)[1], multiplier)
        return Responses(rollout.reward[0], score, length=rollout.length.numpy())

    def exact(self, prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
        """Success rate and its gradient [d], by dynamic programming, for chains of any length."""
        return self._with_gradient(self.policy.success, prompt)

    def log_odds_and_gap(self, prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
        """Log-odds of success and their gradient, the gap [d], likewise."""
        return self._with_gradient(self.policy.log_odds, prompt)

    def along(self, prompt: int, direction: ArrayLike, of: str = "success") -> tuple[float, float, float]:
        """Success or ``log_odds``, and its first and second derivative along a direction [d], likewise."""
        require(of in ("success", "log_odds"), "of", of, "success or log_odds")
        function, chosen = getattr(self.policy, of), self._select(prompt)
        here, there = ({"theta": x} for x in (self._leaf.detach(), torch.tensor(self._vector("direction", direction))))
        (value, slope), (_, second) = second_order(lambda p: function(p["theta"], chosen)[0], here, there)
        self._require_mixed(prompt, of == "success" or bool(value.isfinite()))
        return value.item(), slope.item(), second.item()

    def odds_along(self, prompt: int, direction: ArrayLike, steps: ArrayLike) -> Reals:
        """Log-odds of success at theta + step * direction for every step, in the shape of ``steps``."""
        steps = real_array("steps", steps)
        theta = self.theta + steps.reshape(-1, 1) * self._vector("direction", direction)
        odds = self.policy.log_odds(torch.tensor(theta), self._select(prompt)).numpy()
        self._require_mixed(prompt, bool(np.isfinite(odds).all()))
        return odds.reshape(steps.shape)[()]

    def _with_gradient(self, function, prompt: int) -> tuple[float, Float[np.ndarray, " d"]]:
        value = function(self._leaf, self._select(prompt))[0]
        self._require_mixed(prompt, bool(value.isfinite()))
        (gradient,) = torch.autograd.grad(value, self._leaf)
        return value.item(), gradient.numpy()

    @staticmethod
    def _require_mixed(prompt: int, mixed: bool) -> None:
        require(mixed, "prompt", prompt, "one with correct and with wrong responses, for finite log-odds")

    def exact_all(self) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "P d"]]:
        """Success rates and gradients of all prompts at once."""
        with torch.no_grad():
            law = self.policy.step_law(self._leaf, self.problems)
            success, sensitivity = success_and_sensitivity(law, self.problems)
        # A copy of theta for every prompt, which then is a run of its own, keeps the gradients apart.
        copies = self._leaf.detach().expand(len(self.problems), -1).requires_grad_()
        name, values = self.problems.step_name.T[..., None], self.problems.values.movedim(-1, 0)[..., None]
        law = self.policy.head(self.policy.attend(copies, name, values)[0])
        (gradient,) = torch.autograd.grad(law, copies, sensitivity.movedim(-1, 0)[..., None])
        return success.numpy(), gradient.numpy()

    def parameters(self) -> list[torch.Tensor]:
        """The flat parameter vector, as a list of one tensor."""
        return [self._leaf]

    def rollout(self, prompts: Sequence[int], group_size: int, generator: torch.Generator) -> Rollout:
        """``group_size`` responses to each prompt; tokens are running products, the last repeated as padding."""
        group_size = integer("group_size", group_size, low=1)
        distinct, place = np.unique([self._index(prompt) for prompt in prompts], return_inverse=True)
        chosen = self.problems.select(distinct.tolist())
        with torch.no_grad():
            law = self.policy.step_law(self._leaf, chosen).movedim(-1, 0)  # [distinct, T, order]
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
        chosen = self.problems.select(distinct.tolist())
        mixture, _ = self.policy.attend(self._leaf, chosen.step_name, chosen.values)
        group_size = len(rollout.tokens) // len(rollout.prompts)
        rows = mixture.movedim(-1, 0)[place].repeat_interleave(group_size, 0)  # [B, T, order]
        mass = group_head(chosen.group, _previous(rollout.tokens), rows)
        if self.policy.sharpness is None:
            taken = mass.gather(-1, rollout.tokens[..., None])[..., 0]
            return torch.where(rollout.mask, taken, 1.0).log()
        log_law = torch.log_softmax(self.policy.sharpness * mass, -1)
        return torch.where(rollout.mask, log_law.gather(-1, rollout.tokens[..., None])[..., 0], 0.0)

    def _vector(self, name: str, vector: ArrayLike) -> Float[np.ndarray, " d"]:
        vector = real_array(name, vector)
        require_shape(name, vector, (self.policy.size,))
        return vector

    def _index(self, prompt: int) -> int:
        prompt = integer("prompt", prompt, low=0)
        require(prompt < len(self.problems), "prompt", prompt, f"below {len(self.problems)}")
        return prompt

    def _select(self, prompt: int) -> WordProblems:
        return self.problems.select([self._index(prompt)])


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
