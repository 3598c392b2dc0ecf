"""The runs of chapter 3 on the bandit: chains of names, each with a logit of its own, trained from their end reward.

A chain of h names is right with probability ``y = product of lambda(a_m)`` over its names m, where the attention a_m is
that of ``clause_attention`` and the *head* lambda gives the decay per step. Success of a length is the mean over its
chains, exactly; it is a power only if all logits agree, which is the model of one logit (``flow``). Functions take
numbers and return numbers; what a claim breaks is a keyword.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.integrate import cumulative_trapezoid

from rlvr_lib.arguments import Reals, integer, open_unit, positive, require
from rlvr_lib.studies.curves import first_time
from rlvr_lib.testbeds.adam import Adam
from rlvr_lib.theory.advantages import gain_over_variance
from rlvr_lib.theory.relay import clause_attention, next_ratio, saturated_decay

Head = Callable[[Reals], tuple[Reals, Reals]]
ORDER = 6
ESTIMATORS = ("REINFORCE", "GRPO", "Adam")
RECORDED = 4
"""Updates between records."""


def linear(attention: Reals) -> tuple[Reals, Reals]:
    """The head that reads one clause a step: lambda(a) = a, and its slope."""
    return attention, np.ones_like(attention)


def softmax(sharpness: float, order: int = ORDER) -> Head:
    """The head of ``saturated_decay``, and its slope in the attention."""
    positive("sharpness", sharpness)

    def head(attention: Reals) -> tuple[Reals, Reals]:
        decay = saturated_decay(attention, sharpness, order)
        return decay, sharpness * (1 - decay) * (1 + (order - 1) * decay) / order

    return head


class Relay(NamedTuple):
    """Success above chance along runs, at the times of each."""

    time: Float[np.ndarray, "S runs"]
    y: Float[np.ndarray, "S runs K"]

    def when(self, level: float) -> Float[np.ndarray, "runs K"]:
        """First times at which each length reaches a level, interpolated; infinite where it never does."""
        return first_time(self.time.T[:, None], np.moveaxis(self.y, 0, -1), level)

    def wait(self, found: float = 0.1, mastered: float = 0.9) -> Float[np.ndarray, "runs handoffs"]:
        """From the mastery of a length until the next is found: negative in a relay."""
        return self.when(found)[:, 1:] - self.when(mastered)[:, :-1]

    def wait_over_rise(self) -> Float[np.ndarray, "runs handoffs"]:
        """The wait over the time that the next length then takes from y = .1 to .9; NaN where it never does."""
        with np.errstate(invalid="ignore"):
            return self.wait() / (self.when(0.9) - self.when(0.1))[:, 1:]

    def exponent_ratios(
        self, lengths: Sequence[int], law: Callable[..., Reals], farthest: bool = False
    ) -> Float[np.ndarray, "runs handoffs"]:
        """Median of ln y' / ln y over ``law(R, h, y)`` while both y lie in .05 to .995; NaN where they never do.

        ``farthest`` gives the value farthest from one in place of the median.
        """
        found = np.full((self.y.shape[1], self.y.shape[2] - 1), np.nan)
        for run, k in np.ndindex(*found.shape):
            one, two = self.y[:, run, k], self.y[:, run, k + 1]
            seen = (np.minimum(one, two) > 0.05) & (np.maximum(one, two) < 0.995)
            if seen.any():
                kappa = np.log(two[seen]) / np.log(one[seen])
                ratio = kappa / law(lengths[k + 1] / lengths[k], lengths[k], one[seen])
                found[run, k] = ratio[np.abs(ratio - 1).argmax()] if farthest else np.median(ratio)
        return found


def flow(
    horizons: Sequence[int], head: Head, dilute: bool, start: float, stop: float = 18.0, per_length: bool = False
) -> Relay:
    """One logit from ``start`` to ``stop`` along dw/dt = dJ/dw, by integrating dw over the velocity.

    With ``per_length`` the objective is P2's, the mean of success over length.
    """
    w = np.linspace(start, stop, 20_001)
    lengths = np.array(horizons)
    attention = clause_attention(w[:, None], lengths if dilute else 2)
    decay, slope = head(attention)
    push = decay ** (lengths - 1) * slope * attention * (1 - attention) * (1 if per_length else lengths)
    velocity = (1 - 1 / ORDER) * push.mean(1)
    return Relay(cumulative_trapezoid(1 / velocity, w, initial=0)[:, None], (decay**lengths)[:, None])


def mean_over_chains(decay: Float[np.ndarray, "runs names"], horizon: int) -> Float[np.ndarray, " runs"]:
    """Mean over all sets of ``horizon`` names of the product of their decays: an elementary symmetric mean.

    By Maclaurin's inequality its h-th root falls with h: uneven names are harder for long chains than one logit says.
    """
    runs, names = decay.shape
    mean = np.zeros((runs, horizon + 1))
    mean[:, 0] = 1
    k = np.arange(1, horizon + 1)
    for m in range(1, names + 1):
        mean[:, 1:] = np.where(k <= m, ((m - k) * mean[:, 1:] + k * decay[:, [m - 1]] * mean[:, :-1]) / m, 0)
    return mean[:, -1]


def relay(
    horizons: Sequence[int],
    runs: int,
    seed: int,
    head: Head = linear,
    dilute: bool = True,
    start: float = np.log(4),
    spread: float = 1.0,
    names: int = 45,
    estimator: str = "REINFORCE",
    kept: bool = True,
    until: float = 0.95,
    step: float = 0.03,
    chains: int = 8,
    patience: int = 4000,
) -> Relay:
    """Train until the longest length has success ``until`` above chance in every run, from expected updates.

    Args:
        start, spread: mean and standard deviation of the logits at the start.
        estimator: one of ``ESTIMATORS``; GRPO in groups of eight. Time is the sum of learning rates over the number of
            names, since a chain trains its own names only. Rates are such that no logit moves by more than ``step`` in
            an update; Adam, whose steps have a length of their own, has the rate ``step`` throughout.
        kept: whether lengths stay in the mixture when they are mastered (y = .9).
        chains: fresh chains of each length an update.
        patience: updates after which a run ends anyway.
    """
    require(estimator in ESTIMATORS, "estimator", estimator, f"one of {', '.join(ESTIMATORS)}")
    lengths = sorted(integer("horizons", h, low=2) for h in horizons)
    integer("names", names, low=lengths[-1])
    rng = np.random.default_rng(seed)
    w = start + spread * rng.standard_normal((integer("runs", runs, low=1), names))
    open_unit("until", until)
    y = np.zeros((runs, len(lengths)))
    time, times, curves, adam = np.zeros(runs), [], [], Adam()
    rows = np.arange(runs)[:, None, None]
    for number in range(1, patience + 1):
        heads = [head(clause_attention(w, h if dilute else 2)) for h in lengths]
        if number % RECORDED == 1 or not (kept or (y[:, 0] >= 0.9).all()):
            y = np.stack([mean_over_chains(decay, h) for (decay, _), h in zip(heads, lengths, strict=True)], 1)
            times.append(time.copy())
            curves.append(y)
            if (y[:, -1] >= until).all():
                break
        weight = np.ones_like(y) if kept else np.where(y < 0.9, 1.0, 0.0)
        weight[:, -1] = 1
        velocity = np.zeros_like(w)
        for (decay, slope), h, share in zip(heads, lengths, (weight / weight.sum(1, keepdims=True)).T, strict=True):
            attention = clause_attention(w, h if dilute else 2)
            chosen = rng.random((runs, chains, names)).argsort(2)[..., :h]
            right = decay[rows, chosen].prod(2)  # of each chain
            pull = (1 - 1 / ORDER) * right * share[:, None] / chains
            if estimator == "GRPO":
                success = 1 / ORDER + (1 - 1 / ORDER) * right
                pull = pull * gain_over_variance(np.clip(success, 0, 1 - 1e-12), 1.0, 8)
            each = (slope * attention * (1 - attention) / decay)[rows, chosen] * pull[..., None]
            velocity += np.bincount((rows * names + chosen).ravel(), each.ravel(), w.size).reshape(w.shape)
        if estimator == "Adam":
            w, time = w + step * adam(velocity), time + step
        else:
            rate = step / velocity.max(1)
            w, time = w + rate[:, None] * velocity, time + rate
    return Relay(np.array(times) / names, np.array(curves))


def wait(
    head: Head, start: float, ratio: int, kept: bool, runs: int, seed: int, step: float
) -> Float[np.ndarray, " runs"]:
    """Time from the mastery of chains of 5 to half success of the next length, in runs with a context of their own."""
    options: dict[str, Any] = {"kept": kept, "until": 0.6, "step": step, "chains": 2}
    run = relay((5, 5 * ratio), runs, seed, head, start=start, **options)
    return run.when(0.5)[:, 1] - run.when(0.9)[:, 0]


def flow_wait(head: Head, start: float, ratio: int, kept: bool) -> float:
    """The same for one logit."""
    if kept:
        run = flow((5, 5 * ratio), head, True, start)
        return float(run.when(0.5)[0, 1] - run.when(0.9)[0, 0])
    w = np.linspace(start, 18, 100_001)
    mastered = head(clause_attention(w, 5))[0] ** 5 >= 0.9
    return float(flow((5 * ratio,), head, True, w[mastered.argmax()]).when(0.5)[0, 0])


def turns_where_predicted(
    found: float, mastered: float, runs: int, seed: int, margin: float = 0.05, ratio: float | None = None
) -> Bool[np.ndarray, " runs"]:
    """Runs that relay from 5 to lengths a margin below the widest ratio, and pause before those a margin above it.

    Linear head, context equal to the chain; the longer chain has all the names.

    Args:
        found, mastered: the levels that make a hand-off a relay.
        ratio: the widest ratio that relays, by default that of ``next_ratio``.
    """
    ratio = float(next_ratio(mastered, found, horizon=5)) if ratio is None else ratio
    pauses = []
    for h in (int(5 * ratio * (1 - margin)), int(np.ceil(5 * ratio * (1 + margin)))):
        done = relay((5, h), runs, seed, start=2.5, names=h, until=0.3, step=0.06, chains=2)
        pauses.append(done.wait(found, mastered)[:, 0] > 0)
    return ~pauses[0] & pauses[1]
