import numpy as np
import pytest
import torch

from rlvr_lib.responses import success_rate
from rlvr_lib.studies.baseline import transformer
from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.theory.baseline import (
    energy_ratio,
    gradient_variance,
    mean_baseline_loss,
    optimal_baseline,
)


@pytest.fixture(scope="module")
def responses():
    """All responses to two prompts, before and after a short run."""
    kept = transformer.train("lagged b*", 4.0, 2, 4, 3).kept
    return [r for theta in kept[[0, -1], 0] for r in transformer.responses(theta, 3, prompts=2)]


def test_the_best_baseline_leaves_the_gradient_by_dynamic_programming_unchanged():
    theta = transformer.train("RLOO", 4.0, 1, 3, 3).kept[-1, 0]
    policy, problems = transformer._problems(3)
    exact = TransformerTestbed(policy, problems, torch.tensor(theta)).exact(0)[1]
    (r,) = transformer.responses(theta, 3, prompts=1)
    assert len(r) == 6**4
    np.testing.assert_allclose((r.prob * (r.reward - optimal_baseline(r))) @ r.score, exact, atol=1e-12)
    looking = (r.prob * (r.reward - 0.5 * r.reward)) @ r.score
    assert np.abs(looking - exact).max() > 0.1 * np.abs(exact).max()


def test_the_price_of_the_mean_over_all_responses(responses):
    for r in responses:
        J, best = success_rate(r), optimal_baseline(r)
        moments = [r.prob @ ((r.reward - b) ** 2 * r.energy) for b in (J, best)]
        assert mean_baseline_loss(J, energy_ratio(r)) == pytest.approx(moments[0] / moments[1], rel=1e-9)
        assert gradient_variance(r, best) <= gradient_variance(r, J)


@pytest.mark.parametrize("method", transformer.METHODS)
def test_runs_depend_on_their_own_number_only(method):
    few, many = (transformer.train(method, 2.0, count, 3, 5).success for count in (2, 4))
    np.testing.assert_allclose(few, many[:, :2])
    assert few.shape == (4, 2)


def test_the_first_step_is_unbiased():
    """Over many draws of the first step its mean is the exact gradient of mean success, for every method but GRPO."""
    policy, problems = transformer._problems(2)
    start = policy.initial(2.0).requires_grad_(True)
    (gradient,) = torch.autograd.grad(policy.success(start, problems).mean(), start)
    for method in ("RLOO", "zero baseline", "lagged b*"):
        kept = transformer.train(method, 1.0, 400, 1, 2).kept
        steps = kept[-1] - kept[0]
        error = steps.mean(0) - gradient.numpy()
        spread = steps.std(0) / np.sqrt(len(steps))
        assert (np.abs(error) < 6 * spread + 1e-12).all()
        assert np.linalg.norm(error) < 0.5 * np.linalg.norm(gradient.numpy())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("method", ("luck", 1.0, 1, 1, 0)),
        ("rate", ("RLOO", 0.0, 1, 1, 0)),
        ("runs", ("RLOO", 1.0, 0, 1, 0)),
        ("steps", ("RLOO", 1.0, 1, 0, 0)),
    ],
)
def test_bad_input_is_refused(name, arguments):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        transformer.train(*arguments)
