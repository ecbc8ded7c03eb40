"""Each retriever's ranking of the tools for every query; rankings joined, read from a file, and ordered again.

Q queries, K tools of a ranking, D tools, E dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from squadron.core.errors import InputError
from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.data.records import Record, read_records
from squadron.methods.toolret import plan
from squadron.methods.toolret.algorithm import search_groups
from squadron.methods.toolret.config import (
    Bm25Retriever,
    Corpus,
    DenseRetriever,
    GivenRun,
    HybridRetriever,
    LateRetriever,
    Rerank,
)
from squadron.methods.toolret.datasets import places
from squadron.methods.toolret.records import Benchmark, Ranked
from squadron.retrieval.bm25 import Bm25
from squadron.retrieval.dense import Dense
from squadron.retrieval.formats import Format, document_text, embedder_format, named_format, query_texts
from squadron.retrieval.fusion import fuse
from squadron.retrieval.late import Late, LateEncoder, TokenFiles, embed_tokens, open_late_encoder
from squadron.retrieval.ranking import Ranking, Searcher, best
from squadron.retrieval.rerank import rerank_all
from squadron.retrieval.token_vectors import TokenVectors
from squadron.retrieval.vectors import Vectors, embed_corpus

WORDS_ALONE = "plain"
"""The format of what reads words alone: the instruction stands before the query."""


def embed_tools(stage: Stage, benchmark: Benchmark, retriever: DenseRetriever) -> Vectors:
    """Compute a vector of every tool, once for each model."""
    form = embedder_format(retriever.embedder, retriever.family)
    texts = [document_text(form, one.text) for one in benchmark.documents(stage.run.folder)]
    return embed_corpus(stage, texts, retriever.embedder, "tools")


def embed_tool_tokens(stage: Stage, benchmark: Benchmark, retriever: LateRetriever) -> TokenFiles:
    """Compute the vectors of all tokens of every tool."""
    return embed_tokens(stage, [one.text for one in benchmark.documents(stage.run.folder)], retriever.model)


@estimated(plan.rankings)
def search_words(
    stage: Stage, benchmark: Benchmark, retriever: Bm25Retriever, instructed: bool, corpus: Corpus, top: int
) -> Ranked:
    """Rank the tools for every query by their words."""
    texts = [one.text for one in benchmark.documents(stage.run.folder)]
    asked = query_texts(named_format(WORDS_ALONE), benchmark.asked(stage.run.folder), instructed)
    groups = benchmark.groups(stage.run.folder, corpus)
    ranking = search_groups(groups, lambda some_D: Bm25([texts[n] for n in some_D], retriever.bm25), asked, top)
    return Ranked.store(stage, retriever.name, instructed, ranking)


def search_vectors(
    stage: Stage,
    benchmark: Benchmark,
    retriever: DenseRetriever,
    vectors: Vectors,
    instructed: bool,
    corpus: Corpus,
    top: int,
) -> Ranked:
    """Rank the tools for every query by the nearness of vectors."""
    asked = query_texts(
        embedder_format(retriever.embedder, retriever.family), benchmark.asked(stage.run.folder), instructed
    )
    vectors_DE = vectors.read(stage.run.folder)
    queries = embed_corpus(stage, asked, retriever.embedder, "queries")
    of_text = dict(zip(asked, queries.read(stage.run.folder), strict=True))

    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.stack([of_text[text] for text in texts])

    groups = benchmark.groups(stage.run.folder, corpus)
    ranking = search_groups(groups, lambda some_D: Dense(vectors_DE[some_D], retriever.index, encode), asked, top)
    return Ranked.store(stage, retriever.name, instructed, ranking)


def search_tokens(
    stage: Stage,
    benchmark: Benchmark,
    retriever: LateRetriever,
    tokens: TokenFiles,
    instructed: bool,
    corpus: Corpus,
    top: int,
) -> Ranked:
    """Rank the tools for every query by the best match of each of its tokens."""
    asked = query_texts(named_format(WORDS_ALONE), benchmark.asked(stage.run.folder), instructed)
    vectors = tokens.open(stage.run.folder, retriever.model)
    with open_late_encoder(retriever.model) as encoder:

        def index(some_D: np.ndarray) -> Searcher:
            whole = len(some_D) == tokens.documents
            return Late(encoder, vectors) if whole else SomeTokens(encoder, vectors, some_D)

        ranking = search_groups(benchmark.groups(stage.run.folder, corpus), index, asked, top)
    return Ranked.store(stage, retriever.name, instructed, ranking)


class SomeTokens:
    """Late interaction with some of the tools: a `Searcher` by places among these."""

    def __init__(self, encoder: LateEncoder, vectors: TokenVectors, some_D: np.ndarray) -> None:
        self._encoder, self._vectors, self._some = encoder, vectors, some_D.tolist()

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        """The `k` best of them."""
        scores = [self._vectors.score(query_TD, self._some) for query_TD in self._encoder.queries(queries)]
        return best(np.stack(scores), k)


def join_rankings(stage: Stage, rankings: tuple[Ranked, ...], retriever: HybridRetriever, top: int) -> Ranked:
    """Make one ranking of those of several retrievers."""
    found = [one.ranking(stage.run.folder) for one in rankings]
    joined = fuse(found, retriever.weights, retriever.method, top)
    return Ranked.store(stage, retriever.name, rankings[0].instructed, joined)


def read_run(stage: Stage, benchmark: Benchmark, retriever: GivenRun, top: int) -> Ranked:
    """Read a ranking that is published. Queries of others are left out; one of ours that is not there has failed.

    Raises InputError, with file and line, for a tool that is unknown, and if none of our queries is there.
    """
    place = {one.id: number for number, one in enumerate(benchmark.documents(stage.run.folder))}
    row = {one.id: number for number, one in enumerate(benchmark.asked(stage.run.folder))}
    ranking = Ranking.empty(len(row), top)
    seen: set[int] = set()
    for path, subset, _ in places(retriever.path, retriever.subsets):
        for record in read_records(path, retriever.split, subset):
            number = row.get(str(record.label("id")))
            if number is not None:
                seen.add(number)
                found = list(_placed(record, place))[:top]
                ranking.places_QK[number, : len(found)] = found
                ranking.scores_QK[number, : len(found)] = -np.arange(len(found))
    if not seen:
        raise InputError("it ranks tools for none of the queries", where=str(retriever.path))
    missing = sorted(set(row.values()) - seen)
    if missing:
        stage.headline(f"queries that {retriever.name} lacks", f"{len(missing):,}")
    return Ranked.store(stage, retriever.name, retriever.instructed, ranking, missing)


def rerank_tools(stage: Stage, benchmark: Benchmark, first: Ranked, config: Rerank, instructed: bool) -> Ranked:
    """Order the best tools of a retriever again, by a model that reads query and tool together.

    A query of which that fails has no ranking, is a failed row, and is tried again by the next run.
    """
    queries, run = benchmark.asked(stage.run.folder), stage.run.folder
    asked = query_texts(Format(), queries, instructed)
    texts, ids = [one.text for one in benchmark.documents(run)], [one.id for one in queries]
    found = rerank_all(
        stage, ids, asked, texts, first.ranking(run), config.model, config.depth,
        timeout_s=config.timeout_s, cap_usd=config.cap_usd,
    )  # fmt: skip
    if found.repaired:
        stage.headline(f"answers of {config.name} that were no whole order", f"{found.repaired:,}")
    return Ranked.store(stage, config.method, instructed, found.ranking, sorted({*found.failed, *first.failed}))


def _placed(record: Record, place: Mapping[str, int]) -> Iterator[int]:
    for number, one in enumerate(record.items("tools"), start=1):
        name = str(one["id"] if isinstance(one, dict) and "id" in one else one)
        if name not in place:
            raise InputError(f"{name!r:.60} is no tool of the sets", where=f"{record.where}, tools {number}")
        yield place[name]
