"""The potential against quadrature of the gain, and the bound on harmed prompts against all signs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import logit
from scipy.stats import binom

from rlvr_lib.theory.advantages import power_gain
from rlvr_lib.theory.climb import group_potential, harmed_share_bound


@pytest.mark.parametrize("bessel", [False, True])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("G", [2, 3, 8, None])
def test_slope_of_the_potential_is_the_gain_over_the_variance(G, power, bessel):
    low, high = 0.2, 0.9
    work, _ = quad(lambda J: power_gain(J, power, G, bessel and G is not None) / (J * (1 - J)), low, high, epsabs=1e-12)
    found = np.diff(group_potential([low, high], G, power, bessel))[0]
    assert found == pytest.approx(work, rel=1e-9)


def test_closed_forms():
    J = np.linspace(0, 1, 11)
    np.testing.assert_allclose(group_potential(J), 2 * np.arcsin(np.sqrt(J)), atol=1e-12)
    np.testing.assert_allclose(group_potential(J, 5, 0.0), 0.8 * J, atol=1e-12)
    np.testing.assert_allclose(group_potential(J, power=0.0), J, atol=1e-12)
    np.testing.assert_allclose(group_potential(J[1:-1], power=2.0), logit(J[1:-1]), atol=1e-12)
    assert group_potential(0.3, 1) == 0
    assert group_potential(0.3, 2) == pytest.approx(0.3)
    assert group_potential(0.4, 3000) == pytest.approx(2 * np.arcsin(np.sqrt(0.4)), abs=0.06)


@given(st.floats(1e-9, 1 - 1e-9), st.integers(2, 12))
def test_it_is_the_mean_score_of_the_successes_of_the_others(J, G):
    k = np.arange(1, G)
    score = np.concatenate([[0.0], np.cumsum(1 / np.sqrt(k * (G - k)))])
    assert group_potential(J, G) == pytest.approx(float(binom.pmf(np.arange(G), G - 1, J) @ score), abs=1e-12)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=8), st.floats(0, 0.99))
def test_bound_holds_for_all_signs(others, slack):
    signs = np.array(list(itertools.product([-1, 1], repeat=len(others))))
    moved = 1 + signs @ np.array(others)
    harmed = (moved < slack - 1e-12).mean()
    assert harmed <= harmed_share_bound(np.sum(np.square(others)), slack) + 1e-12


def test_bound_is_attained_and_has_three_regimes():
    assert harmed_share_bound(1.0001) == 0.5
    assert harmed_share_bound(0.5) == pytest.approx(1 / 3)
    assert harmed_share_bound(0.1) == pytest.approx(np.exp(-5))
    np.testing.assert_array_equal(harmed_share_bound([0.0, 100.0]), [0, 0.5])
    assert harmed_share_bound(0.5, 0.5) == 0.5


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (group_potential, (1.5,), "success"),
        (group_potential, (0.5, 0), "group_size"),
        (group_potential, (0.5, 1, 1.0, True), "group_size"),
        (group_potential, (0.5, 4, 2.5), "power"),
        (group_potential, (1.0, None, 2.0), "success"),
        (harmed_share_bound, (-0.1,), "overlap"),
        (harmed_share_bound, (0.1, 1.0), "slack"),
    ],
)
def test_bad_arguments_are_named(function, arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        function(*arguments)
