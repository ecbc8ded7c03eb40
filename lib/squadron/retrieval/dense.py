"""Search by vectors, with faiss. Q queries, D documents, E dimensions of a vector, C candidates, K best of them.

faiss finds candidates. Their scores are computed once more, alike for each pair of vectors wherever it stands, so that
equal vectors have equal scores and shards give what one index of all gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

from squadron.core.config import Config, operational
from squadron.core.errors import InputError
from squadron.retrieval.ranking import Ranking, Searcher, merge

Encode = Callable[[Sequence[str]], np.ndarray]
_SPARE, _ROUNDING = 16, 1e-5
"""Candidates beyond those asked for; the error of a sum of float32 products, as a share of both vectors' lengths."""
_BLOCK_VALUES = 2**25
_MOST_ON_A_CARD = 2048
"""Candidates of a query, and lists that it looks into: faiss does no more on a card."""
_UPLOAD_BYTES = 2**30


class DenseConfig(Config):
    """How near vectors are found. `flat` looks at all: it is exact, and copies nothing, so vectors may be mapped from a
    file. The others look at some."""

    kind: Literal["flat", "ivf", "hnsw"] = "flat"
    lists: int | None = Field(None, ge=1, description="of ivf; None: four times the root of the documents' number")
    probes: int = Field(16, ge=1, description="lists of ivf that a query looks into")
    links: int = Field(32, ge=2, description="of hnsw, of a document to others")
    build_depth: int = Field(80, ge=1, description="of hnsw, how thoroughly links are chosen (efConstruction)")
    search_depth: int = Field(128, ge=1, description="of hnsw, how many documents a query keeps in view (efSearch)")
    gpu: bool = operational(True, description="flat and ivf on a card, where there is one and faiss is that of `gpu`")


class Dense:
    """An index of vectors by their inner product with that of a query."""

    def __init__(self, vectors_DE: np.ndarray, config: DenseConfig | None = None, encode: Encode | None = None) -> None:
        """`encode` gives the vectors of queries' texts."""
        self.vectors_DE, self.config, self._encode = vectors_DE, config or DenseConfig(), encode
        self._gpu = _find_gpu() if self.config.gpu else None
        self._index = None if self.config.kind == "flat" or not len(vectors_DE) else _build(self)

    def __len__(self) -> int:
        return len(self.vectors_DE)

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        """The `k` nearest documents of each query."""
        if self._encode is None:
            raise InputError("there is no model to embed queries", fix="give one, or search by vectors")
        return self.search_vectors(self._encode(queries), k)

    def search_vectors(self, queries_QE: np.ndarray, k: int) -> Ranking:
        """The same for vectors. Raises InputError for those of another model's dimensions."""
        k = min(k, len(self))
        if not len(queries_QE) or not k:
            return Ranking.empty(len(queries_QE), k)
        queries_QE = np.ascontiguousarray(queries_QE, np.float32)
        if queries_QE.shape[1] != self.vectors_DE.shape[1]:
            what = f"queries have {queries_QE.shape[1]} dimensions, documents {self.vectors_DE.shape[1]}"
            raise InputError(what, fix="embed both by one model")
        block = max(1, _BLOCK_VALUES // ((k + _SPARE) * queries_QE.shape[1]))
        parts = [self._search(queries_QE[start : start + block], k) for start in range(0, len(queries_QE), block)]
        return Ranking(np.concatenate([p.places_QK for p in parts]), np.concatenate([p.scores_QK for p in parts]))

    def _search(self, queries_QE: np.ndarray, k: int) -> Ranking:
        count = min(k + _SPARE, len(self))
        while True:
            found_QC, places_QC = self._candidates(queries_QE, count)
            ranking = self._rescored(queries_QE, places_QC, k)
            if count == len(self) or self._index is not None:
                return ranking
            # Whatever faiss has left out scores no more than its last candidate, but for rounding.
            bound_Q = found_QC[:, -1] + _ROUNDING * np.linalg.norm(queries_QE, axis=1) * self._longest
            if (ranking.scores_QK[:, -1] > bound_Q).all():
                return ranking
            count = min(4 * count, len(self))

    @property
    def _longest(self) -> float:
        """The length of the longest vector, or more."""
        if not hasattr(self, "_longest_known"):
            blocks = range(0, len(self), 65_536)
            self._longest_known = max(
                float(np.linalg.norm(self.vectors_DE[start : start + 65_536], axis=1).max()) for start in blocks
            )
        return self._longest_known

    def _candidates(self, queries_QE: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        kind, card, index = faiss.METRIC_INNER_PRODUCT, self._gpu, self._index
        fits_card = card is not None and count <= _MOST_ON_A_CARD
        if index is None and fits_card:
            index = self._on_card
        elif index is not None and card is not None and not fits_card:
            index = faiss.index_gpu_to_cpu(index)  # one that is here stays as it is
        if index is not None:
            scores_QC, places_QC = index.search(queries_QE, count)
        elif card is not None and fits_card:
            scores_QC, places_QC = faiss.knn_gpu(
                card, queries_QE, self.vectors_DE, count, metric=kind, vectorsMemoryLimit=_UPLOAD_BYTES
            )
        else:
            scores_QC, places_QC = faiss.knn(queries_QE, self.vectors_DE, count, metric=kind)
        return scores_QC, places_QC

    @cached_property
    def _on_card(self) -> Any | None:
        """All vectors on the card, for a flat search; None where it has no room: they are then uploaded part by part
        with every search."""
        import faiss

        card: Any = self._gpu
        try:
            index = faiss.GpuIndexFlatIP(card, self.vectors_DE.shape[1])
            index.add(np.ascontiguousarray(self.vectors_DE, np.float32))
        except RuntimeError:  # faiss's word for a card that is full
            return None
        return index

    def _rescored(self, queries_QE: np.ndarray, places_QC: np.ndarray, k: int) -> Ranking:
        scores_QC = np.empty(places_QC.shape, np.float32)
        for row, (query_E, places_C) in enumerate(zip(queries_QE, places_QC, strict=True)):
            scores_QC[row] = (self.vectors_DE[places_C] * query_E).sum(1, dtype=np.float64)
        scores_QC[places_QC < 0] = -np.inf
        order_QK = np.lexsort((places_QC, -scores_QC), axis=1)[:, :k]
        return Ranking(np.take_along_axis(places_QC, order_QK, 1), np.take_along_axis(scores_QC, order_QK, 1))


class Shards:
    """Indexes of the parts of a corpus, one after the other, as one. Exact for dense ones: BM25's scores hang on all
    documents, which no shard knows."""

    def __init__(self, shards: Sequence[Searcher], starts: Sequence[int]) -> None:
        self._shards, self._starts = shards, starts

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        """The `k` best of all."""
        return merge([shard.search(queries, k) for shard in self._shards], self._starts, k)


def _find_gpu() -> Any | None:
    """What faiss needs to work on a card; None where there is no card, or faiss knows none."""
    import faiss

    known = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    return faiss.StandardGpuResources() if known else None


def _build(dense: Dense) -> Any:
    """An index that looks at some documents alone."""
    import faiss

    config, vectors_DE = dense.config, np.ascontiguousarray(dense.vectors_DE, np.float32)
    documents, dimensions = vectors_DE.shape
    if config.kind == "hnsw":
        index: Any = faiss.IndexHNSWFlat(dimensions, config.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = config.build_depth, config.search_depth
    else:
        lists = min(config.lists or round(4 * documents**0.5), documents)
        coarse = faiss.IndexFlatIP(dimensions)
        index = faiss.IndexIVFFlat(coarse, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(config.probes, lists)
        index.train(vectors_DE)
    index.add(vectors_DE)
    gpu = dense._gpu
    fits = config.kind == "ivf" and index.nprobe <= _MOST_ON_A_CARD
    return faiss.index_cpu_to_gpu(gpu, 0, index) if gpu is not None and fits else index
