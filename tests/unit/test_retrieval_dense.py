"""Dense search: flat is exact with ties by place, shards are as one, the others find nearly all."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.retrieval.dense import Dense, DenseConfig, Shards
from squadron.retrieval.ranking import Ranking


def vectors(count: int, seed: int = 0, dimensions: int = 24) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def exact(vectors_DE: np.ndarray, queries_QE: np.ndarray, k: int) -> list[list[int]]:
    scores_QD = (queries_QE[:, None].astype(np.float64) * vectors_DE[None]).sum(2).astype(np.float32)
    return [np.lexsort((np.arange(len(row)), -row))[:k].tolist() for row in scores_QD]


@settings(max_examples=30)
@given(st.integers(1, 80), st.integers(1, 100), st.integers(0, 5), st.booleans())
def test_flat_is_exact_and_ties_stand_by_place(distinct: int, k: int, seed: int, doubled: bool) -> None:
    some = vectors(distinct, seed)
    vectors_DE = some[np.random.default_rng(seed).integers(0, distinct, 90)] if doubled else some
    queries_QE = vectors(7, seed + 100)
    found = Dense(vectors_DE).search_vectors(queries_QE, k)
    assert found.places_QK.tolist() == exact(vectors_DE, queries_QE, k)
    expected = np.take_along_axis(queries_QE @ vectors_DE.T, found.places_QK, 1)
    np.testing.assert_allclose(found.scores_QK, expected, atol=1e-6)


def test_ties_far_beyond_what_is_asked_for() -> None:
    vectors_DE = np.repeat(vectors(3), 400, axis=0)
    found = Dense(vectors_DE).search_vectors(vectors(4, seed=9), 5)
    assert (found.places_QK % 400).tolist() == [[0, 1, 2, 3, 4]] * 4


@given(st.lists(st.integers(0, 60), max_size=3), st.integers(1, 70))
@settings(max_examples=30)
def test_shards_are_as_one_index(ends: list[int], k: int) -> None:
    vectors_DE, queries_QE = np.repeat(vectors(20), 3, axis=0), vectors(5, seed=1)
    texts = {str(number): vector_E for number, vector_E in enumerate(queries_QE)}

    def encode(queries: object) -> np.ndarray:
        return np.array([texts[query] for query in queries])  # type: ignore[attr-defined]

    bounds = [0, *sorted(ends), 60]
    shards = [Dense(vectors_DE[a:b], encode=encode) for a, b in itertools.pairwise(bounds)]
    one = Dense(vectors_DE, encode=encode).search(list(texts), k)
    several = Shards(shards, bounds[:-1]).search(list(texts), k)
    assert several.places_QK.tolist() == one.places_QK.tolist()
    assert several.scores_QK.tolist() == one.scores_QK.tolist()


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_indexes_that_look_at_some_find_nearly_all(kind: str) -> None:
    vectors_DE, queries_QE = vectors(3000), vectors(50, seed=1)
    found = Dense(vectors_DE, DenseConfig.model_validate({"kind": kind, "probes": 64})).search_vectors(queries_QE, 10)
    true = exact(vectors_DE, queries_QE, 10)
    hits = [len(set(row) & set(expected)) for row, expected in zip(found.places_QK.tolist(), true, strict=True)]
    assert np.mean(hits) > 8
    assert (np.diff(found.scores_QK, axis=1) <= 0).all()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_on_a_card_it_finds_the_same(monkeypatch: pytest.MonkeyPatch, kind: str, full: bool) -> None:
    """faiss's functions for cards, played by those for CPUs with what a card refuses: none is at hand. A flat index
    goes to the card once; where it has no room, or for more candidates than it gives, another way is found."""
    import faiss

    vectors_DE, queries_QE = vectors(3000), vectors(5, seed=1)
    config = DenseConfig.model_validate({"kind": kind, "probes": 64, "lists": 64})
    here = {k: Dense(vectors_DE, config).search_vectors(queries_QE, k) for k in (10, 2500)}
    calls: list[str] = []

    class OnCard:
        def __init__(self, index: faiss.Index) -> None:
            self.index = index

        def add(self, vectors_DE: np.ndarray) -> None:
            calls.append("add")
            if full:
                raise RuntimeError("out of memory")
            self.index.add(vectors_DE)

        def search(self, queries_QE: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            assert k <= 2048
            calls.append("search")
            return self.index.search(queries_QE, k)  # type: ignore[no-any-return]

    def knn_gpu(card: str, queries_QE: np.ndarray, vectors_DE: np.ndarray, k: int, **options: int) -> object:
        assert k <= 2048 and card == "card"
        calls.append("upload")
        return faiss.knn(queries_QE, vectors_DE, k, metric=options["metric"])

    played = {
        "get_num_gpus": lambda: 1,
        "StandardGpuResources": lambda: "card",
        "GpuIndexFlatIP": lambda card, dimensions: OnCard(faiss.IndexFlatIP(dimensions)),
        "index_cpu_to_gpu": lambda card, number, index: OnCard(index),
        "index_gpu_to_cpu": lambda index: index.index if isinstance(index, OnCard) else index,
        "knn_gpu": knn_gpu,
    }
    for name, plays in played.items():
        monkeypatch.setattr(faiss, name, plays, raising=False)
    dense = Dense(vectors_DE, config)
    for k in (10, 10, 2500):
        found = dense.search_vectors(queries_QE, k)
        assert found.places_QK.tolist() == here[k].places_QK.tolist()
        assert found.scores_QK.tolist() == here[k].scores_QK.tolist()
    expected = {"flat": ["add", "upload", "upload"] if full else ["add", "search", "search"],
                "ivf": ["search", "search"], "hnsw": []}  # fmt: skip
    assert calls == expected[kind]


def test_vectors_are_mapped_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", vectors(200))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    found = Dense(mapped).search_vectors(vectors(3, seed=1), 10)
    assert found.places_QK.tolist() == exact(np.array(mapped), vectors(3, seed=1), 10)


def test_nothing_to_search_or_to_ask() -> None:
    none: Ranking = Dense(np.empty((0, 8), np.float32)).search_vectors(np.ones((2, 8), np.float32), 5)
    assert none.places_QK.shape == (2, 0)
    assert Dense(vectors(3)).search_vectors(np.empty((0, 0), np.float32), 2).places_QK.shape == (0, 2)


def test_vectors_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match="queries have 8 dimensions, documents 24"):
        Dense(vectors(3)).search_vectors(np.ones((1, 8), np.float32), 2)
