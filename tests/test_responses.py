import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lib.responses import Responses, conditional_covariances, conditional_means, score_energies, success_rate

GOOD = {"reward": [1, 0, 1], "score": np.arange(6.0).reshape(3, 2), "prob": [0.2, 0.5, 0.3], "length": [1, 2, 3]}


def test_defaults_weigh_responses_equally_and_count_one_token():
    r = Responses([1, 0], [[1.0], [2.0]])
    np.testing.assert_array_equal(r.prob, [0.5, 0.5])
    np.testing.assert_array_equal(r.length, [1, 1])
    assert len(r) == 2


def test_moments_against_sums_written_out():
    r = Responses(**GOOD)
    assert success_rate(r) == pytest.approx(0.2 + 0.3)
    mean_correct, mean_wrong = conditional_means(r)
    np.testing.assert_allclose(mean_correct, (0.2 * np.array([0, 1]) + 0.3 * np.array([4, 5])) / 0.5)
    np.testing.assert_allclose(mean_wrong, [2, 3])
    assert score_energies(r) == pytest.approx(((0.2 * 1 + 0.3 * 41) / 0.5, 13))
    np.testing.assert_allclose(r.energy, [1, 13, 41])


@given(st.integers(0, 2**32 - 1), st.integers(4, 30), st.integers(1, 5))
def test_conditional_covariances_are_numpys(seed, n, d):
    rng = np.random.default_rng(seed)
    reward = np.arange(n) < n // 2
    r = Responses(reward, rng.standard_normal((n, d)), rng.dirichlet(np.ones(n)))
    for covariance, mask in zip(conditional_covariances(r), (reward, ~reward), strict=True):
        expected = np.cov(r.score[mask].T, aweights=r.prob[mask], ddof=0)
        np.testing.assert_allclose(covariance, np.atleast_2d(expected), atol=1e-12)


def test_arrays_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        Responses(**GOOD).reward[0] = 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reward", [[1, 0, 1]]),
        ("reward", []),
        ("reward", [1, 0, 0.5]),
        ("reward", [1, 0, np.nan]),
        ("reward", ["a", "b", "c"]),
        ("score", [1.0, 2.0, 3.0]),
        ("score", np.ones((2, 2))),
        ("score", np.full((3, 2), np.inf)),
        ("score", [[1.0], [2.0, 3.0], [4.0]]),
        ("prob", [0.2, 0.5, 0.2]),
        ("prob", [-0.2, 0.9, 0.3]),
        ("prob", [0.5, 0.5]),
        ("length", [1, 2]),
        ("length", [0, 1, 2]),
        ("length", [1.5, 1, 2]),
    ],
)
def test_bad_input_is_named(name, value):
    arguments = {**GOOD, name: value}
    if name == "reward" and len(value) == 0:
        arguments = {"reward": [], "score": np.ones((0, 2))}
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Responses(**arguments)


@pytest.mark.parametrize("reward", [[1, 1], [0, 0]])
def test_undefined_conditions_are_refused(reward):
    r = Responses(reward, np.ones((2, 1)))
    for moment in (conditional_means, conditional_covariances, score_energies):
        with pytest.raises(ValueError, match="^reward must be mixed"):
            moment(r)


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 5))
def test_total_mean_is_the_mixture_of_conditional_means(seed, n, d):
    rng = np.random.default_rng(seed)
    reward = rng.permutation(np.arange(n) < rng.integers(1, n))
    r = Responses(reward, rng.standard_normal((n, d)), rng.dirichlet(np.ones(n)))
    J, (mean_correct, mean_wrong) = success_rate(r), conditional_means(r)
    np.testing.assert_allclose(J * mean_correct + (1 - J) * mean_wrong, r.prob @ r.score, atol=1e-10)
