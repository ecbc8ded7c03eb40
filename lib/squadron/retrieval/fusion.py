"""One ranking of several of the same queries over the same documents. Q queries, K documents, R rankings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from squadron.retrieval.ranking import Ranking, top

Method = Literal["scores", "z_scores", "rrf"]
RRF_CONSTANT = 60
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""


def fuse(
    rankings: Sequence[Ranking],
    weights: Sequence[float] | None = None,
    method: Method = "scores",
    k: int = 10,
) -> Ranking:
    """The `k` best documents of each query by the weighted sum of what each ranking gives them.

    `rrf` gives 1 / (60 + rank); `scores` the score between the ranking's least (0) and its best (1); `z_scores` the
    score in standard deviations from the mean. What a ranking does not list has its least. `weights` are equal unless
    given. Give more than `k` documents of each ranking: 100 are usual.
    """
    shares = np.ones(len(rankings)) if weights is None else np.asarray(weights, float)
    found = Ranking.empty(len(rankings[0].places_QK), k)
    for row in range(len(found.places_QK)):
        places, sums = _sums([_row(one, row) for one in rankings], shares, method)
        order = top(sums, k)
        found.places_QK[row, : len(order)] = places[order]
        found.scores_QK[row, : len(order)] = sums[order]
    return found


def _row(ranking: Ranking, row: int) -> tuple[np.ndarray, np.ndarray]:
    listed = ranking.places_QK[row] >= 0
    return ranking.places_QK[row][listed], ranking.scores_QK[row][listed].astype(np.float64)


def _sums(
    rows: Sequence[tuple[np.ndarray, np.ndarray]], shares: np.ndarray, method: Method
) -> tuple[np.ndarray, np.ndarray]:
    """The documents of one query, by place, and their sums."""
    places = np.unique(np.concatenate([places for places, _ in rows]))
    sums = np.zeros(len(places))
    for (listed, scores), share in zip(rows, shares, strict=True):
        if len(listed):
            points = _points(scores, method)
            least = 0.0 if method == "rrf" else points.min()
            given = np.full(len(places), least)
            given[np.searchsorted(places, listed)] = points
            sums += share * given
    return places, sums


def _points(scores: np.ndarray, method: Method) -> np.ndarray:
    """What a ranking gives to the documents that it lists, the best first."""
    if method == "rrf":
        return 1.0 / (RRF_CONSTANT + 1 + np.arange(len(scores)))
    if method == "z_scores":
        spread = scores.std()
        return (scores - scores.mean()) / spread if spread else np.zeros(len(scores))
    spread = np.ptp(scores)
    return (scores - scores.min()) / spread if spread else np.ones(len(scores))
