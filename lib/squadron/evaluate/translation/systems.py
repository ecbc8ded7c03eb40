"""Systems of translation ranked by a metric, with what chance alone could have done.

S systems translated the same N segments, with K statistics each; R are resamples. All systems are resampled by the same
draws: what makes a segment hard for one makes it hard for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from squadron.core.errors import InputError
from squadron.evaluate.translation.metrics import Metric

_DRAWS_AT_ONCE = 4_000_000


class Ranked(NamedTuple):
    """A system in its place, the best first."""

    system: str
    score: float
    low: float
    high: float
    """Ends of the 95% interval by bootstrap over segments (Koehn 2004)."""
    cluster: int
    """1 is the best. A system begins a new cluster when it is significantly worse than all in the cluster above."""
    p: float | None
    """Against the next system, two-sided by approximate randomisation; None for the last."""


def rank_systems(
    statistics: Mapping[str, np.ndarray], metric: Metric, resamples: int = 1000, seed: int = 0, alpha: float = 0.05
) -> tuple[Ranked, ...]:
    """Systems by their corpus scores, from the statistics (N, K) of the same N segments in the same order.

    Clusters are those of the shared tasks of WMT, where people's scores rank. A system without a score comes last, in
    a cluster with those above it. Raises InputError for systems with different numbers of segments, or none.
    """
    names = sorted(statistics)
    values = [np.asarray(statistics[name], float) for name in names]
    if not values or len({len(one) for one in values}) > 1 or not len(values[0]):
        counts = ", ".join(f"{name} {len(one)}" for name, one in zip(names, values, strict=True)) or "no system"
        raise InputError(f"systems are ranked by the same segments of all: {counts}", where="systems to rank",
                         fix="leave out segments that one of them lacks")  # fmt: skip
    sums_SK = np.stack([one.sum(0) for one in values])
    score_S = metric.corpus(sums_SK)
    by_rank = sorted(range(len(names)), key=lambda one: (_worth(float(score_S[one]), metric), names[one]))
    low_S, high_S = _intervals(values, metric, resamples, np.random.default_rng([seed, 0]))
    p_SS = _p_values(values, sums_SK, metric, resamples, np.random.default_rng([seed, 1]))
    ranked: list[Ranked] = []
    cluster, together = 1, list[int]()
    for place, one in enumerate(by_rank):
        if together and all(p_SS[one, other] < alpha for other in together):
            cluster, together = cluster + 1, []
        together.append(one)
        p = float(p_SS[one, by_rank[place + 1]]) if place + 1 < len(by_rank) else None
        ranked.append(Ranked(names[one], float(score_S[one]), float(low_S[one]), float(high_S[one]), cluster, p))
    return tuple(ranked)


def _worth(score: float, metric: Metric) -> tuple[bool, float]:
    """Sorts the best first, and no score last."""
    return bool(np.isnan(score)), 0.0 if np.isnan(score) else float(-score if metric.higher_is_better else score)


def _intervals(
    values: list[np.ndarray], metric: Metric, resamples: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (S,) of the middle 95% of each system's scores on segments drawn with replacement."""
    segments = len(values[0])
    drawn: list[list[np.ndarray]] = [[] for _ in values]
    for some in _batches(resamples, segments):
        picks_RN = draw.integers(segments, size=(some, segments)) + np.arange(some)[:, None] * segments
        times_RN = np.bincount(picks_RN.ravel(), minlength=some * segments).reshape(some, segments).astype(float)
        for system, one in enumerate(values):
            drawn[system].append(metric.corpus(times_RN @ one))
    scores_SR = np.array([np.concatenate(one) for one in drawn])
    low_S, high_S = np.quantile(scores_SR, [0.025, 0.975], axis=1)
    return low_S, high_S


def _p_values(
    values: list[np.ndarray], sums_SK: np.ndarray, metric: Metric, resamples: int, draw: np.random.Generator
) -> np.ndarray:
    """Two-sided p-values (S, S) of the differences of corpus scores by approximate randomisation (Riezler and Maxwell
    2005): were two systems equal, the translations of any segment could be exchanged. The one case that happened counts
    among the R+1, so that no p-value is 0."""
    segments, systems = len(values[0]), len(values)
    gap_SS = np.abs(np.subtract.outer(score_S := metric.corpus(sums_SK), score_S))
    slack_SS = gap_SS * (1 - 1e-9) - 1e-12  # rounding makes no exchange look smaller than the one that happened
    reached_SS = np.zeros((systems, systems))
    for some in _batches(resamples, segments):
        swap_RN = draw.integers(2, size=(some, segments), dtype=np.int8).astype(float)
        moved = [swap_RN @ one for one in values]  # (R, K) each
        for first in range(systems):
            for second in range(first + 1, systems):
                change_RK = moved[second] - moved[first]
                apart_R = np.abs(metric.corpus(sums_SK[first] + change_RK) - metric.corpus(sums_SK[second] - change_RK))
                reached_SS[first, second] += (apart_R >= slack_SS[first, second]).sum()
    p_SS = np.where(np.isnan(gap_SS), np.nan, (reached_SS + reached_SS.T + 1) / (resamples + 1))
    np.fill_diagonal(p_SS, 1.0)
    return p_SS


def _batches(resamples: int, segments: int) -> Iterator[int]:
    """Sizes of batches that keep the draws in memory small."""
    at_once = max(1, _DRAWS_AT_ONCE // segments)
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)
