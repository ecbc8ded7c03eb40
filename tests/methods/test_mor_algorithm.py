"""Mixed traversal against the rules of the paper, played with dictionaries and loops."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from squadron.methods.mor.algorithm import TraversalConfig, merge, search
from squadron.methods.mor.plans import Plan, Route, validate_plan
from squadron.retrieval.bm25 import Bm25
from squadron.retrieval.graph import Edge, KnowledgeBase, Node, TypedWords

WORDS = [f"word{number}" for number in range(14)]
TYPES = ("paper", "author", "field")


class Reference:
    """The same by loops over every candidate."""

    def __init__(self, nodes: list[Node], edges: list[Edge]) -> None:
        self.nodes = nodes
        self.kind = {node.id: node.type for node in nodes}
        self.number = {node.id: place for place, node in enumerate(nodes)}
        self.edges = edges
        self.of = {kind: [node for node in nodes if node.type == kind] for kind in TYPES}
        self.index = {kind: Bm25([f"{one.name}\n{one.text}" for one in some]) for kind, some in self.of.items() if some}

    def score(self, name: str, text: str) -> float:
        kind = self.kind[name]
        place = [node.id for node in self.of[kind]].index(name)
        found = self.index[kind].search([text], len(self.of[kind]))
        return {int(p): float(s) for p, s in zip(found.places_QK[0], found.scores_QK[0], strict=True)}.get(place, 0.0)

    def best(self, kind: str, text: str, k: int) -> list[str]:
        scored = [(self.score(node.id, text), node.id) for node in self.of[kind]]
        order = sorted((-score, self.number[name], name) for score, name in scored if score > 0)
        return [name for _, _, name in order[:k]]

    def near(self, name: str, relation: str | None, kind: str) -> list[str]:
        found = {e.target for e in self.edges if e.source == name and relation in (None, e.relation)}
        found |= {e.source for e in self.edges if e.target == name and relation in (None, e.relation)}
        return sorted((one for one in found if self.kind[one] == kind), key=self.number.__getitem__)

    def follow(self, query: str, plan: Plan, route: Route, config: TraversalConfig) -> dict[str, list[str]]:
        """The path to each node that a route leads to."""
        start = route.types[0]
        if not plan.restriction.get(start):
            return {}
        known = {kind: f"{query} {''.join(plan.restriction.get(kind, ()))}" for kind in TYPES}
        paths = {name: [name] for name in self.best(start, known[start], config.seeds)}
        for relation, kind in zip(route.relations, route.types[1:], strict=True):
            new: dict[str, list[str]] = {}
            for name, path in paths.items():
                for other in self.near(name, relation, kind):
                    new.setdefault(other, [*path, other])
            if plan.restriction.get(kind):
                for other in self.best(kind, known[kind], config.hits):
                    new.pop(other, None)
                    new[other] = [other]
            paths = new
        return paths

    def search(self, query: str, plan: Plan, target: str, config: TraversalConfig, dense: np.ndarray) -> Any:
        routes = [paths for route in plan.routes if (paths := self.follow(query, plan, route, config))]
        places = set.intersection(*map(set, routes)) if routes else set()
        places = places or set().union(*routes)
        found = {name: next(paths[name] for paths in routes if name in paths) for name in places}
        fill = [one for one in self.best(target, query, config.top) if one not in found]
        fill = fill[: max(config.top - len(found), 0)]
        rows = [(0, -dense[self.number[name]], self.number[name], path) for name, path in found.items()]
        rows += [(1, -dense[self.number[name]], self.number[name], [name]) for name in fill]
        return [(row[2], [self.number[one] for one in row[3]], row[0] == 0) for row in sorted(rows)[: config.top]]


def world(seed: int) -> tuple[list[Node], list[Edge], str, Plan]:
    """A random graph, a question and a plan."""
    draw = random.Random(seed)
    nodes = [
        Node(f"n{place}", draw.choice(TYPES), f"name{place}", " ".join(draw.choices(WORDS, k=draw.randint(1, 6))))
        for place in range(draw.randint(3, 30))
    ]
    edges = [
        Edge(draw.choice(nodes).id, draw.choice(["r", "s"]), draw.choice(nodes).id) for _ in range(draw.randint(0, 90))
    ]
    routes = [
        Route.of(*(draw.choice(TYPES) for _ in range(draw.randint(0, 2))), "paper") for _ in range(draw.randint(0, 3))
    ]
    known = {kind: tuple(draw.choices(WORDS, k=draw.randint(1, 2))) for kind in TYPES if draw.random() < 0.6}
    return nodes, edges, " ".join(draw.choices(WORDS, k=draw.randint(1, 4))), Plan(tuple(routes), known)


def test_it_finds_what_loops_over_every_candidate_find() -> None:
    routed = 0
    for seed in range(500):
        nodes, edges, query, wanted = world(seed)
        if not any(node.type == "paper" for node in nodes):
            continue
        graph = KnowledgeBase.build(nodes, edges)
        plan, _ = validate_plan(wanted, graph.schema, ["paper"])
        config = TraversalConfig(seeds=1 + seed % 5, hits=seed % 4, top=(3, 100)[seed % 2])
        if not config.hits:
            config = config.model_copy(update={"hits": 10})
        dense_N = np.random.default_rng(seed).integers(0, 5, len(nodes)).astype(float)  # with ties
        found = search(graph, TypedWords.build(graph), query, plan, ["paper"], config, lambda places: dense_N[places])  # noqa: B023
        rows = zip(found.place_C.tolist(), found.path_CT.tolist(), found.routed_C.tolist(), strict=True)
        reference = Reference(nodes, edges)
        expected = reference.search(query, plan, "paper", config, dense_N)
        assert [(place, [one for one in path if one >= 0], routed) for place, path, routed in rows] == expected, seed
        for path_T, score_T in zip(found.path_CT.tolist(), found.score_CT.tolist(), strict=True):
            for place, score in zip(path_T, score_T, strict=True):
                texts = [query, f"{query} {plan.known(nodes[place].type)}"]
                scores = [reference.score(nodes[place].id, text) for text in texts] if place >= 0 else [0.0]
                assert any(math.isclose(score, one, rel_tol=1e-6, abs_tol=1e-9) for one in scores)
        routed += int(found.routed_C.sum())
    assert routed > 300, "plans lead somewhere"


def test_routes_that_agree_on_nothing_are_joined() -> None:
    assert merge([np.array([3, 1]), np.array([1, 2])]).tolist() == [1]
    assert merge([np.array([3, 1]), np.array([2])]).tolist() == [1, 2, 3]
    assert merge([]).tolist() == []


@pytest.mark.parametrize("known", [{}, {"author": ("nobody",)}])
def test_without_a_start_it_falls_back_to_text(known: dict[str, tuple[str, ...]]) -> None:
    nodes = [Node("p", "paper", "Engines", "of Ada"), Node("a", "author", "Ada", "x"), Node("q", "paper", "Looms", "y")]
    graph = KnowledgeBase.build(nodes, [Edge("a", "writes", "q")])
    plan = Plan((Route.of("author", "paper"),), known)
    found = search(
        graph, TypedWords.build(graph), "engines", plan, ["paper"], TraversalConfig(), lambda p: np.zeros(len(p))
    )
    assert found.place_C.tolist() == [0] and not found.routed_C.any()


def test_the_published_numbers_of_the_traversal() -> None:
    assert TraversalConfig().model_dump() == {"seeds": 5, "hits": 10, "steps": 2, "top": 100}
