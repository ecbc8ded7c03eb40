"""Records: read as they were written, or refused by their file and line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from squadron.core.errors import InputError
from squadron.data.records import Record, read_records

LINE = b'{"a": 1}\n'


def read(path: Path) -> list[dict[str, Any]]:
    return [record.values for record in read_records(str(path))]


def damaged(data: bytes) -> bytes:
    packed = bytearray(gzip.compress(data))
    packed[len(packed) // 2] ^= 0xFF
    return bytes(packed)


@pytest.mark.parametrize(
    ("name", "data", "place", "what"),
    [
        ("a.jsonl", LINE + rb'{"a": "cut \ud83d"}', "a.jsonl:2", "'a' holds half of a surrogate pair"),
        ("a.jsonl", LINE + rb'{"\udc00": 1}', "a.jsonl:2", "half of a surrogate pair"),
        ("a.jsonl", LINE + rb'{"a": [{"b": {"\ud83d": 1}}]}', "a.jsonl:2", "'a' holds half of a surrogate pair"),
        ("a.jsonl", LINE + b'{"a": "\xed\xa0\xbd"}', "a.jsonl:2", "not UTF-8"),
        ("a.jsonl", LINE + b'{"a": ' + b"9" * 5000 + b"}", "a.jsonl:2", "too long"),
        ("a.jsonl", LINE + b'{"a": [1e999]}', "a.jsonl:2", "1e999 is out of range"),
        ("a.jsonl", LINE + b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "a.jsonl:2", "levels deep"),
        ("a.jsonl", LINE + b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}", "a.jsonl:2", "levels deep"),
        ("a.jsonl", LINE + b'{"a": {"b": 1, "c": 2, "b": 3}}', "a.jsonl:2", "the key 'b' stands twice"),
        ("a.jsonl", LINE + b"[1]", "a.jsonl:2", "expected a JSON object, found a list"),
        ("a.jsonl", b'[\n{"a": 1}\n]', "a.jsonl:1", r"not valid JSON(.|\n)*end in \.json"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "a.jsonl:1", "UTF-16"),
        ("a.jsonl", gzip.compress(LINE), "a.jsonl:1", r"let its name end in \.gz"),
        ("._a.jsonl", b"\x00\x05\x16\x07\x00\xb0", "._a.jsonl:1", "macOS"),
        ("a.jsonl.gz", damaged(b"".join(b'{"a": %d}\n' % n**3 for n in range(999))), "a.jsonl.gz", "damaged"),
        ("a.jsonl.gz", LINE, "a.jsonl.gz", "damaged"),
        ("a.json", b'[{"a": 1},\n{"a": 2\n]', "a.json:3", "not valid JSON"),
        ("a.json", b'[{"a": 1}, 2]', "a.json, item 2", "expected a JSON object, found a number"),
        ("a.json", LINE + b'{"a"\n', "a.json:2", "not valid JSON"),
        ("a.parquet", LINE, "a.parquet", "no Parquet"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "a.csv:3", "3 values for 2 columns: a, b"),
        ("a.csv", b"a,a\n", "a.csv:1", "the column 'a' stands twice"),
        ("a.csv", b'a,b\n"1,2\n', "a.csv:2", "not valid CSV"),
        ("a.csv", b"a,b\n\xe9,1\n", "a.csv:2", "not UTF-8"),
        ("a.xlsx", b"PK", "a.xlsx", r"does not say(.|\n)*give a \.jsonl"),
        ("a.jsonl.zst", b"(", "a.jsonl.zst", "does not say"),
    ],
)
def test_what_cannot_be_kept_as_it_is_is_refused_by_its_place(
    tmp_path: Path, name: str, data: bytes, place: str, what: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=what) as refused:
        read(tmp_path / name)
    assert refused.value.where == str(tmp_path / place)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": "\\ud83d\\ude00"}'),
        ("A.JSONL", b'{"a": 1}\n{"a": "\xf0\x9f\x98\x80"}\n\n'),
        ("A.NDJSON.GZ", gzip.compress('{"a": 1}\n{"a": "😀"}\n'.encode())),
        ("a.json", '[{"a": 1},\n\n{"a": "😀"}]'.encode()),
        ("a.json", '\ufeff\n{"a": 1}\n{"a": "😀"}'.encode()),
        ("a.json.gz", gzip.compress('{"a": 1}\n{"a": "😀"}\n'.encode())),
    ],
)
def test_files_are_read_however_people_write_them(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name) == [{"a": 1}, {"a": "😀"}]


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_of_commas_holds_texts(tmp_path: Path, packed: bool) -> None:
    data = '\ufeffa,b\r\n1,"x, ""y""\nz"\r\n\r\n,😀\r\n'.encode()
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert read(path) == [{"a": "1", "b": 'x, "y"\nz'}, {"a": "", "b": "😀"}]
    assert list(read_records(str(path)))[1].where == f"{path}:5"


def test_one_object_of_many_lines_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({"a": {"b": 1}}, indent=2))
    assert read(tmp_path / "one.json") == [{"a": {"b": 1}}]
    for name in ("empty.json", "empty.jsonl"):
        (tmp_path / name).write_bytes(b"")
        assert read(tmp_path / name) == []


def test_of_a_folder_what_is_hidden_is_left_out_and_a_folder_of_parts_is_read(tmp_path: Path) -> None:
    parts = tmp_path / "x.jsonl"
    parts.mkdir()
    (parts / "part-0.jsonl").write_bytes(LINE)
    (parts / "._part-0.jsonl").write_bytes(b"\x00\x05\x16\x07\xb0")
    (parts / ".crc.jsonl").write_bytes(b"no JSON")
    (parts / "info.json").write_bytes(b"[3]")
    assert read(parts) == read(tmp_path) == [{"a": 1}]
    (parts / "part-0.jsonl").unlink()
    with pytest.raises(InputError, match=r"no \.jsonl(.|\n)*info\.json"):
        read(parts)
    (parts / "part-0.jsonl").write_bytes(LINE)
    (parts / "part-1.jsonl.zst").write_bytes(b"(")
    with pytest.raises(InputError, match="gzip alone") as refused:
        read(tmp_path)
    assert refused.value.where == str(parts / "part-1.jsonl.zst")


def test_odd_types_of_tables_are_values_of_json(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    columns = {
        "time": pa.array([noon], pa.timestamp("us", "UTC")),
        "day": pa.array([date(2026, 1, 2)]),
        "price": pa.array([Decimal("12.50")]),
        "exact": pa.array([Decimal("0.12345678901234567890")]),
        "word": pa.array(["a"]).dictionary_encode(),
        "map": pa.array([[("x", None), ("y", 2)]], pa.map_(pa.string(), pa.int64())),
        "none": pa.array([[]], pa.map_(pa.string(), pa.int64())),
        "numbered": pa.array([[(1, "x")]], pa.map_(pa.int64(), pa.string())),
        "objects": pa.array([[{"a": noon, "b": None}]]),
        "bytes": pa.array([b"\xff"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [
        {
            "time": "2026-01-02T12:00:00+00:00",
            "day": "2026-01-02",
            "price": 12.5,
            "exact": "0.12345678901234567890",
            "word": "a",
            "map": {"x": None, "y": 2},
            "none": {},
            "numbered": [[1, "x"]],
            "objects": [{"a": "2026-01-02T12:00:00+00:00"}],
            "bytes": b"\xff",
        }
    ]


def test_a_cell_that_cannot_be_read_is_named_by_its_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([b"a", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"t": texts}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="'t' cannot be read") as refused:
        read(tmp_path / "a.parquet")
    assert refused.value.where == f"{tmp_path}/a.parquet, row 2"
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], ["t", "t"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="column 't' stands twice"):
        read(tmp_path / "a.parquet")


VALUES: dict[str, Any] = {
    "text": "a", "blank": " ", "whole": 3, "part": 0.5, "yes": True, "nan": float("nan"), "inf": float("inf"),
    "huge": 10**400, "empty": [], "list": ["a", 1], "words": ["a", "b"], "null": None, "bytes": b"a",
    "object": {"b": "c"}, "objects": [{"b": 1}, {"b": None}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("read_column", "good"),
    [
        (lambda record, name: record.text(name, blank=False), {"text"}),
        (Record.number, {"whole", "part"}),
        (Record.label, {"text", "blank", "whole", "part", "yes", "huge"}),
        (Record.items, {"list", "words", "objects"}),
        (Record.texts, {"words"}),
        (Record.labels, {"list", "words"}),
        (Record.record, {"object"}),
        (Record.records, {"objects"}),
    ],
)
def test_a_column_is_of_the_type_that_is_asked_for_or_named(
    read_column: Callable[[Record, str], Any], good: set[str]
) -> None:
    record = Record("a.jsonl:7", VALUES)
    for name in [*VALUES, "mising"]:
        if name in good:
            got = read_column(record, name)
            plain = got.values if isinstance(got, Record) else got
            plain = [one.values if isinstance(one, Record) else one for one in plain] if name == "objects" else plain
            assert plain == VALUES[name]
            continue
        with pytest.raises(InputError, match=rf"the column '{name}'") as refused:
            read_column(record, name)
        assert refused.value.where.startswith("a.jsonl:7")


def test_an_error_says_what_was_found_and_what_to_give() -> None:
    record = Record("a.jsonl:7", {"size_b": "7B", "steps": ["a", ["b"]], "of": [{"score": "n/a"}]})
    with pytest.raises(InputError, match="'size_b' holds a text, not a finite number: '7B'") as refused:
        record.number("size_b", "pool.size")
    assert refused.value.fix == "give a finite number, or set pool.size to another column"
    with pytest.raises(InputError, match="'steps' holds a list, not text") as refused:
        record.texts("steps")
    assert refused.value.where == "a.jsonl:7, steps 2"
    with pytest.raises(InputError, match="'score' holds a text, not a finite number: 'n/a'") as refused:
        record.records("of")[0].number("score")
    assert refused.value.where == "a.jsonl:7, of 1"
    with pytest.raises(InputError, match=r"missing from this record(.|\n)*did you mean steps"):
        record.texts("step")
