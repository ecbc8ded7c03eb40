"""What the stages of a ToolRet run hand to each other. Q queries, K tools of a ranking, D tools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.data.rows import RowsFile
from squadron.evaluate.summary import Estimate
from squadron.retrieval.documents import Document, Query
from squadron.retrieval.ranking import Ranking
from squadron.retrieval.stored import StoredRanking

TOOL_TYPES = {"id": "string", "category": "string", "name": "string", "text": "string", "described": "bool"}
QUERY_TYPES = {
    "id": "string", "category": "string", "task": "string", "text": "string", "instruction": "string",
    "relevant": "json",
}  # fmt: skip


class Benchmark(Config):
    """Tools and queries that have been read and checked."""

    tools: RowsFile
    queries: RowsFile
    categories: tuple[str, ...]
    instructed: int

    def documents(self, run: Folder) -> list[Document]:
        """All tools, in the order of their sets and files."""
        return [Document(*row) for row in self.tools.rows(run).columns("id", "text")]

    def asked(self, run: Folder) -> list[Query]:
        """All queries that some tool answers."""
        rows = self.queries.rows(run).columns("id", "text", "relevant", "instruction")
        return [Query(*row) for row in rows]

    def groups(self, run: Folder, corpus: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Which tools (their places) are searched by which queries (theirs)."""
        of_D, of_Q = (np.array([one for (one,) in file.rows(run).columns("category")]) for file in
                      (self.tools, self.queries))  # fmt: skip
        if corpus == "together":
            return [(np.arange(len(of_D)), np.arange(len(of_Q)))]
        return [(np.flatnonzero(of_D == one), np.flatnonzero(of_Q == one)) for one in self.categories]


class Ranked(StoredRanking):
    """What one method found: places of tools and their scores as .npy files, (queries, top). `failed` queries, by their
    places, have no ranking and count for no measure."""

    method: str
    instructed: bool
    failed: tuple[int, ...] = ()

    @staticmethod
    def store(stage: Stage, method: str, instructed: bool, ranking: Ranking, failed: Sequence[int] = ()) -> Ranked:
        """Write a ranking into the stage's folder."""
        return Ranked.write(stage, ranking, method=method, instructed=instructed, failed=tuple(failed))

    @property
    def label(self) -> str:
        """What it is called among others."""
        return label_of(self.method, self.instructed)


def label_of(method: str, instructed: bool) -> str:
    """What a method is called in a setting."""
    return f"{method}, with instructions" if instructed else method


class Latency(Config):
    """What one query takes by itself."""

    seconds: dict[str, float]


class Measured(Config):
    """A method's macro average over categories, and the values of each."""

    method: str
    instructed: bool
    ndcg: Estimate
    completeness: Estimate
    by_category: dict[str, tuple[Estimate, Estimate]]


class Comparison(Config):
    """All methods, and every value of every query as rows of an Arrow file."""

    methods: tuple[Measured, ...]
    values: RowsFile
