"""Records from JSON lines, Parquet or a data set of the hub, one mapping each, with the place that an error names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

from squadron.core.errors import InputError, suggest
from squadron.core.folder import Folder

_LINES, _TABLES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"), (".parquet",)


class Record(NamedTuple):
    """One record, and where it stands."""

    where: str
    values: dict[str, Any]


def read_records(path: str, split: str = "train", subset: str | None = None) -> Iterator[Record]:
    """The records of a file or of all files in a folder (by path or fsspec URL), or of a hub data set by name; of its
    `subset`, where it has several.

    Raises InputError for a path that is none of these, a line that is no JSON object, a file that is cut short.
    """
    place, _, name = path.rpartition("/")
    if name.endswith(_LINES + _TABLES):
        yield from _read_file(Folder(place or "."), name)
        return
    folder = Folder(path)
    if "://" in path or folder.exists():
        names = [name for name in folder.ls() if name.endswith(_LINES + _TABLES)]
        if not names:
            raise InputError("no .jsonl, .jsonl.gz or .parquet files here", where=path)
        for name in names:
            yield from _read_file(folder, name)
        return
    if path.startswith((".", "/", "~")):
        raise InputError("no such file or folder", where=path, fix="give a .jsonl, .jsonl.gz or .parquet file")
    yield from _read_hub(path, split, subset)


def check_columns(record: Record, wanted: dict[str, str]) -> None:
    """Raise InputError if a record lacks a column; `wanted` maps the setting that names a column to its name."""
    for setting, column in wanted.items():
        if record.values.get(column) is None:
            state = "is empty in" if column in record.values else "is missing from"
            raise InputError(
                f"the column {column!r} {state} this record",
                where=record.where,
                fix=f"set {setting}; {suggest(column, record.values)}",
            )


def _read_file(folder: Folder, name: str) -> Iterator[Record]:
    try:
        with folder.open(name) as stream:
            yield from (_read_table if name.endswith(_TABLES) else _read_lines)(stream, folder.file(name))
    except FileNotFoundError:
        raise InputError("file not found", where=folder.file(name), fix=suggest(name, folder.ls())) from None


def _read_lines(stream: IO[Any], where: str) -> Iterator[Record]:
    import gzip

    lines = gzip.GzipFile(fileobj=stream) if where.endswith(".gz") else stream
    try:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            values = json.loads(line)
            if not isinstance(values, dict):
                raise InputError(f"expected a JSON object, found a {type(values).__name__}", where=f"{where}:{number}")
            yield Record(f"{where}:{number}", values)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not valid JSON: {error}", where=f"{where}:{number}") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"the file is damaged or cut short: {error}", where=where) from None


def _read_table(stream: IO[Any], where: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file, number = pq.ParquetFile(stream), 0
        for batch in file.iter_batches(1024):
            for values in batch.to_pylist():
                number += 1
                yield Record(f"{where}, row {number}", _as_given(values))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"the file is damaged or no Parquet: {error}", where=where) from None


def _as_given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row without nulls inside them. A table gives all objects of a column the fields of each, and
    those that one did not have are null."""
    return {column: _without_nulls(value) for column, value in values.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _read_hub(name: str, split: str, subset: str | None) -> Iterator[Record]:
    import datasets

    try:
        rows = datasets.load_dataset(name, subset, split=split, streaming=True)
        for number, values in enumerate(rows):
            yield Record(f"{name} ({split}), row {number}", _as_given(values))
    except Exception as error:  # the hub's client raises many kinds, most of them about the network
        said = str(error).strip()
        if said.startswith("Config name is missing") or "BuilderConfig" in said:
            what = f"a subset has to be named: {' '.join(said.split())}"
            raise InputError(what, where=name, fix="set subset, next to split, to one of these") from error
        first = said.partition("\n")[0]
        fix = "give a file that exists, or the name of a hub data set and a split that it has"
        raise InputError(f"neither a file nor a data set that can be reached: {first}", where=name, fix=fix) from error
