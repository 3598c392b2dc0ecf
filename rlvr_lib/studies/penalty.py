"""Training with a KL penalty to its end: tabular policies by expected updates, networks by exact gradients."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from rlvr_lib.arguments import Reals, integer, non_negative, positive, real_array, require
from rlvr_lib.testbeds.grpo import flat, one_thread
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.theory.advantages import Estimator, gain_over_variance
from rlvr_lib.theory.penalty import Divergence, relative_entropy, tilted

Law = Float[np.ndarray, "... n"]


class Ending(NamedTuple):
    """Log-laws over all n responses to a prompt, before and after training, and which are right; runs lead."""

    before: Law
    after: Law
    reward: Float[np.ndarray, " n"]

    @property
    def moved(self) -> Reals:
        """Change of the log-odds of success, nats."""
        return odds(self.after, self.reward) - odds(self.before, self.reward)

    @property
    def success(self) -> Reals:
        """Success at the end."""
        return np.exp(self.after) @ self.reward

    @property
    def turned(self) -> Reals:
        """Total variation between the laws of right answers before and after, in [0, 1]."""
        before, after = (np.exp(_normal(law[..., self.reward == 1])) for law in self[:2])
        return np.abs(after - before).sum(-1) / 2


def _normal(law: Law) -> Law:
    """Log-probabilities that sum to one; faster on small laws than scipy's."""
    law = law - law.max(-1, keepdims=True)
    return law - np.log(np.exp(law).sum(-1, keepdims=True))


def odds(law: Law, reward: Float[np.ndarray, " n"]) -> Reals:
    """Log-odds of success under log-laws, accurate next to 0 and 1."""
    return logsumexp(law[..., reward == 1], axis=-1) - logsumexp(law[..., reward == 0], axis=-1)


def expected_ascent(
    log_reference: ArrayLike,
    reward: ArrayLike,
    beta: ArrayLike,
    rate: ArrayLike,
    steps: int,
    divergence: Divergence = "reverse",
    estimator: Estimator = "reinforce",
    group_size: int | None = None,
    start: ArrayLike | None = None,
    natural: bool = True,
) -> Ending:
    """Expected updates of a tabular softmax policy less beta times the gradient of a divergence from its reference.

    Args:
        log_reference: [..., n], log-law over all responses; leading axes are runs and broadcast with beta and rate.
        reward: [n], 0 or 1.
        beta: [...], price of a nat; 0 is no penalty.
        rate, steps: of the ascent. A run whose failure falls below e^-60 is left where it is.
        divergence, estimator, group_size: as in ``penalised_log_odds``.
        start: [..., n], log-law to start from; the reference when not given.
        natural: divide the gradient by the Fisher matrix, which leaves the fixed points where they are.
    """
    reference, reward = real_array("log_reference", log_reference), real_array("reward", reward, ndim=1)
    beta, rate = non_negative("beta", beta)[..., None], positive("rate", rate)[..., None]
    shape = np.broadcast_shapes(reference.shape, beta.shape, rate.shape)
    reference = np.broadcast_to(reference, shape)
    law = reference.copy() if start is None else np.broadcast_to(real_array("start", start), shape).copy()
    for _ in range(integer("steps", steps, low=0)):
        prob = np.exp(law)
        right, wrong = prob @ reward, prob @ (1 - reward)
        going = np.minimum(right, wrong) > 1e-26
        if not going.any():
            break
        advantage = _weight(right, wrong, estimator, group_size)[..., None] * reward
        log_ratio = reference - law
        advantage = advantage + beta * (log_ratio if divergence == "reverse" else np.exp(log_ratio))
        centred = advantage - (prob * advantage).sum(-1, keepdims=True)
        moved = _normal(law + rate * (centred if natural else prob * centred))
        law = np.where(going[..., None], moved, law)
    return Ending(reference, law, reward)


def _weight(right: Reals, wrong: Reals, estimator: Estimator, group_size: int | None) -> Reals:
    """What the expected update of the estimator is over the gradient of J."""
    if group_size is None:
        return np.ones_like(right) if estimator == "reinforce" else 1 / np.sqrt(np.maximum(right * wrong, 1e-30))
    return np.asarray(gain_over_variance(np.minimum(right, wrong), float(estimator == "grpo"), group_size))


def every_response(policy: TransformerTestbed | QwenTestbed, prompt: int) -> Rollout:
    """All responses to a prompt, once each, as a rollout of one group."""
    if isinstance(policy, QwenTestbed):
        tokens, length = policy.responses(prompt)
        mask = torch.arange(tokens.shape[1]) < length[:, None]
        reward = policy.task.reward([prompt], tokens[None], length[None]).double()
    else:
        problem = policy.problems.select([prompt])
        steps = range(problem.name.shape[-1])
        tokens = torch.tensor(list(itertools.product(*(range(problem.group.order) for _ in steps))))
        mask, reward = torch.ones_like(tokens, dtype=torch.bool), (tokens[None, :, -1] == problem.target).double()
    return Rollout((prompt,), tokens, mask, reward.numpy())


def log_law(policy: TransformerTestbed | QwenTestbed, rollout: Rollout) -> Float[torch.Tensor, " n"]:
    """Log-probabilities of the responses of a rollout, differentiable in the parameters of the policy."""
    return policy.token_log_probs(rollout).sum(-1)


def mean_gradient(
    policy: TransformerTestbed | QwenTestbed, rollout: Rollout, weight: Law | Float[torch.Tensor, " n"]
) -> Float[np.ndarray, " d"]:
    """Sum over the responses of a rollout of weight times score, [d]."""
    total = torch.as_tensor(weight) @ log_law(policy, rollout)
    return flat(torch.autograd.grad(total, policy.parameters())).numpy()


@one_thread()
def exact_ascent(
    policy: TransformerTestbed | QwenTestbed,
    prompt: int,
    beta: float | None,
    iterations: int,
    divergence: Divergence = "reverse",
    enough: float = 1.0,
) -> Ending:
    """A copy of a network climbs J - beta KL at one prompt by exact gradients, over all its responses.

    L-BFGS with a line search, because the penalty's fixed point is asked for and not the way there.

    Args:
        policy: the reference and the start, in float64; it is not changed.
        beta: price of a nat; None climbs log-odds without a penalty, by plain gradient steps of length 0.05 each.
        iterations: of the optimizer, at most.
        divergence: "reverse", KL(pi | reference), or "forward", KL(reference | pi).
        enough: success at which a climb without a penalty stops.
    """
    policy, rollout = policy.at(policy.theta), every_response(policy, prompt)
    parameters = policy.parameters()
    require(parameters[0].dtype == torch.float64, "policy", parameters[0].dtype, "in float64")
    reward = torch.as_tensor(rollout.reward[0])
    reference = log_law(policy, rollout).detach()
    price = 0.0 if beta is None else float(positive("beta", beta))
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=integer("iterations", iterations, low=1),
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        law = log_law(policy, rollout)
        far = law.exp() @ (law - reference) if divergence == "reverse" else reference.exp() @ (reference - law)
        value = price * far - law.exp() @ reward
        value.backward()
        return value

    if beta is None:
        for _ in range(iterations):
            law = log_law(policy, rollout)
            if float(law.detach().exp() @ reward) >= enough:
                break
            gradient = torch.autograd.grad(law[reward == 1].logsumexp(0) - law[reward == 0].logsumexp(0), parameters)
            size = float(flat(gradient).norm())
            with torch.no_grad():
                for value, part in zip(parameters, gradient, strict=True):
                    value.add_(part, alpha=0.05 / size)
    else:
        optimizer.step(loss)
    after = log_law(policy, rollout).detach()
    return Ending(reference.numpy(), after.numpy(), rollout.reward[0])


def distance_to_tilt(ending: Ending, beta: float) -> float:
    """KL(pi | tilt) at the end, nats: what the policy leaves of J - beta KL(pi | reference), over beta."""
    return relative_entropy(_normal(ending.after), tilted(_normal(ending.before), ending.reward, beta))


def least_beta(
    reference: float, group_size: int | None = None, steps: int = 4000, end: float = 30.0, spacing: float = 0.004
) -> float:
    """The smallest of many penalties up to 3 that keep expected GRPO below log-odds of ``end`` nats.

    From two answers of which one is right, the right one with the probability ``reference``.
    """
    beta = np.arange(spacing, 3.0, spacing)
    law = np.log([reference, 1 - reference])
    run = expected_ascent(law, [1.0, 0.0], beta, 0.1 / (1 + beta), steps, "reverse", "grpo", group_size)
    held = odds(run.after, run.reward) < end
    return float(beta[held].min())


def stable_rate(
    log_reference: ArrayLike, reward: ArrayLike, beta: float, rates: ArrayLike, steps: int = 1000, seed: int = 0
) -> float:
    """The largest of some rates at which plain ascent from beside the tilt ends nearer to it than it began."""
    goal, rates = tilted(log_reference, reward, beta), real_array("rates", rates, ndim=1)
    start = _normal(goal + 1e-4 * np.random.default_rng(seed).standard_normal(len(goal)))
    run = expected_ascent(log_reference, reward, beta, rates, steps, start=start, natural=False)
    far = np.linalg.norm(np.exp(run.after) - np.exp(goal), axis=-1)
    return float(rates[far < np.linalg.norm(np.exp(start) - np.exp(goal))].max(initial=0.0))
