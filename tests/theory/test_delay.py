"""Delay against roots in high precision and against the recursion itself."""

import mpmath
import numpy as np
import pytest

from rlvr_lib.theory.delay import delay_factor, delayed_growth

DELAYS = [0, 1, 2, 3, 4, 8, 16]


def test_factors_that_are_known():
    expected = [1, 0.5, (np.sqrt(5) - 1) / 4, 0.2225209339563144, 0.17364817766693033, 0.09226835946330199]
    assert delay_factor([0, 1, 2, 3, 4, 8]) == pytest.approx(expected, rel=1e-14)
    assert delay_factor(np.zeros((2, 3), int)).shape == (2, 3)
    assert delay_factor(10_000) == pytest.approx(np.pi / 40_002)


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("share", [0.5, 0.99, 1.0, 1.01, 2.0])
def test_growth_is_one_at_the_factor_and_only_there(delay, share):
    growth = delayed_growth(share * delay_factor(delay), delay)
    assert np.sign(round(growth - 1, 12)) == np.sign(share - 1)


@pytest.mark.parametrize("delay", DELAYS)
def test_growth_is_that_of_the_largest_root(delay):
    step = 0.3 * float(delay_factor(delay))
    with mpmath.workdps(40):
        coefficients = [mpmath.mpf(1), *[mpmath.mpf(0)] * (delay + 1)]
        coefficients[1] -= 1
        coefficients[-1] += 2 * mpmath.mpf(step)
        expected = max(abs(root) for root in mpmath.polyroots(coefficients, maxsteps=500, extraprec=500))
    assert delayed_growth(step, delay) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("delay", [0, 1, 4])
@pytest.mark.parametrize("share", [0.9, 1.1])
def test_the_recursion_grows_as_it_says(delay, share):
    step, x = share * float(delay_factor(delay)), [1.0] * (delay + 1)
    for _ in range(4000):
        x.append(x[-1] - 2 * step * x[-1 - delay])
        if abs(x[-1]) > 1e100 or max(map(abs, x[-40:])) < 1e-100:
            break
    late, early = (max(map(abs, x[at - 40 : at])) for at in (len(x), len(x) // 2))
    rate = (late / early) ** (1 / (len(x) - len(x) // 2))
    assert rate == pytest.approx(delayed_growth(step, delay), abs=0.01)
    assert (rate > 1) == (share > 1)


def test_no_step_stays_where_it_is():
    assert delayed_growth(0.0, 3) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: delay_factor(-1), "delay"),
        (lambda: delay_factor(0.5), "delay"),
        (lambda: delayed_growth(-0.1, 1), "step"),
        (lambda: delayed_growth(0.1, -1), "delay"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
