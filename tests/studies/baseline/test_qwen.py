"""The runs of chapter 5 on a Qwen, against enumerated responses and the theory."""

import itertools

import numpy as np
import pytest
import torch
from qwen_policies import S3, scrambled

from rlvr_lib.claims import relative_error
from rlvr_lib.responses import success_rate
from rlvr_lib.studies.baseline import qwen as study
from rlvr_lib.testbeds.group_tasks import ManyAnswers, WordProblem
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed, WarmStart
from rlvr_lib.testbeds.qwen.prefixes import shared_prefixes
from rlvr_lib.theory.baseline import (
    baseline_loss,
    energy_ratio,
    gradient_variance,
    mean_baseline_loss,
    optimal_baseline,
)
from rlvr_lib.theory.gap import policy_gradient


@pytest.fixture(scope="module")
def qwen():
    """A short warm start, on words of two elements."""
    settings = WarmStart(clean_steps=30, noisy_steps=5, batch=32)
    return QwenTestbed(warm_start=settings, dtype=torch.float64).with_task(WordProblem(S3, (2,), 6))


@pytest.fixture(scope="module")
def responses(qwen):
    return qwen.enumerate(7)


def rollout_of_all(qwen, prompt):
    tokens, length = qwen.responses(prompt)
    mask = torch.arange(tokens.shape[1]) < length[:, None]
    reward = qwen.task.reward([prompt], tokens[None], length[None]).double().numpy()
    return Rollout((prompt,), tokens, mask, reward)


def test_baselines_leave_the_gradient_of_all_responses(qwen, responses):
    r, (_, gradient) = responses, qwen.exact(7)
    for baseline in (0.0, success_rate(r), optimal_baseline(r)):
        mean = (r.prob * (r.reward - baseline)) @ r.score
        assert relative_error(mean, gradient) < 1e-9
    looks = (r.prob * (r.reward - r.reward / 2)) @ r.score  # at the response itself
    assert relative_error(looks, gradient) > 0.1
    weight = 1 / r.length / (r.prob @ (1 / r.length))
    assert relative_error((r.prob * (r.reward - optimal_baseline(r)) * weight) @ r.score, gradient) > 1e-4


def test_a_point_is_that_of_all_responses(qwen, responses):
    r, found = responses, study.point(qwen, 7, study.STAND_INS)
    assert found.success == pytest.approx(success_rate(r), rel=1e-12)
    assert found.ratio == pytest.approx(energy_ratio(r), rel=1e-9)
    assert found.signal == pytest.approx((policy_gradient(r) ** 2).sum(), rel=1e-9)
    assert found.best["exact"] == pytest.approx(optimal_baseline(r), rel=1e-9)
    for b in (0.0, 0.3, 1.0):
        assert found.variance(b) == pytest.approx(gradient_variance(r, b), rel=1e-9)
    assert found.excess(found.best["exact"]) == 1.0
    assert min(found.excess(b) for b in found.best.values()) == 1.0
    assert list(found.best) == ["exact", *study.STAND_INS]
    for b, price in ((0.0, baseline_loss), (found.success, lambda J, x, _: mean_baseline_loss(J, x))):
        second = (found.variance(b) + found.signal) / (found.variance(found.best["exact"]) + found.signal)
        assert price(found.success, found.ratio, b) == pytest.approx(second, rel=1e-9)  # 5b
        assert found.excess(b) == pytest.approx(1 + (second - 1) * (1 + found.snr), rel=1e-9)


def test_parts_of_the_energy(qwen, responses):
    rollout, score = rollout_of_all(qwen, 7), torch.tensor(responses.score)
    assert study.energies(qwen, rollout) == pytest.approx(responses.energy, rel=1e-9)
    widths = [value.numel() for value in qwen.parameters()]
    parts = dict(zip(qwen.named, score.split(widths, 1), strict=True))
    last = f"model.layers.{qwen.plain.layers - 1}."
    expected = sum(part.square().sum(1) for name, part in parts.items() if name.startswith(last))
    assert study.energies(qwen, rollout, "last layer") == pytest.approx(expected.numpy(), rel=1e-9)
    head = study.energies(qwen, rollout, "output head")
    assert (head > 0).all()
    assert study.energies(qwen, rollout, "length").tolist() == responses.length.tolist()
    with pytest.raises(ValueError, match="kind must be exact, length"):
        study.energies(qwen, rollout, "width")


def test_the_token_proxy_is_the_energy_in_the_logits(qwen):
    rollout = qwen.rollout([3], 5, torch.Generator().manual_seed(0))
    proxy = study.energies(qwen, rollout, "token proxy")
    expected = np.zeros(5)
    forest, emits = shared_prefixes(qwen.task.prompt_tokens([3]), rollout.tokens, rollout.mask)
    law = qwen.plain.branch_log_probs(qwen.named, forest).exp().detach()
    column = qwen.plain.column[rollout.tokens]
    for i, t in itertools.product(range(5), range(rollout.tokens.shape[1])):
        if rollout.mask[i, t]:
            p = law[emits[i, t]]
            one = torch.nn.functional.one_hot(column[i, t], len(p))
            expected[i] += float(((one - p) ** 2).sum())
    assert proxy == pytest.approx(expected, rel=1e-6)


def test_a_batch_tells_success_and_ratio(qwen, responses):
    read = study.read_batch(qwen, 7, 400, (2, 1))
    generator = torch.Generator().manual_seed(int(np.random.default_rng((2, 1)).integers(2**32)))
    rollout = qwen.rollout([7], 400, generator)
    right, J = rollout.reward[0] == 1, success_rate(responses)
    assert abs(right.mean() - J) < 5.5 * np.sqrt(J * (1 - J) / 400)
    for (success, ratio), kind in zip(read, ("exact", "token proxy"), strict=True):
        energy = study.energies(qwen, rollout, kind)
        assert success == right.mean()
        assert ratio == pytest.approx(energy[~right].mean() / energy[right].mean(), rel=1e-9)
    (success, none), (_, nothing) = study.read_batch(qwen, 7, 1, (0, 1))
    assert success in (0.0, 1.0)
    assert np.isnan([none, nothing]).all()


def test_warm_starts_are_of_two_tasks(monkeypatch):
    asked = []
    monkeypatch.setattr(study, "checkpoints", lambda seeds, *settings, **options: asked.append(list(seeds)) or [])
    assert study.warm_starts("tiny", 3, 5) == {study.WORD: [], study.MANY: []}
    assert asked == [[5, 6, 7]] * 2


def test_prompts_of_both_tasks(qwen):
    assert len(set(study.prompts(qwen, 12, 0))) == 12
    assert sorted(study.prompts(scrambled(0, task=ManyAnswers(S3)), 12, 0)) == list(range(6))


def test_training_does_what_it_says(qwen):
    judges = study.prompts(qwen, 2, 0)
    runs = {method: study.train(qwen, method, 0.05, 3, 4, judges) for method in study.METHODS}
    for run in runs.values():
        assert run.curve.shape == (3,)
        assert len(run.theta) == 3
        assert (run.theta[0] == qwen.theta).all()
        assert run.final == pytest.approx(study.success(qwen.at(run.theta[-1]), judges), rel=1e-12)
        assert run.curve[0] == runs[study.RLOO].curve[0]  # the same first responses
    assert len({run.theta[-1].tobytes() for run in runs.values()}) == 3
    first = {m: study.train(qwen, m, 0.05, 1, 4, judges).theta[-1] for m in (study.ZERO, study.LAGGED)}
    assert (first[study.ZERO] == first[study.LAGGED]).all()  # nothing is known before the first batch
    with pytest.raises(ValueError, match="method must be one of RLOO"):
        study.train(qwen, "none", 0.05, 1, 4, judges)


@pytest.mark.parametrize(("best", "interior"), [(0.02, True), (0.16, True), (5.0, False)])
def test_tuning_goes_on_until_the_best_rate_has_worse_neighbours(qwen, monkeypatch, best, interior):
    runs = []

    def trained(qwen, method, rate, steps, seed, judges):
        runs.append((rate, seed))
        return study.Run(np.zeros(1), -abs(np.log(rate / best)), [])

    monkeypatch.setattr(study, "train", trained)
    found = study.tuned(qwen, study.RLOO, 1, 2, 3, 100)
    assert found.interior == interior
    assert found.rate == pytest.approx(best if interior else 0.64)
    assert [seed for _, seed in runs[-3:]] == [100, 101, 102]
    assert {seed for _, seed in runs[:-3]} == {103, 104}
    assert len(found.final) == 3
    tried = {rate for rate, _ in runs[:-3]}
    assert not interior or min(tried) < found.rate < max(tried)


def test_one_step_agrees_with_its_parabola_for_short_steps(qwen):
    chosen = study.prompts(qwen, 2, 1)
    taken = study.one_step(qwen, chosen, 2, [0.01, 0.02], 3)
    assert taken.gain == pytest.approx(taken.promised([0.01, 0.02]), rel=0.02)
    top = taken.slope**2 / abs(taken.curvature)
    assert taken.promised(0.5, curved=False) == pytest.approx(top / 2)
    assert taken.promised(1.0) == pytest.approx(top * (1 + np.sign(taken.curvature) / 2))
    assert taken.snr > 0
