"""Two ways of asking on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from squadron.evaluate.statistics import cluster_bootstrap_interval


class Paired(NamedTuple):
    """How much more the first is worth than the second, with its 95% interval; on how many questions it is worth more,
    and less; the p-value; and how many questions there are."""

    difference: float
    low: float
    high: float
    better: int
    worse: int
    p: float
    questions: int


def compare_paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare values of the same questions. The interval resamples questions; p is McNemar's exact two-sided one: a
    binomial test of the questions on which the two differ. Raises ValueError without any question."""
    from scipy.stats import binomtest

    differences_N = np.asarray(first, float) - np.asarray(second, float)
    low, high = cluster_bootstrap_interval([[one] for one in differences_N])
    better, worse = int((differences_N > 0).sum()), int((differences_N < 0).sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return Paired(float(differences_N.mean()), low, high, better, worse, p, len(differences_N))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for being several (Holm 1979)."""
    adjusted, most = [0.0] * len(ps), 0.0
    for rank, place in enumerate(np.argsort(ps, kind="stable")):
        most = max(most, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = most
    return adjusted
