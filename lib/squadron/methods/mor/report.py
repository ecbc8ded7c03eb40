"""Panels of a MoR run that no other method has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from squadron.core.panels import Chain, Panel, Paths, Stop
from squadron.methods.mor.algorithm import PAD, Candidates
from squadron.methods.mor.records import Asked
from squadron.retrieval.graph import KnowledgeBase

_SHOWN, _CUT = 3, 150


def gallery(
    graph: KnowledgeBase,
    asked: Sequence[Asked],
    found: Mapping[str, Candidates],
    places: Mapping[str, np.ndarray],
    shown: int,
) -> list[Panel]:
    """The first answers to some questions, an even draw of their kinds, with the paths to them and what words score at
    each node. `places` are the answers of each question in their order."""
    panels: list[Panel] = []
    for one in _of_each_kind(asked, shown):
        candidates = found[one.id]
        row = {int(place): number for number, place in enumerate(candidates.place_C)}
        first = [int(place) for place in places[one.id][:_SHOWN] if int(place) in row]
        chains = [
            Chain(
                title=f"{number}",
                stops=_stops(graph, candidates.path_CT[row[place]], candidates.score_CT[row[place]]),
                right=graph.ids[place] in one.answers,
            )
            for number, place in enumerate(first, start=1)
        ]
        if chains:
            note = f"{one.kind}. Numbers are what words score at a node; what is right is marked."
            panels.append(Paths(title=one.query[:_CUT], rows=chains, note=note))
    return panels


def _of_each_kind(asked: Sequence[Asked], shown: int) -> list[Asked]:
    """The first questions of each kind in turn."""
    kinds = list(dict.fromkeys(one.kind for one in asked))
    queues = [[one for one in asked if one.kind == kind] for kind in kinds]
    turns = (queue[turn] for turn in range(shown) for queue in queues if turn < len(queue))
    return [one for _, one in zip(range(shown), turns, strict=False)]


def _stops(graph: KnowledgeBase, path_T: np.ndarray, score_T: np.ndarray) -> list[Stop]:
    return list(_boxes(graph, [int(one) for one in path_T if one != PAD], score_T[path_T != PAD].tolist()))


def _boxes(graph: KnowledgeBase, path: Sequence[int], scores: Sequence[float]) -> Iterator[Stop]:
    for step, (place, score) in enumerate(zip(path, scores, strict=True)):
        relation = graph.relation(path[step - 1], place) if step else None
        yield Stop(
            label=graph.names[place] or graph.ids[place], type=graph.type_of(place), score=round(score, 1),
            relation=relation.name if relation else "",
        )  # fmt: skip
