"""A graph and questions made up for a rehearsal, where those that a configuration names cannot be read here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache

from squadron.core.rehearsal import Replies
from squadron.retrieval.graph.made_up import MadeUpConfig, make_graph

REPLIES: Replies = (
    ("", ('{"routes": [["author", "paper"]], "restriction": {"author": ["Ada"]}}', "I cannot plan.")),
)  # fmt: skip


@cache
def made_up_files() -> Mapping[str, str]:
    """Lines of nodes, edges and questions, in the plain form."""
    graph, questions = make_graph(MadeUpConfig(nodes=200, questions=40))
    nodes = [
        {"id": graph.ids[place], "type": graph.type_of(place), "name": graph.names[place], "text": graph.texts[place]}
        for place in range(len(graph))
    ]
    edges = []
    for relation in graph.schema.relations:
        places = graph.nodes(relation.source)
        near = graph.neighbours(places, relation.name, relation.target)
        for row, place in zip(near.row_E.tolist(), near.place_E.tolist(), strict=True):
            ends = {"source": graph.ids[int(places[row])], "target": graph.ids[place]}
            edges.append({**ends, "relation": relation.name})
    asked = [
        {
            "id": one.id, "kind": one.kind, "query": one.query, "answers": list(one.answers),
            "plan": {"routes": [list(route) for route in one.routes], "restriction": one.restriction},
        }
        for one in questions
    ]  # fmt: skip
    return {"nodes": _lines(nodes), "edges": _lines(edges), "questions": _lines(asked)}


def _lines(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)
