"""The mean of scores with its interval, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from squadron.core.config import Config
from squadron.evaluate.statistics import (
    cluster_bootstrap_interval,
    mean_t_interval,
    stratified_bootstrap_interval,
    wilson_interval,
)

if TYPE_CHECKING:
    import numpy as np


class Estimate(Config):
    """A mean over seeds of means over problems, with its 95% interval over problems; NaN without any value.

    `count` problems have a value, `trials` values in all; `missing` problems have none: they failed, or the method
    found nothing. `by_seed` are the means of single seeds.
    """

    mean: float
    low: float
    high: float
    count: int
    trials: int
    missing: int
    by_seed: tuple[float, ...]

    def value(self, form: str) -> str | None:
        """The mean by a format such as `.1%`; None without any value."""
        return format(self.mean, form) if self.count else None

    def interval(self, form: str) -> str | None:
        """`low to high`; None without any value."""
        return f"{self.low:{form}} to {self.high:{form}}" if self.count else None

    def text(self, form: str) -> str | None:
        """`mean (low to high)`; None without any value."""
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})" if self.count else None

    @property
    def over_seeds(self) -> tuple[float, float] | None:
        """Student's t interval over seeds, which holds for other seeds; None for one seed."""
        return mean_t_interval(self.by_seed) if len(self.by_seed) > 1 else None


def estimate(values: Any, *, share: bool = False) -> Estimate:
    """The mean of an array (P), (P, S) or (P, S, T) with its interval: P problems, S seeds, T trials; NaN or None where
    a value is missing.

    The interval resamples problems, since all values of one problem are alike. Of a `share` (values 0 and 1) it is
    Wilson's where problems have one value each, and where resampling has nothing to vary: one problem, all successes or
    none.
    """
    import numpy as np

    values_PST = np.asarray(values, float)  # None becomes NaN
    values_PST = values_PST.reshape(*values_PST.shape, *[1] * (3 - values_PST.ndim))
    problems = [row[np.isfinite(row)].tolist() for row in values_PST]
    present = [row for row in problems if row]
    missing = len(problems) - len(present)
    if not present:
        return Estimate(mean=math.nan, low=math.nan, high=math.nan, count=0, trials=0, missing=missing, by_seed=())
    by_seed = _means_by_seed(values_PST)
    low, high = _share_interval(present) if share else cluster_bootstrap_interval(present)
    return Estimate(
        mean=float(np.mean(by_seed)),
        low=low,
        high=high,
        count=len(present),
        trials=sum(map(len, present)),
        missing=missing,
        by_seed=by_seed,
    )


def macro_estimate(values_P: Any, groups: Sequence[Hashable]) -> Estimate:
    """The unweighted mean of the groups' means (macro average) with its interval, which resamples the problems of each
    group; NaN or None where a value is missing. A group without any value is left out."""
    import numpy as np

    by_group: dict[Hashable, list[float]] = {}
    for group, value in zip(groups, np.asarray(values_P, float).tolist(), strict=True):
        if math.isfinite(value):
            by_group.setdefault(group, []).append(value)
    strata = list(by_group.values())
    count = sum(map(len, strata))
    missing = len(groups) - count
    if not count:
        return Estimate(mean=math.nan, low=math.nan, high=math.nan, count=0, trials=0, missing=missing, by_seed=())
    mean = math.fsum(math.fsum(values) / len(values) for values in strata) / len(strata)
    low, high = stratified_bootstrap_interval(strata)
    return Estimate(mean=mean, low=low, high=high, count=count, trials=count, missing=missing, by_seed=(mean,))


def _means_by_seed(values_PST: np.ndarray) -> tuple[float, ...]:
    """Of seeds that have a value."""
    import numpy as np

    values_SN = np.moveaxis(values_PST, 1, 0).reshape(values_PST.shape[1], -1)
    values_SN = values_SN[np.isfinite(values_SN).any(1)]
    if len(values_SN) == 1:
        return (float(np.mean(values_SN[np.isfinite(values_SN)])),)
    # Summed problem by problem, not pairwise: a sum's last digit is part of what earlier runs have shown.
    means_S: np.ndarray = np.nanmean(np.ascontiguousarray(values_SN.T), axis=0)
    return tuple(means_S.tolist())


def _share_interval(problems: list[list[float]]) -> tuple[float, float]:
    successes, trials = int(sum(map(sum, problems))), sum(map(len, problems))
    alone = trials == len(problems) or len(problems) == 1
    if alone or successes in (0, trials):
        return wilson_interval(successes, trials)
    return cluster_bootstrap_interval(problems)
