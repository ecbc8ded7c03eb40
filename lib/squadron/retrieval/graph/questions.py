"""Questions to a graph, whose answers are nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Question:
    """A question, the types and ids of its answers, and how they are reached where that is known.

    `routes` lead over types of nodes to that of the answers, with names of relations between them where these are
    given; `restriction` holds texts that describe nodes of a type. `kind` names a group of questions in reports.
    """

    id: str
    kind: str
    query: str
    targets: tuple[str, ...]
    answers: tuple[str, ...]
    routes: tuple[tuple[str, ...], ...] = ()
    restriction: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
