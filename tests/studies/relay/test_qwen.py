"""The runs of chapter 3 on a Qwen: its teacher's law, the ladder of lengths, counts, times and lengths off curves."""

import numpy as np
import pytest
import torch

from rlvr_lib.intervals import frequency_p_value
from rlvr_lib.studies.relay import qwen as study
from rlvr_lib.testbeds.group_tasks import WordProblem
from rlvr_lib.theory.groups import alternating_group, symmetric_group
from rlvr_lib.theory.relay import next_ratio, uniform_error_success

TRACES = 4000


@pytest.fixture(scope="module")
def qwens():
    return study.warm_starts("tiny", 2, 90, 8, 4)


def teacher_p_value(group, length, law):
    """Of the noisy teacher's right and wrong traces under a law of its success."""
    generator, task = torch.Generator().manual_seed(length), WordProblem(group, (length,))
    prompts = task.draw(TRACES, generator)
    tokens, mask = task.demonstrations(prompts, study.NOISE, generator)
    right = int(task.reward(prompts, tokens[:, None], mask.sum(-1)[:, None]).sum())
    success = law(group.order, length)
    return frequency_p_value([right, TRACES - right], [success, 1 - success])


@pytest.mark.parametrize("group", [symmetric_group(3), alternating_group(4)], ids=["S3", "A4"])
def test_the_teacher_succeeds_by_the_law_of_its_walk(group):
    keeps = 1 - study.NOISE
    for length in (2, 4, 6, 8, 12, 16):
        assert teacher_p_value(group, length, lambda n, L: 1 / n + (1 - 1 / n) * keeps**L) > 1e-6
    assert teacher_p_value(group, 8, lambda n, L: keeps**L) < 1e-6  # without the chance of a blind guess
    assert teacher_p_value(group, 2, lambda n, L: uniform_error_success(n, keeps, L)) < 1e-6  # a redraw may be right


def test_the_ladder_has_eighths_of_its_longest_word():
    ladder = study.Ladder.of(16)
    assert ladder == ((2, 4, 8, 16), (6, 12), (2, 4, 6, 8, 12, 16))
    assert ladder.spectra == {"smooth": (2, 4, 8, 16), "rough": (2, 16), "single": (16,)}
    with pytest.raises(ValueError, match="longest must be a multiple of 8, got 12"):
        study.Ladder.of(12)


def test_counts_are_of_fixed_words(qwens):
    first, again = (study.counts(qwens[0], (1, 4), 5, seed=3) for _ in range(2))
    assert first.asked == 80
    assert (first.right == again.right).all()
    assert first.at(4).right == first.right[1:]
    assert study.counts(qwens[0], (4,), 5, seed=3).right == first.right[1:]
    assert first.y == pytest.approx((6 * first.right / 80 - 1) / 5)
    assert study.counts(qwens[1], (1, 4), 5, seed=3).right.tolist() != first.right.tolist()


def test_runs_start_alike_and_leave_the_checkpoints_alone(qwens):
    theta = [qwen.theta for qwen in qwens]
    rough, single = (study.runs(qwens, spectrum, (1, 4), 10, 4, 1) for spectrum in ((1, 4), (4,)))
    assert rough.right.shape == (2, 11, 2)
    assert (rough.right[:, 0] == single.right[:, 0]).all()
    assert (rough.right[:, -1] != single.right[:, -1]).any()
    assert all((qwen.theta == before).all() for qwen, before in zip(qwens, theta, strict=True))
    alone = study.run(qwens[1], (1, 4), (4,), 10, 4, 2)  # what is looked at changes nothing
    assert (alone.right == rough.at(4).right[1]).all()
    with pytest.raises(ValueError, match="steps must be a multiple of 10"):
        study.run(qwens[0], (1, 4), (4,), 15, 4, 1)


def test_relays():
    relay = np.stack([[0.4, 0.7, 0.85, 0.95], [0.0, 0.05, 0.3, 0.6]], -1)
    plateau = np.stack([[0.4, 0.7, 0.95, 0.95], [0.0, 0.0, 0.05, 0.6]], -1)
    never = np.stack([[0.4, 0.5, 0.6, 0.7], [0.0, 0.0, 0.05, 0.05]], -1)
    assert study.relays(np.array([relay, plateau, never])).tolist() == [True, False, False]
    assert not study.relays(relay[None], mastered=0.6)
    assert study.relays(plateau[None], floor=0.01)


def test_the_length_at_a_level_follows_the_rule_where_y_is_a_power():
    lengths = study.Ladder.of(16).every
    y = 0.7 ** np.array(lengths)
    for level in (0.05, 0.1, 0.3):
        assert study.measured_length(lengths, y, level) == pytest.approx(2 * next_ratio(y[0], level), rel=1e-9)
    assert study.measured_length(lengths, y, 0.6) == 2.0
    assert study.measured_length(lengths, y, 1e-4 + 0.7**17) == 16.0
