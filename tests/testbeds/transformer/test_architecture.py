"""Attention and the frozen group head, without a state."""

import itertools

import numpy as np
import torch
from transformer_policies import S3

from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy, group_head, group_layer
from rlvr_lib.testbeds.transformer.ensemble import train
from rlvr_lib.testbeds.transformer.problems import (
    WordProblems,
    draw_problems,
)


def test_the_group_head_is_a_relu_layer_that_multiplies_on_the_right():
    group = S3
    inputs, outputs = group_layer(group)
    assert inputs.shape == (36, 12)
    assert outputs.shape == (6, 36)
    mixture = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(6)))
    for x in range(6):
        mass = np.zeros(6)
        for g, k in itertools.product(range(6), range(6)):
            mass[group.table[g, k]] += max(0.0, (g == x) + mixture[k].item() - 1)
        np.testing.assert_allclose(group_head(group, torch.tensor(x), mixture), mass, rtol=0, atol=1e-15)
        moved = np.zeros(6)
        moved[group.table[x]] = mixture
        np.testing.assert_allclose(mass, moved, rtol=0, atol=1e-15)


def test_relative_addressing_shares_parameters_over_positions():
    policy = AttentionPolicy(6, "relative", sharpness=3.0)
    theta = torch.randn(policy.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    element = torch.tensor([2, 5, 1])
    laws = []
    for start in range(4):
        clauses = torch.full((1, 6), -1)
        clauses[0, start : start + 3] = element
        problems = WordProblems(S3, torch.tensor([3]), torch.arange(start, start + 3)[None], clauses)
        laws.append(policy.step_law(theta, problems))
    for law in laws[1:]:
        torch.testing.assert_close(law, laws[0], rtol=0, atol=1e-15)
    content = AttentionPolicy(6, sharpness=3.0)
    assert (policy.size, content.size) == (11, 36)


def test_attention_on_the_right_clause():
    weight = np.log(4)
    for context, expected in (("chain", [1 / (1 + (h - 1) / 4) for h in (2, 6)]), ("fixed", [4 / (4 + 8)] * 2)):
        policy = AttentionPolicy(9)
        problems = draw_problems(S3, (2, 6), 5, seed=[0], names=9, context=context)
        record = train(policy, policy.initial(weight)[None], problems, 1, 0.0)
        np.testing.assert_allclose(record.attention[0, 0], expected)
        np.testing.assert_allclose(record.attention[1], record.attention[0])


def test_extreme_parameters_stay_finite():
    policy = AttentionPolicy(4, sharpness=3.0)
    problems = draw_problems(S3, (2,), 6, 0, names=4, context="chain")
    towards_absent = torch.full((4, 4), 0.0, dtype=torch.float64)
    chain = problems.name[0]
    towards_absent[:, ~torch.isin(torch.arange(4), chain)] = 1e4
    _, own = policy.attend(towards_absent.flatten(), problems.step_name[:, :1], problems.values[..., :1])
    np.testing.assert_allclose(own, 0.5)
    for theta in (towards_absent.flatten(), np.random.default_rng(0).choice([-1e4, 1e4], 16)):
        success, gradient = TransformerTestbed(policy, problems, theta).exact_all()
        assert np.isfinite(success).all()
        assert np.isfinite(gradient).all()
