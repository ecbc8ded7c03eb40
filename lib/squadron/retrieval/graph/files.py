"""Graphs and questions from files: JSON lines, JSON, CSV or Parquet, each row checked and refused by its file and line.

A node is `{id, type, name, text}`, an edge `{source, relation, target}` or, as a line of JSON, `[source, relation,
target]`. Graphs that are published as pickles are not read, since to open a pickle is to run it: docs/graphs.md says
how to write them out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from squadron.core.errors import InputError, suggest
from squadron.core.folder import Folder
from squadron.data.record_files import RecordsPath, read_json_text
from squadron.data.records import Record, read_records
from squadron.retrieval.graph.knowledge import KnowledgeBase, Node
from squadron.retrieval.graph.questions import Question
from squadron.retrieval.graph.schema import Schema
from squadron.retrieval.graph.texts import Texts

EDGE = ("source", "relation", "target")
MAX_TYPES = 1_000
_JSON_COLUMNS = ("answers", "answer_ids", "plan", "targets")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth")


def read_graph(nodes: RecordsPath, edges: RecordsPath) -> KnowledgeBase:
    """The graph of two files. A node without a name is called by its id; an edge that stands twice counts once.

    Raises InputError, with file and line, for an id that stands twice, a node without a type or a text, and an edge to
    no node; and for files without any.
    """
    given, places = _nodes(nodes)
    relations: dict[str, int] = {}
    ends = array("q")
    for record in _records(edges, EDGE):
        source, relation, target = (str(record.label(column)) for column in EDGE)
        for column, end in (("source", source), ("target", target)):
            if end not in places:
                fix = "leave this edge out, or give the node"
                raise InputError(f"the {column} {end!r} is no node", where=record.where, fix=fix)
        ends.extend((places[source], relations.setdefault(relation, len(relations)), places[target]))
    if not ends:
        raise InputError("the file holds no edges", where=str(edges), fix="give a line for each edge")
    ids, names, texts = (Texts.of(getattr(one, name) for one in given) for name in ("id", "name", "text"))
    edges_E3 = np.frombuffer(ends, np.int64).reshape(-1, len(EDGE))
    return KnowledgeBase.of_arrays([one.type for one in given], ids, names, texts, edges_E3, list(relations))


def read_questions(path: RecordsPath, graph: KnowledgeBase, index: str | None = None) -> list[Question]:
    """Questions `{id, query, answers}` with `kind`, `targets` and `plan` where they are given, or STaRK's table `id,
    query, answer_ids`. Of those, only the ones are kept whose ids a file `index` holds, one a line, if there is such.

    Raises InputError, with file and line, for an id that stands twice, an answer that is no node, and a plan that the
    graph cannot follow.
    """
    kept = None if index is None else _index(index)
    found: dict[str, Question] = {}
    for record in _records(path):
        one = _question(Record(record.where, _opened(record)), graph)
        if one.id in found:
            raise _twice(one.id, record)
        found[one.id] = one
    if kept is not None and (missing := [name for name in kept if name not in found]):
        raise InputError(f"no question has the id {missing[0]!r}", where=str(index), fix=suggest(missing[0], found))
    questions = [one for one in found.values() if kept is None or one.id in kept]
    if not questions:
        raise InputError("the file holds no questions", where=str(path), fix="give a line for each question")
    return questions


def _records(path: str, names: Sequence[str] = ()) -> Iterator[Record]:
    if str(path).endswith(_PICKLES):
        fix = "write it out as JSON lines: docs/graphs.md says how"
        raise InputError("pickles and files of torch are not read: to open one is to run it", where=str(path), fix=fix)
    return read_records(str(path), names=names)


def _nodes(path: RecordsPath) -> tuple[list[Node], dict[str, int]]:
    """The nodes, and their places by ids."""
    nodes: list[Node] = []
    places: dict[str, int] = {}
    types: dict[str, str] = {}
    for record in _records(path):
        name = str(record.label("id"))
        if name in places:
            raise _twice(name, record)
        places[name] = len(nodes)
        kind = record.text("type", blank=False)
        kind = types.setdefault(kind, kind)  # one text for all nodes of a type
        if len(types) > MAX_TYPES:
            fix = "give types as general as paper or author"
            raise InputError(f"there are more than {MAX_TYPES:,} types of nodes", where=record.where, fix=fix)
        shown = record.text("name", blank=False) if record.has("name") else name
        text = record.text("text", fix="give what is known of the node, its name at least", blank=False)
        nodes.append(Node(name, kind, shown, text))
    if not nodes:
        raise InputError("the file holds no nodes", where=str(path), fix="give a line for each node")
    return nodes, places


def _question(record: Record, graph: KnowledgeBase) -> Question:
    column = "answer_ids" if record.has("answer_ids") and not record.has("answers") else "answers"
    answers = tuple(dict.fromkeys(str(one) for one in record.labels(column)))
    for answer in answers:
        try:
            graph.place(answer)
        except KeyError:
            fix = "leave the question out, or give the node"
            raise InputError(f"the answer {answer!r} is no node", where=record.where, fix=fix) from None
    targets = tuple(record.texts("targets")) if record.has("targets") else ()
    for kind in targets:
        _check_type(kind, graph.schema, record.where)
    plan = record.record("plan") if record.has("plan") else None
    return Question(
        str(record.label("id")),
        record.text("kind", blank=False) if record.has("kind") else "question",
        record.text("query", blank=False),
        targets,
        answers,
        _routes(plan, graph.schema) if plan and plan.has("routes") else (),
        _restriction(plan, graph.schema) if plan and plan.has("restriction") else {},
    )


def _routes(plan: Record, schema: Schema) -> tuple[tuple[str, ...], ...]:
    """Routes of a plan: types, or types with relations between them."""
    return tuple(
        _route(Record(f"{plan.where}, routes {number}", {"route": route}), schema)
        for number, route in enumerate(plan.values["routes"] and plan.items("routes"), start=1)
    )


def _route(record: Record, schema: Schema) -> tuple[str, ...]:
    stops = record.texts("route")
    named = len(stops) % 2 == 1 and len(stops) > 1 and any(one not in schema.types for one in stops[1::2])
    types, relations = (stops[::2], stops[1::2]) if named else (stops, [None] * (len(stops) - 1))
    for kind in types:
        _check_type(kind, schema, record.where)
    for first, second, relation in zip(types, types[1:], relations, strict=False):
        known = schema.between(first, second)
        if not known or relation not in (None, *known):
            by = f" by {relation!r}" if relation else ""
            fix = f"between them the graph has {', '.join(known)}" if known else "give a route that the graph has"
            raise InputError(f"nothing leads from {first!r} to {second!r}{by}", where=record.where, fix=fix)
    return tuple(stops)


def _restriction(plan: Record, schema: Schema) -> dict[str, tuple[str, ...]]:
    """Texts by types of nodes. A type of which nothing is said is left out."""
    part = plan.record("restriction")
    for kind in part.values:
        _check_type(kind, schema, part.where)
    said = {kind: [value] if isinstance(value, str) else value for kind, value in part.values.items()}
    return {kind: tuple(Record(part.where, {kind: some}).texts(kind)) for kind, some in said.items() if some}


def _check_type(kind: str, schema: Schema, where: str) -> None:
    if kind not in schema.types:
        raise InputError(f"the graph has no nodes of type {kind!r}", where=where, fix=suggest(kind, schema.types))


def _opened(record: Record) -> dict[str, Any]:
    """The values of a record; in tables lists and objects stand as JSON texts."""
    given = record.values
    texts = {column: given[column] for column in _JSON_COLUMNS if isinstance(given.get(column), str)}
    return given | {
        column: read_json_text(text, column, record.where) or text or None for column, text in texts.items()
    }


def _index(path: str) -> dict[str, None]:
    """The ids of a file, one a line."""
    place, slash, name = path.rpartition("/")
    folder = Folder(place or slash or ".")
    if not folder.exists(name):
        raise InputError("file not found", where=path, fix=suggest(name, folder.ls()))
    return dict.fromkeys(line.strip() for line in folder.read_bytes(name).decode().splitlines() if line.strip())


def _twice(name: str, record: Record) -> InputError:
    return InputError(f"the id {name!r} stands twice", where=record.where, fix="give each an id of its own")
