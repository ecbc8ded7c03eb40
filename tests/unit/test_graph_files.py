"""Graphs and questions from files: what is written is what is read, and bad rows are refused by file and line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from squadron.core.errors import InputError
from squadron.data.record_files import RecordsPath
from squadron.retrieval.graph import KnowledgeBase, Question
from squadron.retrieval.graph.files import read_graph, read_questions
from tests.conftest import REAL_DATA

NODES = [
    {"id": "p1", "type": "paper", "name": "Engines", "text": "On engines that count, and more."},
    {"id": "p2", "type": "paper", "text": "On looms."},
    {"id": "a1", "type": "author", "name": "Ada", "text": "Ada"},
    {"id": 7, "type": "house", "name": "London", "text": "A city"},
]
EDGES = [["a1", "writes", "p1"], ["a1", "writes", "p1"], ["a1", "lives_in", 7], ["p1", "cites", "p2"]]
NAMES = ("source", "relation", "target")
PLAN = {"routes": [["author", "paper"], ["house", "lives_in", "author", "writes", "paper"]], "restriction": {}}


def lines(path: Path, rows: Sequence[Any]) -> RecordsPath:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return RecordsPath(path)


def table(path: Path, rows: Sequence[dict[str, Any]]) -> RecordsPath:
    """A Parquet or CSV file, of texts."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    texts = [[str(row.get(name, row.get("id", ""))) for name in columns] for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: [row[n] for row in texts] for n, name in enumerate(columns)}), path)
    else:
        path.write_text("\n".join(",".join(f'"{value}"' for value in row) for row in [columns, *texts]))
    return RecordsPath(path)


def graph_of(folder: Path) -> KnowledgeBase:
    return read_graph(lines(folder / "nodes.jsonl", NODES), lines(folder / "edges.jsonl", EDGES))


@pytest.mark.parametrize("form", ["lists", "objects", "gz", "parquet", "csv"])
def test_all_forms_hold_the_same_graph(tmp_path: Path, form: str) -> None:
    edges: Any = EDGES if form in ("lists", "gz") else [dict(zip(NAMES, edge, strict=True)) for edge in EDGES]
    ending, write = (
        (f".{form}", table) if form in ("parquet", "csv") else (".jsonl.gz" if form == "gz" else ".jsonl", lines)
    )
    graph = read_graph(write(tmp_path / f"nodes{ending}", NODES), write(tmp_path / f"edges{ending}", edges))
    assert list(graph.ids) == ["p1", "p2", "a1", "7"] and list(graph.names) == ["Engines", "p2", "Ada", "London"]
    assert graph.texts[0] == "On engines that count, and more." and graph.edges == 3
    assert graph.schema.types == ("paper", "author", "house")
    assert graph.schema.describe() == ["author -writes-> paper", "author -lives_in-> house", "paper -cites-> paper"]
    assert graph.neighbours(np.array([3]), None, "author").place_E.tolist() == [2]


@pytest.mark.parametrize(
    ("nodes", "edges", "place", "what"),
    [
        ([NODES[0], NODES[0]], EDGES, "nodes.jsonl:2", "the id 'p1' stands twice"),
        ([*NODES, {"id": "7", "type": "paper", "text": "x"}], EDGES, "nodes.jsonl:5", "the id '7' stands twice"),
        ([{"id": "a", "type": "paper", "text": " "}], EDGES, "nodes.jsonl:1", "'text' is empty"),
        ([{"id": "a", "type": "paper", "name": "A"}], EDGES, "nodes.jsonl:1", "'text' is missing"),
        ([{"id": "a", "text": "x"}], EDGES, "nodes.jsonl:1", "'type' is missing"),
        ([{"id": None, "type": "paper", "text": "x"}], EDGES, "nodes.jsonl:1", "'id' is empty"),
        ([["a", "paper", "x"]], EDGES, "nodes.jsonl:1", "expected a JSON object, found a list"),
        ([{"id": n, "type": f"t{n}", "text": "x"} for n in range(1001)], EDGES, "nodes.jsonl:1001", "more than 1,000"),
        ([], EDGES, "nodes.jsonl", "no nodes"),
        (NODES, [*EDGES, ["a1", "writes", "p9"]], "edges.jsonl:5", "the target 'p9' is no node"),
        (NODES, [["p9", "cites", "p1"]], "edges.jsonl:1", "the source 'p9' is no node"),
        (NODES, [["a1", "p1"]], "edges.jsonl:1", "2 values for 3 columns: source, relation, target"),
        (NODES, [["a1", None, "p1"]], "edges.jsonl:1", "'relation' is empty"),
        (NODES, [{"source": "a1", "target": "p1"}], "edges.jsonl:1", "'relation' is missing"),
        (NODES, [], "edges.jsonl", "no edges"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_by_its_place(tmp_path: Path, nodes: Any, edges: Any, place: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        read_graph(lines(tmp_path / "nodes.jsonl", nodes), lines(tmp_path / "edges.jsonl", edges))
    assert caught.value.where.endswith(f"/{place}")


def test_questions_are_read_with_what_is_known_of_them(tmp_path: Path) -> None:
    known = {"routes": PLAN["routes"], "restriction": {"author": "Ada", "house": ["London"], "paper": []}}
    rows = [
        {"id": 1, "query": "What?", "answers": ["p1"], "kind": "hop", "targets": ["paper"], "plan": known},
        {"id": 2, "query": "Where?", "answers": [7, "7"]},
    ]  # fmt: skip
    graph = graph_of(tmp_path)
    first, second = read_questions(lines(tmp_path / "asked.jsonl", rows), graph)
    routes = (("author", "paper"), ("house", "lives_in", "author", "writes", "paper"))
    said = {"author": ("Ada",), "house": ("London",)}
    assert first == Question("1", "hop", "What?", ("paper",), ("p1",), routes, said)
    assert second == Question("2", "question", "Where?", (), ("7",))


def test_starks_table_is_read_with_its_split(tmp_path: Path) -> None:
    asked = tmp_path / "stark_qa.csv"
    asked.write_text('id,query,answer_ids\n0,"Engines, or looms?","[7]"\n1,Who?,[7]\n3,Where?,"[7, 7]"\n')
    (tmp_path / "test.index").write_text("3\n0\n")
    graph = graph_of(tmp_path)
    every = read_questions(RecordsPath(asked), graph)
    assert [(one.id, one.query, one.answers) for one in every] == [
        ("0", "Engines, or looms?", ("7",)), ("1", "Who?", ("7",)), ("3", "Where?", ("7",)),
    ]  # fmt: skip
    assert [one.id for one in read_questions(RecordsPath(asked), graph, str(tmp_path / "test.index"))] == ["0", "3"]
    (tmp_path / "test.index").write_text("3\n4\n")
    with pytest.raises(InputError, match="no question has the id '4'"):
        read_questions(RecordsPath(asked), graph, str(tmp_path / "test.index"))
    with pytest.raises(InputError, match="file not found"):
        read_questions(RecordsPath(asked), graph, str(tmp_path / "tset.index"))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"id": "q0"}, "the id 'q0' stands twice"),
        ({"answers": ["p1", "p9"]}, "the answer 'p9' is no node"),
        ({"answers": []}, "a list of at least one item"),
        ({"answers": None}, "'answers' is empty"),
        ({"answers": "p1"}, "not a list"),
        ({"query": "  "}, "'query' is empty"),
        ({"targets": ["papers"]}, "no nodes of type 'papers'(.|\n)*paper"),
        ({"plan": {"routes": [["autor", "paper"]]}}, "no nodes of type 'autor'"),
        ({"plan": {"routes": [["author", "paper"], ["house", "paper"]]}}, "nothing leads from 'house' to 'paper'"),
        ({"plan": {"routes": [["author", "cites", "paper"]]}}, "from 'author' to 'paper' by 'cites'(.|\n)*writes"),
        ({"plan": {"routes": ["author"]}}, "not a list"),
        ({"plan": {"routes": [["author", 3]]}}, "not text"),
        ({"plan": {"restriction": {"city": ["London"]}}}, "no nodes of type 'city'"),
        ({"plan": {"restriction": {"house": [3]}}}, "not text"),
        ({"plan": "->"}, "not an object"),
    ],
)
def test_a_bad_question_is_refused_by_its_place(tmp_path: Path, changed: dict[str, Any], what: str) -> None:
    good = {"id": "q0", "query": "What?", "answers": ["p1"]}
    path = lines(tmp_path / "asked.jsonl", [good, good | {"id": "q1"} | changed])
    with pytest.raises(InputError, match=what) as caught:
        read_questions(path, graph_of(tmp_path))
    assert f"{tmp_path}/asked.jsonl:2" in caught.value.where


def test_pickles_are_refused(tmp_path: Path) -> None:
    for name in ("node_info.pkl", "edge_index.pt"):
        (tmp_path / name).write_bytes(b"\x80\x04.")
        with pytest.raises(InputError, match=r"to open one is to run it(.|\n)*docs/graphs\.md"):
            read_graph(RecordsPath(tmp_path / name), RecordsPath(tmp_path / name))


def test_a_real_graph_and_its_questions_are_read() -> None:
    folder = REAL_DATA / "mor"
    if not folder.exists():
        pytest.skip("the real graph is not here")
    graph = read_graph(*(RecordsPath(folder / f"attack_enterprise_{part}.jsonl.gz") for part in ("nodes", "edges")))
    asked = read_questions(RecordsPath(folder / "attack_questions.jsonl.gz"), graph)
    assert len(graph) == 1757 and len(asked) == 1800 and all(one.routes for one in asked)
