"""The one interface: the same checks on every testbed."""

import contextlib
import inspect

import numpy as np
import pytest
import torch
from scipy.stats import binom

from rlvr_lib import gradient_gap, log_odds, policy_gradient, success_rate
from rlvr_lib.testbeds import policy
from rlvr_lib.testbeds.bandit import SoftmaxBandit, token_bandit
from rlvr_lib.testbeds.group_tasks import WordProblem
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.transformer import AttentionPolicy, TransformerTestbed, draw_problems
from rlvr_lib.theory.groups import symmetric_group

FALSE_ALARM = 1e-6
PROMPT, H = 1, 1e-4


def transformer(sharpness, context="fixed"):
    architecture = AttentionPolicy(5, sharpness=sharpness)
    problems = draw_problems(symmetric_group(3), (2, 3), 1, 4, names=5, context=context)
    noise = np.random.default_rng(0).standard_normal(architecture.size)
    return TransformerTestbed(architecture, problems, architecture.initial(1.0).numpy() + noise)


def qwen():
    testbed = QwenTestbed(WordProblem(symmetric_group(3), (2,), 3), warm_start=None, dtype=torch.float64)
    return testbed.at(testbed.theta + 0.2 * np.random.default_rng(3).standard_normal(len(testbed.theta)))


def tokens():
    theta, features = np.array([0.3, -0.2]), np.random.default_rng(2).standard_normal((3, 2))
    one = token_bandit(theta, features, 3, lambda o: o.sum(1) == 3)
    return SoftmaxBandit(theta, one.features.repeat(2, 0), one.reward.repeat(2, 0), np.eye(2, 27), length=3)


MAKERS = {
    "bandit": lambda: SoftmaxBandit.random(5, prompts=3),
    "tokens": tokens,
    "linear transformer": lambda: transformer(None, "chain"),
    "softmax transformer": lambda: transformer(4.0),
    "qwen": qwen,
}
TRAINABLE = ("linear transformer", "softmax transformer", "qwen")


@pytest.fixture(scope="module", params=MAKERS)
def testbed(request):
    return MAKERS[request.param]()


@pytest.fixture(scope="module")
def direction(testbed):
    vector = np.random.default_rng(1).standard_normal(len(testbed.theta))
    return 2 * vector / np.linalg.norm(vector)


def close(actual, expected, rel):
    np.testing.assert_allclose(actual, expected, rtol=rel, atol=rel * np.abs(expected).max())


def test_the_words_are_the_same(testbed):
    def arguments(function):
        return [name for name in inspect.signature(function).parameters if name not in ("self", "parameters")]

    words = [name for name in vars(policy.Testbed) if not name.startswith("_")]
    assert len(words) == 8
    for name in set(words) - {"theta"}:
        assert arguments(getattr(testbed, name)) == arguments(getattr(policy.Testbed, name)), name


@pytest.mark.parametrize("name", TRAINABLE)
def test_what_is_trained_has_the_words_of_the_loop(name):
    testbed = MAKERS[name]()
    rollout = testbed.rollout([PROMPT, 0], 3, torch.Generator().manual_seed(0))
    log_probs = testbed.token_log_probs(rollout)
    assert log_probs.shape == rollout.mask.shape == rollout.tokens.shape
    assert rollout.reward.shape == (2, 3)
    log_probs.sum().backward()
    flat = torch.cat([value.grad.flatten() for value in testbed.parameters()])
    assert len(flat) == len(testbed.theta)
    assert flat.abs().max() > 0


def test_at_is_a_copy_and_a_round_trip(testbed, direction):
    start = testbed.theta
    assert start.shape == direction.shape
    assert start.dtype == np.float64
    given = start + direction
    moved = testbed.at(given)
    given += 1
    np.testing.assert_array_equal(moved.theta, start + direction)
    with contextlib.suppress(ValueError):  # read-only
        moved.theta[:] = 0
    np.testing.assert_array_equal(moved.theta, start + direction)
    np.testing.assert_array_equal(testbed.theta, start)
    back = moved.at(start)
    assert back.exact(PROMPT)[0] == testbed.exact(PROMPT)[0] != moved.exact(PROMPT)[0]


def test_exact_is_what_the_enumeration_says(testbed):
    r, (success, gradient) = testbed.enumerate(PROMPT), testbed.exact(PROMPT)
    odds, gap = testbed.log_odds_and_gap(PROMPT)
    assert 0 < success < 1
    assert success == pytest.approx(success_rate(r), rel=1e-11)
    close(policy_gradient(r), gradient, 1e-9)
    assert odds == pytest.approx(float(log_odds(success_rate(r))), rel=1e-10)
    close(gradient_gap(r), gap, 1e-9)


def test_the_gap_is_the_gradient_of_the_log_odds(testbed, direction):
    _, gap = testbed.log_odds_and_gap(PROMPT)
    below, above = (testbed.at(testbed.theta + s * H * direction).log_odds_and_gap(PROMPT)[0] for s in (-1, 1))
    assert gap @ direction == pytest.approx((above - below) / (2 * H), rel=1e-5, abs=1e-7)
    success, gradient = testbed.exact(PROMPT)
    close(success * (1 - success) * gap, gradient, 1e-9)


@pytest.mark.parametrize("of", ["success", "log_odds"])
def test_derivatives_along_a_direction(testbed, direction, of):
    def value_and_slope(theta):
        value, gradient = getattr(testbed.at(theta), {"success": "exact", "log_odds": "log_odds_and_gap"}[of])(PROMPT)
        return value, gradient @ direction

    value, slope, second = testbed.along(PROMPT, direction, of)
    exact, exact_slope = value_and_slope(testbed.theta)
    (low, low_slope), (high, high_slope) = (value_and_slope(testbed.theta + s * H * direction) for s in (-1, 1))
    assert value == pytest.approx(exact, rel=1e-12)
    assert slope == pytest.approx(exact_slope, rel=1e-9)
    assert slope == pytest.approx((high - low) / (2 * H), rel=1e-5, abs=1e-8)
    assert second == pytest.approx((high_slope - low_slope) / (2 * H), rel=1e-5, abs=1e-8)
    np.testing.assert_allclose(testbed.along(PROMPT, -direction, of), (value, -slope, second), rtol=1e-9)


def test_log_odds_at_many_steps(testbed, direction):
    steps = np.array([[0.0, 0.3, -0.2], [1.0, 2e-3, 0.7]])
    odds = testbed.odds_along(PROMPT, direction, steps)
    each = [testbed.at(testbed.theta + h * direction).log_odds_and_gap(PROMPT)[0] for h in steps.ravel()]
    np.testing.assert_allclose(odds, np.reshape(each, steps.shape), rtol=1e-11)
    single = testbed.odds_along(PROMPT, direction, 0.7)
    assert np.shape(single) == ()
    assert single == pytest.approx(odds[1, 2], rel=1e-12)
    assert testbed.odds_along(PROMPT, direction, []).shape == (0,)


@pytest.mark.parametrize("name", ["bandit", "linear transformer", "qwen"])
def test_log_odds_keep_their_digits_where_success_rounds_to_one(name):
    """Along the gap until 1 - J is below 1e-16: the failures alone then say what log-odds and gap are."""
    testbed, odds = MAKERS[name](), 0.0
    for _ in range(60):
        odds, gap = testbed.log_odds_and_gap(PROMPT)
        if odds > 37.5:
            break
        reach = 4.0 if name != "qwen" else 0.5
        testbed = testbed.at(testbed.theta + reach * gap / np.linalg.norm(gap))
    assert odds > 37.5
    assert testbed.exact(PROMPT)[0] == 1.0
    r = testbed.enumerate(PROMPT)
    assert odds == pytest.approx(-np.log(r.prob @ (1 - r.reward)), rel=1e-9)
    value, slope, _ = testbed.along(PROMPT, gap, "log_odds")
    assert value == pytest.approx(odds, rel=1e-12)
    assert slope == pytest.approx(gap @ gap, rel=1e-9)
    h = 1e-5
    low, high = testbed.odds_along(PROMPT, gap, [-h, h])
    assert slope == pytest.approx((high - low) / (2 * h), rel=1e-5)


def test_samples_and_the_enumeration_agree_through_the_same_functions(testbed):
    """Success by the exact binomial law, E[r <u, s>] by Hoeffding's inequality over the range of its terms."""
    n, exact = 4_000, testbed.enumerate(PROMPT)
    sample = testbed.sample(PROMPT, n, seed=7)
    np.testing.assert_allclose(sample.prob, 1 / n, rtol=1e-12)
    success, count = success_rate(exact), round(n * success_rate(sample))
    tail = min(binom.cdf(count, n, success), binom.sf(count - 1, n, success))
    assert 2 * tail > FALSE_ALARM
    unit = policy_gradient(exact) / np.linalg.norm(policy_gradient(exact))

    def moment(r):
        return (r.prob * r.reward) @ (r.score @ unit)

    terms = exact.reward[exact.prob > 0] * (exact.score @ unit)[exact.prob > 0]
    radius = np.ptp(terms) * np.sqrt(np.log(2 / FALSE_ALARM) / (2 * n))
    assert abs(moment(sample) - moment(exact)) < radius


def test_a_seed_is_a_sample(testbed):
    draws = [testbed.sample(PROMPT, 40, seed).score for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda t, d: t.at(d[1:]), "theta"),
        (lambda t, d: t.at(np.full(len(d), np.nan)), "theta"),
        (lambda t, d: t.enumerate(-1), "prompt"),
        (lambda t, d: t.exact(10**6), "prompt"),
        (lambda t, d: t.log_odds_and_gap(0.0), "prompt"),
        (lambda t, d: t.sample(PROMPT, 0, 0), "n"),
        (lambda t, d: t.sample(PROMPT, 1, -1), "seed"),
        (lambda t, d: t.along(PROMPT, d[1:]), "direction"),
        (lambda t, d: t.along(PROMPT, d, "failure"), "of"),
        (lambda t, d: t.along(-1, d), "prompt"),
        (lambda t, d: t.odds_along(PROMPT, np.full(len(d), np.inf), [0.1]), "direction"),
        (lambda t, d: t.odds_along(PROMPT, d, [np.nan]), "steps"),
        (lambda t, d: t.odds_along(10**6, d, [0.1]), "prompt"),
    ],
)
def test_bad_arguments_are_named(testbed, direction, call, named):
    with pytest.raises(ValueError, match=f"^{named} must be"):
        call(testbed, direction)


def test_prompts_without_failures_have_no_log_odds():
    certain = TransformerTestbed(
        AttentionPolicy(3), draw_problems(symmetric_group(3), (1,), 1, 0, names=3, context="chain"), np.zeros(9)
    )
    assert certain.exact(0)[0] == 1.0
    for call in (
        lambda: certain.log_odds_and_gap(0),
        lambda: certain.along(0, np.ones(9), "log_odds"),
        lambda: certain.odds_along(0, np.ones(9), [0.1]),
    ):
        with pytest.raises(ValueError, match="^prompt must be one with correct and with wrong responses"):
            call()
