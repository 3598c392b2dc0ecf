"""Scored responses: the one data type that flows from testbeds to theorems.

``Responses`` holds n responses to ONE prompt. An exact enumeration carries the policy's probabilities,
a Monte-Carlo sample weights each response 1/n; every function below treats the two alike.
Notation in the book: J is the success rate, s the score, E+ and E- are means given success and failure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rlvr_lib.arguments import real_array, require

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
    prob: Float[np.ndarray, " n"] = None
    length: Float[np.ndarray, " n"] = None

    def __post_init__(self) -> None:
        reward = real_array("reward", self.reward, ndim=1)
        n = len(reward)
        require(n > 0, "reward", reward, "at least one response")
        not_binary = (reward != 0) & (reward != 1)
        require(not not_binary.any(), "reward", reward[not_binary][:1], "0 or 1")
        score = real_array("score", self.score, ndim=2)
        prob = np.full(n, 1 / n) if self.prob is None else real_array("prob", self.prob, ndim=1)
        length = np.ones(n) if self.length is None else real_array("length", self.length, ndim=1)
        for name, array in (("score", score), ("prob", prob), ("length", length)):
            require(len(array) == n, name, f"{len(array)} rows", f"one row for each of the {n} rewards")
        require(bool((prob >= 0).all()), "prob", prob[prob < 0][:1], "at least 0")
        require(abs(prob.sum() - 1) <= PROBABILITY_TOLERANCE, "prob", f"a sum of {prob.sum():.12g}", "summing to 1")
        whole = (length >= 1) & (length == np.floor(length))
        require(bool(whole.all()), "length", length[~whole][:1], "a whole number of tokens, at least 1")
        for name, array in (("reward", reward), ("score", score), ("prob", prob), ("length", length)):
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.reward)


def success_rate(r: Responses) -> float:
    """J = E[r], the probability that a response to the prompt is correct."""
    return float(r.prob @ r.reward)


def conditional_weights(r: Responses) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Probabilities of the responses given success and given failure, each [n] and summing to 1.

    Raises:
        ValueError: all responses are correct, or all are wrong, so that one condition has probability 0.
    """
    correct = r.prob * r.reward
    wrong = r.prob * (1 - r.reward)
    require(correct.sum() > 0, "reward", "only wrong responses", "mixed: some correct and some wrong")
    require(wrong.sum() > 0, "reward", "only correct responses", "mixed: some correct and some wrong")
    return correct / correct.sum(), wrong / wrong.sum()


def conditional_means(r: Responses) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """E+[s] and E-[s], each [d]: mean score given success and given failure.

    Raises:
        ValueError: all responses are correct, or all are wrong.
    """
    correct, wrong = conditional_weights(r)
    return correct @ r.score, wrong @ r.score


def score_energies(r: Responses) -> tuple[float, float]:
    """Mean squared score norm given success, ``E+[|s|^2]``, and given failure, ``E-[|s|^2]``.

    Raises:
        ValueError: all responses are correct, or all are wrong.
    """
    correct, wrong = conditional_weights(r)
    energy = np.einsum("nd,nd->n", r.score, r.score)
    return float(correct @ energy), float(wrong @ energy)


def gram_matrix(r: Responses) -> Float[np.ndarray, "n n"]:
    """Inner products <s_i, s_j> of all pairs of scores, [n, n]."""
    return r.score @ r.score.T
