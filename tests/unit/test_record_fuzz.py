"""Whatever stands in a file is read as it was written, or refused with its place; nothing else is raised.

`SQUADRON_FUZZ=20000` tries as many of each kind.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squadron.core.config import Config
from squadron.core.errors import InputError, SquadronError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.data.problems import read_problems, read_questions
from squadron.data.records import read_records
from squadron.data.rows import ArrowRows, write_rows
from squadron.llm.backends.scripted import ScriptedChat
from squadron.llm.settings import ScriptedModel
from squadron.methods.coordination.fleet import _read_routes
from squadron.methods.crowdselect.config import PoolConfig
from squadron.methods.crowdselect.pool import read_pool
from squadron.methods.crowdselect.synthetic_task import WorldConfig
from squadron.methods.finetune.config import ObjectiveName, RecordsConfig
from squadron.methods.finetune.examples import EXAMPLE_TYPES, read_example, to_row

EXAMPLES = int(os.environ.get("SQUADRON_FUZZ", "100"))


def fuzzed(share: float = 1.0) -> settings:
    return settings(
        max_examples=math.ceil(EXAMPLES * share),
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


LETTERS = st.sampled_from(
    ["a", "B", " ", "é", "😀", "\x00", "\u2028", "\r\n", '"', "\\", "\ud83d", "\udc00", "7", "[", "{"]
)
TEXTS = st.lists(LETTERS, max_size=6).map("".join)
NAMES = st.sampled_from(["number", "where", "id", "row", "record", "example", "text", "", "a b", "\ud83d"])
NUMBERS = st.one_of(st.integers(-2, 2), st.sampled_from([2**63, -(2**64), 10**30, 10**400, 9007199254740993]),
                    st.floats(), st.sampled_from([1e308, 0.1, -0.0]))  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
RECORDS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=4)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and True differ, and NaN is NaN."""
    return repr(one) == repr(other)


def keepable(value: Any) -> bool:
    """Whether there is no half of a surrogate pair in a value."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
        return True
    except UnicodeEncodeError:
        return False


@contextlib.contextmanager
def written(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path


def read(path: Path) -> list[dict[str, Any]]:
    return [record.values for record in read_records(str(path))]


def read_or_refused(path: Path) -> list[dict[str, Any]] | None:
    try:
        return read(path)
    except SquadronError as error:
        assert error.where.startswith(str(path))
        return None


@fuzzed()
@given(RECORDS, st.sampled_from(["a.jsonl", "A.JSONL", "a.ndjson", "a.jsonl.gz", "a.json", "a.json.gz"]),
       st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n"]), st.sampled_from(["", "\ufeff"]))  # fmt: skip
def test_lines_are_read_as_they_were_written_or_the_first_that_cannot_be_is_named(
    records: list[dict[str, Any]], name: str, escaped: bool, end: str, mark: str
) -> None:
    lines = [json.dumps(record, ensure_ascii=escaped) for record in records]
    data = (mark + end.join(lines)).encode(errors="surrogatepass")
    meant = [json.loads(line) for line in lines]  # two escaped halves of a pair are one character
    bad = next((number for number, record in enumerate(meant) if not keepable(record)), None)
    with written(name, gzip.compress(data) if name.endswith("gz") else data) as path:
        if bad is None:
            assert same(read(path), meant)
            return
        with pytest.raises(InputError, match=r"half of a surrogate pair|not UTF-8") as refused:
            read(path)
        whole = name.startswith("a.json") and "jsonl" not in name and (len(records) == 1 or not escaped)
        assert refused.value.where == (str(path) if whole else f"{path}:{bad * end.count(chr(10)) + 1}")


@fuzzed()
@given(RECORDS, st.sampled_from(["a.json", "a.json.gz"]), st.sampled_from([None, 2]))
def test_a_list_of_objects_is_read_item_by_item(records: list[dict[str, Any]], name: str, indent: int | None) -> None:
    text = json.dumps(records, indent=indent)
    meant = json.loads(text)
    bad = next((number for number, record in enumerate(meant, start=1) if not keepable(record)), None)
    with written(name, gzip.compress(text.encode()) if name.endswith("gz") else text.encode()) as path:
        if bad is None:
            assert same(read(path), meant)
            return
        with pytest.raises(InputError) as refused:
            read(path)
        assert refused.value.where == f"{path}, item {bad}"


CELLS = {
    "text": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "large": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "part": (pa.float64(), st.floats()),
    "yes": (pa.bool_(), st.booleans()),
    "bytes": (pa.binary(), st.binary(max_size=4)),
    "list": (pa.list_(pa.int64()), st.lists(st.integers(-5, 5), max_size=3)),
    "fixed": (pa.list_(pa.float64(), 2), st.lists(st.floats(allow_nan=False), min_size=2, max_size=2)),
    "object": (pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())}),
               st.fixed_dictionaries({}, optional={"a": st.integers(0, 3), "b": st.lists(st.just("x"), max_size=2)})),
    "map": (pa.map_(pa.string(), pa.int64()), st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(0, 3))),
    "word": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from("ab")),
    "decimal": (pa.decimal128(20, 2), st.decimals(-(10**17), 10**17, places=2)),
    "time": (pa.timestamp("us", "UTC"), st.integers(-(2**62), 2**62)),
    "precise": (pa.timestamp("ns"), st.integers(-(2**62), 2**62)),
    "day": (pa.date32(), st.dates()),
    "hour": (pa.time64("us"), st.times()),
    "while": (pa.duration("ns"), st.integers(-(2**62), 2**62)),
    "none": (pa.null(), st.none()),
}  # fmt: skip
AS_THEY_ARE = {"text", "whole", "large", "part", "yes", "bytes", "list", "fixed", "object", "map", "word", "none"}


@fuzzed()
@given(st.data(), st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=4, unique=True), st.integers(0, 4))
def test_a_table_is_read_as_it_was_written_or_a_row_is_named(data: st.DataObject, names: list[str], count: int) -> None:
    columns = {}
    for name in names:
        kind, values = CELLS[name]
        drawn = data.draw(st.lists(st.none() | values, min_size=count, max_size=count))
        columns[name] = pa.array(drawn, kind)
    wanted = {name: column.to_pylist() for name, column in columns.items() if name in AS_THEY_ARE}
    for row in range(count):
        if "object" in wanted and wanted["object"][row] is not None:  # nulls that a table adds are no part of it
            wanted["object"][row] = {key: item for key, item in wanted["object"][row].items() if item is not None}
        if "map" in wanted and wanted["map"][row] is not None:
            wanted["map"][row] = dict(wanted["map"][row])
    with written("a.parquet", b"") as path:
        pq.write_table(pa.table(columns), path)
        got = read_or_refused(path)
        assert got is not None or {"time", "precise"} & set(names)  # of which years after 9999 are no times of Python
        for row, values in enumerate(got or []):
            assert all(same(values[name], wanted[name][row]) for name in wanted)
            assert all(isinstance(values[name], str | None) for name in {"time", "day", "hour", "precise"} & set(names))
            if "decimal" in names and values["decimal"] is not None:
                assert pa.array([str(values["decimal"])]).cast(pa.decimal128(20, 2))[0] == columns["decimal"][row]


def damaged(data: bytes, kind: str, at: int, other: bytes) -> bytes:
    match kind:
        case "flip":
            return data[:at] + bytes(byte ^ 0x55 for byte in data[at : at + 3]) + data[at + 3 :]
        case "drop":
            return data[:at] + data[at + 5 :]
        case "put":
            return data[:at] + other + data[at:]
        case _:
            return data[:at]


@fuzzed()
@given(st.sampled_from(["a.jsonl", "a.json", "a.jsonl.gz", "a.parquet"]),
       st.lists(st.tuples(st.sampled_from(["flip", "cut", "drop", "put"]), st.floats(0, 1), st.binary(max_size=5)),
                min_size=1, max_size=4))  # fmt: skip
def test_damaged_files_are_read_or_refused_by_name(name: str, damages: list[tuple[str, float, bytes]]) -> None:
    records = [{"text": f"line é {n}", "n": n, "list": [{"a": n}]} for n in range(20)]
    with written(name, b"") as path:
        if name == "a.parquet":
            pq.write_table(pa.Table.from_pylist(records), path, write_page_checksum=True)
        else:
            text = json.dumps(records) if name == "a.json" else "".join(f"{json.dumps(row)}\n" for row in records)
            path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        data = path.read_bytes()
        for kind, share, other in damages:
            data = damaged(data, kind, int(share * len(data)), other)
        path.write_bytes(data)
        got = read_or_refused(path)
        if got is not None and name == "a.jsonl.gz":
            assert got in (records, []) or data.count(b"\x1f\x8b") > 1  # what was damaged is not believed


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
WHOLE = st.integers(-(2**63), 2**63 - 1)
FITTING: dict[str, st.SearchStrategy[Any]] = {
    "string": WORDS, "int64": WHOLE, "float64": st.floats() | st.integers(-9, 9), "bool": st.booleans(),
    "json": VALUES.filter(keepable), "list<int64>": st.lists(WHOLE, max_size=4) | st.just(np.arange(3)),
    "list<float64>": st.lists(st.floats(), max_size=4), "list<string>": st.lists(WORDS, max_size=3),
}  # fmt: skip
KINDS = st.fixed_dictionaries(dict.fromkeys("abc", st.sampled_from(sorted(FITTING))))
"""Types of three columns."""


@fuzzed()
@given(st.data(), KINDS, st.integers(1, 4), st.none() | st.tuples(st.sampled_from("abc"), VALUES))
def test_rows_are_kept_as_they_are_or_one_is_named(
    data: st.DataObject, types: dict[str, str], count: int, odd: tuple[str, Any] | None
) -> None:
    row = st.fixed_dictionaries({}, optional={column: st.none() | FITTING[kind] for column, kind in types.items()})
    rows = data.draw(st.lists(row, min_size=count, max_size=count))
    if odd is not None:
        rows[-1][odd[0]] = odd[1]
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(place)
        try:
            write_rows(folder, "a.arrow", rows, types)
        except InputError as error:
            assert odd is not None and error.where == f"{place}/a.arrow, row {count}"
            return
        for read_row, row in zip(ArrowRows(folder, ["a.arrow"]), rows, strict=True):
            for column, kind in types.items():
                got, meant = read_row[column], row.get(column)
                got, meant = (one.tolist() if isinstance(one, np.ndarray) else one for one in (got, meant))
                if "float64" in kind and meant is not None:  # a whole number is one of these, too
                    assert got == pytest.approx(meant, rel=0, abs=0, nan_ok=True)
                else:
                    assert same(got, json.loads(json.dumps(meant)))
        assert all(same(list(one), list(other)) for one, other in zip(
            ArrowRows(folder, ["a.arrow"]).columns(*[name for name in types if types[name] == "json"]),
            ([row.get(name) for name in types if types[name] == "json"] for row in rows), strict=False))  # fmt: skip


ASK, SAY = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}
CONTENT = st.one_of(st.sampled_from(["hello", "hi", ""]), SCALARS, st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]), "text": SCALARS}), max_size=2))  # fmt: skip
ARGUMENTS = st.dictionaries(NAMES, VALUES, max_size=3).filter(keepable)
ODD_ARGUMENTS = VALUES | st.sampled_from(['{"city": "Oslo"}', '{"a": 1, "a": 2}', r'{"a": "\ud83d"}', "[" * 5000])


def calling(arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A turn that calls a tool."""
    call = arguments.map(lambda given: {"type": "function", "function": {"name": "f", "arguments": given}})
    return call.map(lambda one: {"role": "assistant", "content": None, "tool_calls": [one]})


TALK = st.lists(calling(ARGUMENTS) | st.just(SAY), max_size=3).map(lambda turns: [ASK, SAY, *turns])
ODD_TURN = calling(ODD_ARGUMENTS) | st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "gpt", None, 3]), "content": CONTENT},
    optional={"tool_calls": VALUES, "reasoning": SCALARS, "name": SCALARS},
)
ODD = st.one_of(VALUES, st.lists(ODD_TURN, max_size=3).map(lambda turns: [ASK, SAY, *turns]), st.sampled_from(
    [[ASK, SAY], [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "bye"}], json.dumps([ASK, SAY]), "x"]
))  # fmt: skip
GOOD = {
    "messages": TALK, "text": WORDS, "prompt": WORDS, "completion": WORDS, "chosen": st.just("b"),
    "rejected": st.just("c"), "steps": st.lists(WORDS, min_size=2, max_size=2), "labels": st.just([1, 0]),
    "label": st.sampled_from(["a", "b"]), "system": WORDS, "tools": st.none(),
}  # fmt: skip


def around(
    columns: dict[str, st.SearchStrategy[Any]], odd: st.SearchStrategy[Any], chance: int = 3
) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Records of good columns, one in `chance` with something odd in one column, or without it."""

    def build(records: list[dict[str, Any]], changes: list[tuple[str, Any]]) -> list[dict[str, Any]]:
        for column, value in changes:
            if value == "missing":
                records[-1].pop(column, None)
            else:
                records[-1] = records[-1] | {column: value}
        return records

    changes = st.lists(st.tuples(st.sampled_from(sorted(columns)), odd | st.just("missing")), min_size=1, max_size=1)
    drawn = st.integers(1, chance).flatmap(lambda chosen: changes if chosen == 1 else st.just([]))
    return st.builds(build, st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=3), drawn)


@fuzzed()
@given(st.sampled_from(get_args(ObjectiveName)), st.sets(st.sampled_from(["messages", "text", "system"])),
       around(GOOD, ODD, 2))  # fmt: skip
def test_examples_are_kept_as_they_were_read_or_their_line_is_named(
    objective: ObjectiveName, named: set[str], records: list[dict[str, Any]]
) -> None:
    with written("a.jsonl", "".join(f"{json.dumps(record)}\n" for record in records).encode()) as path:
        columns = {name: name for name in named}
        data = RecordsConfig.model_validate({"path": str(path), "columns": columns})
        try:
            found = [(record.where, read_example(objective, data, record)) for record in read_records(str(path))]
        except SquadronError as error:
            assert error.where.startswith(f"{path}:")
            return
        rows = [to_row(example, number, where) for number, (where, example) in enumerate(found)]
        if objective == "sft" and "messages" in named and "system" not in named:
            assert all(calls_of(row["example"]["messages"]) == calls_of(given["messages"])
                       for row, given in zip(rows, records, strict=True))  # fmt: skip
        write_rows(Folder(path.parent), "a.arrow", rows, EXAMPLE_TYPES)
        assert same([dict(row) for row in ArrowRows(Folder(path.parent), ["a.arrow"])], rows)


def calls_of(messages: Any) -> str:
    """The arguments of all calls, as they stand there."""
    turns = json.loads(messages) if isinstance(messages, str) else messages
    return repr([call["function"]["arguments"] for turn in turns for call in turn.get("tool_calls") or ()])


class Nothing(Config):
    pass


def pool(path: str, **settings: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Run("test", Nothing(), Folder(folder), Profile(name="auto"), track=())
        stage = Stage(run, "read_pool", "", {}, run.folder / "stages" / "read_pool-0")
        stage.begin()
        models = (ScriptedModel(name="m", otherwise="never asked"), ScriptedModel(name="n", otherwise="never asked"))
        read_pool(stage, PoolConfig.model_validate({"path": path, "held_out": 0.5} | settings), WorldConfig(), models)


RESPONSE = st.fixed_dictionaries({"content": WORDS, "score": st.integers(0, 9), "size_b": st.just(7)})
ODD_RESPONSE = st.fixed_dictionaries(
    {}, optional={"model": SCALARS, "family": SCALARS, "size_b": NUMBERS | SCALARS, "content": ODD, "score": SCALARS}
)
RESPONSES = st.lists(RESPONSE, min_size=1, max_size=2).map(
    lambda given: [{"model": name, "family": "f", **one} for name, one in zip("mn", given, strict=False)]
)
ODD_RESPONSES = st.builds(list.__add__, RESPONSES, st.lists(ODD_RESPONSE.map(lambda odd: {"model": "o", **odd})))
POINTS = st.lists(st.tuples(st.integers(-9, 9), st.floats(-9, 9)), min_size=3, max_size=4)
ODD_POINTS = st.lists(st.lists(NUMBERS | VALUES, min_size=2, max_size=2), max_size=3)
ASKED = st.integers(0, 10**9).map(lambda number: f"What is {number}?")
READERS: dict[str, tuple[Callable[[str], Any], dict[str, st.SearchStrategy[Any]], st.SearchStrategy[Any]]] = {
    "problems": (read_problems, {"question": ASKED, "answer": st.integers() | st.just("so #### 7"),
                                 "solution": WORDS}, VALUES),
    "questions": (lambda path: list(read_questions(path)), {"question": ASKED}, VALUES),
    "pool": (lambda path: pool(path, id="id"), {"id": st.integers(0, 10**9), "instruction": ASKED,
                                                "reference": WORDS}, VALUES),
    "responses": (lambda path: pool(path, layout="responses"), {"instruction": ASKED, "responses": RESPONSES},
                  ODD_RESPONSES | VALUES),
    "generator_zoo": (lambda path: pool(path, layout="generator_zoo", score="score"),
                      {"instruction": ASKED, "m": RESPONSE, "n": RESPONSE}, ODD_RESPONSE | VALUES),
    "routes": (_read_routes, {"route": POINTS}, ODD_POINTS | VALUES),
    "recording": (lambda path: ScriptedChat(ScriptedModel(name="s", replay=path)),
                  {"messages": st.just([ASK, SAY]), "text": WORDS}, VALUES),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_what_a_method_reads_is_taken_or_named_by_file_and_line(reader: str) -> None:
    read_file, columns, odd = READERS[reader]

    @fuzzed(0.2)
    @given(around(columns, odd, 2))
    def check(records: list[dict[str, Any]]) -> None:
        with written("a.jsonl", "".join(f"{json.dumps(record)}\n" for record in records).encode()) as path:
            try:
                read_file(str(path))
            except SquadronError as error:
                assert str(path) in str(error)

    check()
