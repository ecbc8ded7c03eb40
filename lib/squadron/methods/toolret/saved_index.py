"""The tools as an index, which a server searches."""

from __future__ import annotations

from squadron.core.run import Stage
from squadron.methods.toolret.config import DenseRetriever
from squadron.methods.toolret.records import Benchmark
from squadron.retrieval.index import SearchIndex
from squadron.retrieval.index_files import IndexConfig
from squadron.retrieval.vectors import Vectors
from squadron.serve.search import SavedIndex


def save_index(
    stage: Stage, benchmark: Benchmark, retriever: DenseRetriever | None, vectors: Vectors | None
) -> SavedIndex:
    """Save an index of all tools, which `squadron serve` searches: by words, and by these vectors if there are any."""
    saved = SavedIndex(embedder=None if retriever is None else retriever.embedder)
    config = IndexConfig() if retriever is None else IndexConfig(family=retriever.family, dense=retriever.index)
    vectors_DE = None if vectors is None else vectors.read(stage.run.folder)
    documents = benchmark.documents(stage.run.folder)
    SearchIndex.build(stage.run.folder / saved.path, documents, config, saved.embedder, vectors_DE)
    return saved
