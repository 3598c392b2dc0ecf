"""Diagnostics of a plain loop, against autograd and the theorem functions on the scores themselves."""

import numpy as np
import pytest
import torch

from rlvr_lib import gradient_snr, optimal_baseline, squared_signal, success_rate
from rlvr_lib.responses import Responses
from rlvr_lib.theory.threshold import AlongStep
from rlvr_lib.trl import GroupDiagnostics

P, G, D = 5, 6, 7


class Policy:
    """Three layers of nothing: log-probabilities of drawn answers to P prompts from features, tanh and a softmax."""

    def __init__(self, seed=0):
        draw = torch.Generator().manual_seed(seed)
        self.features = torch.randn(P, 9, D, generator=draw, dtype=torch.float64)
        self.weight = torch.randn(D, generator=draw, dtype=torch.float64).requires_grad_()
        self.bias = torch.zeros(9, dtype=torch.float64).requires_grad_()
        self.frozen = torch.ones(2, dtype=torch.float64)
        self.drawn = torch.randint(9, (P, G), generator=draw)
        self.reward = (self.drawn < 4).double()
        self.reward[0] = 1.0  # a prompt that is solved

    def parameters(self):
        return [self.weight, self.bias, self.frozen]

    def log_prob(self):
        logits = torch.tanh(self.features @ self.weight) + self.bias
        return torch.log_softmax(logits, -1).gather(1, self.drawn).flatten()

    def rows(self):
        """Scores [P, G, d] by one backward pass each."""
        total, trained = self.log_prob(), [self.weight, self.bias]
        grads = [torch.cat(torch.autograd.grad(x, trained, retain_graph=True)) for x in total]
        return torch.stack(grads).view(P, G, -1).numpy()

    def step(self, rate):
        before = [self.weight.detach().clone(), self.bias.detach().clone()]
        centred = self.reward - self.reward.mean(1, keepdim=True)
        loss = -(centred.flatten() * self.log_prob()).mean()
        grads = torch.autograd.grad(loss, [self.weight, self.bias])
        with torch.no_grad():
            self.weight -= rate * grads[0]
            self.bias -= rate * grads[1]
        return before


@pytest.fixture
def policy():
    return Policy()


def test_scores_are_those_of_the_theorem_functions(policy):
    found = GroupDiagnostics(policy.log_prob, policy.parameters(), policy.reward).scores()
    reward, score = policy.reward.numpy(), policy.rows()
    centred = reward - reward.mean(1, keepdims=True)
    success = np.einsum("pg,pgd->pd", centred / (G - 1), score)
    used = np.einsum("pg,pgd->pd", centred / G, score)
    J = reward.mean()
    assert found["gradient_snr"] == pytest.approx(gradient_snr(used))
    squared = squared_signal(success)
    assert found["gap_norm"] == (pytest.approx(np.sqrt(squared) / (J * (1 - J))) if squared > 0 else None)
    every = Responses(reward.ravel(), score.reshape(P * G, -1))
    assert found["optimal_baseline"] == pytest.approx(optimal_baseline(every))
    assert success_rate(every) == pytest.approx(J)
    assert found["gradient_snr_error"] > 0


def test_an_update_is_followed_as_autograd_follows_it(policy):
    diagnostics = GroupDiagnostics(policy.log_prob, policy.parameters(), policy.reward)
    before = diagnostics.copy()
    policy.step(0.3)
    after = [value.detach().clone() for value in policy.parameters()]
    found = diagnostics.along(before, 0.3)
    assert all(torch.equal(a, b.detach()) for a, b in zip(after, policy.parameters(), strict=True))

    start = torch.cat([value.flatten() for value in before])
    move = torch.cat([policy.weight.detach(), policy.bias.detach()]) - start
    length = float(move.norm())

    def log_prob(theta):
        logits = torch.tanh(policy.features @ theta[:D]) + theta[D:]
        return torch.log_softmax(logits, -1).gather(1, policy.drawn).flatten()

    unit = move / length
    slope = torch.autograd.functional.jacobian(log_prob, start) @ unit
    bend = torch.stack([
        unit @ torch.autograd.functional.hessian(lambda t, i=i: log_prob(t)[i], start) @ unit for i in range(P * G)
    ])  # fmt: skip
    weight = ((policy.reward - policy.reward.mean(1, keepdim=True)) / (G - 1)).flatten()
    first = (weight * slope).view(P, G).sum(1).mean()
    second = (weight * (bend + slope**2)).view(P, G).sum(1).mean()
    along = AlongStep(float(policy.reward.mean()), float(first), float(second))
    assert found["gap_alignment"] == pytest.approx(along.gap_alignment, rel=2e-2)  # differences, not derivatives
    if along.critical_step is None:
        assert found["critical_learning_rate"] is None
    else:
        assert found["critical_learning_rate"] == pytest.approx(along.critical_step * 0.3 / length, rel=5e-2)
        assert found["learning_rate_ratio"] == pytest.approx(length / along.critical_step, rel=5e-2)
    assert found["gap_alignment_error"] > 0


def test_groups_and_advantages_and_missing_rewards(policy):
    reward = policy.reward.clone()
    reward[1, 2:] = torch.nan
    reward[2, 1:] = torch.nan  # one reward left: no group
    diagnostics = GroupDiagnostics(policy.log_prob, policy.parameters(), reward)
    groups = diagnostics.groups()
    assert groups["success_rate"] == pytest.approx(np.nanmean(reward[[0, 1, 3, 4]].numpy(), axis=1).mean())
    assert groups["dead_groups"] >= 0.25
    assert np.isfinite(diagnostics.scores()["optimal_baseline"])
    doubled = GroupDiagnostics(policy.log_prob, policy.parameters(), policy.reward, 2 * policy.reward - 1)
    plain = GroupDiagnostics(policy.log_prob, policy.parameters(), policy.reward)
    assert doubled.scores()["gap_norm"] == plain.scores()["gap_norm"]
    assert doubled.scores()["gradient_snr"] != plain.scores()["gradient_snr"]


def test_graded_rewards_need_a_threshold(policy):
    graded = policy.reward * 0.7
    with pytest.raises(ValueError, match="success_threshold"):
        GroupDiagnostics(policy.log_prob, policy.parameters(), graded)
    found = GroupDiagnostics(policy.log_prob, policy.parameters(), graded, threshold=0.5).groups()
    assert found["success_rate"] == pytest.approx(float(policy.reward.mean()))


def test_an_update_that_moves_nothing_has_no_numbers(policy):
    diagnostics = GroupDiagnostics(policy.log_prob, policy.parameters(), policy.reward)
    assert set(diagnostics.along(diagnostics.copy(), 0.1).values()) == {None}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"reward": torch.ones(4)}, "reward"),
        ({"reward": torch.ones(4, 1)}, "reward"),
        ({"reward": torch.full((P, G), torch.nan)}, "reward"),
        ({"parameters": [torch.ones(2)]}, "parameters"),
        ({"advantage": torch.ones(P)}, "advantage"),
    ],
)
def test_bad_arguments_are_named(policy, changes, named):
    arguments = {"log_prob": policy.log_prob, "parameters": policy.parameters(), "reward": policy.reward} | changes
    with pytest.raises(ValueError, match=named):
        GroupDiagnostics(**arguments)


def test_what_does_not_fit_is_named_when_it_is_used(policy):
    fewer = GroupDiagnostics(lambda: policy.log_prob()[1:], policy.parameters(), policy.reward)
    with pytest.raises(ValueError, match="log_prob"):
        fewer.scores()
    diagnostics = GroupDiagnostics(policy.log_prob, policy.parameters(), policy.reward)
    with pytest.raises(ValueError, match="before"):
        diagnostics.along(diagnostics.copy()[:1], 0.1)
    with pytest.raises(ValueError, match="learning_rate"):
        diagnostics.along(diagnostics.copy(), 0.0)
