"""Word problems and the dynamic programme along their chains."""

import numpy as np
import pytest
import torch
from transformer_policies import CASES, S3, make, reference_responses

from rlvr_lib.testbeds.transformer import problems as chains
from rlvr_lib.testbeds.transformer.problems import (
    draw_problems,
    quotients,
    running_products,
    step_errors,
    success_and_sensitivity,
    success_probability,
)


def test_errors_are_conjugated_by_the_clauses_still_to_come():
    rng, table = np.random.default_rng(0), torch.tensor(S3.table)
    right, done = torch.tensor(rng.integers(0, 6, (2, 50, 5)))
    errors = quotients(S3, right, done)
    expected = running_products(S3, right)[:, -1]
    for step in range(5):
        suffix = running_products(S3, torch.cat([torch.zeros(50, 1, dtype=torch.long), right[:, step + 1 :]], 1))[:, -1]
        inverse = quotients(S3, suffix, torch.zeros_like(suffix))
        expected = table[table[table[expected, inverse], errors[:, step]], suffix]
    assert torch.equal(running_products(S3, done)[:, -1], expected)


@pytest.mark.parametrize("case", CASES)
def test_step_errors_by_enumeration(case):
    testbed = make(case)
    problems, group = testbed.problems, testbed.problems.group
    measured = step_errors(testbed.policy.step_law(torch.tensor(testbed.theta), problems), problems).numpy()
    assert measured.shape == (3, group.order)
    expected = np.zeros_like(measured)
    for prompt in range(6):
        products, prob, _ = reference_responses(testbed, prompt)
        h = products.shape[1]
        previous = np.concatenate([np.zeros_like(products[:, :1]), products[:, :-1]], 1)
        for step in range(h):
            right = group.table[previous[:, step], int(problems.right[step, prompt])]
            error = quotients(group, torch.tensor(right), torch.tensor(products[:, step])).numpy()
            expected[prompt // 2] += np.bincount(error, prob, minlength=group.order) / h / 2
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-12)


def test_cutting_products_into_blocks_changes_nothing(monkeypatch):
    testbed = make("content-softmax-fixed", horizons=(1, 3), per_horizon=3)
    law = testbed.policy.step_law(torch.tensor(testbed.theta), testbed.problems)
    whole = success_and_sensitivity(law, testbed.problems)
    for entries in (1, 80):  # one row, and a few rows of products at once
        monkeypatch.setattr(chains, "CACHED_ENTRIES", entries)
        for cut, expected in zip(success_and_sensitivity(law, testbed.problems), whole, strict=True):
            torch.testing.assert_close(cut, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("case", CASES)
def test_backward_pass_against_autograd(case):
    testbed = make(case, horizons=(1, 3, 4), per_horizon=3)
    law = testbed.policy.step_law(torch.tensor(testbed.theta), testbed.problems).requires_grad_()
    success = success_probability(law, testbed.problems)
    (expected,) = torch.autograd.grad(success.sum(), law)
    again, sensitivity = success_and_sensitivity(law.detach(), testbed.problems)
    torch.testing.assert_close(again, success.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(sensitivity, expected, rtol=0, atol=1e-13)


def test_drawn_problems():
    law = np.array([0, 0.5, 0.5, 0, 0, 0])
    problems = draw_problems(S3, (7, 3), 20, [11, 12], names=9, context="chain", law=law)
    assert problems.horizons == (3, 7)
    assert problems.starts == [0, 0, 0, 20, 20, 20, 20]
    np.testing.assert_array_equal((problems.element >= 0).sum(-1), np.tile(np.repeat([3, 7], 20), (2, 1)))
    assert set(problems.element.unique().tolist()) == {-1, 1, 2}
    for p, h in enumerate(problems.horizon.tolist()):
        for run in range(2):
            names = problems.name[run, p, :h].tolist()
            assert len(set(names)) == h
            product = 0
            for name in names:
                product = S3.table[product, int(problems.element[run, p, name])]
            assert product == problems.target[run, p]
    alone = draw_problems(S3, (3, 7), 20, 12, names=9, context="chain", law=law)
    assert torch.equal(alone.element, problems.element[1])
    positions = draw_problems(S3, (3, 7), 20, 0, names=9, consecutive=True)
    assert (positions.name[20:].diff(dim=-1) == 1).all()
    assert (positions.name[:20, :3].diff(dim=-1) == 1).all()
    assert len(positions.name[:20, 0].unique()) > 2
    part = problems.select([1, 4])
    assert part.name.shape == (2, 2, 3)
