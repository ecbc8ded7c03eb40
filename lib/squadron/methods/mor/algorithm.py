"""Mixed traversal: answers reached over the edges of a graph and by the words of its texts, layer by layer (section 3.2
of the paper). One question at a time, in arrays; what a word scores is computed once for a question and a type.

L nodes of a layer, C candidates, T = steps + 1 places of a path, padded on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from squadron.core.config import Config
from squadron.methods.mor.plans import Plan, Route
from squadron.retrieval.graph import KnowledgeBase, TypedWords

PAD = -1


class TraversalConfig(Config):
    """How far a question is followed. The numbers are the published code's."""

    seeds: int = Field(5, ge=1, description="nodes found by words at a route's start")
    hits: int = Field(10, ge=0, description="nodes found by words at a later type of which something is known")
    steps: int = Field(2, ge=0, le=6, description="edges of a route at most; longer ones are cut at their start")
    top: int = Field(100, ge=1, description="candidates kept for a question, filled up by words")


@dataclass(frozen=True, eq=False)
class Candidates:
    """What was found for a question, the best first: those that a route led to, then those found by words alone, each
    by the dense score.

    `path_CT` holds the places of the way to each, the last the candidate itself, and `score_CT` what words score at
    them; both are padded on the left. `routed_C` says whether a route led there.
    """

    place_C: np.ndarray
    path_CT: np.ndarray
    score_CT: np.ndarray
    dense_C: np.ndarray
    routed_C: np.ndarray

    def __len__(self) -> int:
        return len(self.place_C)


@dataclass(frozen=True)
class Layer:
    """The nodes that a route has reached after some steps. `parent_L` is the number of the node before in the layer
    before, or -1 where the path begins; `score_L` what words score, not a number where only an edge led there."""

    place_L: np.ndarray
    parent_L: np.ndarray
    score_L: np.ndarray


@dataclass
class Asked:
    """A question with what words score for it, computed once for each type and text."""

    words: TypedWords
    query: str
    plan: Plan
    _scores: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def scores(self, kind: str, *, restricted: bool) -> np.ndarray:
        """What each node of a type scores for the question, with what is known of that type if `restricted`."""
        text = f"{self.query} {self.plan.known(kind)}" if restricted else self.query
        if (kind, text) not in self._scores:
            self._scores[kind, text] = self.words.scores(kind, text)
        return self._scores[kind, text]

    def best(self, kind: str, k: int, *, restricted: bool) -> tuple[np.ndarray, np.ndarray]:
        """The places of the best nodes of a type, and their scores."""
        return self.words.best(kind, self.scores(kind, restricted=restricted), k)


def search(
    graph: KnowledgeBase,
    words: TypedWords,
    query: str,
    plan: Plan,
    targets: Sequence[str],
    config: TraversalConfig,
    dense: Callable[[np.ndarray], np.ndarray],
) -> Candidates:
    """Candidates for a question by a plan that was validated. `dense` scores places for the question."""
    asked = Asked(words, query, plan)
    routes = [path_CT for route in plan.routes if len(path_CT := follow(graph, asked, route, config))]
    places = merge([path_CT[:, -1, 0].astype(np.int64) for path_CT in routes])
    found = _first_paths(routes, places, config.steps + 1)
    filled = _fill(asked, targets, config.top, found)
    every = np.concatenate([found, filled])
    place_C = every[:, -1, 0].astype(np.int64)
    routed_C = np.arange(len(every)) < len(found)
    dense_C = dense(place_C) if len(place_C) else np.zeros(0)
    order = np.lexsort((place_C, -dense_C, ~routed_C))[: config.top]
    path_CT, score_CT = every[order, :, 0].astype(np.int64), every[order, :, 1]
    _score_traversed(graph, asked, path_CT, score_CT)
    return Candidates(place_C[order], path_CT, score_CT, dense_C[order], routed_C[order])


def follow(graph: KnowledgeBase, asked: Asked, route: Route, config: TraversalConfig) -> np.ndarray:
    """The paths to all nodes that a route leads to, (C, T, 2): places and scores. None of them where nothing is known
    of the start, or no word of it is found."""
    none = np.empty((0, config.steps + 1, 2))
    if not asked.plan.known(route.types[0]):
        return none
    layers = [_start(*asked.best(route.types[0], config.seeds, restricted=True))]
    for relation, kind in zip(route.relations, route.types[1:], strict=True):
        layers.append(_step(graph, asked, layers[-1], relation, kind, config.hits))
    return _paths(layers, config.steps + 1) if len(layers[-1].place_L) else none


def merge(routes: Sequence[np.ndarray]) -> np.ndarray:
    """The places that all routes lead to, ascending; where there are none, those that any leads to."""
    if not routes:
        return np.empty(0, np.int64)
    common = routes[0]
    for places in routes[1:]:
        common = np.intersect1d(common, places)
    return np.unique(common) if len(common) else np.unique(np.concatenate(routes))


def _start(place_L: np.ndarray, score_L: np.ndarray) -> Layer:
    return Layer(place_L, np.full(len(place_L), PAD), score_L.astype(float))


def _step(graph: KnowledgeBase, asked: Asked, layer: Layer, relation: str | None, kind: str, hits: int) -> Layer:
    """The next layer: all neighbours, each by the first path that came to it, and what words find of the type if
    something is known of it. A node that words find begins a path of its own, even if an edge led to it, too."""
    near = graph.neighbours(layer.place_L, relation, kind)
    _, first = np.unique(near.place_E, return_index=True)
    first.sort()
    place_L, parent_L = near.place_E[first], near.row_E[first]
    score_L = np.full(len(place_L), np.nan)
    if not hits or not asked.plan.known(kind):
        return Layer(place_L, parent_L, score_L)
    started = _start(*asked.best(kind, hits, restricted=True))
    kept = ~np.isin(place_L, started.place_L)
    return Layer(
        np.concatenate([place_L[kept], started.place_L]),
        np.concatenate([parent_L[kept], started.parent_L]),
        np.concatenate([score_L[kept], started.score_L]),
    )


def _paths(layers: Sequence[Layer], length: int) -> np.ndarray:
    """From where each node of the last layer was reached."""
    last = layers[-1]
    found = np.full((len(last.place_L), length, 2), float(PAD))
    at_C = np.arange(len(last.place_L))
    for back, layer in enumerate(reversed(layers)):
        there = at_C >= 0
        found[there, length - 1 - back, 0] = layer.place_L[at_C[there]]
        found[there, length - 1 - back, 1] = layer.score_L[at_C[there]]
        at_C[there] = layer.parent_L[at_C[there]]
    return found


def _first_paths(routes: Sequence[np.ndarray], places: np.ndarray, length: int) -> np.ndarray:
    """The path to each place by the first route that has one."""
    if not routes:
        return np.empty((0, length, 2))
    every = np.concatenate(routes)
    known, first = np.unique(every[:, -1, 0].astype(np.int64), return_index=True)
    found: np.ndarray = every[first[np.searchsorted(known, places)]]
    return found


def _fill(asked: Asked, targets: Sequence[str], top: int, found: np.ndarray) -> np.ndarray:
    """Paths of one node each to what words find among the target types, until there are `top` candidates."""
    parts = [asked.best(kind, top, restricted=False) for kind in targets]
    places, scores = (np.concatenate(some) for some in zip(*parts, strict=True))
    new = ~np.isin(places, found[:, -1, 0].astype(np.int64))
    order = np.lexsort((places[new], -scores[new]))[: max(top - len(found), 0)]
    filled = np.full((len(order), found.shape[1], 2), float(PAD))
    filled[:, -1, 0], filled[:, -1, 1] = places[new][order], scores[new][order]
    return filled


def _score_traversed(graph: KnowledgeBase, asked: Asked, path_CT: np.ndarray, score_CT: np.ndarray) -> None:
    """Give the nodes to which an edge alone led what the question's words score at them, and padding 0."""
    traversed_CT = np.isnan(score_CT)
    for kind in {graph.type_of(int(place)) for place in path_CT[traversed_CT]}:
        number = graph.schema.types.index(kind)
        own_CT = traversed_CT & (graph.type_N[np.maximum(path_CT, 0)] == number)
        score_CT[own_CT] = asked.scores(kind, restricted=False)[graph.rank_N[path_CT[own_CT]]]
    score_CT[path_CT == PAD] = 0.0
