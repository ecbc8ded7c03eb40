"""Intervals agree with SciPy's and behave at the edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, ttest_1samp

from squadron.evaluate.statistics import cluster_bootstrap_interval, mean_t_interval, wilson_interval

values = st.floats(-100, 100, allow_subnormal=False)


@given(trials=st.integers(1, 500), data=st.data())
def test_wilson_equals_scipy(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, trials: int) -> None:
    with pytest.raises(ValueError):
        wilson_interval(successes, trials)


@settings(max_examples=20)
@given(sample=st.lists(values, min_size=2, max_size=40), seed=st.integers(0, 99))
def test_bootstrap_equals_scipy_where_each_value_is_a_group(sample: list[float], seed: int) -> None:
    """With the same generator it draws the same resamples."""
    ours = cluster_bootstrap_interval([[value] for value in sample], resamples=500, seed=seed)
    theirs = bootstrap(
        (sample,), np.mean, n_resamples=500, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_bootstrap_over_groups_is_wider_than_over_values() -> None:
    groups = [[1.0] * 10, [0.0] * 10] * 5
    low, high = cluster_bootstrap_interval(groups)
    alone_low, alone_high = cluster_bootstrap_interval([[value] for group in groups for value in group])
    assert high - low > 2 * (alone_high - alone_low)
    assert low < 0.5 < high


@given(sample=st.lists(st.integers(-1000, 1000), min_size=2, max_size=9), confidence=st.sampled_from([0.8, 0.95]))
def test_the_t_interval_equals_scipys(sample: list[int], confidence: float) -> None:
    low, high = mean_t_interval(sample, confidence)
    if len(set(sample)) == 1:
        assert low == high == sample[0]
        return
    expected = ttest_1samp(sample, 0).confidence_interval(confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("interval", [lambda: cluster_bootstrap_interval([[], []]), lambda: mean_t_interval([1.0])])
def test_there_is_no_interval_without_values(interval: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        interval()
