"""What ToolRet computes beside the measures: who searches what, words that are shared, the test of a macro average.

Q queries, K tools of a ranking, D tools. `some_D` and `some_Q` are places of a group's tools and queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from squadron.evaluate.statistics import paired_randomization_test
from squadron.retrieval.bm25 import cut
from squadron.retrieval.documents import Query
from squadron.retrieval.ranking import Ranking, Searcher

Group = tuple[np.ndarray, np.ndarray]
"""The tools that are searched, and the queries that search them, by their places."""


def search_groups(
    groups: Sequence[Group], index: Callable[[np.ndarray], Searcher], asked: Sequence[str], top: int
) -> Ranking:
    """The ranking of all queries, each of which searches the tools of its group."""
    whole = Ranking.empty(len(asked), top)
    for some_D, some_Q in groups:
        if not len(some_Q):
            continue
        found = index(some_D).search([asked[n] for n in some_Q], min(top, len(some_D)))
        kept = slice(found.places_QK.shape[1])
        whole.places_QK[some_Q, kept] = np.where(found.places_QK < 0, -1, some_D[found.places_QK])
        whole.scores_QK[some_Q, kept] = found.scores_QK
    return whole


def shared_words(queries: Sequence[Query], texts: Mapping[str, str]) -> np.ndarray:
    """Of each query: the share of its words, without stop words, that stand in the text of the tools that it needs; of
    several tools the mean."""
    needed = sorted({name for query in queries for name in query.relevant})
    words = dict(zip(needed, map(set, cut([texts[name] for name in needed], "english")), strict=True))
    asked = map(set, cut([query.text for query in queries], "english"))
    return np.array(
        [
            np.mean([len(said & words[name]) / max(len(said), 1) for name in query.relevant])
            for query, said in zip(queries, asked, strict=True)
        ]
    )


def macro_p(difference_Q: np.ndarray, categories: Sequence[str]) -> float:
    """The p-value of a macro average of differences: each counts by the size of its category. 1 without any."""
    there_Q = np.isfinite(difference_Q)
    of_Q = np.array(categories)[there_Q]
    if not len(of_Q):
        return 1.0
    _, number_Q, count_C = np.unique(of_Q, return_inverse=True, return_counts=True)
    weighted_Q = difference_Q[there_Q] / count_C[number_Q]
    return paired_randomization_test(weighted_Q.tolist(), np.zeros(len(weighted_Q)).tolist())
