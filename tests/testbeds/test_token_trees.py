"""Token trees against finite differences of themselves."""

import itertools

import numpy as np
import pytest

from rlvr_lib import Responses, gap_alignment
from rlvr_lib.testbeds.token_trees import TokenTrees


def test_trees_have_the_moments_of_their_derivatives():
    trees = TokenTrees.random(7, 20, 4, 3, bend=0.8, ending=0.2)
    h = 1e-3
    leaves = trees.leaves(0.4)
    np.testing.assert_allclose(np.exp(leaves.log_prob).sum(-1), 1, rtol=1e-12)
    before, after = trees.leaves(0.4 - h), trees.leaves(0.4 + h)
    np.testing.assert_allclose(leaves.score, (after.log_prob - before.log_prob) / (2 * h), atol=1e-5)
    np.testing.assert_allclose(leaves.hessian, (after.score - before.score) / (2 * h), atol=1e-5)
    here, left, right = (trees.along(0.4 + d) for d in (0, -h, h))
    np.testing.assert_allclose(here.slope, (right.log_success - left.log_success) / (2 * h), atol=1e-5)
    np.testing.assert_allclose(here.curvature, -(right.slope - left.slope) / (2 * h), atol=1e-5)
    r = Responses(trees.reward[3], leaves.score[3][:, None], np.exp(leaves.log_prob[3]))
    assert here.gap[3] == pytest.approx(gap_alignment(r, [1.0]), rel=1e-10)
    wrong = r.reward == 0
    energy = r.prob[wrong] @ r.score[wrong, 0] ** 2 / r.prob[wrong].sum()
    assert trees.failure_energy(0.4)[3] == pytest.approx(energy, rel=1e-12)


def test_ended_responses_carry_no_score_and_bounds_cover_the_segment():
    trees = TokenTrees.random(8, 10, 5, 3, bend=2.0, ending=0.5)
    ended = [np.ptp(v, axis=-1) == 0 for v in trees.velocity]
    assert not ended[0].any()
    assert all(flags.any() for flags in ended[1:])
    assert all((np.repeat(a, 3, axis=1) <= b).all() for a, b in itertools.pairwise(ended))
    wide, concave = trees.score_range(1.5), trees.hessian_range() + trees.score_range(1.5) ** 2 / 4
    for x in np.linspace(0, 1.5, 7):
        for offset, v, a in zip(trees.offset, trees.velocity, trees.acceleration, strict=True):
            logits = offset + v * x + a * x * x / 2
            p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            steep = v + a * x
            mean = (p * steep).sum(-1, keepdims=True)
            hessian = a - (p * (a + (steep - mean) ** 2)).sum(-1, keepdims=True)
            assert (np.ptp(steep, axis=-1).max(-1) <= wide + 1e-12).all()
            assert (hessian.max((-1, -2)) <= trees.hessian_range() + 1e-12).all()
            assert (-hessian.min((-1, -2)) <= concave + 1e-12).all()


def test_the_adversary_takes_extremes_up_to_its_mass():
    trees = TokenTrees.random(9, 5, 6).failing_at_extremes(0.2)
    leaves = trees.leaves()
    wrong = trees.reward == 0
    mass = (np.exp(leaves.log_prob) * wrong).sum(-1)
    size = np.abs(leaves.score)
    largest_single = np.exp(leaves.log_prob).max(-1)
    assert (mass <= np.maximum(0.2, largest_single)).all()
    assert wrong.any(-1).all()
    assert (~wrong).any(-1).all()
    assert (np.where(wrong, size, np.inf).min(-1) >= np.where(wrong, 0, size).max(-1)).all()


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("bend", {"bend": -1.0}),
        ("spread", {"spread": np.nan}),
        ("ending", {"ending": 1.0}),
        ("horizon", {"horizon": 17}),
        ("vocabulary", {"vocabulary": 1}),
        ("trees", {"trees": 0}),
    ],
)
def test_impossible_trees_are_refused(name, keywords):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        TokenTrees.random(**{"seed": 0, "trees": 2, "horizon": 3} | keywords)
    with pytest.raises(ValueError, match="^mass must be"):
        TokenTrees.random(0, 2, 3).failing_at_extremes(1.0)
