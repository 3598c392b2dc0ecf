"""The transformer of chapter 4: identities by enumeration, matched rates, prompts that never meet."""

import numpy as np
import pytest
import torch

from rlvr_lib.responses import conditional_weights, success_rate
from rlvr_lib.studies.curvature import transformer
from rlvr_lib.testbeds.transformer import AttentionPolicy, TransformerTestbed, draw_problems
from rlvr_lib.testbeds.transformer.problems import quotients
from rlvr_lib.theory.groups import symmetric_group


def hessian(function):
    return torch.func.jacrev(torch.func.jacrev(function))


@pytest.fixture(scope="module")
def enumerated():
    """Responses, Hessians of their log-probabilities and the Hessian of success, of four short prompts."""
    policy = AttentionPolicy(names=4, sharpness=3.0)
    problems = draw_problems(symmetric_group(3), (2,), 4, 0, names=4)
    testbed = TransformerTestbed(policy, problems, policy.initial(1.0))
    theta, rows = torch.tensor(testbed.theta), []
    first, second = torch.cartesian_prod(torch.arange(6), torch.arange(6)).T
    for prompt in range(4):
        chosen = problems.select([prompt])
        step = quotients(chosen.group, first, second)

        def log_probs(at, chosen=chosen, step=step):
            law = policy.step_law(at, chosen)[..., 0].log()
            return law[0][first] + law[1][step]

        policy.success(theta, chosen)  # what the problems cache may not be made inside a transform
        exact = hessian(lambda at, chosen=chosen: policy.success(at, chosen)[0])(theta)
        rows.append((testbed.enumerate(prompt), hessian(log_probs)(theta).numpy(), exact.numpy()))
    return rows


def test_hessian_is_the_variance_times_a_difference_of_conditional_means(enumerated):
    for r, second, exact in enumerated:
        J, (correct, wrong) = success_rate(r), conditional_weights(r)
        both = second + np.einsum("nd,ne->nde", r.score, r.score)
        found = J * (1 - J) * np.einsum("n,nde->de", correct - wrong, both)
        assert np.allclose(found, exact, atol=1e-9 * np.abs(exact).max())


def test_no_direction_is_more_curved_than_the_general_bound(enumerated):
    for r, second, exact in enumerated:
        J, (_, vectors) = success_rate(r), np.linalg.eigh(exact)
        for w in vectors.T:
            bend = np.abs(np.einsum("d,nde,e->n", w, second, w)).max()
            assert abs(w @ exact @ w) <= J * (1 - J) * (np.ptp(r.score @ w) ** 2 + 2 * bend) + 1e-12


@pytest.mark.parametrize("arm", ["none", "std", "batch"])
def test_runs_take_about_the_expected_time(arm):
    chains = transformer.chains(1)
    found = transformer.sampled_times(chains, arm, 16, range(4))
    assert np.median(found) == pytest.approx(transformer.expected_time(chains, arm, 16), rel=0.05)


def test_in_groups_of_two_adam_sees_one_algorithm():
    chains = transformer.chains(0)
    none, std = (transformer.sampled_times(chains, arm, 2, range(2), "adam") for arm in ("none", "std"))
    assert np.allclose(none, std, rtol=1e-4)


def test_curvature_follows_variance_on_the_solvable_task_and_not_with_a_blunt_head():
    solved, blunt = (transformer.follow(case, 3) for case in ("solvable", "saturated head"))
    assert solved.slope() == pytest.approx(1, abs=0.15)
    assert solved.slope(root=True) == pytest.approx(2 * solved.slope())
    assert blunt.curvature[-1] / blunt.variance[-1] < 0.5 * blunt.curvature[0] / blunt.variance[0]


def test_disjoint_prompts_never_meet_and_equal_ones_have_no_advantage():
    starts = np.array([np.full(transformer.DISJOINT, 3.0), np.linspace(1, 6.5, transformer.DISJOINT)])
    runs = transformer.advantage(starts, 30)
    assert runs.cosine < 1e-12
    assert np.allclose(runs.advantage[0, 0], runs.advantage[0, 0].mean())
    assert runs.advantage[:, 0].max() < 1.05
    assert runs.at(runs.success[3, 1])[1] == pytest.approx(runs.advantage[3, 1])
    assert np.allclose(transformer.advantage(starts, 30, power=0.0).advantage, 1)


def test_optimizer_is_one_of_two():
    with pytest.raises(ValueError, match="optimizer"):
        transformer.rate(transformer.chains(0), "std", 4, "momentum", 0)
