"""Policies on a line against the policies they stand for, 90-digit arithmetic and runs along them."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_families import ESTIMATORS, FAMILIES, LENGTHS, LEVELS, exponent

from rlvr_lib import gap_alignment, success_rate
from rlvr_lib.testbeds.bandit import SoftmaxBandit, token_bandit
from rlvr_lib.testbeds.lines import CountWindow, Ridge, Sawtooth, TokenChain, exact_critical_rate


@pytest.mark.parametrize(
    ("line", "exponents", "within"),
    [
        (CountWindow(LENGTHS, np.sqrt(LENGTHS) / 2), (-1, -1, 0), 0.03),
        (TokenChain.with_peak(LENGTHS, 0.5), (0, 0, 1), 0.01),
        (TokenChain.with_token_error(LENGTHS, 1e-6), (-1, -0.5, 0.5), 0.002),
        (TokenChain.with_peak(LENGTHS, 0.5, shared=False), (1, 1, 2), 0.01),
    ],
)
def test_exponents_of_the_length(line, exponents, within):
    near = -1e-2 / (1.0 if getattr(line, "shared", True) is False else np.sqrt(LENGTHS))
    for (estimator, length), expected in zip(ESTIMATORS, exponents, strict=True):
        measured = exponent(LENGTHS, exact_critical_rate(line, near, estimator, length))
        assert measured == pytest.approx(expected, abs=within)


def test_length_normalisation_flattens_reinforce_where_the_token_error_is_fixed():
    line = TokenChain.with_token_error(LENGTHS, 1e-6)
    rate = exact_critical_rate(line, -1e-2 / np.sqrt(LENGTHS), "reinforce", LENGTHS)
    assert exponent(LENGTHS, rate) == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("name", FAMILIES)
def test_from_any_level_the_exact_step_is_the_mirror_image(name):
    line = FAMILIES[name]
    start = line.start(0.6 * line.along(0.0).success)
    np.testing.assert_allclose(line.along(start).success, 0.6 * line.along(0.0).success, rtol=1e-9)
    assert (start < 0).all()
    for estimator, length in ESTIMATORS:
        exact = exact_critical_rate(line, start, estimator, length, group_size=8)
        moved = start + exact * line.along(start).velocity(estimator, length, group_size=8)
        np.testing.assert_allclose(moved, -start, rtol=1e-9)


def test_starts_at_one_level_have_the_same_exponents():
    line = CountWindow(LENGTHS, np.sqrt(LENGTHS) / 2)
    rate = exact_critical_rate(line, line.start(0.5))
    assert exponent(LENGTHS, rate) == pytest.approx(-1, abs=0.05)


def signed_tokens(horizon, weight, shared):
    """Every response of the chain as a bandit: tokens 0 right, +1 and -1 wrong."""
    tokens = np.array(np.meshgrid(*[[0, 1, -1]] * horizon)).reshape(horizon, -1).T
    features = tokens.sum(1, keepdims=True) if shared else tokens
    offset = math.log(weight) * (tokens != 0).sum(1)
    theta = np.zeros(features.shape[1])
    return SoftmaxBandit(theta, features[None].astype(float), (tokens == 0).all(1)[None].astype(float), offset[None])


@pytest.mark.parametrize("shared", [True, False])
def test_chain_is_the_policy_it_says(shared):
    horizon, weight, x = 4, 0.3, -0.7
    bandit = signed_tokens(horizon, weight, shared)
    diagonal = np.ones(1 if shared else horizon) / math.sqrt(1 if shared else horizon)
    r = bandit.at(x * diagonal).enumerate()
    here = TokenChain(horizon, weight, shared).along(x)
    assert here.success == pytest.approx(success_rate(r), rel=1e-12)
    assert here.gap == pytest.approx(gap_alignment(r, diagonal), rel=1e-12)
    gradient = bandit.at(x * diagonal).exact()[1]
    np.testing.assert_allclose(gradient, here.success * here.slope * diagonal, rtol=1e-12)
    assert here.velocity("reinforce") == pytest.approx(here.success * here.slope)


@pytest.mark.parametrize(("horizon", "half_width"), [(8, 1.0), (7, 1.5), (6, 0.0)])
def test_count_window_is_the_policy_it_says(horizon, half_width):
    bandit = token_bandit(
        [0.4], [[0.0], [1.0]], horizon, lambda tokens: np.abs(tokens.sum(1) - horizon / 2) <= half_width
    )
    here = CountWindow(horizon, half_width).along(0.4)
    assert here.success == pytest.approx(bandit.exact()[0], rel=1e-12)
    assert here.gap == pytest.approx(gap_alignment(bandit.enumerate(), [1.0]), rel=1e-12)


def precise(log_success, position):
    """log J, slope and curvature with 90 digits."""
    with mpmath.workdps(90):
        x, h = mpmath.mpf(position), mpmath.mpf(10) ** -15
        left, here, right = (log_success(x + d) for d in (-h, 0, h))
        return [float(v) for v in (here, (right - left) / (2 * h), -(right - 2 * here + left) / h**2)]


@pytest.mark.parametrize("position", [-40.0, -3.0, -1e-3, 0.5])
@pytest.mark.parametrize("weight", [1e-12, 1e-3, 0.5, 1e6])
@pytest.mark.parametrize("length", [1, 1024])
def test_chain_is_accurate_near_both_ends(length, weight, position):
    here = TokenChain(length, weight).along(position)
    expected = precise(lambda x: -length * mpmath.log1p(2 * mpmath.mpf(weight) * mpmath.cosh(x)), position)
    np.testing.assert_allclose(here, expected, rtol=1e-11)


@pytest.mark.parametrize("position", [-6.0, -0.4, -0.01])
@pytest.mark.parametrize(("length", "half_width"), [(3, 0.5), (1024, 0), (1024, 16), (1024, 150), (1023, 511)])
def test_count_window_is_accurate_near_both_ends(length, half_width, position):
    counts = [n for n in range(length + 1) if abs(n - Fraction(length, 2)) <= half_width]
    missed = sorted(set(range(length + 1)) - set(counts))

    def log_success(x):
        few = min(counts, missed, key=len)
        total = mpmath.fsum(math.comb(length, n) * mpmath.exp(n * x) for n in few) / (1 + mpmath.exp(x)) ** length
        return mpmath.log(total) if few == counts else mpmath.log1p(-total)

    here = CountWindow(length, half_width).along(position)
    expected = precise(log_success, position)
    np.testing.assert_allclose(here[:2], expected[:2], rtol=1e-9)
    # The curvature is a difference of conditional variances.
    np.testing.assert_allclose(here.curvature, expected[2], rtol=1e-6)


def test_success_and_failure_rates_are_accurate_beyond_rounding():
    here = TokenChain(10, 1e-30).along(0.0)
    assert here.success == 1
    assert here.failure == pytest.approx(2e-29, rel=1e-12, abs=0)
    tilted = TokenChain(10, 1e-30).along(-1.0)
    assert tilted.gap == pytest.approx(math.tanh(1), rel=1e-9, abs=0)
    assert tilted.velocity("grpo") == pytest.approx(math.sqrt(2e-29 * math.cosh(1)) * math.tanh(1), rel=1e-9, abs=0)
    assert tilted.velocity("grpo", group_size=4) == pytest.approx(2e-29 * math.sqrt(3) * math.sinh(1), rel=1e-9, abs=0)


def test_families_broadcast_over_lengths_levels_and_positions():
    x = np.linspace(-1, 1, 5)[:, None, None]
    for line in FAMILIES.values():
        assert {v.shape for v in line.along(x)} == {(5, 4, 4)}
    assert np.ndim(TokenChain(3, 0.5).along(0.1).success) == 0
    assert np.ndim(CountWindow(4, 1).along(0.1).curvature) == 0
    np.testing.assert_allclose(TokenChain.with_peak(LENGTHS, LEVELS).along(0.0).success, LEVELS * np.ones(4))
    np.testing.assert_allclose(TokenChain.with_token_error(LENGTHS, 0.01).along(0.0).success, 0.99**LENGTHS)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("length", lambda: TokenChain(0, 0.5)),
        ("wrong_weight", lambda: TokenChain(3, 0.0)),
        ("success", lambda: TokenChain.with_peak(3, 1.0)),
        ("error", lambda: TokenChain.with_token_error(3, 0.0)),
        ("success", lambda: TokenChain.with_peak(3, 0.5).start(0.5)),
        ("success", lambda: CountWindow(16, 2).start(0.9)),
        ("half_width", lambda: CountWindow(16, 8)),
        ("half_width", lambda: CountWindow(15, 0.25)),
        ("length", lambda: CountWindow(2.5, 1)),
        ("position", lambda: exact_critical_rate(CountWindow(16, 2), 0.0)),
        ("position", lambda: TokenChain(3, 0.5).along(np.nan)),
        ("estimator", lambda: TokenChain(3, 0.5).along(0.1).velocity("ppo")),
        ("length", lambda: TokenChain(3, 0.5).along(0.1).velocity(length=0)),
    ],
)
def test_families_refuse_bad_input(name, make):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        make()


@pytest.mark.parametrize(("multiple", "collapses"), [(1.9, False), (2.1, True), (3.5, True)])
def test_aligned_steps_on_a_ridge_collapse_above_two(multiple, collapses):
    ridge, x, levels = Ridge(0.9, 2.0), 1e-2, []
    for _ in range(80):
        here = ridge.along(x)
        levels.append(float(here.log_success))
        x += multiple * (here.failure * here.gap) / here.curvature
    assert (np.diff(levels) < 0).all() == collapses
    assert (levels[-1] < -100) == collapses
    assert np.sign(x) == (1.0 if multiple < 1 else np.sign((1 - multiple) ** 80))


def march(line, steps):
    x, points = 0.0, []
    for _ in range(steps):
        points.append(line.along(x))
        x += line.multiple * points[-1].slope / line.curvature
    return points


SAWTEETH = [
    Sawtooth(2.05),
    Sawtooth(3.0, curvature=0.2, slopes=[0.1, 0.4, 0.05]),
    Sawtooth(4.1, kinks=False, initial_success=0.05),
    Sawtooth(3.05, kinks=False, slopes=1e-3 * 4.05 ** np.arange(5), initial_success=0.4),
]


@pytest.mark.parametrize("line", SAWTEETH)
def test_steps_in_one_direction_and_always_uphill_can_end_at_zero(line):
    points = march(line, 500 * len(line.slopes))
    slopes = np.array([p.slope for p in points])
    np.testing.assert_allclose(slopes.reshape(-1, len(line.slopes)), line.slopes[None] * np.ones((500, 1)), rtol=1e-7)
    levels = np.array([p.log_success for p in points[:: len(line.slopes)]])
    np.testing.assert_allclose(np.diff(levels), -line.tooth.fall, rtol=1e-6)
    assert levels[-1] < levels[0] - 490 * line.tooth.fall


@pytest.mark.parametrize("line", SAWTEETH)
def test_sawteeth_keep_to_their_curvature_and_below_one(line):
    x = np.linspace(0, 3 * line.tooth.width, 60_001)
    here, h = line.along(x), x[1]
    assert (here.log_success < 0).all()
    np.testing.assert_allclose(np.diff(here.log_success), (here.slope[1:] + here.slope[:-1]) / 2 * h, atol=2 * h)
    change = np.diff(here.slope) / h
    assert change.min() >= -line.curvature * (1 + 1e-6)
    if line.kinks:
        assert change.max() > 10 * line.curvature
    else:
        assert change.max() <= line.curvature * (1 + 1e-6)
    assert np.ptp(here.log_success[:20_000:2] - line.along(x[:20_000:2] + line.tooth.width).log_success) < 1e-9


@given(st.floats(0.1, 3.0), st.lists(st.floats(-8, 0), min_size=1, max_size=12))
def test_without_kinks_no_slopes_collapse_up_to_three(multiple, logarithms):
    slopes = np.exp(logarithms)
    for k in range(2 * len(slopes)):  # as much growth as can be reached, once more round for the step that closes
        slopes[k % len(slopes)] = min(slopes[k % len(slopes)], (1 + multiple) * slopes[k % len(slopes) - 1])
    with pytest.raises(ValueError, match="^multiple must be"):
        Sawtooth(multiple, initial_success=1e-9, slopes=slopes, kinks=False)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("multiple", {"multiple": 2.0}),
        ("multiple", {"multiple": 3.9, "kinks": False}),
        ("multiple", {"multiple": np.nan}),
        ("curvature", {"curvature": 0.0}),
        ("slopes", {"slopes": [0.1, -0.1]}),
        ("slopes", {"slopes": []}),
        ("slopes", {"slopes": [0.1, 0.36], "kinks": False}),
        ("initial_success", {"initial_success": 0.9}),
        ("initial_success", {"initial_success": 1.0}),
    ],
)
def test_sawteeth_that_would_not_collapse_are_refused(name, keywords):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Sawtooth(**{"multiple": 2.5} | keywords)
    for bad in ((1.0, 1.0), (0.5, 0.0)):
        with pytest.raises(ValueError, match=r"^(peak|curvature) must be"):
            Ridge(*bad)
    with pytest.raises(ValueError, match="^position must be"):
        Sawtooth(2.5).along(-1.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_fixed_steps_end_in_a_two_cycle_and_the_even_one_is_best(name):
    line = FAMILIES[name]
    step = 0.2 if name == "unshared" else 0.2 / np.sqrt(LENGTHS)
    floor = {}
    for share in (0.5, 0.3, 0.05):
        position, trace = -(20 + share) * step * np.ones((4, 4)), []
        for _ in range(40):
            position = position + step * np.sign(line.along(position).slope)
            trace.append(position)
        np.testing.assert_allclose(trace[-1], trace[-3], atol=1e-12)
        np.testing.assert_allclose(np.abs(trace[-1] - trace[-2]), step * np.ones((4, 4)), rtol=1e-9)
        floor[share] = np.minimum(*(line.along(x).log_success for x in trace[-2:]))
    np.testing.assert_allclose(floor[0.5], line.along(step / 2).log_success, rtol=1e-9)
    assert (floor[0.5] > floor[0.3]).all()
    assert (floor[0.3] > floor[0.05]).all()


def test_the_level_of_the_even_two_cycle_and_its_deficit():
    chain = TokenChain(12, 0.4)
    step = np.array([0.1, 0.05, 0.025])
    level = chain.along(step / 2).success
    np.testing.assert_allclose(level, (1 + 0.8 * np.cosh(step / 2)) ** -12, rtol=1e-12)
    deficit = 1.8**-12 - level
    assert exponent(step, deficit) == pytest.approx(2, abs=0.02)
    peak = chain.along(0.0)
    np.testing.assert_allclose(deficit, peak.success * peak.curvature * step**2 / 8, rtol=0.02)
