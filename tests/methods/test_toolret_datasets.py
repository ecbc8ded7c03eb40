"""Tools and queries are read however they are published; what is wrong in them is counted, or refused by its place."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.methods.toolret.benchmark import COLUMNS, read_benchmark
from squadron.methods.toolret.config import (
    GivenRun,
    QueriesConfig,
    ReadConfig,
    ToolRetConfig,
    ToolsConfig,
    ToolSet,
    WorldConfig,
)
from squadron.methods.toolret.datasets import read_queries, read_tools
from squadron.methods.toolret.records import Benchmark
from squadron.methods.toolret.searching import read_run
from squadron.methods.toolret.training_set import read_training_set
from tests.conftest import REAL_DATA

DATA = REAL_DATA / "toolret"
real = pytest.mark.skipif(not DATA.exists(), reason=f"needs the tools and queries of {DATA}")
TOOL = {"id": "a", "documentation": '{"name": "add", "description": "adds", "parameters": {}}'}
OTHER = {"id": "b", "documentation": {"name": "sub", "description": ""}}
QUERY = {"id": "q", "query": "what is 1 + 1?", "instruction": "find tools", "labels": ["a"]}


def write(path: Path, rows: Any) -> str:
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def one_set(place: Path, tools: Any, queries: Any, name: str = "own", **more: Any) -> ToolSet:
    place.mkdir(exist_ok=True)
    return ToolSet(
        name=name,
        tools=ToolsConfig(path=write(place / "tools.jsonl", tools), **more),
        queries=(QueriesConfig(path=write(place / "queries.jsonl", queries)),),
    )


def read(place: Path, *sets: ToolSet, told: bool = False, **config: Any) -> tuple[Benchmark, list[dict[str, Any]]]:
    """What the stage makes of these sets, and the rows of its table by their columns."""
    run = Run("toolret", ToolRetConfig(), Folder(str(place / "run")), Profile(name="auto"), track=())
    stage = Stage(run, "read_benchmark", "", {}, run.folder / "stages" / "read_benchmark-0")
    found = read_benchmark(stage, sets, WorldConfig(tools=30, queries=12), ReadConfig(**config), (told,))
    panel = json.loads((place / "run/stages/read_benchmark-0/panels/01.json").read_text())
    return found, [dict(zip(COLUMNS, row, strict=True)) for row in panel["rows"]]


@contextlib.contextmanager
def opened_files() -> Iterator[list[str]]:
    """The paths of files that are opened meanwhile, each as often as it is. A hook stays for good; then it does
    nothing."""
    paths: list[str] = []
    watching = True
    sys.addaudithook(lambda event, args: paths.append(str(args[0])) if watching and event == "open" else None)
    try:
        yield paths
    finally:
        watching = False


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        ([TOOL, OTHER], ["a", "b"]),
        ([{"api_name": "getX", "api_description": "gets x", "parameters": {}}], ["getX"]),
        ([{"type": "function", "function": {"name": "f", "description": "does f", "parameters": {}}}], ["f"]),
        ([{"name": "search", "description": "searches", "inputSchema": {"type": "object"}}], ["search"]),
        ([{"tools": [{"name": "x", "description": "1"}, {"name": "y", "description": "2"}]}], ["x", "y"]),
        ([{"timeport": "Travels in time.", "calculator": "Computes."}], ["timeport", "calculator"]),
    ],
)
def test_tools_of_every_known_form_are_read(tmp_path: Path, rows: list[Any], ids: list[str]) -> None:
    found = list(read_tools(ToolsConfig(path=write(tmp_path / "t.jsonl", rows))))
    assert [tool.id for tool in found] == ids
    assert all(tool.text.strip() and tool.where for tool in found)


@pytest.mark.parametrize(
    ("row", "labels"),
    [
        ({"query": "x", "labels": ["a", "b"]}, {"a": 1, "b": 1}),
        ({"query": "x", "labels": '[{"id": "a", "doc": {}, "relevance": 2}, {"id": "b"}]'}, {"a": 2, "b": 1}),
        ({"query": "x", "tool": ["a"]}, {"a": 1}),
        ({"query": "x", "calling": [{"api": "a", "parameters": {}}, {"api": "b"}, {"api": "a"}]}, {"a": 1, "b": 1}),
        ({"query": "x", "labels": []}, {}),
    ],
)
def test_queries_of_every_known_form_are_read(tmp_path: Path, row: dict[str, Any], labels: dict[str, int]) -> None:
    (found,) = read_queries(QueriesConfig(path=write(tmp_path / "q.jsonl", [row])), "own")
    assert (found.id, found.text, found.labels) == ("own-0", "x", labels)


def test_rows_of_one_query_and_one_tool_each_are_merged(tmp_path: Path) -> None:
    """MetaTool repeats a query for each of its tools."""
    (tmp_path / "q.csv").write_text('Query,Tool\n"x, y",a\nz,b\n"x, y",c\n')
    found = list(read_queries(QueriesConfig(path=str(tmp_path / "q.csv")), "own"))
    assert [(one.text, dict(one.labels)) for one in found] == [("x, y", {"a": 1, "c": 1}), ("z", {"b": 1})]


def test_the_text_of_a_tool_is_its_documentation_as_it_stands(tmp_path: Path) -> None:
    first, second = read_tools(ToolsConfig(path=write(tmp_path / "t.jsonl", [TOOL, OTHER])))
    assert first.text == TOOL["documentation"]
    assert json.loads(second.text) == OTHER["documentation"]


def test_what_is_odd_is_counted(tmp_path: Path) -> None:
    blank = {"id": "c", "documentation": "{'name': 'c', 'description': '', 'parameters': {}}"}  # as web of ToolRet has
    queries = [QUERY, {"query": "for nobody", "labels": []}, {"query": "two", "labels": ["b", "gone"]}]
    queries.append({"query": " ", "labels": ["a"]})  # as mnms_query_17 of ToolRet
    bench, (row,) = read(tmp_path, one_set(tmp_path / "d", [TOOL, OTHER, TOOL, blank], queries), known_labels=0.6)
    assert row["tools"] == 3 and row["said twice"] == 1 and row["without description"] == 2
    assert row["queries"] == 2 and row["no tool answers"] == 1 and row["labels of unknown tools"] == 1
    assert row["without text"] == 1
    assert [one.relevant for one in bench.asked(Folder(str(tmp_path / "run")))] == [{"a": 1}, {"b": 1}]


def test_every_label_of_every_query_is_kept(tmp_path: Path) -> None:
    """Of the official code's BM25 all but the last query's are lost."""
    queries = [{"id": f"q{n}", "query": f"query {n}", "labels": ["a", "b"][: 1 + n % 2]} for n in range(9)]
    bench, _ = read(tmp_path, one_set(tmp_path / "d", [TOOL, OTHER], queries))
    found = bench.asked(Folder(str(tmp_path / "run")))
    assert [set(one.relevant) for one in found] == [{"a", "b"} if n % 2 else {"a"} for n in range(9)]


def test_tools_that_are_one_by_a_field_are_merged_and_their_labels_too(tmp_path: Path) -> None:
    """APIBench lists one call under many wordings."""
    tools = [{"id": f"t{n}", "documentation": {"api_call": f"load({n // 2})", "description": f"{n}"}} for n in range(4)]
    queries = [{"id": f"q{n}", "query": "?", "labels": [f"t{n}"]} for n in range(4)]
    bench, (row,) = read(tmp_path, one_set(tmp_path / "d", tools, queries, merge="api_call"))
    assert (row["tools"], row["said twice"]) == (2, 2)
    found = bench.asked(Folder(str(tmp_path / "run")))
    assert [list(one.relevant) for one in found] == [["t0"], ["t0"], ["t2"], ["t2"]]


def test_of_few_tools_those_are_kept_that_queries_need(tmp_path: Path) -> None:
    tools = [{"id": f"t{n}", "documentation": f"tool {n}"} for n in range(9)]
    bench, (row,) = read(tmp_path, one_set(tmp_path / "d", tools, [QUERY | {"labels": ["t7"]}], limit=3))
    assert [one.id for one in bench.documents(Folder(str(tmp_path / "run")))] == ["t0", "t1", "t7"]
    assert row["labels of unknown tools"] == 0


def test_sets_with_the_same_ids_are_told_apart(tmp_path: Path) -> None:
    one = one_set(tmp_path / "x", [TOOL], [QUERY], "x")
    two = one_set(tmp_path / "y", [TOOL | {"documentation": "another"}, OTHER], [QUERY], "y")
    bench, _ = read(tmp_path, one, two)
    run = Folder(str(tmp_path / "run"))
    assert [doc.id for doc in bench.documents(run)] == ["x/a", "y/a", "b"]
    assert [(query.id, list(query.relevant)) for query in bench.asked(run)] == [("x/q", ["x/a"]), ("y/q", ["y/a"])]
    apart = [(list(some_D), list(some_Q)) for some_D, some_Q in bench.groups(run, "apart")]
    assert apart == [([0], [0]), ([1, 2], [1])]


@pytest.mark.parametrize(
    ("tools", "queries", "said", "where"),
    [
        ([TOOL, TOOL | {"documentation": "other"}], [QUERY], "'a' stands for two tools", "tools.jsonl:2"),
        ([TOOL, {"id": "b", "documentation": "  "}], [QUERY], "'documentation' is empty", "tools.jsonl:2"),
        ([TOOL, {"id": "b", "documentation": 3}], [QUERY], "not a text or an object", "tools.jsonl:2"),
        ([{"x": 1}], [QUERY], "'documentation' is missing", "tools.jsonl:1"),
        ([{"id": "a", "documentation": "x" * 30}], [QUERY], "30 characters, more than 20", "tools.jsonl:1"),
        ([], [QUERY], "there is no tool", "tools.jsonl"),
        ([TOOL], [QUERY, QUERY], "'q' stands for two queries", "queries.jsonl:2"),
        ([TOOL], [QUERY | {"query": " "}], "no query is answered by a tool", "queries.jsonl"),
        ([TOOL], [QUERY, QUERY | {"id": "r", "labels": ["gone"]}], "1 of 2 labels", "queries.jsonl:2: 'gone'"),
        ([TOOL], [QUERY | {"labels": "no JSON"}], "not a list of tools", "queries.jsonl:1"),
        ([TOOL], [QUERY | {"labels": [["a"]]}], "expected the id of a tool", "queries.jsonl:1, labels 1"),
        ([TOOL], [QUERY | {"labels": []}], "no query is answered by a tool", "queries.jsonl"),
        ([TOOL], [], "no query is answered by a tool", "queries.jsonl"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_its_place(
    tmp_path: Path, tools: list[Any], queries: list[Any], said: str, where: str
) -> None:
    limit = {"max_characters": 20} if "more than 20" in said else {}
    with pytest.raises(InputError, match=said) as refused:
        read(tmp_path, one_set(tmp_path / "d", tools, queries), **limit)
    assert refused.value.where is not None and refused.value.where.endswith(where)


def test_instructions_that_nobody_gave_are_refused(tmp_path: Path) -> None:
    bare = {key: value for key, value in QUERY.items() if key != "instruction"}
    with pytest.raises(InputError, match="no query has an instruction"):
        read(tmp_path, one_set(tmp_path / "d", [TOOL], [bare | {"instruction": "  "}]), told=True)


def test_a_copy_of_a_data_set_is_read_by_its_subsets_and_its_tools_once(tmp_path: Path) -> None:
    """The official code downloads everything again for every task."""
    for task in ("apibank", "gta", "left-out"):
        (tmp_path / "Q" / task).mkdir(parents=True)
        row = QUERY | {"id": task, "labels": json.dumps([{"id": "a", "relevance": 1}])}
        write(tmp_path / "Q" / task / "queries-00000.jsonl", [row])
    (tmp_path / "T" / "web").mkdir(parents=True)
    some = ToolSet(
        name="web",
        tools=ToolsConfig(
            path=write(tmp_path / "T" / "web" / "tools.jsonl", [TOOL]) and str(tmp_path / "T"), subset="web"
        ),
        queries=(QueriesConfig(path=str(tmp_path / "Q"), subsets=("apibank", "gta")),),
    )
    with opened_files() as paths:
        bench, _ = read(tmp_path, some)
    assert [one.id for one in bench.asked(Folder(str(tmp_path / "run")))] == ["apibank", "gta"]
    assert len([path for path in paths if path.endswith("tools.jsonl")]) == 1
    before = some.tools.path.identity()
    write(tmp_path / "T" / "web" / "tools.jsonl", [TOOL, OTHER])
    assert some.tools.path.identity() != before, "files of subsets are what the stage depends on"


def test_the_preset_of_the_paper_reads_a_copy_of_the_published_sets(tmp_path: Path) -> None:
    """In the layout in which the hub holds them: Parquet, a folder for each of the 35 tasks and 3 categories, labels as
    the text of a JSON list; beside them a card, the attributes of git, and what a download leaves."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import yaml

    text = (Path(__file__).resolve().parents[2] / "configs" / "toolret" / "paper.yaml").read_text()
    config = ToolRetConfig.model_validate(yaml.safe_load(text.replace("mangopy/", f"{tmp_path}/")))
    assert config.training is not None and [len(one.queries[0].subsets) for one in config.sets] == [19, 7, 9]

    def store(data_set: str, subset: str, split: str, *parts: list[dict[str, Any]]) -> None:
        folder = tmp_path / data_set / subset
        folder.mkdir(parents=True, exist_ok=True)
        for number, rows in enumerate(parts):
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-{number:05d}-of-{len(parts):05d}.parquet")

    for one in config.sets:
        tools: list[dict[str, Any]] = []
        for task in one.queries[0].subsets:
            doc = {"name": f"{task} tool", "description": "does it", "parameters": {"x": {"type": "str"}}}
            tools.append({"id": f"{task}_tool_0", "documentation": json.dumps(doc)})
            label = {"id": f"{task}_tool_0", "doc": doc, "relevance": 1}
            rows = [
                {"id": f"{task}_query_{n}", "query": f"{n} {task}", "instruction": f"Given a `{task}` task, retrieve",
                 "labels": json.dumps([label]), "category": one.name}
                for n in range(2)
            ]  # fmt: skip
            rows[1]["query"] = "" if task == "mnms" else rows[1]["query"]
            store("ToolRet-Queries", task, "queries", rows)
            store(
                "ToolRet-retrieval-nv-embedd-v1",
                task,
                "tools",
                [{"id": row["id"], "tools": tools[-1:]} for row in rows],
            )
        store("ToolRet-Tools", one.name, "tools", tools[:3], tools[3:])
    row = {
        "query": "is it archived?",
        "pos": ["{'name': 'availability', 'description': 'checks'}"],
        "neg": ["{'name': 'top_apps', 'description': 'lists'}"] * 10,
        "prompt": "Given a `URL` task, retrieve",
    }
    store("ToolRet-Training-20w", "data", "train", [row])
    for data_set in ("ToolRet-Queries", "ToolRet-Tools"):
        (tmp_path / data_set / "README.md").write_text("---\nconfigs: []\n---\n")
        (tmp_path / data_set / ".gitattributes").write_text("*.parquet filter=lfs\n")
        (tmp_path / data_set / ".cache" / "huggingface").mkdir(parents=True)
    bench, rows = read(tmp_path / "read", *config.sets, told=True)
    run = Folder(str(tmp_path / "read" / "run"))
    assert [(one["category"], one["tools"], one["queries"], one["without text"]) for one in rows] == [
        ("web", 19, 37, 1), ("code", 7, 14, 0), ("customized", 9, 18, 0)
    ]  # fmt: skip
    assert all(list(one.relevant) == [one.id.replace("_query_1", "_query_0").replace("_query_", "_tool_")]
               and one.instruction for one in bench.asked(run))  # fmt: skip
    given = next(one for one in config.retrievers if isinstance(one, GivenRun))
    stage = Stage(
        Run("r", ToolRetConfig(), run, Profile(name="auto"), track=()), "read_run", "", {}, run / "stages/x-0"
    )
    first = read_run(stage, bench, given, 5).ranking(run)
    names = [document.id for document in bench.documents(run)]
    assert [row[0] for row in first.ids(names)] == [next(iter(one.relevant)) for one in bench.asked(run)]
    rows_path = str(config.training.rows.path) + "/data"
    assert [one["neg"] == row["neg"] and one["prompt"] == row["prompt"] for one in read_training_set(rows_path)] == [
        True
    ]


def test_the_order_of_tools_hangs_on_no_hash_seed(tmp_path: Path) -> None:
    """In the official code the categories are a set, so their order is another one in each process."""
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "from tests.methods.test_toolret_datasets import read\n"
        "place = pathlib.Path(sys.argv[2]); found, _ = read(place)\n"
        "print(found.tools.sha256, found.queries.sha256, found.categories)"
    )
    root = Path(__file__).resolve().parents[2]
    started = []
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root / "lib")}
        words = [sys.executable, "-c", code, str(root), str(tmp_path / seed)]
        started.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True))
    said = {process.communicate()[0] for process in started}
    assert len(said) == 1 and "web" in said.pop()


@real
def test_the_real_sets_are_read_whole(tmp_path: Path) -> None:
    """Sizes as the folder's README has them; MetaTool repeats 64 queries, 13 of these with the same tool."""

    def some(name: str, tools: str, *queries: str) -> ToolSet:
        asked = tuple(QueriesConfig(path=str(DATA / file)) for file in queries)
        return ToolSet(name=name, tools=ToolsConfig(path=str(DATA / tools)), queries=asked)

    sets = [
        some("metatool", "metatool_tools.json", "metatool_queries.csv.gz", "metatool_multi_tool_queries.json"),
        some("sealtools", "sealtools_tool.jsonl.gz", "sealtools_test_in_domain.jsonl.gz"),
        some("bfcl", "bfcl_tools.jsonl.gz", "bfcl_queries.jsonl.gz"),
    ]
    bench, rows = read(tmp_path, *sets)
    assert [(row["tools"], row["queries"]) for row in rows] == [(199, 20550 + 497), (4076, 700), (1951, 2336)]
    assert all(row["labels of unknown tools"] == row["no tool answers"] == row["said twice"] == 0 for row in rows)
    labels = sum(len(one.relevant) for one in bench.asked(Folder(str(tmp_path / "run")))[: 20550 + 497])
    assert labels == 20563 + 2 * 497
    with gzip.open(DATA / "sealtools_test_in_domain.jsonl.gz", "rt") as lines:
        calls = sum(len({call["api"] for call in json.loads(line)["calling"]}) for line in lines)
    assert rows[1]["labels a query"] == round(calls / 700, 2)
