"""Known figures on published tools: nDCG@10 of BM25, of the packaged model, and of both together."""

from __future__ import annotations

import gzip
import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from squadron.llm.embed import PackagedEmbedder
from squadron.retrieval.bm25 import Bm25
from squadron.retrieval.fusion import fuse
from squadron.retrieval.ranking import Ranking, best
from squadron.retrieval.vectors import embed_texts
from tests.conftest import REAL_DATA

KNOWN = {
    "apibench_torch": (24.8, 20.4),
    "restbench_tmdb": (45.9, 41.1),
    "toolalpaca_simulated": (86.3, 90.8),
    "bfcl": (60.7, 55.4),
}
"""Measured elsewhere, BM25 and all-MiniLM-L6-v2: documents as JSON with English stop words left out, no stemming."""


@cache
def read(name: str) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """Ids and texts of the tools, and the queries."""
    folder = REAL_DATA / "toolret"
    if not folder.exists():
        pytest.skip(f"the real data is not here: {folder}")
    tools, queries = (
        [json.loads(line) for line in gzip.decompress((folder / f"{name}_{kind}.jsonl.gz").read_bytes()).splitlines()]
        for kind in ("tools", "queries")
    )
    texts = [json.dumps(tool["documentation"], ensure_ascii=False) for tool in tools]
    return [tool["id"] for tool in tools], texts, queries


def ndcg(name: str, ranking: Ranking) -> float:
    """Mean nDCG@10 by trec_eval, in hundredths."""
    import pytrec_eval

    ids, _, queries = read(name)
    labels = {query["id"]: dict.fromkeys(query["labels"], 1) for query in queries}
    run = {
        query["id"]: {ids[place]: float(score) for place, score in zip(places, scores, strict=True) if place >= 0}
        for query, places, scores in zip(queries, ranking.places_QK, ranking.scores_QK, strict=True)
    }
    values = pytrec_eval.RelevanceEvaluator(labels, {"ndcg_cut_10"}).evaluate(run)
    return 100 * sum(value["ndcg_cut_10"] for value in values.values()) / len(queries)


def by_words(name: str) -> Ranking:
    _, texts, queries = read(name)
    return Bm25(texts).search([query["query"] for query in queries], 100)


def by_vectors(name: str) -> Ranking:
    _, texts, queries = read(name)
    pack, _ = embed_texts([*texts, *(query["query"] for query in queries)], PackagedEmbedder())
    documents_DE, queries_QE = np.split(pack.vectors_NE, [len(texts)])
    return best(queries_QE @ documents_DE.T, 100)


@pytest.mark.parametrize("name", KNOWN)
def test_bm25_has_its_known_figure(name: str) -> None:
    assert ndcg(name, by_words(name)) == pytest.approx(KNOWN[name][0], abs=0.1)


@pytest.mark.parametrize("name", ["restbench_tmdb", "toolalpaca_simulated"])
def test_the_packaged_model_has_its_known_figure_and_both_together_are_better(name: str) -> None:
    words, vectors = by_words(name), by_vectors(name)
    assert ndcg(name, vectors) == pytest.approx(KNOWN[name][1], abs=0.1)
    assert ndcg(name, fuse([words, vectors], k=100)) > max(KNOWN[name])
