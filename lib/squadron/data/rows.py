"""Rows on disk that can be asked for by number, mapped into memory and shared by all workers of a node."""

from __future__ import annotations

import bisect
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from squadron.core.artifacts import Artifact
from squadron.core.folder import Folder

if TYPE_CHECKING:
    import pyarrow as pa

    from squadron.core.run import Stage


def write_rows(
    folder: Folder,
    name: str,
    rows: Iterable[Mapping[str, Any]],
    per_batch: int = 1024,
    types: Mapping[str, str] | None = None,
) -> int:
    """Write rows as one Arrow file, and return how many. An empty iterable writes nothing.

    Columns and their types are those of the first batch, or `types`, by Arrow's names, where a column may begin with
    values that are missing. Raises ValueError for a column that they lack: Arrow would leave it out.
    """
    import pyarrow as pa

    schema = types and pa.schema([(column, pa.type_for_alias(kind)) for column, kind in types.items()])

    count = 0
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "rows.arrow")
        writer = None
        for chunk in _chunks(rows, per_batch):
            known = writer.schema if writer else schema
            if known and (unknown := set().union(*chunk) - set(known.names)):
                raise ValueError(f"the first rows of {name} have no {', '.join(sorted(unknown))}")
            batch = pa.RecordBatch.from_pylist(chunk, schema=known)
            if writer is None:
                writer = _Writer(path, batch.schema)
            writer.file.write_batch(batch)
            count += len(chunk)
        if writer is not None:
            writer.file.close()
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
            yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)

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


def store_rows(
    stage: Stage, name: str, rows: Iterable[Mapping[str, Any]], types: Mapping[str, str] | None = None
) -> RowsFile:
    """`write_rows` into a stage's folder."""
    count = write_rows(stage.folder, name, rows, types=types)
    return RowsFile.made(stage, name, count=count) if count else RowsFile()


def store_lines(stage: Stage, name: str, rows: Iterable[Mapping[str, Any]]) -> RowsFile:
    """Write rows as JSON lines into a stage's folder."""
    lines = [json.dumps(row) for row in rows]
    stage.folder.write_bytes(name, "".join(f"{line}\n" for line in lines).encode())
    return RowsFile.made(stage, name, count=len(lines))


class _Writer:
    def __init__(self, path: str, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.schema = schema
        self.file = pa.ipc.new_file(path, schema)


def _value(scalar: Any) -> Any:
    """A list of numbers as a NumPy array, without copying; anything else as Python's own."""
    import pyarrow as pa

    values = getattr(scalar, "values", None)
    if values is not None and pa.types.is_primitive(values.type):
        return values.to_numpy(zero_copy_only=False)
    return scalar.as_py()


def _chunks(rows: Iterable[Mapping[str, Any]], size: int) -> Iterable[list[Mapping[str, Any]]]:
    chunk: list[Mapping[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
