"""What a MoR run draws and serves, next to what it stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.panels import Paths
from squadron.core.run_reader import outputs
from squadron.methods.mor.endpoint import GraphSearchRequest, GraphServer, services
from squadron.methods.mor.records import Found, Knowledge, Ranked
from squadron.methods.mor.report import gallery
from squadron.retrieval.graph import KnowledgeBase


@pytest.fixture(scope="module")
def run(smoke_run: Callable[[str], Path]) -> Folder:
    return Folder(smoke_run("mor"))


@pytest.fixture(scope="module")
def server(run: Folder) -> GraphServer:
    opened: GraphServer = services(run).services[0].build()
    return opened


@pytest.fixture(scope="module")
def knowledge(run: Folder) -> Knowledge:
    return outputs(run, "read_knowledge", Knowledge)[-1]


def request(query: str, **more: Any) -> GraphSearchRequest:
    return GraphSearchRequest.model_validate({"model": "m", "query": query, **more})


def connected(graph: KnowledgeBase, first: str, relation: str, second: str) -> bool:
    """Whether an edge of this relation joins two nodes, by what the nodes have as neighbours."""
    places = (graph.place(first), graph.place(second))
    near = graph.neighbours(np.array(places[:1]), relation, graph.type_of(places[1]))
    return places[1] in near.place_E


def test_a_served_question_has_the_answers_of_the_run(run: Folder, server: GraphServer, knowledge: Knowledge) -> None:
    graph = knowledge.open_graph(run)
    ranked = outputs(run, "rerank", Ranked)[-1].ranking(run)
    asked = knowledge.asked(run)
    for row in (0, 1, 2, 3):
        found = server.search(request(asked[row].query, targets=asked[row].targets, k=5))
        expected = [place for place in ranked.places_QK[row, :5].tolist() if place >= 0]
        assert [graph.place(one.id) for one in found.data] == expected != []


def test_each_path_ends_at_its_answer_and_follows_edges_of_the_graph(
    run: Folder, server: GraphServer, knowledge: Knowledge
) -> None:
    graph = knowledge.open_graph(run)
    one = next(one for one in knowledge.asked(run) if one.kind == "two_hop")
    found = server.search(request(one.query, plan=json.loads(one.plan or "")))
    routed = [answer for answer in found.data if answer.routed]
    assert found.planned == "given" and routed
    for answer in found.data:
        assert answer.path[-1].id == answer.id and answer.path[0].relation is None
        for before, hop in zip(answer.path, answer.path[1:], strict=False):
            assert hop.relation is not None and connected(graph, before.id, hop.relation, hop.id)
    assert any(len(answer.path) == 3 for answer in routed)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"targets": ["author"]}, "'author' is no type of answers"),
        ({"plan": {"routes": [["gone", "paper"]]}}, "no type 'gone'"),
        ({"plan": {"routes": [["paper", "author"]]}}, "it ends at 'author'"),
        ({"plan": {"routes": [["topic", "institution", "paper"]]}}, "nothing leads from 'topic'"),
        ({"plan": {"routes": [["paper"]], "restriction": dict.fromkeys("abc", ["x" * 2000] * 8)}}, "too long"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_with_the_reason(server: GraphServer, more: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        server.search(request("anything", **more))


@pytest.mark.parametrize(
    "more",
    [{"k": 0}, {"k": 101}, {"query": " "}, {"query": "x" * 9000}, {"plan": {"routes": []}},
     {"plan": {"routes": [["paper"] * 25]}}, {"plan": {"routes": [["paper"]] * 33}}],
)  # fmt: skip
def test_sizes_are_bounded(more: Any) -> None:
    with pytest.raises(ValueError):
        request(**{"query": "anything", **more})


def test_the_gallery_draws_the_first_answers_in_their_order_and_marks_right_ones(
    run: Folder, knowledge: Knowledge
) -> None:
    graph, asked = knowledge.open_graph(run), {one.query: one for one in knowledge.asked(run, "test")}
    found = outputs(run, "search_graph", Found)[0].read(run)
    places = {one.id: found[one.id].place_C[::-1] for one in asked.values()}
    panels = [panel for panel in gallery(graph, list(asked.values()), found, places, 4) if isinstance(panel, Paths)]
    assert len({asked[panel.title].kind for panel in panels}) == len(panels) == 4
    for panel in panels:
        one = asked[panel.title]
        ends = places[one.id][:3].tolist()
        assert [chain.stops[-1].label for chain in panel.rows] == [graph.names[place] for place in ends]
        assert [chain.right for chain in panel.rows] == [graph.ids[place] in one.answers for place in ends]
        for chain in panel.rows:
            assert [stop.relation != "" for stop in chain.stops] == [False, *[True] * (len(chain.stops) - 1)]
