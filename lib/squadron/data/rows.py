"""Rows on disk that can be asked for by number, mapped into memory and shared by all workers of a node."""

from __future__ import annotations

import bisect
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from squadron.core.artifacts import Artifact
from squadron.core.errors import InputError
from squadron.core.folder import Folder

if TYPE_CHECKING:
    import pyarrow as pa

    from squadron.core.run import Stage


Types = Mapping[str, str]
"""The columns of a file of rows. A type is one of Arrow's (`string`, `int64`, `float64`, `bool`), a list of one
(`list<int64>`), or `json`: any value of JSON, kept exactly as it is."""

_TAKEN: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int64": (int, np.integer),
    "float64": (float, int, np.floating, np.integer),
    "bool": (bool, np.bool_),
}


def write_rows(
    folder: Folder, name: str, rows: Iterable[Mapping[str, Any]], types: Types, per_batch: int = 1024
) -> int:
    """Write rows as one Arrow file, and return how many. An empty iterable writes nothing.

    `types` are all columns; a row may lack some, whose value then is None. Nothing is converted: raises InputError,
    with row and column, for a value that is not of its column's type, and ValueError for a column that is not stated.
    """
    import pyarrow as pa

    schema = pa.schema([(column, _arrow_type(kind)) for column, kind in types.items()])
    where, count = folder.file(name), 0
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "rows.arrow")
        with pa.ipc.new_file(path, schema) as file:
            for chunk in _chunks(rows, per_batch):
                if unknown := set().union(*chunk) - set(types):
                    raise ValueError(f"no type is stated for {', '.join(sorted(unknown))} of {name}")
                columns = [_column([row.get(column) for row in chunk], column, types[column], where, count)
                           for column in types]  # fmt: skip
                file.write_batch(pa.record_batch(columns, schema=schema))
                count += len(chunk)
        if count:
            folder.put(name, path)
    return count


class ArrowRows(Sequence[Mapping[str, Any]]):
    """The rows of Arrow files, one after the other. Pickles as its paths; maps the files where it is used.

    Files behind a URL are copied once to the node's temporary folder.
    """

    def __init__(self, folder: Folder, names: Sequence[str]) -> None:
        self.folder, self.names = folder, tuple(names)
        self._batches: list[pa.RecordBatch] | None = None
        self._ends: list[int] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrowRows, (self.folder, self.names)

    def __len__(self) -> int:
        self._open()
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, number: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Mapping[str, Any]]: ...

    def __getitem__(self, number: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        batches = self._open()
        if not 0 <= number < len(self):
            raise IndexError(number)
        place = bisect.bisect_right(self._ends, number)
        batch = batches[place]
        row = number - (self._ends[place] - batch.num_rows)
        return {name: _value(column[row]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}

    def columns(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """The values of some columns, row by row, without reading the others."""
        for batch in self._open():
            yield from zip(*(_values(batch.column(name)) for name in names), strict=True)

    def _open(self) -> list[pa.RecordBatch]:
        if self._batches is None:
            import pyarrow as pa

            files = [pa.ipc.open_file(pa.memory_map(self.folder.local(name))) for name in self.names]
            self._batches = [file.get_batch(n) for file in files for n in range(file.num_record_batches)]
            total = 0
            for batch in self._batches:
                total += batch.num_rows
                self._ends.append(total)
        return self._batches


class RowsFile(Artifact):
    """Rows that a stage has written: an Arrow file, or JSON lines. None at all have no file."""

    path: str = ""
    count: int = 0

    def rows(self, run: Folder) -> ArrowRows:
        """The rows of an Arrow file. Raises InputError if it is not what was written."""
        if self.path:
            self.locate(run)
        return ArrowRows(run, [self.path] if self.path else [])

    def lines(self, run: Folder) -> list[Any]:
        """The rows of JSON lines. Raises InputError if they are not what was written."""
        if self.path:
            self.locate(run)
        return run.read_lines(self.path) if self.path else []


def store_rows(stage: Stage, name: str, rows: Iterable[Mapping[str, Any]], types: Types) -> RowsFile:
    """`write_rows` into a stage's folder."""
    count = write_rows(stage.folder, name, rows, types)
    return RowsFile.made(stage, name, count=count) if count else RowsFile()


def store_lines(stage: Stage, name: str, rows: Iterable[Mapping[str, Any]]) -> RowsFile:
    """Write rows as JSON lines into a stage's folder."""
    lines = [json.dumps(row) for row in rows]
    stage.folder.write_bytes(name, "".join(f"{line}\n" for line in lines).encode())
    return RowsFile.made(stage, name, count=len(lines))


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    if kind == "json":
        return pa.json_()
    return pa.list_(_arrow_type(kind[5:-1])) if kind.startswith("list<") else pa.type_for_alias(kind)


def _column(values: list[Any], column: str, kind: str, where: str, before: int) -> pa.Array:
    """Values of a column; `before` rows stand before them in the file."""
    try:
        return _array(values, kind)
    except _UNFIT:
        for number, value in enumerate(values, start=before + 1):
            try:
                _array([value], kind)
            except _UNFIT as error:
                what = f"{value!r:.60} is no {kind}, which the column {column!r} holds: {error}"
                raise InputError(what, where=f"{where}, row {number}") from None
        raise


_UNFIT = (TypeError, ValueError, OverflowError, RecursionError)
"""What Python and Arrow raise for a value that is not of a type; Arrow's own errors are of these, too."""


def _array(values: Sequence[Any], kind: str) -> pa.Array:
    """Raises one of `_UNFIT` for a value of another type, which Arrow in part would convert: 0.9 to the integer 0."""
    import pyarrow as pa

    if kind == "json":
        texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        return pa.array(texts, _arrow_type(kind))
    listed = kind.startswith("list<")
    for value in values if listed else (values,):
        if value is not None:
            _refuse_others(value, kind[5:-1] if listed else kind, missing=not listed)
    return pa.array(values, _arrow_type(kind))


def _refuse_others(values: Any, kind: str, *, missing: bool) -> None:
    """Raise TypeError for a list or array with an item of another type; None only where it says that one is missing."""
    if isinstance(values, str | bytes | Mapping):
        raise TypeError("it is no list")
    found = {values.dtype.type} if isinstance(values, np.ndarray) else set(map(type, values))
    for other in found - ({type(None)} if missing else set()):
        if not issubclass(other, _TAKEN[kind]) or (other is bool and kind != "bool"):
            raise TypeError(f"a value is of the type {other.__name__}")


def _value(scalar: Any) -> Any:
    """A list of numbers as a NumPy array, without copying; anything else as Python's own."""
    import pyarrow as pa

    values = getattr(scalar, "values", None)
    if values is not None and pa.types.is_primitive(values.type):
        return values.to_numpy(zero_copy_only=False)
    value = scalar.as_py()
    return json.loads(value) if value is not None and isinstance(scalar, pa.ExtensionScalar) else value


def _values(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = column.to_pylist()
    if isinstance(column.type, pa.JsonType):
        return [None if value is None else json.loads(value) for value in values]
    return values


def _chunks(rows: Iterable[Mapping[str, Any]], size: int) -> Iterable[list[Mapping[str, Any]]]:
    chunk: list[Mapping[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
