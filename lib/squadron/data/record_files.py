"""The formats that records come in: JSON lines, JSON, CSV, Parquet, data sets of the hub.

What cannot be kept as it is, is refused by its file and line.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

from squadron.core.errors import InputError, SquadronError, suggest
from squadron.core.folder import Folder
from squadron.core.hub import ask_hub
from squadron.core.inputs import InputPath

if TYPE_CHECKING:
    import pyarrow as pa

Placed = tuple[str, dict[str, Any]]
"""Where a record stands, and its values."""

_SUFFIX = re.compile(r".+\.(?P<kind>jsonl|ndjson|json|parquet|csv)(?P<gz>(?<!parquet)\.gz)?", re.IGNORECASE)
_PACKED = re.compile(r".+\.(jsonl|ndjson|parquet)\.(zst|zstd|bz2|xz|lz4|zip|7z|br)", re.IGNORECASE)
_KNOWN = "give a .jsonl, .jsonl.gz, .json, .csv or .parquet file"
_DEEPEST = 100
"""Levels of lists and objects in a value. Python's own end is at some thousand, less wherever it has already got to."""
_MORE = "Extra data"
"""What Python says of a text that goes on after its value."""
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "a text"), (bool, "true or false"), ((int, float), "a number"), (list, "a list"), (Mapping, "an object"),
    (bytes, "bytes"), (type(None), "null"),
)  # fmt: skip
_MAGIC = {
    b"\x1f\x8b": "this is gzip: let its name end in .gz",
    b"PAR1": "this is Parquet: let its name end in .parquet",
    b"\xff\xfe": "this is UTF-16: save it as UTF-8",
    b"\xfe\xff": "this is UTF-16: save it as UTF-8",
    b"\x00\x05\x16\x07": "this is what macOS keeps beside a file: give the one without `._` before its name",
}


class RecordsPath(InputPath):
    """A file of records, a folder of them, or a data set of the hub. Of a folder, those files count that are read."""

    hub_kind = "datasets"

    @classmethod
    def reads(cls, name: str) -> bool:
        """A file of lines or a table, or a part of one that Spark wrote as a folder."""
        return all(is_part(one) for one in name.split("/"))

    @classmethod
    def enters(cls, name: str) -> bool:
        """A folder of parts is named as its table."""
        return cls.reads(name)


def is_part(name: str) -> bool:
    """Whether a file in a folder is read as a part of its records: neither one that is hidden, as macOS and shells keep
    there, nor a single JSON or CSV file, which are read by their names."""
    match = _SUFFIX.fullmatch(name)
    return match is not None and match["kind"].lower() not in ("json", "csv") and not name.startswith(".")


def read_path(path: str, split: str, subset: str | None, names: Sequence[str] = ()) -> Iterator[Placed]:
    """The records of a file, a folder or a hub data set, as `squadron.data.records.read_records` says."""
    address = path.partition("?")[0] if "://" in path else path
    place, slash, name = address.rpartition("/")
    if _SUFFIX.fullmatch(name):
        yield from _read_file(Folder(place or slash or "."), path[len(place + slash) :], names)
        return
    folder = Folder(path)
    if "://" in path or folder.exists():
        yield from _read_folder(folder, names)
        return
    if path.startswith((".", "/", "~")):
        raise InputError("no such file or folder", where=path, fix=_KNOWN)
    yield from _read_hub(path, split, subset)


def kind_of(value: Any) -> str:
    """What a value is, in a reader's words: "a text", "a list"."""
    return next((name for kind, name in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")


def _read_folder(folder: Folder, names: Sequence[str] = ()) -> Iterator[Placed]:
    """All files of lines and tables, by name. Raises InputError where some of them could only be left out."""
    if os.path.isfile(folder.path):
        raise InputError("its name does not say that this file holds records", where=folder.url, fix=_KNOWN)
    there = folder.ls()
    if packed := next(filter(_PACKED.fullmatch, there), None):
        raise InputError("of packed files those of gzip alone are read", where=folder.file(packed), fix="unpack it")
    parts = [name for name in there if is_part(name)]
    if not parts:
        shown = f"; here are {', '.join(there[:8])}" if there else ""
        raise InputError("no .jsonl, .jsonl.gz or .parquet files here", where=folder.url, fix=f"{_KNOWN}{shown}")
    for name in parts:
        yield from _read_file(folder, name, names)


def _read_file(folder: Folder, name: str, names: Sequence[str] = ()) -> Iterator[Placed]:
    where, match = folder.file(name), _SUFFIX.fullmatch(name.partition("?")[0])
    assert match is not None
    try:
        stream = folder.open(name)
    except (FileNotFoundError, IsADirectoryError) as error:
        if isinstance(error, IsADirectoryError) or (folder / name).ls():  # Spark writes a file as a folder of parts
            yield from _read_folder(folder / name, names)
            return
        raise InputError("file not found", where=where, fix=suggest(name, folder.ls())) from None
    except PermissionError:
        raise InputError("this file may not be read", where=where, fix="give yourself permission to read it") from None
    readers = {"parquet": _read_table, "json": _read_json, "csv": _read_csv}
    read = readers.get(match["kind"].lower(), functools.partial(_read_lines, names=names))
    with stream:
        yield from _unzipped(stream, read, where) if match["gz"] else read(stream, where)


def _unzipped(stream: IO[Any], read: Callable[[IO[Any], str], Iterator[Placed]], where: str) -> Iterator[Placed]:
    content: IO[Any] = io.BufferedReader(gzip.GzipFile(fileobj=stream))
    try:
        try:
            yield from read(content, where)
        except InputError:
            while content.read(2**20):  # a file that is damaged says so at its end, and what it said before is nothing
                pass
            raise
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        fix = "make it again, or fetch it again"
        raise InputError(f"the file is damaged or cut short: {error}", where=where, fix=fix) from None


def _read_lines(stream: IO[Any], where: str, names: Sequence[str] = ()) -> Iterator[Placed]:
    fix = "a .jsonl file has an object a line; let the name of any other JSON end in .json"
    for number, line in enumerate(stream, start=1):
        place = f"{where}:{number}"
        if text := _decoded(line, place, first=number == 1).strip():
            value = _parsed(text, place, fix)
            yield place, _checked(_named(value, names, place) if names else value, place, fix)


def _named(value: Any, names: Sequence[str], where: str) -> Any:
    """A list of values, each under its column's name; whatever else it is, as it is."""
    if isinstance(value, list) and len(value) != len(names):
        raise InputError(f"{len(value)} values for {len(names)} columns: {', '.join(names)}", where=where)
    return dict(zip(names, value, strict=True)) if isinstance(value, list) else value


def _read_json(stream: IO[Any], where: str) -> Iterator[Placed]:
    """One object, or a list of them; or lines, which some call .json too."""
    data = stream.read()
    text = _decoded(data, where, first=True).strip()
    try:
        value = _parsed(text, where) if text else []
    except InputError as error:
        if not text.startswith("{") or _MORE not in error.what:
            raise
        yield from _read_lines(io.BytesIO(data), where)
        return
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        place = f"{where}, item {number}" if isinstance(value, list) else where
        yield place, _checked(item, place, "give a list of objects, or an object a line")


def _read_csv(stream: IO[Any], where: str) -> Iterator[Placed]:
    """Texts under the names of the first line; commas between them, quotation marks around those with commas."""
    lines = (_decoded(line, f"{where}:{n}", first=n == 1) for n, line in enumerate(stream, start=1))
    rows = csv.reader(lines, strict=True)
    try:
        names = next(rows, [])
        _refuse_twice(names, "column", f"{where}:1")
        for row in rows:
            if len(row) not in (0, len(names)):
                what = f"{len(row)} values for {len(names)} columns: {', '.join(names)}"
                fix = "separate values by commas, and quote those that hold one"
                raise InputError(what, where=f"{where}:{rows.line_num}", fix=fix)
            if row:
                yield f"{where}:{rows.line_num}", dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise InputError(f"not valid CSV: {error}", where=f"{where}:{rows.line_num}") from None


def _read_table(stream: IO[Any], where: str) -> Iterator[Placed]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        for batch in file.iter_batches(1024):
            names = batch.schema.names
            _refuse_twice(names, "column", where)
            columns = [_cells(column, name, where, number) for name, column in zip(names, batch.columns, strict=True)]
            for row in zip(*columns, strict=True):
                number += 1
                place = f"{where}, row {number}"
                yield place, _checked(dict(zip(names, row, strict=True)), place)
    except SquadronError:
        raise
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        raise InputError(f"the file is damaged or no Parquet: {_line(error)}", where=where) from None


def _cells(column: pa.Array, name: str, where: str, before: int) -> Sequence[Any]:
    """The values of a column; `before` rows stand before it in the file."""
    try:
        return [_as_given(value, column.type) for value in column.to_pylist()]
    except (ValueError, OverflowError, TypeError) as error:  # among them texts that are no UTF-8, times past year 9999
        for number in range(len(column)):
            try:
                _as_given(column[number].as_py(), column.type)
            except (ValueError, OverflowError, TypeError) as cell:
                what = f"the column {name!r} cannot be read: {_line(cell)}"
                raise InputError(
                    what, where=f"{where}, row {before + number + 1}", fix=f"mend or drop {name!r}"
                ) from None
        raise InputError(f"the column {name!r} cannot be read: {_line(error)}", where=where) from None


def _as_given(value: Any, kind: pa.DataType) -> Any:
    """A value without the nulls that a table adds: all objects of a column get the fields of each. Maps, which have
    their own keys, as objects."""
    import pyarrow.types as types

    if value is None or not types.is_nested(kind):
        return value
    if types.is_struct(kind):
        fields = ((field.name, value[field.name], field.type) for field in kind)
        return {name: _as_given(item, of) for name, item, of in fields if item is not None}
    if types.is_map(kind):
        pairs = [(key, _as_given(item, kind.item_type)) for key, item in value]
        keyed = dict(pairs)
        return keyed if len(keyed) == len(pairs) and all(isinstance(key, str) for key in keyed) else pairs
    return [_as_given(item, kind.value_type) for item in value] if isinstance(value, list) else value


def _read_hub(name: str, split: str, subset: str | None) -> Iterator[Placed]:
    import datasets

    try:
        commit = ask_hub("datasets", name)  # the one that stages depend on
        rows = datasets.load_dataset(name, subset, split=split, streaming=True, revision=commit)
        for number, values in enumerate(rows):
            place = f"{name} ({split}), row {number}"
            yield place, _checked({column: _without_nulls(value) for column, value in values.items()}, place)
    except SquadronError:
        raise
    except Exception as error:  # the hub's client raises many kinds, most of them about the network
        said = str(error).strip()
        if said.startswith("Config name is missing") or "BuilderConfig" in said:
            what = f"a subset has to be named: {' '.join(said.split())}"
            raise InputError(what, where=name, fix="set subset, next to split, to one of these") from error
        fix = "give a file that exists, or the name of a hub data set and a split that it has"
        what = f"neither a file nor a data set that can be reached: {_line(error)}"
        raise InputError(what, where=name, fix=fix) from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _decoded(data: bytes, where: str, *, first: bool) -> str:
    """The text of a line or a file; a byte order mark may stand before the `first`."""
    try:
        return data.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        known = (fix for magic, fix in _MAGIC.items() if first and data.startswith(magic))
        raise InputError(f"not UTF-8: {error}", where=where, fix=next(known, "save the file as UTF-8")) from None


def _parsed(text: str, where: str, fix: str = "") -> Any:
    try:
        return _decode(text, where)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if "\n" in text else where
        raise InputError(f"not valid JSON: {error.msg}, column {error.colno}", where=place, fix=fix) from None


def _decode(text: str, where: str) -> Any:
    """Raises json.JSONDecodeError for what is no JSON, InputError for JSON that Python cannot read as it is."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except InputError as error:
        raise InputError(error.what, where=where, fix=error.fix) from None
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        what = f"a number is too long to be read: {str(error).partition(';')[0]}"
        raise InputError(what, where=where, fix="write it as a text, in quotation marks") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        _refuse_twice([key for key, _ in pairs], "key", "")
    return values


def _float(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise InputError(f"the number {digits:.40} is out of range", fix="write it as a text, in quotation marks")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float)


def _refuse_twice(names: Sequence[str], kind: str, where: str) -> None:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"the {kind} {twice!r} stands twice here", where=where, fix="keep one")


def read_json_text(text: str, column: str, where: str) -> Any:
    """The value of a column that holds JSON as text, None if it is none. Raises InputError if it cannot be kept."""
    try:
        return _checked({column: _decode(text, where)}, where)[column]
    except json.JSONDecodeError:
        return None


def _checked(values: Any, where: str, fix: str = "") -> dict[str, Any]:
    """The values of a record, each of which can be kept. Raises InputError, with the column, for one that cannot."""
    if not isinstance(values, dict):
        raise InputError(f"expected a JSON object, found {kind_of(values)}: {values!r:.60}", where=where, fix=fix)
    checked = {}
    for column, value in values.items():
        try:
            checked[column] = _plain(value)
            column.encode()
        except UnicodeEncodeError as error:
            what = f"the column {column!r} holds half of a surrogate pair, which is no text: {error.object!r:.60}"
            fix = "leave it out, or write the whole character: it often is half an emoji, where a text was cut"
            raise InputError(what, where=where, fix=fix) from None
        except RecursionError:
            raise _too_deep(where) from None
    return checked


def _plain(value: Any, depth: int = 1) -> Any:
    """A value of JSON; of a table also times, as ISO 8601 texts, and decimals, as numbers where one holds them exactly.

    Others, such as bytes and images, are left as they are: columns that nobody asks for do no harm.
    Raises UnicodeEncodeError for half of a surrogate pair and RecursionError for a value that is nested too deeply.
    """
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
        return value
    if isinstance(value, dict | list | tuple):
        if depth > _DEEPEST:
            raise RecursionError
        if isinstance(value, dict):
            return {_plain(key): _plain(item, depth + 1) for key, item in value.items()}
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return next((one for one in (int(value), float(value)) if Decimal(repr(one)) == value), str(value))
    return str(value) if isinstance(value, UUID) else value


def _too_deep(where: str) -> InputError:
    what = f"lists or objects stand more than {_DEEPEST} levels deep in each other"
    return InputError(what, where=where, fix="give flatter records, or what is inside as JSON text")


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
