"""BM25 gives what bm25s and rank_bm25 give, and what a rebuild would give after any change."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.retrieval.bm25 import Bm25, Bm25Config, StopWords, cut

WORDS = [
    "the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "sorts", "seven", "red", "lists", "of",
    "numbers", "to", "find", "an", "apple",
]  # fmt: skip
METHODS = ["lucene", "robertson", "atire", "bm25l", "bm25+"]


def corpus(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 30))) for _ in range(count)]


def by_bm25s(texts: Sequence[str], queries: Sequence[str], config: Bm25Config) -> np.ndarray:
    """The scores of every document for every query, by bm25s itself."""
    import bm25s

    given = config.model_dump(include={"method", "k1", "b", "delta"})
    index = bm25s.BM25(**given)
    index.index(bm25s.tokenize(texts, stopwords=config.document_stop_words or [], show_progress=False), False, False)
    rows = []
    for words in cut(queries, config.query_stop_words):
        known = index.get_tokens_ids(words)
        rows.append(index.get_scores_from_ids(known) if known else np.zeros(len(texts), np.float32))
    return np.array(rows)


@pytest.mark.parametrize(("method", "k1"), list(zip(METHODS, [1.5, 1.2, 0.9, 1.5, 0.9], strict=True)))
def test_scores_and_ranking_are_those_of_bm25s(method: Any, k1: float) -> None:
    texts, queries = corpus(300), [*corpus(20, seed=1), "zebra"]
    config = Bm25Config(method=method, k1=k1, b=0.6)
    found = Bm25(texts, config).search(queries, 300)
    for row, scores_D in enumerate(by_bm25s(texts, queries, config)):
        if not queries[row]:
            assert (found.places_QK[row] == -1).all()
            continue
        assert found.places_QK[row].tolist() == np.lexsort((np.arange(300), -scores_D)).tolist()
        assert found.scores_QK[row].tolist() == scores_D[found.places_QK[row]].tolist()


def test_scores_are_those_of_rank_bm25_where_the_formulas_agree() -> None:
    """BM25Okapi has robertson's logarithm and atire's (k1 + 1), so `k1 + 1` times our scores, as long as no word is in
    more than half of the documents: there BM25Okapi takes a quarter of the mean logarithm and we take 0."""
    from rank_bm25 import BM25Okapi

    texts = [f"{text} {number} unique{number % 97}" for number, text in enumerate(corpus(300))]
    config = Bm25Config(method="robertson", document_stop_words=None)
    documents = cut(texts, None)
    common = {word for word in WORDS if sum(word in words for words in documents) >= 150}
    queries = [" ".join(word for word in text.split() if word not in common) for text in texts[:40]]
    okapi = BM25Okapi(documents, k1=config.k1, b=config.b)
    found = Bm25(texts, config).search(queries, 300)
    for row, words in enumerate(cut(queries, None)):
        expected_D = okapi.get_scores(words)
        assert expected_D.max() > 0
        scaled = found.scores_QK[row] * (config.k1 + 1)
        np.testing.assert_allclose(scaled, expected_D[found.places_QK[row]], rtol=1e-5, atol=1e-6)


def test_stop_words_of_documents_and_of_queries_are_apart() -> None:
    texts = ["the cat", "the dog", "a bird"]
    found = Bm25(texts).search(["the dog", "!", ""], 3)
    assert found.places_QK.tolist() == [[1, 0, 2], [-1, -1, -1], [-1, -1, -1]]
    found = Bm25(texts, Bm25Config(document_stop_words=None)).search(["the"], 3)
    assert found.places_QK.tolist() == [[0, 1, 2]]
    left_out = Bm25(texts, Bm25Config(document_stop_words=None, query_stop_words="english")).search(
        ["the dog", "the"], 3
    )
    assert left_out.places_QK.tolist() == [[1, 0, 2], [-1, -1, -1]]


@pytest.mark.parametrize("language", get_args(StopWords))
def test_bm25s_has_every_list_of_stop_words(language: Any) -> None:
    assert cut(["Zebra"], language) == [["zebra"]]


def test_corpora_without_words_and_queries_that_none_knows_score_nothing() -> None:
    for texts in ([], [""], ["", "a", "!"], ["a dog"]):
        found = Bm25(texts).search(["zebra", ""], 5)
        assert found.places_QK.tolist() == [list(range(len(texts))), [-1] * len(texts)]
        assert (found.scores_QK[0] == 0).all()


@settings(max_examples=40)
@given(st.data())
def test_after_a_change_it_is_what_a_rebuild_is(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.sampled_from(corpus(30)), max_size=12))
    kept = data.draw(st.lists(st.integers(0, len(texts) - 1), unique=True)) if texts else []
    added = data.draw(st.lists(st.sampled_from([*corpus(30, seed=2), "an unknown zebra"]), max_size=5))
    config = Bm25Config(method=data.draw(st.sampled_from(METHODS)))
    changed = Bm25(texts, config).updated(kept, added)
    rebuilt = Bm25([texts[place] for place in kept] + added, config)
    one, other = (index.search([*corpus(5, seed=3), "zebra"], 20) for index in (changed, rebuilt))
    assert one.places_QK.tolist() == other.places_QK.tolist()
    assert one.scores_QK.tolist() == other.scores_QK.tolist()


def test_only_new_texts_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from squadron.retrieval import bm25

    index, read = Bm25(corpus(1000)), []
    monkeypatch.setattr(bm25, "cut", lambda texts, stop_words: read.extend(texts) or cut(texts, stop_words))
    index.updated(range(10, 1000), corpus(10, seed=5))
    assert read == corpus(10, seed=5)
