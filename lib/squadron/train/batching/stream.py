"""Rows straight from Parquet shards, read and prepared by Ray Data while the workers train.

    data = open_stream(Folder("s3://bucket/shards"), prepare=tokenize, columns=("text",))
    fit(objective, build, data, spec, store, workers=8)

For data too large to prepare beforehand. All rows stand in one endless order: epoch by epoch, the row groups of all
files shuffled, and the rows of each row group shuffled, all of it a function of the seed and the epoch. Step s takes
the rows from s · batch_size on, so that the step is all the cursor there is, and what lies before it is skipped by its
row counts, unread. Rows mix within row groups and row groups with each other; shards should be written shuffled.

Each worker runs a pipeline of its own, whose tasks keep only the worker's rows of a row group before they prepare them.
A row group is so read by every worker that has rows in it, but each row is prepared once, and workers need not agree
on anything while they train. Ray Data's `streaming_split` would read once, but promises no order, deals out whole
blocks by their sizes, and must hand round its iterators next to the training's own collectives.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.core.errors import ConfigError, InputError, SquadronError, suggest
from squadron.core.folder import Folder
from squadron.train.batching.batches import Row
from squadron.train.spec import TrainSpec

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, np.ndarray]
Prepare = Callable[[Columns], Columns]

_PLANNED = 256
"""Row groups that one execution of Ray Data goes through, of as many epochs as it takes."""
_PREPARED = 256
"""Rows that `prepare` is given at most."""
_STORE_SHARE = 0.5
"""Share of the object store that the pipelines of all workers may fill together."""


@dataclass(frozen=True)
class RowGroup:
    """What is read at once: one row group of one Parquet file."""

    name: str
    number: int
    rows: int


@dataclass(frozen=True)
class ParquetStream:
    """A `Source` over row groups, made by `open_stream`. `tasks` of a worker read and prepare at the same time.

    Rows are mappings of `columns`, or of what `prepare` makes of them, to NumPy scalars or arrays.
    """

    folder: Folder
    groups: tuple[RowGroup, ...]
    columns: tuple[str, ...]
    prepare: Prepare | None = None
    tasks: int = 2

    @property
    def rows(self) -> int:
        """Rows of one epoch."""
        return sum(group.rows for group in self.groups)

    def steps(self, spec: TrainSpec) -> int:
        _check_unpacked(spec)
        return max(1, math.ceil(spec.epochs * self.rows / spec.batch_size))

    def read(self, spec: TrainSpec, rank: int, workers: int, start: int) -> Iterator[list[list[Row]]]:
        """As `Source.read`. Needs a connection to Ray, but none of its CPUs, which the training holds.

        Raises ConfigError if rows are to be packed or cannot be dealt out evenly, and, while reading, InputError for a
        file that is gone, damaged or changed, and for a `prepare` that is not row by row.
        """
        _check_unpacked(spec)
        micro, size = spec.accumulation(workers), spec.micro_batch_size
        share = _Share(self.folder, self.columns, self.prepare, spec.seed, start * spec.batch_size, size, rank, workers)
        rows = self._rows(share)
        return ([list(islice(rows, size)) for _ in range(micro)] for _ in count())

    def _rows(self, share: _Share) -> Iterator[Row]:
        """A worker's rows, one after the other, without end."""
        parts = (part for part in self._parts(share.seed, share.cursor) if share.has(part))
        while True:
            yield from _run(list(islice(parts, _PLANNED)), share, self.tasks)

    def _parts(self, seed: int, cursor: int) -> Iterator[_Part]:
        """Row groups in the order of all epochs, from the one with the row at `cursor` on, without end."""
        rows = self.rows
        for epoch in count(cursor // rows):
            first = epoch * rows
            for place in np.random.default_rng([seed, epoch]).permutation(len(self.groups)).tolist():
                group = self.groups[place]
                if first + group.rows > cursor:
                    yield _Part(group.name, group.number, group.rows, epoch, place, first)
                first += group.rows


def open_stream(
    folder: Folder, prepare: Prepare | None = None, columns: tuple[str, ...] | None = None, tasks: int = 2
) -> ParquetStream:
    """A stream over all `*.parquet` in `folder`, by their footers. They must stay as they are until the training ends.

    `prepare` maps columns of up to 256 rows, `[rows, ...]` each, to columns of the same rows, each row by itself; it is
    pickled to the tasks. `columns` are those to read, by default the first file's.

    Raises InputError if there is no file or no row, or for a file that cannot be read or lacks a column.
    """
    names = [name for name in folder.ls() if name.endswith(".parquet")]
    if not names:
        raise InputError("there are no .parquet files", where=str(folder), fix="give a folder with at least one")
    with ThreadPoolExecutor(16) as threads:
        footers = list(threads.map(partial(_read_footer, folder), names))
    columns = tuple(columns or footers[0].schema.to_arrow_schema().names)
    for name, footer in zip(names, footers, strict=True):
        known = footer.schema.to_arrow_schema().names
        for column in columns:
            if column not in known:
                raise InputError(f"no column {column!r}", where=folder.file(name), fix=suggest(column, known))
    counts = [[footer.row_group(n).num_rows for n in range(footer.num_row_groups)] for footer in footers]
    groups = tuple(
        RowGroup(name, number, rows)
        for name, of_file in zip(names, counts, strict=True)
        for number, rows in enumerate(of_file)
        if rows
    )
    if not groups:
        raise InputError("the .parquet files hold no rows", where=str(folder), fix="give at least one row")
    return ParquetStream(folder, groups, columns, prepare, tasks)


@dataclass(frozen=True)
class _Part:
    """A row group in its place: its `place` among all, and where in the endless order its `first` row stands."""

    name: str
    number: int
    rows: int
    epoch: int
    place: int
    first: int


@dataclass(frozen=True)
class _Share:
    """Which rows are one worker's: from `cursor` on, every micro-batch of `size` rows whose number fits its rank."""

    folder: Folder
    columns: tuple[str, ...]
    prepare: Prepare | None
    seed: int
    cursor: int
    size: int
    rank: int
    workers: int

    def has(self, part: _Part) -> bool:
        """Whether any row of a part is this worker's."""
        first = max(part.first, self.cursor) // self.size
        last = (part.first + part.rows - 1) // self.size
        return (self.rank - first) % self.workers <= last - first

    def picks(self, part: _Part) -> np.ndarray:
        """This worker's rows of a part, by their numbers in the row group, in the order of training: `[n]`."""
        shuffle = np.random.default_rng([self.seed, part.epoch, part.place]).permutation(part.rows)
        places = np.arange(part.first, part.first + part.rows)
        return shuffle[(places >= self.cursor) & (places // self.size % self.workers == self.rank)]

    def read(self, part: Columns) -> Iterator[pa.Table | Columns]:
        """What a task does: read the one part that it is given, and prepare this worker's rows of it, some at a time.

        The numbers of a part come as columns of one row.
        """
        one = _Part(str(part.pop("name")[0]), **{name: int(values[0]) for name, values in part.items()})
        table, picks = _read_group(self.folder, one, self.columns), self.picks(one)
        for start in range(0, len(picks), _PREPARED):
            rows = table.take(picks[start : start + _PREPARED])
            yield rows if self.prepare is None else _prepared(self.prepare, rows, self.folder.file(one.name))


def _run(parts: list[_Part], share: _Share, tasks: int) -> Iterator[Row]:
    """The rows of some parts in order, by one execution of Ray Data that stays `tasks` parts and some blocks ahead."""
    import ray
    import ray.data

    items = ray.data.from_items([asdict(part) for part in parts], override_num_blocks=len(parts))
    # Tasks ask for no CPU: those of the cluster may all be held by the training itself.
    dataset = items.map_batches(share.read, batch_size=1, num_cpus=0, compute=ray.data.TaskPoolStrategy(tasks))
    context = dataset.context  # this dataset's own copy
    context.execution_options.preserve_order = True
    context.override_object_store_memory_limit_fraction = _STORE_SHARE / share.workers
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = -1  # a step may take longer than Ray Data waits for one to read on
    context.enable_progress_bars = False
    try:
        for block in dataset.iter_batches(batch_size=None, batch_format="numpy"):
            for values in zip(*block.values(), strict=True):
                yield dict(zip(block, values, strict=True))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SquadronError):
            raise error.cause from None
        raise


def _read_footer(folder: Folder, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with folder.open(name) as stream:
            return pq.read_metadata(stream)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(folder, name, error) from None


def _read_group(folder: Folder, part: _Part, columns: tuple[str, ...]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with folder.open(part.name) as stream:
            table = pq.ParquetFile(stream).read_row_group(part.number, columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(folder, part.name, error) from None
    if table.num_rows != part.rows:
        what = f"row group {part.number} has {table.num_rows} rows; it had {part.rows} when training began"
        raise InputError(what, where=folder.file(part.name), fix="leave the files as they are while training")
    return table.select(columns)


def _prepared(prepare: Prepare, rows: pa.Table, where: str) -> Columns:
    """What `prepare` makes of some rows. Its own errors become InputErrors that say where in it they arose."""
    from ray.data.block import BlockAccessor

    try:
        columns = prepare(BlockAccessor.for_block(rows).to_batch_format("numpy"))
    except SquadronError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"prepare failed in {frame.filename}:{frame.lineno}: {type(error).__name__}: {error}"
        raise InputError(what, where=where, fix="fix prepare, or the rows of this file") from None
    for name, values in columns.items():
        if len(values) != rows.num_rows:
            what = f"prepare made {len(values)} of {rows.num_rows} rows in column {name!r}"
            raise InputError(what, where=where, fix="prepare must give one row for each row that it is given")
    return columns


def _unreadable(folder: Folder, name: str, error: Exception) -> InputError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    fix = "see that the file is there and whole; write or copy it again"
    return InputError(f"cannot be read as Parquet: {first}", where=folder.file(name), fix=fix)


def _check_unpacked(spec: TrainSpec) -> None:
    if spec.packing:
        fix = "set packing to false, or write the rows beforehand and give them as ArrowRows"
        raise ConfigError("rows of a stream cannot be packed: their lengths are not known", where="packing", fix=fix)
