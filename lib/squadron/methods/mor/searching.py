"""Candidates of every question: by words, by vectors, and by plans over the graph. Q questions, K places, D vectors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from squadron.core.errors import WorkerError
from squadron.core.folder import Folder
from squadron.core.job import estimated
from squadron.core.panels import Table
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.data.rows import store_rows
from squadron.methods.mor import plan
from squadron.methods.mor.algorithm import Candidates, TraversalConfig, search
from squadron.methods.mor.config import ScorerConfig
from squadron.methods.mor.records import (
    CANDIDATE_TYPES,
    Asked,
    Embedded,
    Found,
    Knowledge,
    Plans,
    Ranked,
    row_of,
    usable_plan,
)
from squadron.retrieval.formats import document_text, embedder_format, query_text
from squadron.retrieval.graph import KnowledgeBase, TypedWords
from squadron.retrieval.graph.words import node_text
from squadron.retrieval.ranking import Ranking, best
from squadron.retrieval.vectors import embed_corpus

CHUNK = 64
"""Questions of one task: as much as a kill costs."""


@estimated(plan.vectors)
def embed_texts(stage: Stage, knowledge: Knowledge, config: ScorerConfig) -> Embedded:
    """Compute a vector of every node that may be an answer, and of every question."""
    run = stage.run.folder
    graph, form = knowledge.open_graph(run), embedder_format(config.embedder, None)
    texts = [document_text(form, node_text(graph, int(place))) for place in target_places(graph, knowledge.targets)]
    queries = [query_text(form, one.query, None) for one in knowledge.asked(run)]
    return Embedded(
        nodes=embed_corpus(stage, texts, config.embedder, "nodes"),
        questions=embed_corpus(stage, queries, config.embedder, "questions"),
    )


def target_places(graph: KnowledgeBase, targets: Sequence[str]) -> np.ndarray:
    """All nodes that may be answers, ascending."""
    return np.sort(np.concatenate([graph.nodes(kind) for kind in targets]))


def rank_by_words(stage: Stage, knowledge: Knowledge, config: TraversalConfig) -> Ranked:
    """The best nodes of each question by its words alone."""
    run = stage.run.folder
    graph = knowledge.open_graph(run)
    words, asked = knowledge.open_words(run, graph), knowledge.asked(run)
    ranking = Ranking.empty(len(asked), config.top)
    for row, one in enumerate(asked):
        parts = [words.best(kind, words.scores(kind, one.query), config.top) for kind in one.targets]
        places, scores = (np.concatenate(some) for some in zip(*parts, strict=True))
        _fill(ranking, row, places, scores)
    return Ranked.write(stage, ranking, method="text: words")


def rank_by_vectors(stage: Stage, knowledge: Knowledge, embedded: Embedded, config: TraversalConfig) -> Ranked:
    """The best nodes of each question by its vector alone."""
    run = stage.run.folder
    graph, asked = knowledge.open_graph(run), knowledge.asked(run)
    places_D = target_places(graph, knowledge.targets)
    nodes_DE, questions_QE = embedded.nodes.read(run), embedded.questions.read(run)
    ranking = Ranking.empty(len(asked), config.top)
    for targets in dict.fromkeys(one.targets for one in asked):
        places = target_places(graph, targets)
        own_DE = nodes_DE[np.searchsorted(places_D, places)]
        rows = [row for row, one in enumerate(asked) if one.targets == targets]
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            found = best(questions_QE[some] @ own_DE.T, config.top)
            width = found.places_QK.shape[1]
            ranking.places_QK[some, :width] = np.where(found.places_QK < 0, -1, places[found.places_QK])
            ranking.scores_QK[some, :width] = found.scores_QK
    return Ranked.write(stage, ranking, method="text: learned vectors" if embedded.learned else "text: vectors")


@estimated(plan.search)
def search_graph(
    stage: Stage, knowledge: Knowledge, plans: Plans, embedded: Embedded, config: TraversalConfig
) -> Found:
    """Follow every question's plan through the graph, on the cluster."""
    run = stage.run.folder
    asked, written = knowledge.asked(run), plans.read(run)
    chunks: list[dict[str, Any]] = [
        {"id": f"{start:09d}", "start": start, "plans": [written.get(one.id) for one in asked[start : start + CHUNK]]}
        for start in range(0, len(asked), CHUNK)
    ]
    answers = map_rows(
        stage, chunks, search_chunk, unit="chunk", timeout_s=3600.0,
        run=run, knowledge=knowledge, embedded=embedded, config=config,
    )  # fmt: skip
    if len(answers) < len(chunks):
        cause = stage.failures()[0]["error"]
        what = f"{len(chunks) - len(answers)} of {len(chunks)} chunks of questions have no candidates: {cause}"
        raise WorkerError(what, where=str(stage.folder), fix="fix the cause and give the same command")
    rows = (row for answer in answers for row in answer["found"])
    found = Found(planner=plans.planner, rows=store_rows(stage, "candidates.arrow", rows, CANDIDATE_TYPES))
    _show(stage, asked, found, [reason for answer in answers for reason in answer["reasons"]])
    return found


def search_chunk(
    chunk: dict[str, Any], run: Folder, knowledge: Knowledge, embedded: Embedded, config: TraversalConfig
) -> dict[str, Any]:
    """Candidates of some questions. Runs on a worker, which maps the graph once."""
    opened = _open(run, knowledge, embedded)
    found, reasons = [], []
    for number, text in enumerate(chunk["plans"], start=chunk["start"]):
        one = opened.asked[number]
        usable, reason = usable_plan(text, opened.graph.schema, one.targets, config.steps)
        dense = opened.dense(number)
        candidates = search(opened.graph, opened.words, one.query, usable, one.targets, config, dense)
        found.append(row_of(one.id, candidates))
        reasons.append(reason)
    return {"found": found, "reasons": reasons}


class Opened:
    """A graph with its words and vectors, mapped into a worker's memory."""

    def __init__(self, run: Folder, knowledge: Knowledge, embedded: Embedded) -> None:
        self.graph: KnowledgeBase = knowledge.open_graph(run)
        self.words: TypedWords = knowledge.open_words(run, self.graph)
        self.asked = knowledge.asked(run)
        self._places_D = target_places(self.graph, knowledge.targets)
        self._nodes_DE, self._questions_QE = embedded.nodes.read(run), embedded.questions.read(run)

    def dense(self, number: int) -> Callable[[np.ndarray], np.ndarray]:
        """Scores places for a question."""

        def score(place_C: np.ndarray) -> np.ndarray:
            rows_C = np.searchsorted(self._places_D, place_C)
            scores_C: np.ndarray = self._nodes_DE[rows_C] @ self._questions_QE[number]
            return scores_C

        return score


@functools.lru_cache(maxsize=1)
def _open(run: Folder, knowledge: Knowledge, embedded: Embedded) -> Opened:
    return Opened(run, knowledge, embedded)


def rank_structure(stage: Stage, knowledge: Knowledge, found: Found, config: TraversalConfig) -> Ranked:
    """The nodes that routes led to, by what words score on the way; nothing where no route did."""

    def order(one: Candidates) -> tuple[np.ndarray, np.ndarray]:
        return one.place_C[one.routed_C], one.score_CT[one.routed_C].sum(1)

    ranking = _ranking(stage, knowledge, found, config.top, order)
    return Ranked.write(stage, ranking, method=f"structure: {found.planner}")


def rank_mixed(stage: Stage, knowledge: Knowledge, found: Found, config: TraversalConfig) -> Ranked:
    """All candidates as they were found: those that routes led to before the others, each by the dense score."""

    def order(one: Candidates) -> tuple[np.ndarray, np.ndarray]:
        return one.place_C, one.dense_C + 10.0 * one.routed_C  # a cosine is 1 at most

    ranking = _ranking(stage, knowledge, found, config.top, order)
    return Ranked.write(stage, ranking, method=f"both, not reranked: {found.planner}")


def _ranking(
    stage: Stage,
    knowledge: Knowledge,
    found: Found,
    top: int,
    order: Callable[[Candidates], tuple[np.ndarray, np.ndarray]],
) -> Ranking:
    candidates, asked = found.read(stage.run.folder), knowledge.asked(stage.run.folder)
    ranking = Ranking.empty(len(asked), top)
    for row, one in enumerate(asked):
        _fill(ranking, row, *order(candidates[one.id]))
    return ranking


def _fill(ranking: Ranking, row: int, places: np.ndarray, scores: np.ndarray) -> None:
    first = np.lexsort((places, -scores))[: ranking.places_QK.shape[1]]
    ranking.places_QK[row, : len(first)], ranking.scores_QK[row, : len(first)] = places[first], scores[first]


def _show(stage: Stage, asked: Sequence[Asked], found: Found, reasons: Sequence[str]) -> None:
    candidates = found.read(stage.run.folder)
    rows: list[list[Any]] = []
    for kind in dict.fromkeys(one.kind for one in asked):
        own = [
            (candidates[one.id], one, reason) for one, reason in zip(asked, reasons, strict=True) if one.kind == kind
        ]
        routed = [float(some.routed_C.sum()) for some, _, _ in own]
        unusable = sum(bool(reason) for _, _, reason in own)
        rows.append([kind, len(own), unusable, sum(map(bool, routed)), round(float(np.mean(routed)), 1)])
    columns = ["kind", "questions", "plans not fully usable", "with a route that leads somewhere", "nodes by routes"]
    note = "Nodes by routes: the mean over the kind's questions, of at most as many candidates as are kept."
    stage.show(Table(title=f"Candidates by {found.planner}", columns=columns, rows=rows, note=note))
    led = sum(row[3] for row in rows)
    stage.headline(f"questions that {found.planner} lead through the graph", f"{led:,} of {len(asked):,}")
