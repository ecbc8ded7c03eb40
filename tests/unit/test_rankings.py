"""Measures of rankings equal the reference evaluator's, and their textbook definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.evaluate.rankings import MEASURES, score_rankings
from squadron.evaluate.statistics import paired_randomization_test, stratified_bootstrap_interval
from squadron.evaluate.summary import estimate, macro_estimate
from squadron.retrieval.documents import Query
from squadron.retrieval.ranking import Ranking

KS = (1, 3, 5, 10, 20)
ALL = tuple(f"{kind}@{k}" for kind in MEASURES for k in KS)
THEIRS = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit": "success"}


def random_case(seed: int) -> tuple[list[Query], list[str], Ranking]:
    """A few queries on 40 documents: ties, graded relevance, empty and short rankings, queries that nothing answers."""
    draw = np.random.default_rng(seed)
    ids = [f"d{n}" for n in draw.permutation(40)]
    places_QK, scores_QK = np.full((5, 25), -1), np.full((5, 25), -np.inf, np.float32)
    queries = []
    for row in range(5):
        found = int(draw.choice([0, 1, 7, 25]))
        places_QK[row, :found] = draw.permutation(40)[:found]
        scores = draw.integers(0, 5, found) if draw.random() < 0.5 else draw.normal(size=found)
        scores_QK[row, :found] = -np.sort(-scores)
        some = draw.permutation(ids)[: draw.integers(0, 8)]
        queries.append(Query(str(row), "?", {one: int(draw.integers(0, 4)) for one in some}))
    return queries, ids, Ranking(places_QK, scores_QK)


def test_a_thousand_runs_equal_the_reference_evaluator() -> None:
    for seed in range(1000):
        queries, ids, ranking = random_case(seed)
        ours = score_rankings(queries, ids, ranking, ALL)
        qrels = {query.id: dict(query.relevant) for query in queries}
        run = {
            query.id: {ids[place]: float(score) for place, score in zip(*row, strict=True) if place >= 0}
            for query, *row in zip(queries, ranking.places_QK, ranking.scores_QK, strict=True)
        }
        names = {f"{theirs}.{','.join(map(str, KS))}" for theirs in THEIRS.values()} | {"recip_rank"}
        reference = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(run)
        for row, query in enumerate(queries):
            answered = any(query.relevant.values())
            assert all(math.isnan(ours[name][row]) != answered for name in ALL)
            if not answered:
                continue
            found = reference.get(query.id, {})
            for k in KS:
                for kind, theirs in THEIRS.items():
                    assert ours[f"{kind}@{k}"][row] == pytest.approx(found.get(f"{theirs}_{k}", 0.0), abs=1e-9)
                first = found.get("recip_rank", 0.0)
                assert ours[f"mrr@{k}"][row] == pytest.approx(first if first >= 1 / k - 1e-9 else 0.0, abs=1e-9)
                assert ours[f"completeness@{k}"][row] == (found.get(f"recall_{k}", 0.0) == 1.0)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), k=st.sampled_from(KS))
def test_measures_are_what_textbooks_say(seed: int, k: int) -> None:
    queries, ids, ranking = random_case(seed)
    ours = score_rankings(queries, ids, ranking, ALL)
    for row, query in enumerate(queries):
        grades = {one: grade for one, grade in query.relevant.items() if grade}
        if not grades:
            continue
        found = [
            (float(s), ids[p]) for p, s in zip(ranking.places_QK[row], ranking.scores_QK[row], strict=True) if p >= 0
        ]
        order = [one for _, one in sorted(found, reverse=True)][:k]  # ties in descending order of ids
        right = [one in grades for one in order]
        gain = sum(grades.get(one, 0) / math.log2(place + 2) for place, one in enumerate(order))
        ideal = sum(g / math.log2(p + 2) for p, g in enumerate(sorted(grades.values(), reverse=True)[:k]))
        precisions = [sum(right[: place + 1]) / (place + 1) for place in range(len(right)) if right[place]]
        expected = {
            "ndcg": gain / ideal,
            "map": sum(precisions) / len(grades),
            "recall": sum(right) / len(grades),
            "precision": sum(right) / k,
            "mrr": 1 / (right.index(True) + 1) if any(right) else 0.0,
            "hit": float(any(right)),
            "completeness": float(sum(right) == len(grades)),
        }
        assert {kind: ours[f"{kind}@{k}"][row] for kind in MEASURES} == pytest.approx(expected, abs=1e-9)


def test_queries_that_nothing_answers_are_missing_and_those_without_answers_are_0() -> None:
    queries = [Query("a", "?", {"x": 1}), Query("b", "?"), Query("c", "?", {"x": 0}), Query("d", "?", {"x": 1})]
    ranking = Ranking(np.array([[0], [0], [0], [-1]]), np.array([[1.0], [1.0], [1.0], [-np.inf]], np.float32))
    values = score_rankings(queries, ["x"], ranking, ["ndcg@10", "completeness@10"])
    assert values["ndcg@10"].tolist() == pytest.approx([1, math.nan, math.nan, 0], nan_ok=True)
    assert estimate(values["ndcg@10"]).missing == 2
    nothing = score_rankings(queries[1:3], ["x"], Ranking(np.zeros((2, 1), int), np.ones((2, 1))), ["hit@1"])
    assert np.isnan(nothing["hit@1"]).all()


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndgc@10", "recall@-1", ""])
def test_what_is_no_measure_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no measure"):
        score_rankings([], [], Ranking(np.zeros((0, 1), int), np.zeros((0, 1))), [name])


def test_ids_that_occur_twice_and_other_queries_are_refused() -> None:
    ranking = Ranking(np.zeros((1, 1), int), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="twice"):
        score_rankings([Query("a", "?")], ["x", "x"], ranking, ["hit@1"])
    with pytest.raises(ValueError, match="1 queries for 2"):
        score_rankings([Query("a", "?"), Query("b", "?")], ["x"], ranking, ["hit@1"])


def test_the_macro_average_is_the_papers() -> None:
    """BM25 without instructions, by category: the published average is the mean of the three, whatever their sizes."""
    web, code, own = 18.98, 21.20, 26.76
    values = [web] * 50 + [code] * 7 + [own] * 3 + [math.nan]
    found = macro_estimate(values, ["web"] * 50 + ["code"] * 7 + ["customized"] * 3 + ["web"])
    assert found.mean == pytest.approx(22.31, abs=0.005)
    assert (found.low, found.high) == pytest.approx((found.mean, found.mean))
    assert (found.count, found.missing) == (60, 1)
    assert math.isnan(macro_estimate([math.nan], ["web"]).mean)


def test_the_interval_of_a_macro_average_has_its_standard_error() -> None:
    draw = np.random.default_rng(0)
    strata = [draw.normal(0, 1, 400), draw.normal(5, 3, 100)]
    low, high = stratified_bootstrap_interval(strata)
    error = math.sqrt(sum(one.var() / len(one) for one in strata)) / 2
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    with pytest.raises(ValueError):
        stratified_bootstrap_interval([[1.0], []])


def test_the_randomisation_test_counts_exchanges() -> None:
    """Three problems, all better by the same: 2 of the 8 exchanges are as extreme."""
    assert paired_randomization_test([2, 3, 4], [1, 2, 3]) == pytest.approx(2 / 8)
    assert paired_randomization_test([1, 2], [1, 2]) == 1.0
    draw = np.random.default_rng(1)
    base = draw.normal(size=200)
    assert paired_randomization_test(base + 1, base + draw.normal(size=200)) < 0.001
    with pytest.raises(ValueError):
        paired_randomization_test([1.0], [])


def test_no_difference_is_rarely_significant() -> None:
    """Under the null hypothesis p-values are even."""
    draw = np.random.default_rng(2)
    values = [paired_randomization_test(*draw.normal(size=(2, 8))) for _ in range(200)]
    assert 0.01 <= np.mean(np.array(values) < 0.05) <= 0.1
