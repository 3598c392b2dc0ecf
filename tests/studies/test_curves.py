"""First times, by hand."""

import numpy as np
import pytest

from rlvr_lib.studies.curves import first_time


def test_times_lie_on_straight_lines_between_records():
    assert first_time([0.0, 1.0, 2.0], [0.0, 0.5, 1.0], 0.75) == pytest.approx(1.5)
    assert first_time([0.0, 2.0, 3.0], [0.0, 0.0, 1.0], 0.25) == pytest.approx(2.25)
    curves = [[0.0, 0.2, 0.6, 0.95], [0.5, 0.4, 0.3, 0.2], [0.0, 0.0, 0.05, 0.0], [0.0, 0.6, 0.0, 0.6]]
    assert first_time(np.arange(4), curves, 0.4) == pytest.approx([1.5, 0.0, np.inf, 2 / 3])


def test_every_curve_may_have_times_of_its_own():
    times, curves = np.array([[0.0, 1.0], [10.0, 14.0]]), np.array([[[0.0, 1.0], [0.5, 1.0]], [[0.0, 1.0], [0.5, 1.0]]])
    np.testing.assert_allclose(first_time(times[:, None], curves, 0.75), [[0.75, 0.5], [13.0, 12.0]])


@pytest.mark.parametrize(("times", "curves"), [([0.0, 1.0], [0.0, 1.0, 2.0]), ([], []), ([0.0, np.nan], [0.0, 1.0])])
def test_times_that_do_not_fit_are_named(times, curves):
    with pytest.raises(ValueError, match="times|curves"):
        first_time(times, curves, 0.5)
