"""Partial credit by whole responses and by steps, on both networks."""

import numpy as np
import pytest
from qwen_policies import S3, scrambled
from transformer_policies import CASES, make

from rlvr_lib.responses import success_rate
from rlvr_lib.testbeds.group_tasks import FIRST, WordProblem
from rlvr_lib.testbeds.partial_credit import (
    StepRight,
    mean_success,
    qwen_credit,
    qwen_steps,
    transformer_credit,
    transformer_steps,
)
from rlvr_lib.theory.gap import policy_gradient
from rlvr_lib.theory.graded import coin_responses

TASK = WordProblem(S3, (2,))


@pytest.fixture(scope="module")
def qwen():
    return scrambled(0, task=TASK)


def test_credit_counts_the_right_places_of_a_response(qwen):
    prompt, table = TASK.prompt((3, 4)), S3.table
    tokens, length = qwen.responses(prompt)
    right = (FIRST + 3, FIRST + table[3, 4])
    expected = [
        sum(place < n and row[place] == right[place] for place in range(2)) / 2
        for row, n in zip(tokens.tolist(), length.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(qwen_credit(qwen_steps(qwen, 2), prompt), expected)


def test_mean_and_gradient_by_steps_are_those_of_the_coins_on_the_qwen(qwen):
    prompt, steps = 7, qwen_steps(qwen, 2)
    every = qwen.enumerate(prompt)
    r = coin_responses(qwen_credit(steps, prompt), every.score, every.prob)
    success, gradient = mean_success(steps, prompt)
    assert success_rate(r) == pytest.approx(success, rel=1e-10)
    np.testing.assert_allclose(policy_gradient(r), gradient, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_mean_and_gradient_by_steps_are_those_of_the_coins_on_the_transformer(case):
    testbed = make(case, horizons=(3,))
    steps, every = transformer_steps(testbed), testbed.enumerate(1)
    r = coin_responses(transformer_credit(testbed, 1), every.score, every.prob)
    success, gradient = mean_success(steps, 1)
    assert success_rate(r) == pytest.approx(success, rel=1e-10)
    np.testing.assert_allclose(policy_gradient(r), gradient, atol=1e-10)
    assert steps[-1].exact(1)[0] == pytest.approx(testbed.exact(1)[0], rel=1e-12)


def test_past_the_end_of_a_word_nothing_is_right(qwen):
    beyond = qwen.with_task(StepRight(S3, (2,), 2, 3))
    assert beyond.enumerate(0).reward.max() == 0
    tokens, length = qwen.responses(0)
    assert not StepRight(S3, (2,), 2, 4).reward([0], tokens[None], length[None]).any()


def test_bad_arguments_are_named(qwen):
    with pytest.raises(ValueError, match="^step must be"):
        StepRight(S3, (2,), 2, 0)
    with pytest.raises(ValueError, match="^length must be"):
        qwen_steps(qwen, 0)
    with pytest.raises(ValueError, match="^testbed must be"):
        transformer_steps(make("content-linear-fixed", horizons=(1, 2)))
