"""Confidence bounds behind the statistical claims: exact, or from a concentration inequality, never asymptotic.

Every bound holds for every sample size with at least the stated probability; ``false_alarm`` is what is left. A claim
whose predicted value lies outside an interval is therefore contradicted wrongly at most that often. Arguments outside
their domain are a ``ValueError``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, binomtest

from rlvr_lib.arguments import integer, open_unit, probability_law, real_array, require, whole_numbers

FALSE_ALARM = 1e-6
"""Probability of a false alarm of one claim, unless it says otherwise."""


def share_interval(
    successes: int, trials: int, false_alarm: float = FALSE_ALARM, side: str = "two-sided"
) -> tuple[float, float]:
    """Exact interval for a probability, from independent trials (Clopper and Pearson 1934).

    ``false_alarm`` is the probability that the interval misses, half of it on either side at most; all of it is below
    for the ``side`` named ``greater``.
    """
    trials, successes = integer("trials", trials, low=1), integer("successes", successes, low=0)
    require(successes <= trials, "successes", successes, f"at most the {trials} trials")
    level = 1 - float(open_unit("false_alarm", false_alarm))
    low, high = binomtest(successes, trials, alternative=side).proportion_ci(level, method="exact")
    return float(low), float(high)


def share_lower_bound(successes: int, trials: int, false_alarm: float = FALSE_ALARM) -> float:
    """One-sided exact lower bound for a probability (Clopper and Pearson 1934)."""
    return share_interval(successes, trials, false_alarm, "greater")[0]


def least_count(trials: int, against: float = 0.5, false_alarm: float = FALSE_ALARM) -> int:
    """The fewest successes that the exact one-sided test rejects ``against`` for; ``trials`` + 1 where none does."""
    trials, against = integer("trials", trials, low=1), float(open_unit("against", against))
    return int(binom.isf(float(open_unit("false_alarm", false_alarm)), trials, against)) + 1


def least_detectable_share(trials: int, against: float = 0.5, false_alarm: float = FALSE_ALARM) -> float:
    """The smallest share of successes that the test of ``least_count`` rejects ``against`` for; 1 where none does."""
    return min(1.0, least_count(trials, against, false_alarm) / trials)


def quantile_interval(
    values: ArrayLike, quantile: float = 0.5, false_alarm: float = FALSE_ALARM
) -> tuple[float, float]:
    """Exact interval for a quantile of any law, from order statistics of independent values (Thompson 1936).

    ``values`` is [n]. An end is infinite where the sample is too small to bound that side: at a false-alarm rate of
    1e-6 the median needs 21 values. The rate is halved between the sides.
    """
    ordered = np.sort(real_array("values", values, ndim=1))
    n = len(ordered)
    require(n >= 1, "values", "no value", "at least one value")
    quantile, rate = float(open_unit("quantile", quantile)), float(open_unit("false_alarm", false_alarm))
    below = (binom.cdf(range(n), n, quantile) <= rate / 2).sum()
    above = (binom.sf(range(n), n, quantile) <= rate / 2).sum()
    ends = np.pad(ordered, 1, constant_values=(-np.inf, np.inf))
    return float(ends[below]), float(ends[n + 1 - above])


def least_significant_total(differences: ArrayLike, level: float) -> int:
    """The smallest total of paired differences that the exact one-sided sign-flip test rejects (Fisher 1935).

    Under the null hypothesis each of the differences, [n] whole numbers, has either sign with equal probability,
    independently, and is rejected with probability ``level`` at most. One more than the sum of their sizes, which no
    total reaches, where nothing is rejected at the level.
    """
    sizes, level = np.abs(real_array("differences", differences, ndim=1)), float(open_unit("level", level))
    require(bool((sizes == np.floor(sizes)).all()), "differences", sizes, "whole numbers")
    law = np.ones(1)
    for size in sizes.astype(int):
        law = (np.pad(law, (0, 2 * size)) + np.pad(law, (2 * size, 0))) / 2
    rejected = np.flatnonzero(law[::-1].cumsum()[::-1] <= level)
    return int(rejected.min(initial=len(law)) - sizes.sum())


def frequency_p_value(counts: ArrayLike, prob: ArrayLike) -> float:
    """p-value that counts come from the law ``prob``: the smallest two-sided binomial p-value, Bonferroni-corrected.

    Exact for each cell and valid at every sample size, cells of probability 0 or 1 included. ``counts`` is [k], how
    often each cell was seen, and ``prob`` [k] sums to 1.
    """
    counts = whole_numbers("counts", real_array("counts", counts, ndim=1), low=0)
    prob, total = probability_law("prob", prob, (counts.size,)), counts.sum()
    require(total > 0, "counts", counts, "whole numbers, not all 0")
    tails = np.minimum(binom.cdf(counts, total, prob), binom.sf(counts - 1, total, prob))
    return float(min(1.0, 2 * len(prob) * tails.min()))
