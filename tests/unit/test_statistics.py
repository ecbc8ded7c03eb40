"""Intervals agree with SciPy's and behave at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from squadron.metrics.statistics import cluster_bootstrap_interval, root_mean_square, wilson_interval


@given(trials=st.integers(1, 500), data=st.data())
def test_wilson_equals_scipy(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, trials: int) -> None:
    with pytest.raises(ValueError):
        wilson_interval(successes, trials)


def test_bootstrap_over_groups_is_wider_than_over_values() -> None:
    groups = [[1.0] * 10, [0.0] * 10] * 5
    low, high = cluster_bootstrap_interval(groups)
    alone_low, alone_high = cluster_bootstrap_interval([[value] for group in groups for value in group])
    assert high - low > 2 * (alone_high - alone_low)
    assert low < 0.5 < high


def test_root_mean_square_takes_one_root() -> None:
    errors = np.array([[3.0, 0.0], [0.0, 4.0]])
    assert root_mean_square(errors) == pytest.approx(2.5)
