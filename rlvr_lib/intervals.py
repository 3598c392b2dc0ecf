"""Confidence bounds behind the statistical claims: exact, or from a concentration inequality, never asymptotic.

Every bound holds for every sample size with at least the stated probability; ``false_alarm`` is what is left. A claim
whose predicted value lies outside an interval is therefore contradicted wrongly at most that often.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, binom, binomtest

from rlvr_lib.arguments import integer, open_unit, real_array, require

FALSE_ALARM = 1e-6
"""Probability of a false alarm of one claim, unless it says otherwise."""


def share_interval(successes: int, trials: int, false_alarm: float = FALSE_ALARM) -> tuple[float, float]:
    """Two-sided exact interval for a probability, from independent trials (Clopper and Pearson 1934).

    Args:
        successes: number of successes, at most ``trials``.
        trials: at least 1.
        false_alarm: probability that the interval misses, half of it on either side at most.

    Raises:
        ValueError: an argument outside its domain.
    """
    successes, trials, rate = _count(successes, trials, false_alarm)
    low = beta.ppf(rate / 2, successes, trials - successes + 1) if successes else 0.0
    high = beta.isf(rate / 2, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def share_lower_bound(successes: int, trials: int, false_alarm: float = FALSE_ALARM) -> float:
    """One-sided exact lower bound for a probability (Clopper and Pearson 1934).

    The arguments and errors are those of ``share_interval``.
    """
    successes, trials, rate = _count(successes, trials, false_alarm)
    return float(beta.ppf(rate, successes, trials - successes + 1)) if successes else 0.0


def least_detectable_share(trials: int, against: float = 0.5, false_alarm: float = FALSE_ALARM) -> float:
    """The smallest share of successes whose ``share_lower_bound`` exceeds ``against``; 1 where none does.

    Raises:
        ValueError: an argument outside its domain.
    """
    trials, against = integer("trials", trials, low=1), float(open_unit("against", against))
    successes = np.arange(1, trials + 1)
    found = beta.ppf(float(open_unit("false_alarm", false_alarm)), successes, trials - successes + 1) > against
    return float(successes[found].min(initial=trials) / trials)


def mean_interval(values: ArrayLike, low: float, high: float, false_alarm: float = FALSE_ALARM) -> tuple[float, float]:
    """Interval for the mean of independent values in [low, high]: empirical Bernstein (Maurer and Pontil 2009).

    Args:
        values: [n], n at least 2.
        low: least value possible.
        high: largest value possible.
        false_alarm: probability that the interval misses.

    Raises:
        ValueError: fewer than two values, or one outside [low, high].
    """
    values = real_array("values", values, ndim=1)
    require(len(values) >= 2, "values", f"{len(values)} value(s)", "at least two values")
    inside = bool((values >= low).all() and (values <= high).all())
    require(inside, "values", [values.min(), values.max()], f"in [{low}, {high}]")
    log_term = math.log(4 / float(open_unit("false_alarm", false_alarm)))
    n, mean = len(values), values.mean()
    half = math.sqrt(2 * values.var(ddof=1) * log_term / n) + 7 * (high - low) * log_term / (3 * (n - 1))
    return max(low, float(mean - half)), min(high, float(mean + half))


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

    Raises:
        ValueError: an argument outside its domain.
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

    Raises:
        ValueError: differences that are not finite numbers.
    """
    signs = np.sign(real_array("differences", differences, ndim=1))
    up, trials = int((signs > 0).sum()), int((signs != 0).sum())
    return float(binomtest(up, trials, alternative="greater").pvalue) if trials else 1.0


def frequency_p_value(counts: ArrayLike, prob: ArrayLike) -> float:
    """p-value that counts come from the law ``prob``: the smallest two-sided binomial p-value, Bonferroni-corrected.

    Exact for each cell and valid at every sample size, cells of probability 0 or 1 included.

    Args:
        counts: [k] whole numbers, how often each cell was seen.
        prob: [k] probabilities that sum to 1.

    Raises:
        ValueError: shapes that differ, negative or fractional counts, or no law.
    """
    counts, prob = real_array("counts", counts, ndim=1), real_array("prob", prob, ndim=1)
    require(counts.shape == prob.shape, "counts", f"shape {counts.shape}", f"of shape {prob.shape}")
    whole = bool((counts >= 0).all() and (counts == np.floor(counts)).all() and counts.sum() > 0)
    require(whole, "counts", counts, "whole numbers of at least 0, not all 0")
    law = bool((prob >= 0).all() and abs(prob.sum() - 1) <= 1e-9)
    require(law, "prob", prob, "non-negative and summing to 1")
    total, prob = counts.sum(), prob / prob.sum()
    tails = np.minimum(binom.cdf(counts, total, prob), binom.sf(counts - 1, total, prob))
    return float(min(1.0, 2 * len(prob) * tails.min()))


def _count(successes: int, trials: int, false_alarm: float) -> tuple[int, int, float]:
    trials, successes = integer("trials", trials, low=1), integer("successes", successes, low=0)
    require(successes <= trials, "successes", successes, f"at most the {trials} trials")
    return successes, trials, float(open_unit("false_alarm", false_alarm))
