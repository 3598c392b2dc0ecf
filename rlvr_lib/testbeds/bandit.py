"""The log-linear softmax bandit: exact, and vectorised over instances, seeds and step sizes.

One softmax over whole responses, pi(o) proportional to exp(<theta, f(o)> + offset(o)), with parameters shared by all
prompts. The functions broadcast over leading axes; the class is the policy at one parameter vector, as a testbed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit, log_softmax, logsumexp, softmax

from rlvr_lib.arguments import Reals, integer, real_array, require, require_shape, zero_or_one
from rlvr_lib.responses import Responses

MOST_SEQUENCES = 200_000


def log_policy(theta: Float[np.ndarray, "... d"], features: Float[np.ndarray, "... A d"], offset: ArrayLike = 0.0):
    """Log-probabilities of the A responses, [..., A]; leading axes of the arguments broadcast."""
    return log_softmax(np.einsum("...d,...ad->...a", theta, features) + offset, axis=-1)


def log_odds_and_gap(
    theta: Float[np.ndarray, "... d"],
    features: Float[np.ndarray, "... A d"],
    reward: Float[np.ndarray, "... A"],
    offset: ArrayLike = 0.0,
) -> tuple[Reals, Float[np.ndarray, "... d"]]:
    """Log-odds of success [...] and gradient gap [..., d], accurate also where J is within 1e-300 of 0 or 1.

    Each prompt needs at least one correct and one wrong response; otherwise the log-odds are infinite.
    """
    logits = np.einsum("...d,...ad->...a", theta, features) + offset
    correct = np.where(reward == 1, logits, -np.inf)
    wrong = np.where(reward == 1, -np.inf, logits)
    weights = softmax(correct, axis=-1) - softmax(wrong, axis=-1)
    gap = np.einsum("...a,...ad->...d", weights, features)
    return logsumexp(correct, axis=-1) - logsumexp(wrong, axis=-1), gap


def feature_range(features: Float[np.ndarray, "... A d"], direction: Float[np.ndarray, "... d"]):
    """Range over responses of <unit direction, feature>, [...]: the diameter of the features along a step."""
    unit = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.ptp(np.einsum("...d,...ad->...a", unit, features), axis=-1)


def feature_diameter(features: Float[np.ndarray, "... A d"]) -> Float[np.ndarray, "..."]:
    """Largest Euclidean distance between the features of two responses, [...]."""
    difference = features[..., :, None, :] - features[..., None, :, :]
    return np.sqrt((difference**2).sum(-1).max((-1, -2)))


@dataclass(frozen=True, eq=False)
class SoftmaxBandit:
    """A log-linear policy over A responses to each of Q prompts, with shared parameters.

    Attributes:
        reward: 0 or 1; each prompt has a correct and a wrong response.
        offset: fixed part of the logits, nats; zeros when not given.
        length: tokens of every response, at least 1.
    """

    theta: Float[np.ndarray, " d"]
    features: Float[np.ndarray, "Q A d"]
    reward: Float[np.ndarray, "Q A"]
    offset: Float[np.ndarray, "Q A"] = None  # type: ignore[assignment]  # an array from __post_init__ on
    length: int = 1

    def __post_init__(self) -> None:
        theta, features = real_array("theta", self.theta, ndim=1).copy(), real_array("features", self.features, ndim=3)
        reward = zero_or_one("reward", real_array("reward", self.reward, ndim=2))
        offset = np.zeros(features.shape[:2]) if self.offset is None else real_array("offset", self.offset, ndim=2)
        require_shape("theta", theta, features.shape[2:])
        require_shape("reward", reward, features.shape[:2])
        require_shape("offset", offset, features.shape[:2])
        solvable = (reward.min(1) == 0) & (reward.max(1) == 1)
        require(bool(solvable.all()), "reward", reward[~solvable], "mixed for every prompt: some correct, some wrong")
        theta.flags.writeable = False
        checked = {"theta": theta, "features": features, "reward": reward, "offset": offset}
        for name, value in (checked | {"length": integer("length", self.length, low=1)}).items():
            object.__setattr__(self, name, value)

    @classmethod
    def random(cls, seed: int, prompts: int = 1, arms: int = 8, dimension: int = 4, correct: int = 2) -> SoftmaxBandit:
        """Gaussian features and parameters; the first ``correct`` of the arms earn the reward."""
        require(0 < correct < arms, "correct", correct, f"between 1 and {arms - 1}")
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((prompts, arms, dimension))
        reward = np.broadcast_to(np.arange(arms) < correct, (prompts, arms)).astype(float)
        return cls(rng.standard_normal(dimension), features, reward)

    def at(self, theta: ArrayLike) -> SoftmaxBandit:
        """The same bandit at other parameters [d]."""
        return replace(self, theta=real_array("theta", theta))

    def enumerate(self, prompt: int = 0) -> Responses:
        """All A responses to a prompt with their probabilities."""
        features, reward, offset = self._prompt(prompt)
        prob = np.exp(log_policy(self.theta, features, offset))
        prob /= prob.sum()
        return Responses(reward, features - prob @ features, prob, np.full(len(prob), float(self.length)))

    def exact(self, prompt: int = 0) -> tuple[float, Float[np.ndarray, " d"]]:
        """Success rate J and its gradient [d] at a prompt."""
        odds, gap = self.log_odds_and_gap(prompt)
        return float(expit(odds)), expit(odds) * expit(-odds) * gap

    def log_odds_and_gap(self, prompt: int = 0) -> tuple[float, Float[np.ndarray, " d"]]:
        """Log-odds of success at a prompt and their gradient, the gap [d]."""
        odds, gap = log_odds_and_gap(self.theta, *self._prompt(prompt))
        return float(odds), gap

    def along(self, prompt: int, direction: ArrayLike, of: str = "success") -> tuple[float, float, float]:
        """Success or ``log_odds``, and its first and second derivative along a direction [d], in closed form.

        With g = <direction, feature> log-odds have the derivatives E+[g] - E-[g] and Var+[g] - Var-[g], as the law of
        g given the outcome is log-linear too; the second of J is the covariance of reward and (g - E[g])^2.
        """
        require(of in ("success", "log_odds"), "of", of, "success or log_odds")
        features, reward, offset = self._prompt(prompt)
        g, logits = features @ self._direction(direction), features @ self.theta + offset
        right, wrong = (softmax(np.where(reward == outcome, logits, -np.inf)) for outcome in (1, 0))
        odds = float(log_odds_and_gap(self.theta, features, reward, offset)[0])
        slope, success, failure = float((right - wrong) @ g), float(expit(odds)), float(expit(-odds))
        if of == "log_odds":
            return odds, slope, float(right @ (g - right @ g) ** 2 - wrong @ (g - wrong @ g) ** 2)
        mean = (success * right + failure * wrong) @ g
        return success, success * failure * slope, float(success * failure * ((right - wrong) @ (g - mean) ** 2))

    def odds_along(self, prompt: int, direction: ArrayLike, steps: ArrayLike) -> Reals:
        """Log-odds of success at theta + step * direction for every step, in the shape of ``steps``."""
        moved = self.theta + real_array("steps", steps)[..., None] * self._direction(direction)
        return log_odds_and_gap(moved, *self._prompt(prompt))[0]

    def sample(self, prompt: int = 0, n: int = 1, seed: int = 0) -> Responses:
        """n independent responses to a prompt, each with weight 1/n; scores are those of the policy."""
        exact, rng = self.enumerate(prompt), np.random.default_rng(integer("seed", seed, low=0))
        drawn = rng.choice(len(exact), size=integer("n", n, low=1), p=exact.prob)
        return Responses(exact.reward[drawn], exact.score[drawn], length=exact.length[drawn])

    def _prompt(self, prompt: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, rewards and offsets of a prompt's responses."""
        prompt = integer("prompt", prompt, low=0)
        require(prompt < len(self.features), "prompt", prompt, f"below {len(self.features)}")
        return self.features[prompt], self.reward[prompt], self.offset[prompt]

    def _direction(self, direction: ArrayLike) -> Float[np.ndarray, " d"]:
        direction = real_array("direction", direction)
        require_shape("direction", direction, self.theta.shape)
        return direction


def token_bandit(
    theta: ArrayLike, token_features: ArrayLike, horizon: int, reward: Callable[[np.ndarray], np.ndarray]
) -> SoftmaxBandit:
    """Responses of ``horizon`` tokens drawn independently from one softmax over V tokens, all V^horizon enumerated.

    A product of softmaxes of the same features is again log-linear, in the sum of the token features.

    Args:
        theta, token_features: [d] and [V, d].
        horizon: tokens a response, T; at most 200,000 sequences.
        reward: maps token sequences [V^T, T] (integers below V) to rewards [V^T] of 0 or 1.
    """
    token_features = real_array("token_features", token_features, ndim=2)
    tokens, horizon = len(token_features), integer("horizon", horizon, low=1)
    require(tokens**horizon <= MOST_SEQUENCES, "horizon", horizon, f"such that V^horizon is at most {MOST_SEQUENCES}")
    sequences = np.array(list(product(range(tokens), repeat=horizon)))
    correct = np.asarray(reward(sequences), float)
    at = real_array("theta", theta)
    return SoftmaxBandit(at, token_features[sequences].sum(1)[None], correct[None], length=horizon)
