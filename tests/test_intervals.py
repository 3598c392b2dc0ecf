"""Each bound's false-alarm rate, by exact enumeration of the sample where the sample is a count."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from rlvr_lib.intervals import (
    frequency_p_value,
    least_count,
    least_detectable_share,
    least_significant_total,
    quantile_interval,
    share_interval,
    share_lower_bound,
)

SHARES = np.linspace(0.001, 0.999, 53)


def miss_rate(trials, truth, covers):
    """Probability over the number of successes that an interval built from it misses."""
    law = binom.pmf(np.arange(trials + 1), trials, truth)
    return sum(weight for k, weight in enumerate(law) if not covers(k))


@pytest.mark.parametrize("trials", [1, 2, 7, 40])
@pytest.mark.parametrize("rate", [0.2, 0.01])
def test_share_intervals_miss_no_more_often_than_stated(trials, rate):
    both = [share_interval(k, trials, rate) for k in range(trials + 1)]
    lower = [share_lower_bound(k, trials, rate) for k in range(trials + 1)]
    for truth in SHARES:
        assert miss_rate(trials, truth, lambda k, t=truth: both[k][0] <= t <= both[k][1]) <= rate + 1e-12
        assert miss_rate(trials, truth, lambda k, t=truth: lower[k] <= t) <= rate + 1e-12


def test_share_bounds_are_not_wasteful():
    """At its own lower bound, a share reaches the count seen with exactly the false-alarm rate."""
    for successes in (1, 5, 20):
        bound = share_lower_bound(successes, 20, 0.01)
        assert binom.sf(successes - 1, 20, bound) == pytest.approx(0.01, rel=1e-9)


@given(st.integers(1, 60), st.floats(0.05, 0.95), st.floats(1e-6, 0.2))
def test_the_least_detectable_share_is_detected_and_one_less_is_not(trials, against, rate):
    share = least_detectable_share(trials, against, rate)
    needed = round(share * trials)
    if share_lower_bound(trials, trials, rate) > against:
        assert share_lower_bound(needed, trials, rate) > against
    assert share_lower_bound(needed - 1, trials, rate) <= against


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("n", [1, 6, 25, 60])
def test_quantile_intervals_miss_no_more_often_than_stated(n, quantile):
    """Of the values 0 .. n-1 in order, how many lie below the quantile is binomial; enumerate it."""
    rate = 0.05
    low, high = quantile_interval(np.arange(n), quantile, rate)
    # With k values below the true quantile it lies between value k-1 and value k.
    missed = [k for k in range(n + 1) if low > k - 0.5 or high < k - 0.5]
    assert binom.pmf(missed, n, quantile).sum() <= rate


def test_the_median_needs_twenty_one_values_at_one_in_a_million():
    assert quantile_interval(np.arange(20.0)) == (-math.inf, math.inf)
    assert quantile_interval(np.arange(21.0)) == (0.0, 20.0)


@pytest.mark.parametrize("seed", range(8))
def test_the_least_significant_total_is_that_of_all_sign_flips(seed):
    rng = np.random.default_rng(seed)
    differences, level = rng.integers(-4, 5, seed), rng.choice([0.5, 0.25, 0.1, 0.02])
    flips = np.array(list(itertools.product((1, -1), repeat=seed))).reshape(2**seed, seed)
    totals = flips @ np.abs(differences)
    candidates = range(-np.abs(differences).sum(), np.abs(differences).sum() + 2)
    expected = min(total for total in candidates if (totals >= total).mean() <= level)
    assert least_significant_total(differences, level) == expected


def test_frequencies_are_accepted_from_their_law_and_rejected_from_another():
    rng, law = np.random.default_rng(0), np.array([0.5, 0.3, 0.15, 0.05, 0.0])
    p_values = np.array([frequency_p_value(rng.multinomial(300, law), law) for _ in range(2000)])
    for level in (0.2, 0.05):
        assert binom.sf((p_values <= level).sum() - 1, 2000, level) > 1e-6
    assert frequency_p_value([150, 90, 44, 15, 1], law) == 0.0
    assert frequency_p_value([300, 0, 0, 0, 0], law) < 1e-12


def test_a_wrong_bound_would_be_caught():
    """Sabotage: the normal approximation misses far more often than stated."""

    def normal(k, trials=40):
        share = k / trials
        half = 2.576 * math.sqrt(share * (1 - share) / trials)
        return share - half, share + half

    worst = max(miss_rate(40, t, lambda k, t=t: normal(k)[0] <= t <= normal(k)[1]) for t in SHARES)
    assert worst > 0.1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: share_interval(3, 2), "^successes must be at most"),
        (lambda: share_interval(-1, 2), "^successes must be an integer"),
        (lambda: share_interval(1, 0), "^trials must be an integer"),
        (lambda: share_lower_bound(1, 2, 0.0), "^false_alarm must be strictly between"),
        (lambda: least_detectable_share(3, 1.0), "^against must be strictly between"),
        (lambda: quantile_interval([]), "^values must be at least one"),
        (lambda: quantile_interval([1.0], 0.0), "^quantile must be strictly between"),
        (lambda: least_significant_total([math.nan], 0.1), "^differences must be finite"),
        (lambda: least_significant_total([0.5], 0.1), "^differences must be whole"),
        (lambda: frequency_p_value([1, 2], [1.0]), r"^prob must be a probability law of shape \[2\]"),
        (lambda: frequency_p_value([[1, 2]], [0.5, 0.5]), "^counts must be"),
        (lambda: frequency_p_value([1.5, 2], [0.5, 0.5]), "^counts must be a whole number"),
        (lambda: frequency_p_value([0, 0], [0.5, 0.5]), "^counts must be whole"),
        (lambda: frequency_p_value([1, 2], [0.5, 0.6]), "^prob must be summing to 1"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parametrize(
    ("trials", "against", "rate"), [(24, 0.5, 1e-4), (64, 0.75, 1e-4), (200, 0.5, 1e-6), (3, 0.5, 1e-3)]
)
def test_the_least_count_is_where_the_exact_test_begins_to_reject(trials, against, rate):
    least = least_count(trials, against, rate)
    law = [math.comb(trials, k) * against**k * (1 - against) ** (trials - k) for k in range(trials + 1)]
    assert math.fsum(law[least:]) <= rate < math.fsum(law[least - 1 :])
    assert least <= trials or share_lower_bound(trials, trials, rate) <= against
