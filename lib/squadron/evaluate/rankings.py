"""Measures of rankings, query by query, by ir-measures and trec_eval's own code. Q queries, K places of a ranking.

    values = score_rankings(queries, ids, ranking, ("ndcg@10", "completeness@10"))
    estimate(values["ndcg@10"])                              # squadron.evaluate.summary: the mean with its interval
    macro_estimate(values["ndcg@10"], categories)            # the unweighted mean of the categories' means

How what is special counts:

- A query that no document answers has no value: NaN, which estimates count as missing. Nobody could find anything.
- A query for which nothing was found has 0 in every measure.
- Equal scores stand in descending order of document ids, as trec_eval sorts them, not in the order of places.
- Fewer than k documents found are measured as if others, none of them relevant, filled the places up to k.
- Gains of nDCG are the grades as they are; a document is relevant if its grade is above 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.retrieval.documents import Query
from squadron.retrieval.ranking import Ranking

if TYPE_CHECKING:
    from ir_measures.measures import Measure

MEASURES = ("ndcg", "map", "recall", "precision", "mrr", "hit", "completeness")
"""Each with a cut-off, as in `ndcg@10`. mrr is the reciprocal rank of the first relevant document, hit whether there is
one, completeness whether all are there: recall is 1 (the ToolRet paper's comprehensiveness)."""


def score_rankings(
    queries: Sequence[Query], ids: Sequence[str], ranking: Ranking, measures: Sequence[str]
) -> dict[str, np.ndarray]:
    """The value (Q,) of each measure, such as `ndcg@10`, of every query. `ids` names the documents by their places.

    Raises ValueError for a measure that is none, ids that occur twice, or a ranking of other queries.
    """
    if len(ranking.places_QK) != len(queries):
        raise ValueError(f"a ranking of {len(ranking.places_QK)} queries for {len(queries)}")
    if len(set(ids)) != len(ids):
        raise ValueError("document ids occur twice")
    run = {str(n): _found(ids, places_K, scores_K) for n, (places_K, scores_K) in enumerate(_rows(ranking))}
    return score_run([query.relevant for query in queries], run, measures)


def score_run(
    relevant: Sequence[Mapping[str, int]], run: Mapping[str, Mapping[str, float]], measures: Sequence[str]
) -> dict[str, np.ndarray]:
    """The same of a run as trec_eval's: scores by document id, by the number of the query as a text.

    `relevant` has the grades of each query. Raises ValueError for a measure that is none.
    """
    from ir_measures import pytrec_eval

    parsed = {name: _parse(name) for name in measures}
    grades = {str(n): {one: grade for one, grade in row.items() if grade > 0} for n, row in enumerate(relevant)}
    grades = {query: row for query, row in grades.items() if row}
    values = {name: np.full(len(relevant), np.nan) for name in measures}
    for value_Q in values.values():
        value_Q[[int(query) for query in grades]] = 0.0
    found = {query: row for query, row in run.items() if row and query in grades}
    if not found or not measures:
        return values
    named: dict[Measure, list[str]] = {}
    for name, (kind, k) in parsed.items():
        named.setdefault(_measure(kind, k), []).append(name)
    for query, measure, value in pytrec_eval.evaluator(list(named), grades).iter_calc(found):
        for name in named[measure]:
            values[name][int(query)] = _value(*parsed[name], value)
    return values


def _parse(name: str) -> tuple[str, int]:
    """A measure and its cut-off."""
    match = re.fullmatch(rf"({'|'.join(MEASURES)})@([1-9]\d*)", name)
    if match is None:
        raise ValueError(f"{name!r} is no measure: give one of {', '.join(MEASURES)} with its cut-off, as in ndcg@10")
    return match[1], int(match[2])


def _measure(kind: str, k: int) -> Measure:
    """What trec_eval computes for it."""
    from ir_measures import AP, RR, P, R, Success, nDCG

    if kind == "mrr":
        return RR  # trec_eval knows no cut-off of it
    found: Any = {"ndcg": nDCG, "map": AP, "recall": R, "precision": P, "hit": Success, "completeness": R}[kind]
    return found @ k


def _value(kind: str, k: int, value: float) -> float:
    if kind == "completeness":
        return float(value == 1.0)
    if kind == "mrr":
        return value if value * (k + 0.5) > 1 else 0.0
    return float(value)


def _rows(ranking: Ranking) -> zip[tuple[list[int], list[float]]]:
    return zip(ranking.places_QK.tolist(), ranking.scores_QK.tolist(), strict=True)


def _found(ids: Sequence[str], places_K: list[int], scores_K: list[float]) -> dict[str, float]:
    return {ids[place]: score for place, score in zip(places_K, scores_K, strict=True) if place >= 0}
