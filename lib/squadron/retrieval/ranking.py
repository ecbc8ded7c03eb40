"""The best documents of each query. Q queries, K documents of a query, S shards."""

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


class Searcher(Protocol):
    """An index that is open."""

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        """The `k` best documents of each query."""
        ...


def best(scores_QD: np.ndarray, k: int) -> Ranking:
    """The `k` best of a row's scores, minus infinity left out; ties by place."""
    k = min(k, scores_QD.shape[1])
    # Of equal scores at the border, a partition takes any: what is above it is certain, ties are taken by place.
    border_Q1 = -np.partition(-scores_QD, k - 1, axis=1)[:, k - 1 : k] if k else scores_QD[:, :0]
    places_QK = np.full((len(scores_QD), k), -1, np.int64)
    kept_QK = np.full((len(scores_QD), k), -np.inf, np.float32)
    for row, scores_D in enumerate(scores_QD):
        above = np.flatnonzero(scores_D > border_Q1[row])
        level = np.flatnonzero(scores_D == border_Q1[row])[: k - len(above)]
        places = np.concatenate([above, level])
        places = places[np.lexsort((places, -scores_D[places]))]
        places = places[scores_D[places] > -np.inf]
        places_QK[row, : len(places)] = places
        kept_QK[row, : len(places)] = scores_D[places]
    return Ranking(places_QK, kept_QK)


def merge(shards: Sequence[Ranking], starts: Sequence[int], k: int) -> Ranking:
    """One ranking of those of a corpus's shards, of which each begins at a place of the whole: what one index of all
    documents would give."""
    places_QN = np.concatenate(
        [np.where(one.places_QK < 0, -1, one.places_QK + start) for one, start in zip(shards, starts, strict=True)], 1
    )
    scores_QN = np.concatenate([one.scores_QK for one in shards], 1)
    order_QK = np.lexsort((places_QN, -scores_QN), axis=1)[:, :k]
    return Ranking(np.take_along_axis(places_QN, order_QK, 1), np.take_along_axis(scores_QN, order_QK, 1))
