"""What one query takes by itself, with model and index open, on a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from squadron.core.folder import Folder
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.llm.embed import open_embedder
from squadron.llm.providers import card_share
from squadron.methods.toolret.config import (
    AnyRetriever,
    Bm25Retriever,
    Corpus,
    DenseRetriever,
    HybridRetriever,
    LatencyConfig,
)
from squadron.methods.toolret.records import Benchmark, Comparison, Latency, label_of
from squadron.methods.toolret.report import speed
from squadron.methods.toolret.searching import WORDS_ALONE
from squadron.retrieval.bm25 import Bm25
from squadron.retrieval.dense import Dense
from squadron.retrieval.formats import embedder_format, named_format, query_texts
from squadron.retrieval.ranking import Searcher
from squadron.retrieval.vectors import Vectors


def time_queries(
    stage: Stage,
    benchmark: Benchmark,
    retrievers: tuple[AnyRetriever, ...],
    vectors: tuple[Vectors, ...],
    corpus: Corpus,
    instructions: tuple[bool, ...],
    top: int,
    compared: Comparison,
    k: int,
    config: LatencyConfig,
) -> Latency:
    """Ask some queries one after the other of each retriever: the median of their seconds.

    `vectors` are those of the dense retrievers, in their order. A hybrid takes what its parts take. Late
    interaction, published runs and rerankers are not timed.
    """
    dense = [one.name for one in retrievers if isinstance(one, DenseRetriever)]
    timed = {one.name: one for one in retrievers if isinstance(one, Bm25Retriever | DenseRetriever)}
    rows = [{"id": name} for name in timed if config.queries]
    context = {
        "run": stage.run.folder, "benchmark": benchmark, "timed": timed, "corpus": corpus, "top": top,
        "vectors": dict(zip(dense, vectors, strict=True)), "queries": config.queries, "instructions": instructions,
    }  # fmt: skip
    share = card_share(stage.run.profile, None)
    answers = map_rows(stage, rows, time_one, unit="retriever", timeout_s=3600, resources=share, context=context)
    seconds = {label: float(one) for row in answers for label, one in row["seconds"].items()}
    for one in retrievers:
        for told in instructions:
            if isinstance(one, HybridRetriever):
                parts = [seconds.get(label_of(name, told)) for name in one.of]
                known = [part for part in parts if part is not None]
                if len(known) == len(parts):
                    seconds[label_of(one.name, told)] = sum(known)
    if seconds:
        stage.show(speed(compared.methods, seconds, k))
    return Latency(seconds=seconds)


def time_one(row: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """Runs on a worker: the median over some queries, in each setting."""
    run, benchmark, retriever = context["run"], context["benchmark"], context["timed"][row["id"]]
    places_D, rows_Q = max(benchmark.groups(run, context["corpus"]), key=lambda group: len(group[0]))
    words = isinstance(retriever, Bm25Retriever)
    form = named_format(WORDS_ALONE) if words else embedder_format(retriever.embedder, retriever.family)
    some = rows_Q[np.linspace(0, len(rows_Q) - 1, context["queries"]).astype(int)]
    asked = benchmark.asked(run)
    queries = [asked[place] for place in some]
    searcher, close = _open(run, benchmark, retriever, context["vectors"], places_D)
    seconds = {
        label_of(retriever.name, told): _median_s(searcher, query_texts(form, queries, told), context["top"])
        for told in context["instructions"]
    }
    close()
    return {"id": row["id"], "seconds": seconds}


def _open(
    run: Folder, benchmark: Benchmark, retriever: Any, vectors: dict[str, Vectors], places_D: np.ndarray
) -> tuple[Searcher, Callable[[], None]]:
    if isinstance(retriever, Bm25Retriever):
        texts = [one.text for one in benchmark.documents(run)]
        return Bm25([texts[place] for place in places_D], retriever.bm25), lambda: None
    embedder = open_embedder(retriever.embedder)
    vectors_DE = vectors[retriever.name].read(run)[places_D]
    return Dense(vectors_DE, retriever.index, embedder.embed), embedder.close


def _median_s(searcher: Searcher, queries: Sequence[str], top: int) -> float:
    """The first is asked once before, to warm up."""
    searcher.search(queries[:1], top)
    taken = []
    for query in queries:
        started = time.perf_counter()
        searcher.search([query], top)
        taken.append(time.perf_counter() - started)
    return median(taken)
