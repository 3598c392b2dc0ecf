"""Per-sample scores and their norms, against one backward pass a response."""

import numpy as np
import pytest
import torch

from rlvr_lib.testbeds.group_tasks import ManyAnswers, WordProblem
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.scores import CHUNK, Recorder, per_sample_scores, second_order
from rlvr_lib.theory.groups import cyclic_group


def random_testbed(**arguments):
    testbed = QwenTestbed(WordProblem(cyclic_group(4), (1, 3)), warm_start=None, dtype=torch.float64, **arguments)
    return testbed.at(testbed.theta + 0.2 * np.random.default_rng(0).standard_normal(len(testbed.theta)))


def one_by_one(policy, rollout):
    log_probs = policy.token_log_probs(rollout).sum(-1)
    rows = [torch.autograd.grad(value, policy.parameters(), retain_graph=True) for value in log_probs]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.parametrize("arguments", [{}, {"family": "qwen2"}, {"alphabet": "vocabulary"}], ids=str)
def test_qwen_scores_and_norms(arguments):
    testbed = random_testbed(**arguments)
    rollout = testbed.rollout([0, 50, 3, 50], 6, torch.Generator().manual_seed(0))
    expected = one_by_one(testbed, rollout)
    torch.testing.assert_close(testbed.scores(rollout), expected, rtol=1e-10, atol=1e-11)
    norms = testbed.squared_norms(rollout)
    torch.testing.assert_close(norms, expected.square().sum(-1), rtol=1e-10, atol=0)
    assert not norms.requires_grad
    assert norms.std() > 0.1 * norms.mean()


def test_norms_count_the_cross_term_of_the_tied_embedding():
    """Treating the two uses of the embedding as separate parameters gives other norms."""
    testbed = random_testbed()
    rollout = testbed.rollout([0, 50], 6, torch.Generator().manual_seed(0))
    p = {name: value.detach() for name, value in testbed.named.items()}
    untied = Recorder()

    def tap(name, inputs, outputs):
        is_head = name == "model.embed_tokens.weight" and inputs.is_floating_point()
        return untied("head.weight" if is_head else name, inputs, outputs)

    prompts = testbed.task.prompt_tokens(rollout.prompts).repeat_interleave(6, 0)
    log_prob = torch.where(rollout.mask, testbed.plain.row_log_probs(p, prompts, rollout.tokens, tap), 0.0).sum(-1)
    apart = untied.squared_norms(log_prob, p | {"head.weight": p["model.embed_tokens.weight"]})
    assert not torch.allclose(apart, testbed.squared_norms(rollout), rtol=1e-3)


def test_ghost_norms_both_ways():
    """Long rows use the product itself, short ones inner products of positions; both are right, as is a bias."""
    generator = torch.Generator().manual_seed(0)
    p = {"first.weight": (3, 4), "first.bias": (3,), "scale": (3,), "second.weight": (40, 3)}
    p = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in p.items()}
    for positions in (1, 30):
        x = torch.randn(5, positions, 4, generator=generator, dtype=torch.float64)

        def forward(p, x, tap=lambda name, inputs, outputs: outputs):
            hidden = tap("first.weight", x, torch.nn.functional.linear(x, p["first.weight"], p["first.bias"]))
            hidden = tap("scale", hidden.tanh(), hidden.tanh() * p["scale"])
            return tap("second.weight", hidden, hidden @ p["second.weight"].T).sin().sum((-1, -2))

        recorder = Recorder()
        norms = recorder.squared_norms(forward(p, x, recorder), p)
        scores = per_sample_scores(lambda p, row: forward(p, row[None])[0], p, x)
        torch.testing.assert_close(norms, scores.square().sum(-1), rtol=1e-10, atol=0)


@pytest.mark.parametrize("rows", [1, CHUNK, 2 * CHUNK + 3])
def test_chunks_change_nothing(rows):
    weight, rows = {"w": torch.arange(6.0).view(2, 3)}, torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))
    scores = per_sample_scores(lambda p, row: (p["w"] @ row).square().sum(), weight, rows)
    expected = 2 * (weight["w"] @ rows[:, :, None]) * rows[:, None]
    torch.testing.assert_close(scores, expected.flatten(1))


def test_second_order_of_a_polynomial():
    parameters, direction = {"x": torch.tensor([1.0, 2.0])}, {"x": torch.tensor([3.0, -1.0])}
    (value, slope), (same, second) = second_order(lambda p: p["x"].prod() ** 2, parameters, direction)

    t = np.polynomial.Polynomial([1, 3]) ** 2 * np.polynomial.Polynomial([2, -1]) ** 2
    assert float(value) == t(0)
    assert float(slope) == float(same) == t.deriv()(0)
    assert float(second) == t.deriv(2)(0)


def test_scores_of_the_task_with_many_answers():
    testbed = QwenTestbed(
        ManyAnswers(cyclic_group(3), length=2, accepted=2, needed=1), warm_start=None, dtype=torch.float64
    )
    responses = testbed.enumerate(1)
    assert len(responses) == 1 + 3 + 9 + 27
    np.testing.assert_allclose(responses.prob @ responses.score, 0, atol=1e-12)
    np.testing.assert_allclose((responses.prob * responses.reward) @ responses.score, testbed.exact(1)[1], atol=1e-13)
