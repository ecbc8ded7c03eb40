"""A graph in arrays answers as plain dictionaries do, and the same after it was written down."""

from __future__ import annotations

import gzip
import json
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.retrieval.graph import Edge, KnowledgeBase, Node, Relation, TypedWords
from tests.conftest import REAL_DATA

TYPES, RELATIONS = ("paper", "author", "field"), ("writes", "cites", "about")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Node], list[Edge]]:
    """Some nodes of a few types, and edges of any kind among them: loops and repeated ones too."""
    kinds = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=12))
    nodes = [Node(f"n{place}", kind, f"Node {place}", f"text {place}") for place, kind in enumerate(kinds)]
    places = st.integers(0, len(nodes) - 1)
    edges = draw(st.lists(st.tuples(places, st.sampled_from(RELATIONS), places), max_size=40))
    return nodes, [Edge(nodes[source].id, name, nodes[target].id) for source, name, target in edges]


def near(nodes: list[Node], edges: list[Edge], name: str, relation: str | None, target: str) -> list[str]:
    """Neighbours by plain loops."""
    kinds = {node.id: node.type for node in nodes}
    found = set()
    for edge in edges:
        if relation in (None, edge.relation):
            found |= {edge.target} if edge.source == name else set()
            found |= {edge.source} if edge.target == name else set()
    return sorted((one for one in found if kinds[one] == target), key=lambda one: int(one[1:]))


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_neighbours_are_those_of_plain_loops(given_graph: tuple[list[Node], list[Edge]]) -> None:
    nodes, edges = given_graph
    graph = KnowledgeBase.build(nodes, edges)
    for kind in graph.schema.types:
        places = graph.nodes(kind)[::-1]
        for relation in (None, *RELATIONS):
            for target in TYPES:
                found = defaultdict(list)
                for row, place in zip(
                    *(one.tolist() for one in graph.neighbours(places, relation, target)), strict=True
                ):
                    found[row].append(graph.ids[place])
                for row, place in enumerate(places.tolist()):
                    assert found[row] == near(nodes, edges, graph.ids[place], relation, target)
    kinds = {node.id: node.type for node in nodes}
    assert set(graph.schema.relations) == {Relation(kinds[e.source], e.relation, kinds[e.target]) for e in edges}
    assert [graph.place(node.id) for node in nodes] == list(range(len(nodes)))


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_a_graph_is_the_same_when_it_is_opened_again(given_graph: tuple[list[Node], list[Edge]]) -> None:
    import tempfile

    graph = KnowledgeBase.build(*given_graph)
    with tempfile.TemporaryDirectory() as place:
        graph.save(Folder(place))
        TypedWords.build(graph).save(Folder(place) / "words")
        opened = KnowledgeBase.open(Folder(place))
        words = TypedWords.open(Folder(place) / "words", opened)
        assert opened.schema == graph.schema and opened.starts == graph.starts and len(opened) == len(graph)
        for name in ("ids", "names", "texts"):
            assert list(getattr(opened, name)) == list(getattr(graph, name))
        for name in ("type_N", "rank_N", "order_N", "ends", "neighbours_E"):
            assert np.array_equal(getattr(opened, name), getattr(graph, name))
        with pytest.raises(ValueError, match="read-only"):
            opened.type_N[0] = 1
        for kind in graph.schema.types:
            assert np.array_equal(
                words.scores(kind, "node 1 text"), TypedWords.build(graph).scores(kind, "node 1 text")
            )


def test_arrays_leave_a_pickle_out_of_band() -> None:
    nodes = [Node(str(n), "a", "name", "x" * 1000) for n in range(1000)]
    graph = KnowledgeBase.build(nodes, [Edge(str(n), "r", str((n * 7) % 1000)) for n in range(1000)])
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(graph, protocol=5, buffer_callback=buffers.append)
    assert len(body) < 10_000 < sum(len(one.raw()) for one in buffers)
    assert list(pickle.loads(body, buffers=buffers).ids) == list(graph.ids)


def test_words_are_found_among_nodes_of_a_type_alone() -> None:
    nodes = [
        Node("p", "paper", "Engines", "notes on engines"), Node("a", "author", "Ada", "engines"),
        Node("q", "paper", "Looms", "weaving"),
    ]  # fmt: skip
    words = TypedWords.build(KnowledgeBase.build(nodes, []))
    assert words.search("paper", ["engines", "nothing here"], 5).places_QK.tolist() == [[0, -1, -1, -1, -1], [-1] * 5]
    assert words.search("author", ["engines"], 1).places_QK.tolist() == [[1]]


@pytest.mark.parametrize(
    ("nodes", "edges", "said"),
    [
        ([Node("a", "x", "", "t"), Node("a", "x", "", "t")], [], "'a' stands for two nodes"),
        ([Node("a", "x", "", "t")], [Edge("a", "r", "b")], "leads to 'b', which is no node"),
    ],
)
def test_what_is_no_graph_is_refused(nodes: list[Node], edges: list[Edge], said: str) -> None:
    with pytest.raises(InputError, match=said):
        KnowledgeBase.build(nodes, edges)


def test_a_folder_without_a_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no graph"):
        KnowledgeBase.open(Folder(tmp_path))


@pytest.mark.skipif(not (REAL_DATA / "mor").is_dir(), reason="the ATT&CK graph of the data folder is not here")
def test_attack_is_whole() -> None:
    def rows(name: str) -> list[list[str]]:
        with gzip.open(REAL_DATA / "mor" / f"attack_enterprise_{name}.jsonl.gz", "rt") as lines:
            return [json.loads(line) for line in lines]

    nodes = [Node(*(row[key] for key in ("id", "type", "name", "text"))) for row in rows("nodes")]  # type: ignore[call-overload]
    graph = KnowledgeBase.build(nodes, [Edge(*row) for row in rows("edges")])
    assert (len(graph), graph.edges) == (1757, 20102)
    assert graph.schema.between("technique", "mitigation") == ("mitigates",)
