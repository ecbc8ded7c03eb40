"""Made-up graphs: the answers are those of plain loops, and neither words nor edges alone find them all."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from squadron.methods.mor.algorithm import TraversalConfig, search
from squadron.methods.mor.plans import Plan, Route, validate_plan
from squadron.retrieval.graph import KnowledgeBase, TypedWords
from squadron.retrieval.graph.made_up import KINDS, MadeUpConfig, make_graph
from squadron.retrieval.graph.questions import Question

CONFIG = MadeUpConfig(nodes=1_500, questions=200)


@pytest.fixture(scope="module")
def made() -> tuple[KnowledgeBase, list[Question]]:
    return make_graph(CONFIG)


def near(graph: KnowledgeBase, place: int, kind: str) -> list[int]:
    return graph.neighbours(np.array([place]), None, kind).place_E.tolist()


def answers(graph: KnowledgeBase, question: Question) -> set[str]:
    """All papers of which a question holds, tried one by one."""
    said = {kind: texts[0] for kind, texts in question.restriction.items()}
    found = set()
    for paper in graph.nodes("paper").tolist():
        authors = near(graph, paper, "author")
        houses = [house for author in authors for house in near(graph, author, "institution")]
        linked = {"author": authors, "institution": houses, "topic": near(graph, paper, "topic")}
        subject = graph.texts[paper].removeprefix("A paper on ").partition(".")[0]
        if (question.kind == "intersection" or subject in question.query) and all(
            said[kind] in [graph.names[one] for one in some] for kind, some in linked.items() if kind in said
        ):
            found.add(graph.ids[paper])
    return found


def test_answers_are_all_papers_of_which_the_question_holds(made: tuple[KnowledgeBase, list[Question]]) -> None:
    graph, questions = made
    assert {one.kind for one in questions} == set(KINDS)
    for question in questions[:40]:
        assert set(question.answers) == answers(graph, question) != set()
        assert all(text in question.query for texts in question.restriction.values() for text in texts)


def test_neither_words_nor_edges_alone_find_what_both_find(made: tuple[KnowledgeBase, list[Question]]) -> None:
    graph, questions = made
    words = TypedWords.build(graph)
    first: dict[str, list[bool]] = defaultdict(list)
    for question in questions:
        routes = tuple(Route.of(*route) for route in question.routes)
        plan, dropped = validate_plan(Plan(routes, question.restriction), graph.schema, question.targets)
        assert not dropped and len(plan.routes) == len(routes)
        scores_N = np.zeros(len(graph))
        scores_N[graph.nodes("paper")] = words.scores("paper", question.query)
        found = search(graph, words, question.query, plan, ("paper",), TraversalConfig(), lambda some: scores_N[some])  # noqa: B023
        by_words = words.search("paper", [question.query], 1).places_QK[0, 0]
        led = [place for place, path in zip(found.place_C, found.path_CT, strict=True) if path[-2] >= 0]
        by_both = led[0] if led else found.place_C[0]
        by_edges = min(led, default=-1)  # an order that knows nothing of words
        for way, place in (("words", by_words), ("edges", by_edges), ("both", by_both)):
            first[way, question.kind].append(place < len(graph) and graph.ids[int(place)] in question.answers)
    right = {key: float(np.mean(some)) for key, some in first.items()}
    assert right["words", "text"] > 0.9 and right["edges", "text"] == 0
    for kind in ("one_hop", "two_hop"):
        assert right["both", kind] > 0.6, right
        assert max(right["words", kind], right["edges", kind]) < right["both", kind] - 0.2, right
    assert right["words", "intersection"] < 0.1 < 0.3 < right["edges", "intersection"], right


def test_the_same_settings_make_the_same_graph_and_another_seed_another() -> None:
    small = MadeUpConfig(nodes=200, questions=8)
    (one, asked), (same, again), (other, _) = (
        make_graph(config) for config in (small, small, small.model_copy(update={"seed": 1}))
    )
    assert asked == again and list(one.texts) == list(same.texts) and list(one.texts) != list(other.texts)
    np.testing.assert_array_equal(one.neighbours_E, same.neighbours_E)


def test_a_graph_is_as_large_as_it_is_asked_to_be() -> None:
    for nodes, edges in ((100, 2), (100, 8), (5_000, 3)):
        graph, questions = make_graph(MadeUpConfig(nodes=nodes, edges_per_node=edges, questions=7))
        assert len(graph) == nodes and nodes * edges * 0.7 < graph.edges <= nodes * edges and len(questions) == 7
        assert all(question.answers for question in questions)
