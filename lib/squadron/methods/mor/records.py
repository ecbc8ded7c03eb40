"""What the stages of a MoR run hand to each other. C candidates, T places of a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from squadron.core.artifacts import Artifact
from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.data.rows import RowsFile
from squadron.methods.mor.algorithm import Candidates
from squadron.methods.mor.plans import EMPTY, Plan, PlanError, parse_plan, validate_plan
from squadron.retrieval.bm25 import Bm25Config
from squadron.retrieval.documents import Query
from squadron.retrieval.graph import KnowledgeBase, Schema, TypedWords
from squadron.retrieval.stored import StoredRanking
from squadron.retrieval.vectors import Vectors

QUESTION_TYPES = {
    "id": "string", "kind": "string", "part": "string", "query": "string", "targets": "json", "answers": "json",
    "plan": "string",
}  # fmt: skip
PLAN_TYPES = {"id": "string", "plan": "string", "error": "string"}
CANDIDATE_TYPES = {
    "id": "string", "places": "list<int64>", "paths": "json", "scores": "json", "dense": "list<float64>",
    "routed": "int64", "length": "int64",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A question of the run: its part, types of its answers, ids of the answers, and the plan given for it."""

    id: str
    kind: str
    part: str
    query: str
    targets: tuple[str, ...]
    answers: tuple[str, ...]
    plan: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Asked:
        """From a stored row."""
        lists = {name: tuple(row[name]) for name in ("targets", "answers")}
        return cls(**{**row, **lists})

    def judged(self) -> Query:
        """As measures of rankings take it."""
        return Query(self.id, self.query, dict.fromkeys(self.answers, 1))


class Knowledge(Config):
    """A graph with its words, as folders, and what is asked of it."""

    graph: Artifact
    words: Artifact
    bm25: Bm25Config
    questions: RowsFile
    targets: tuple[str, ...]

    def open_graph(self, run: Folder) -> KnowledgeBase:
        """The graph, mapped into memory."""
        return KnowledgeBase.open(run / self.graph.path)

    def open_words(self, run: Folder, graph: KnowledgeBase) -> TypedWords:
        """Its words."""
        return TypedWords.open(run / self.words.path, graph, self.bm25)

    def asked(self, run: Folder, *parts: str) -> list[Asked]:
        """All questions of these parts, or of all."""
        rows = (Asked.of(row) for row in self.questions.rows(run))
        return [one for one in rows if not parts or one.part in parts]


class Plans(Config):
    """What a planner wrote for each question, in their order; nothing where it failed."""

    planner: str
    rows: RowsFile

    def read(self, run: Folder) -> dict[str, str | None]:
        """Texts by the questions' ids."""
        return dict(self.rows.rows(run).columns("id", "plan"))


def usable_plan(text: str | None, schema: Schema, targets: Sequence[str], steps: int) -> tuple[Plan, str]:
    """The plan that a text holds, and a reason where some of it, or all, cannot be used."""
    if text is None:
        return EMPTY, "no plan"
    try:
        plan, reasons = validate_plan(parse_plan(text), schema, targets, steps)
    except PlanError as error:
        return EMPTY, str(error)
    return plan, "; ".join(reasons)


class Embedded(Config):
    """Vectors of the nodes of the target types, in the order of their places, and of the questions."""

    nodes: Vectors
    questions: Vectors
    learned: bool = Field(False, description="the questions' were mapped")


class Found(Config):
    """Candidates of every question by one planner's plans, in the order of the questions."""

    planner: str
    rows: RowsFile

    def read(self, run: Folder) -> dict[str, Candidates]:
        """By the questions' ids."""
        return {row["id"]: candidates_of(row) for row in self.rows.rows(run)}


class Ranked(StoredRanking):
    """What one method ranks first for every question, in the order of the questions."""

    method: str


def row_of(name: str, found: Candidates) -> dict[str, Any]:
    """Candidates as a row."""
    return {
        "id": name,
        "places": found.place_C.tolist(),
        "paths": found.path_CT.tolist(),
        "scores": found.score_CT.tolist(),
        "dense": found.dense_C.tolist(),
        "routed": int(found.routed_C.sum()),
        "length": found.path_CT.shape[1],
    }


def candidates_of(row: Mapping[str, Any]) -> Candidates:
    """A row as candidates: those that a route led to stand first."""
    places_C = np.asarray(row["places"], np.int64)
    length = row["length"]
    return Candidates(
        places_C,
        np.asarray(row["paths"], np.int64).reshape(len(places_C), length),
        np.asarray(row["scores"], float).reshape(len(places_C), length),
        np.asarray(row["dense"], float),
        np.arange(len(places_C)) < row["routed"],
    )
