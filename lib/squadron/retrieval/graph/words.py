"""Nodes found by words, among those of one type. Q queries, K places, L nodes of a type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from squadron.core.folder import Folder
from squadron.retrieval.bm25 import Bm25, Bm25Config, read_words, write_words
from squadron.retrieval.graph.knowledge import KnowledgeBase
from squadron.retrieval.ranking import Ranking, top


class TypedWords:
    """BM25 over the names and texts of each type of nodes; how rare a word is, is counted within the type."""

    def __init__(self, graph: KnowledgeBase, indexes: dict[str, Bm25]) -> None:
        self._graph, self._indexes = graph, indexes
        self._places = {kind: graph.nodes(kind) for kind in indexes}

    @classmethod
    def build(cls, graph: KnowledgeBase, config: Bm25Config | None = None) -> TypedWords:
        """Index all types of a graph."""
        texts = {kind: [node_text(graph, int(place)) for place in graph.nodes(kind)] for kind in graph.schema.types}
        return cls(graph, {kind: Bm25(some, config) for kind, some in texts.items()})

    def scores(self, kind: str, query: str) -> np.ndarray:
        """What each node of a type scores for a query, in the order of `KnowledgeBase.nodes`; 0 where no word of the
        query stands in it."""
        return self._indexes[kind].scores(query)

    def search(self, kind: str, queries: Sequence[str], k: int) -> Ranking:
        """The `k` best nodes of a type for each query, by their places in the graph; those without any of its words
        are left out."""
        found = Ranking.empty(len(queries), k)
        for row, query in enumerate(queries):
            places, scores = self.best(kind, self.scores(kind, query), k)
            found.places_QK[row, : len(places)], found.scores_QK[row, : len(places)] = places, scores
        return found

    def best(self, kind: str, scores_L: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The places of the `k` best of a type by such scores, and these."""
        ranks = top(scores_L, k)
        ranks = ranks[scores_L[ranks] > 0]
        return self._places[kind][ranks], scores_L[ranks]

    def save(self, folder: Folder) -> None:
        """Write the words of all types."""
        for number, index in enumerate(self._indexes.values()):
            write_words(folder / str(number), index.words)

    @classmethod
    def open(cls, folder: Folder, graph: KnowledgeBase, config: Bm25Config | None = None) -> TypedWords:
        """What was saved, of the same graph."""
        kinds: Iterable[tuple[int, str]] = enumerate(graph.schema.types)
        return cls(graph, {kind: Bm25((), config, words=read_words(folder / str(number))[0]) for number, kind in kinds})


def node_text(graph: KnowledgeBase, place: int) -> str:
    """What a node is searched by: its name, and its text unless that begins with the name."""
    name, text = graph.names[place], graph.texts[place]
    return text if text.startswith(name) else f"{name}\n{text}"
