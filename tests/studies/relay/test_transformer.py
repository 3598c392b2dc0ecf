"""The runs of chapter 3 on the transformer: clause maps against enumeration, exponents, and the committed runs."""

import numpy as np
import pytest
import torch

from rlvr_lib.studies.relay import bandit
from rlvr_lib.studies.relay import transformer as study
from rlvr_lib.testbeds.transformer import AttentionPolicy, WordProblems
from rlvr_lib.theory.groups import alternating_group, cyclic_group, symmetric_group
from rlvr_lib.theory.readings import attention_success
from rlvr_lib.theory.relay import clause_pair_law, handoff_exponent, pair_success

S3 = symmetric_group(3)


@pytest.mark.parametrize("group", [cyclic_group(5), S3], ids=repr)
def test_success_over_all_prompts_is_the_sum_over_orders(group):
    logits, h = np.random.default_rng(3).standard_normal((4, 4)), 4
    count = group.order**h
    elements = torch.cartesian_prod(*[torch.arange(group.order)] * h)
    prompts = WordProblems(group, torch.full((count,), h), torch.arange(h).expand(count, h), elements)
    exact = AttentionPolicy(h).success(torch.tensor(logits.ravel()), prompts).mean()
    assert float(exact) == pytest.approx(attention_success(group, torch.softmax(torch.tensor(logits), -1).numpy()))


def test_a_relay_of_all_logits_hands_over_by_the_exponent():
    run = study.relay((3, 9), True, None, 1.5, 30, seeds=2, seed=0, chains=8)
    ratio = run.exponent_ratios((3, 9), handoff_exponent)
    np.testing.assert_allclose(ratio, 1, atol=0.12)
    flow = bandit.flow((3, 9), bandit.linear, True, 1.5)
    np.testing.assert_allclose(run.when(0.5), np.tile(flow.when(0.5), (2, 1)), rtol=0.15)


def test_maps_on_an_abelian_group_earn_with_wrong_steps():
    maps = study.clause_maps(cyclic_group(5), 3, 4, 200, 0, horizon=3)
    assert (maps.y > 0.9).all()
    assert maps.wrong.sum() >= 2
    one = maps.map[maps.settled][0]
    assert study.caught_at(cyclic_group(5), one) == pytest.approx(1.0)


@pytest.mark.parametrize("group", [S3, alternating_group(5)], ids=repr)
def test_a_settled_map_is_caught_at_its_own_success(group):
    assert study.caught_at(group, np.arange(4)) == pytest.approx(1.0)
    clause_map, logits = np.array([1, 0, 2, 3]), torch.full((4, 4), -40.0, dtype=torch.float64)
    logits[torch.arange(4), torch.tensor(clause_map)] = 0.0
    problems = study.draw_problems(group, (4,), 20_000, 1, 4, "chain")
    found = AttentionPolicy(4).success(logits.flatten(), problems).mean().item()
    y = (group.order * found - 1) / (group.order - 1)
    assert study.caught_at(group, clause_map) == pytest.approx(y, abs=0.03)


def test_right_answers_are_those_of_the_pair_formula():
    law, prompts = np.array([0.05, 0.3, 0.05, 0.35, 0.15, 0.1]), 4000
    right = study.right_answers(S3, 0.8, (3, 9), prompts, 0, law)
    np.testing.assert_allclose(right / prompts, pair_success(S3, clause_pair_law(law, 0.8), [3, 9]), atol=0.04)


def test_the_committed_runs_are_counted():
    assert len(study.published()) == 6
    assert study.greedy_answers("Z96", "greedy") == 1064
    assert study.greedy_answers("Z96", "all", slice(2, 3), 3) == 2 * 512
    honest, every = (study.greedy_answers("Z96", kind) for kind in ("right_paths", "permutations"))
    assert 0 < honest < every <= 1064
