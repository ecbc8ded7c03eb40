"""Panels of a MoR run that no other method has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from squadron.core.panels import Cell, Panel, Table
from squadron.methods.mor.algorithm import Candidates
from squadron.methods.mor.records import Asked
from squadron.retrieval.graph import KnowledgeBase

_SHOWN = 3


def gallery(
    graph: KnowledgeBase,
    asked: Sequence[Asked],
    found: Mapping[str, Candidates],
    places: Mapping[str, np.ndarray],
    shown: int,
) -> list[Panel]:
    """The first answers to some questions with the paths to them, and what words score at each node."""
    panels: list[Panel] = []
    for one in asked[:shown]:
        candidates = found[one.id]
        row = {int(place): number for number, place in enumerate(candidates.place_C)}
        rows: list[list[Cell]] = []
        for place in (int(place) for place in places[one.id][:_SHOWN] if int(place) in row):
            steps = zip(candidates.path_CT[row[place]].tolist(), candidates.score_CT[row[place]].tolist(), strict=True)
            path = " → ".join(_node(graph, step, score) for step, score in steps if step >= 0)
            rows.append([path, graph.ids[place] in one.answers])
        panels.append(Table(title=one.query[:120], columns=["path", "right"], rows=rows))
    return panels


def _node(graph: KnowledgeBase, place: int, score: float) -> str:
    return f"{graph.names[place] or graph.ids[place]} ({graph.type_of(place)}, {score:.1f})"
