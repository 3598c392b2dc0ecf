"""Scored responses: the one data type that flows from testbeds to theorems.

``Responses`` holds n responses to ONE prompt. An exact enumeration carries the policy's probabilities,
a Monte-Carlo sample weights each response 1/n; every function below treats the two alike.
Notation in the book: J is the success rate, s the score, E+ and E- are means given success and failure; what is
conditional is a ``ValueError`` that names ``reward`` where all responses are correct or all are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from rlvr_lib.arguments import non_negative, real_array, require, require_shape, whole_numbers, zero_or_one

PROBABILITY_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Responses:
    """n scored responses to one prompt.

    Attributes:
        reward: [n], 0 or 1.
        score: [n, d], gradient of the log-probability of each response, nats per unit parameter.
        prob: [n], weights summing to 1: the policy's probabilities, or 1/n each when not given.
        length: [n], response lengths in tokens, at least 1; ones when not given.

    Raises:
        ValueError: wrong shape, no response, NaN, a reward that is not 0 or 1, a negative probability,
            probabilities that do not sum to 1, a length that is not a whole number of tokens.
    """

    reward: Float[np.ndarray, " n"]
    score: Float[np.ndarray, "n d"]
    prob: Float[np.ndarray, " n"] = None  # type: ignore[assignment]  # an array from __post_init__ on
    length: Float[np.ndarray, " n"] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        reward = zero_or_one("reward", real_array("reward", self.reward, ndim=1))
        n = len(reward)
        require(n > 0, "reward", reward, "at least one response")
        score = real_array("score", self.score, ndim=2)
        prob = np.full(n, 1 / n) if self.prob is None else non_negative("prob", self.prob)
        length = np.ones(n) if self.length is None else whole_numbers("length", self.length, low=1)
        require(len(score) == n, "score", f"{len(score)} rows", f"one row for each of the {n} rewards")
        require_shape("prob", prob, (n,))
        require_shape("length", length, (n,))
        require(abs(prob.sum() - 1) <= PROBABILITY_TOLERANCE, "prob", f"a sum of {prob.sum():.12g}", "summing to 1")
        for name, array in (("reward", reward), ("score", score), ("prob", prob), ("length", length)):
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @cached_property
    def energy(self) -> Float[np.ndarray, " n"]:
        """|s|^2 of each response, [n]."""
        return np.einsum("nd,nd->n", self.score, self.score)

    def __len__(self) -> int:
        return len(self.reward)


def success_rate(r: Responses) -> float:
    """J = E[r], the probability that a response to the prompt is correct."""
    return float(r.prob @ r.reward)


def conditional_weights(r: Responses) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Probabilities of the responses given success and given failure, each [n] and summing to 1."""
    correct = r.prob * r.reward
    wrong = r.prob * (1 - r.reward)
    require(correct.sum() > 0, "reward", "only wrong responses", "mixed: some correct and some wrong")
    require(wrong.sum() > 0, "reward", "only correct responses", "mixed: some correct and some wrong")
    return correct / correct.sum(), wrong / wrong.sum()


def conditional_means(r: Responses) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """E+[s] and E-[s], each [d]: mean score given success and given failure."""
    correct, wrong = conditional_weights(r)
    return correct @ r.score, wrong @ r.score


def conditional_covariances(r: Responses) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "d d"]]:
    """Cov+[s] and Cov-[s], each [d, d]: covariance of the score given success and given failure."""
    centred = [(weight, r.score - weight @ r.score) for weight in conditional_weights(r)]
    correct, wrong = ((weight[:, None] * score).T @ score for weight, score in centred)
    return correct, wrong


def score_energies(r: Responses) -> tuple[float, float]:
    """Mean squared score norm given success, ``E+[|s|^2]``, and given failure, ``E-[|s|^2]``."""
    correct, wrong = conditional_weights(r)
    return float(correct @ r.energy), float(wrong @ r.energy)
