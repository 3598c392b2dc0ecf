"""The next level: what a spread of prompts changes and what it cannot, against the walk's own success."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlvr_lib.theory.levels
from rlvr_lib.theory.levels import next_level
from rlvr_lib.theory.relay import next_ratio, uniform_error_success

rates = st.lists(st.floats(0.2, 0.99), min_size=1, max_size=12)


def test_examples():
    assert doctest.testmod(rlvr_lib.theory.levels).failed == 0


@given(rates)
def test_mixed_prompts_reach_at_least_as_far_as_their_mean(y):
    found = next_level({4: y})
    assert found.reach >= found.safe * (1 - 1e-12)
    assert np.isclose(found.safe, 4 * next_ratio(np.mean(y), 0.1))
    assert np.mean(np.array(y) ** (found.reach / 4)) >= 0.1 - 1e-9
    assert np.mean(np.array(y) ** (found.safe / 4)) >= 0.1 - 1e-9


@given(st.floats(0.15, 0.99))
def test_prompts_that_are_all_alike_have_one_answer(y):
    found = next_level({4: [y] * 7})
    assert np.isclose(found.reach, found.safe)


def test_reach_of_two_kinds_of_prompts_by_hand():
    """Half of the prompts at y = .5 and half at .25: with u = 2^-R the mean is (u + u^2) / 2."""
    u = (-1 + np.sqrt(1 + 8 * 0.1)) / 2
    assert np.isclose(next_level({1: [0.5, 0.25]}).reach, -np.log2(u))


def test_chance_is_taken_out_and_the_level_is_where_the_walk_has_it():
    order, accuracy = 6, 0.97
    found = next_level({5: uniform_error_success(order, accuracy, 5)}, chance=1 / order)
    decay = (order * accuracy - 1) / (order - 1)
    assert np.isclose(decay**found.safe, 0.1)


def test_the_hardest_level_that_can_be_seen_is_the_base_and_an_invisible_one_is_left_out():
    found = next_level({5: 0.9, 15: 0.6, 45: 0.02})
    assert found.base == 15
    assert 15 < found.safe < 45
    assert set(found.mixture) == {5, 15, found.safe}
    assert np.isclose(sum(found.mixture.values()), 1)


def test_a_second_level_that_fell_by_more_brings_the_next_one_closer():
    """y = exp(-h^2 / 100): kappa is the square of the ratio, from an easier and from a harder level."""
    y = {h: float(np.exp(-(h**2) / 100)) for h in (3, 6, 20)}
    truth = 10 * np.sqrt(np.log(10))
    for levels in ((3, 6), (6, 20)):
        found = next_level({h: y[h] for h in levels})
        assert found.base == 6
        assert np.isclose(found.bend, 2)
        assert np.isclose(found.safe, truth)
    assert next_level({6: y[6]}).safe > truth


@pytest.mark.parametrize("harder", [0.0, 0.05, [0.0, 0.1]])
def test_no_answer_lies_beyond_a_level_that_was_measured_and_not_seen(harder):
    found = next_level({5: [0.6, 1.0], 12: harder})
    assert 5 < found.safe < 12
    assert found.safe <= found.reach <= 12


def test_a_dilute_context_is_followed_more_closely_than_by_one_level():
    """Of linear heads in growing contexts, y by the attention, two levels say more than one."""
    attention = {h: 1 / (1 + (h - 1) * np.exp(-4)) for h in (4, 8)}
    y = {h: a**h for h, a in attention.items()}
    truth = 8 * next_ratio(y[8], horizon=8)
    assert np.isclose(next_level(y).safe, truth, rtol=0.05)
    assert next_level({8: y[8]}).safe > 1.4 * truth


def test_nothing_is_added_while_a_visible_level_is_at_most_half_solved():
    assert set(next_level({5: 0.9, 15: 0.3}).mixture) == {5, 15}


def test_push_is_largest_at_one_over_e_and_none_where_a_level_is_solved_or_unseen():
    push = next_level({1: 1.0, 2: 0.8, 3: 1 / np.e, 4: 0.0}).push
    assert np.isclose(push[3], 1)
    assert push[1] == push[4] == 0
    assert 0 < push[2] < 1


def test_noise_below_chance_counts_as_chance():
    assert np.isfinite(next_level({5: [0.0, 0.1, 0.9, 0.9]}, chance=0.2).reach)


@pytest.mark.parametrize(
    ("success", "options"),
    [
        ({}, {}),
        ({5: []}, {}),
        ({5: [1.2]}, {}),
        ({5: 1.0}, {}),
        ({5: 0.05}, {}),
        ({0: 0.5}, {}),
        ({5: [[0.5]]}, {}),
        ({5: 0.5}, {"chance": 1.0}),
        ({5: 0.5}, {"visible": 1.0}),
    ],
)
def test_what_is_outside_the_domain_is_refused(success, options):
    with pytest.raises(ValueError, match=r"must be"):
        next_level(success, **options)
