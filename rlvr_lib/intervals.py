"""Confidence bounds behind the statistical claims: exact, or from a concentration inequality, never asymptotic.

Every bound holds for every sample size with at least the stated probability; ``false_alarm`` is what is left. A claim
whose predicted value lies outside an interval is therefore contradicted wrongly at most that often. Arguments outside
their domain are a ``ValueError``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, binom, binomtest

from rlvr_lib.arguments import integer, open_unit, probability_law, real_array, require, whole_numbers

FALSE_ALARM = 1e-6
"""Probability of a false alarm of one claim, unless it says otherwise."""


def share_interval(successes: int, trials: int, false_alarm: float = FALSE_ALARM) -> tuple[float, float]:
    """Two-sided exact interval for a probability, from independent trials (Clopper and Pearson 1934).

    ``false_alarm`` is the probability that the interval misses, half of it on either side at most.
    """
    return _clopper_pearson(successes, trials, false_alarm, "two-sided")


def share_lower_bound(successes: int, trials: int, false_alarm: float = FALSE_ALARM) -> float:
    """One-sided exact lower bound for a probability (Clopper and Pearson 1934)."""
    return _clopper_pearson(successes, trials, false_alarm, "greater")[0]


def least_detectable_share(trials: int, against: float = 0.5, false_alarm: float = FALSE_ALARM) -> float:
    """The smallest share of successes whose ``share_lower_bound`` exceeds ``against``; 1 where none does."""
    trials, against = integer("trials", trials, low=1), float(open_unit("against", against))
    successes = np.arange(1, trials + 1)
    found = beta.ppf(float(open_unit("false_alarm", false_alarm)), successes, trials - successes + 1) > against
    return float(successes[found].min(initial=trials) / trials)


def quantile_interval(
    values: ArrayLike, quantile: float = 0.5, false_alarm: float = FALSE_ALARM
) -> tuple[float, float]:
    """Exact interval for a quantile of any law, from order statistics of independent values (Thompson 1936).

    An end is infinite where the sample is too small to bound that side: at a false-alarm rate of 1e-6 the median
    needs 21 values.

    Args:
        values: [n], n at least 1.
        quantile: strictly between 0 and 1.
        false_alarm: probability that the interval misses, half of it on either side at most.
    """
    ordered = np.sort(real_array("values", values, ndim=1))
    require(len(ordered) >= 1, "values", "no value", "at least one value")
    quantile, rate = float(open_unit("quantile", quantile)), float(open_unit("false_alarm", false_alarm))
    n = len(ordered)
    rank = np.arange(n)
    below = np.flatnonzero(binom.cdf(rank, n, quantile) <= rate / 2)
    above = np.flatnonzero(binom.sf(rank, n, quantile) <= rate / 2)
    low = ordered[below[-1]] if len(below) else -math.inf
    high = ordered[above[0]] if len(above) else math.inf
    return float(low), float(high)


def sign_test(differences: ArrayLike) -> float:
    """Exact one-sided p-value of the sign test that positive differences are no more likely than negative ones.

    Ties are left out; without any difference the p-value is 1. With 0/1 outcomes of pairs this is McNemar's test.
    """
    signs = np.sign(real_array("differences", differences, ndim=1))
    up, trials = int((signs > 0).sum()), int((signs != 0).sum())
    return float(binomtest(up, trials, alternative="greater").pvalue) if trials else 1.0


def least_significant_total(differences: ArrayLike, level: float) -> int:
    """The smallest total of paired differences that the exact one-sided sign-flip test rejects (Fisher 1935).

    Under the null hypothesis each difference has either sign with equal probability, independently. One more than the
    sum of their sizes, which no total reaches, where nothing is rejected at the level.

    Args:
        differences: [n] whole numbers, one for each independent unit.
        level: probability of rejecting a true null hypothesis, at most.
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

    Exact for each cell and valid at every sample size, cells of probability 0 or 1 included.

    Args:
        counts: [k] whole numbers, how often each cell was seen.
        prob: [k] probabilities that sum to 1.
    """
    counts = whole_numbers("counts", real_array("counts", counts, ndim=1), low=0)
    prob, total = probability_law("prob", prob, (counts.size,)), counts.sum()
    require(total > 0, "counts", counts, "whole numbers, not all 0")
    tails = np.minimum(binom.cdf(counts, total, prob), binom.sf(counts - 1, total, prob))
    return float(min(1.0, 2 * len(prob) * tails.min()))


def _clopper_pearson(successes: int, trials: int, false_alarm: float, side: str) -> tuple[float, float]:
    trials, successes = integer("trials", trials, low=1), integer("successes", successes, low=0)
    require(successes <= trials, "successes", successes, f"at most the {trials} trials")
    rate = float(open_unit("false_alarm", false_alarm))
    low, high = binomtest(successes, trials, alternative=side).proportion_ci(1 - rate, method="exact")
    return float(low), float(high)
