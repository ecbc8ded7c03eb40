"""How well a metric of translations agrees with people.

S systems translated the same N sources, P is pairs of systems. Scores of people and of the metric both rise with
quality: turn the sign of a metric that is better when lower.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np


class Agreement(NamedTuple):
    """A metric's scores against people's; NaN where there is nothing to compare, or one of the two is constant."""

    pearson: float
    spearman: float
    kendall: float
    """tau-b. These three are over all translations at once."""
    kendall_by_source: float
    """tau-b over the systems of one source, averaged over the sources where it is defined."""
    sources: int
    """How many sources those are."""
    accuracy: float
    """Pairwise accuracy with ties, by source, at the epsilon that makes it largest."""
    epsilon: float
    """The metric's scores that differ by no more count as tied."""
    pairs_right: float
    """Share of pairs of systems whose means the metric puts in people's order."""
    pairs: int


def agreement(metric_SN: np.ndarray, human_SN: np.ndarray) -> Agreement:
    """Scores (S, N) of a metric held against people's, NaN where there is none of either.

    Only systems' own translations should be among them: the shared tasks of WMT leave out references that were scored
    as if they were systems. A source whose scores are all the same, by the metric or by people, has no tau-b and counts
    neither way. Raises ValueError for arrays of different shapes.
    """
    metric_SN, human_SN = np.asarray(metric_SN, float), np.asarray(human_SN, float)
    if metric_SN.shape != human_SN.shape or metric_SN.ndim != 2:
        raise ValueError(f"scores of shape {metric_SN.shape} to compare with {human_SN.shape}")
    known_SN = np.isfinite(metric_SN) & np.isfinite(human_SN)
    pearson, spearman, kendall = _correlations(metric_SN[known_SN], human_SN[known_SN])
    by_source = kendall_by_source(metric_SN, human_SN)
    defined = by_source[np.isfinite(by_source)]
    accuracy, epsilon = pairwise_accuracy(metric_SN, human_SN)
    right, pairs = pairs_of_systems(metric_SN, human_SN)
    return Agreement(
        pearson, spearman, kendall,
        kendall_by_source=float(defined.mean()) if len(defined) else np.nan, sources=len(defined),
        accuracy=accuracy, epsilon=epsilon, pairs_right=right / pairs if pairs else np.nan, pairs=pairs,
    )  # fmt: skip


def kendall_by_source(metric_SN: np.ndarray, human_SN: np.ndarray) -> np.ndarray:
    """Kendall's tau-b (N,) over the systems of each source; NaN where either side ranks none above another."""
    from scipy.stats import kendalltau

    found_N = np.full(metric_SN.shape[1], np.nan)
    for place, (metric_S, human_S) in enumerate(zip(metric_SN.T, human_SN.T, strict=True)):
        known_S = np.isfinite(metric_S) & np.isfinite(human_S)
        if _varies(metric_S[known_S]) and _varies(human_S[known_S]):
            found_N[place] = kendalltau(metric_S[known_S], human_S[known_S]).statistic
    return found_N


def pairwise_accuracy(metric_SN: np.ndarray, human_SN: np.ndarray, epsilon: float | None = None) -> tuple[float, float]:
    """Pairwise accuracy with ties and the epsilon it was taken at (Deutsch, Foster and Freitag 2023, "Ties Matter").

    Two translations of a source are judged rightly when the metric puts them in people's order, or ties them, which
    is when its scores differ by `epsilon` at most, and so do people, which is when theirs are equal. The shares of each
    source are averaged. None takes the epsilon with the largest accuracy on these very scores, as the authors do;
    the smallest of several. NaN twice without a pair.
    """
    first, second = _pairs(len(metric_SN))
    metric_PN, human_PN = metric_SN[first] - metric_SN[second], human_SN[first] - human_SN[second]
    known_PN = np.isfinite(metric_PN) & np.isfinite(human_PN)
    pairs_N = known_PN.sum(0)
    if not pairs_N.any():
        return np.nan, np.nan
    weight_PN = known_PN / np.maximum(pairs_N, 1) / np.count_nonzero(pairs_N)
    gap, weight = np.abs(metric_PN[known_PN]), weight_PN[known_PN]
    ordered = np.where((human_PN != 0) & (np.sign(metric_PN) == np.sign(human_PN)), 1.0, 0.0)[known_PN]
    tied = (human_PN == 0)[known_PN]
    if epsilon is not None:
        return float((weight * np.where(gap <= epsilon, tied, ordered)).sum()), epsilon
    order = np.argsort(gap, kind="stable")
    gap, gained = gap[order], np.cumsum((weight * (tied - ordered))[order])
    last = np.append(gap[1:] != gap[:-1], True)  # all pairs of one gap become ties together
    epsilons, accuracies = gap[last], (weight * ordered).sum() + gained[last]
    if gap[0] > 0:
        epsilons, accuracies = np.append(0.0, epsilons), np.append((weight * ordered).sum(), accuracies)
    best = int(np.argmax(accuracies))
    return float(accuracies[best]), float(epsilons[best])


def pairs_of_systems(metric_SN: np.ndarray, human_SN: np.ndarray) -> tuple[int, int]:
    """How many pairs of systems the metric's means order as people's do, and how many pairs there are. A system's mean
    is over the sources where both have a score; a system without one is in no pair."""
    known_SN = np.isfinite(metric_SN) & np.isfinite(human_SN)
    some = known_SN.any(1)
    metric_S, human_S = (
        np.array([scores[known].mean() for scores, known in zip(all_SN[some], known_SN[some], strict=True)])
        for all_SN in (metric_SN, human_SN)
    )
    first, second = _pairs(len(metric_S))
    if not len(first):
        return 0, 0
    right = np.sign(metric_S[first] - metric_S[second]) == np.sign(human_S[first] - human_S[second])
    return int(right.sum()), len(right)


def _correlations(metric: np.ndarray, human: np.ndarray) -> tuple[float, float, float]:
    from scipy.stats import kendalltau, pearsonr, spearmanr

    if not (_varies(metric) and _varies(human)):
        return np.nan, np.nan, np.nan
    pearson, spearman, kendall = (measure(metric, human).statistic for measure in (pearsonr, spearmanr, kendalltau))
    return float(pearson), float(spearman), float(kendall)


def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(list(itertools.combinations(range(count), 2)), int).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _varies(values: np.ndarray) -> bool:
    return len(values) > 1 and bool((values != values[0]).any())
