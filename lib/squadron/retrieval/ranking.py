"""The best documents of each query. Q queries, D documents, K documents of a query, S shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Ranking:
    """The places of documents in their corpus, the best first, and their scores. Equal scores stand in the order of
    places. Where a query has fewer than K, the place is -1 and the score minus infinity."""

    places_QK: np.ndarray
    scores_QK: np.ndarray

    @classmethod
    def empty(cls, queries: int, k: int) -> Ranking:
        """No document for any query; rows are filled in later."""
        return cls(np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32))

    def ids(self, names: Sequence[str]) -> list[list[str]]:
        """Each query's documents by the names of the corpus."""
        return [[names[place] for place in row if place >= 0] for row in self.places_QK.tolist()]


class Searcher(Protocol):
    """An index that is open."""

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        """The `k` best documents of each query."""
        ...


def best(scores_QD: np.ndarray, k: int) -> Ranking:
    """The `k` best of a row's scores, minus infinity left out; ties by place."""
    found = Ranking.empty(len(scores_QD), min(k, scores_QD.shape[1]))
    for row, scores_D in enumerate(scores_QD):
        places = top(scores_D, k)
        found.places_QK[row, : len(places)] = places
        found.scores_QK[row, : len(places)] = scores_D[places]
    return found


def top(scores_D: np.ndarray, k: int) -> np.ndarray:
    """The places of the `k` largest scores, the largest first, minus infinity left out; ties by place."""
    lanes = max(128, 4 * k)
    border = -np.inf
    if k and len(scores_D) >= 4 * lanes:
        # The k-th largest of the lanes' maxima is no larger than the k-th largest of all, and near it. Few scores are
        # above it, and finding these takes two passes that the processor does in wide steps, unlike a partition.
        whole = len(scores_D) // lanes * lanes
        border = np.partition(scores_D[:whole].reshape(-1, lanes).max(0), lanes - k)[lanes - k]
    places = np.flatnonzero(scores_D > border)
    if len(places) < k and border > -np.inf:
        places = np.concatenate([places, np.flatnonzero(scores_D == border)[: k - len(places)]])
    return places[np.lexsort((places, -scores_D[places]))[:k]]


def merge(shards: Sequence[Ranking], starts: Sequence[int], k: int) -> Ranking:
    """One ranking of those of a corpus's shards, of which each begins at a place of the whole: what one index of all
    documents would give."""
    places_QN = np.concatenate(
        [np.where(one.places_QK < 0, -1, one.places_QK + start) for one, start in zip(shards, starts, strict=True)], 1
    )
    scores_QN = np.concatenate([one.scores_QK for one in shards], 1)
    order_QK = np.lexsort((places_QN, -scores_QN), axis=1)[:, :k]
    return Ranking(np.take_along_axis(places_QN, order_QK, 1), np.take_along_axis(scores_QN, order_QK, 1))
