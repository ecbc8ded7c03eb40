"""Which rows make up which step: a function of the seed and the step alone.

A run that goes on from step k therefore sees the rows that it would have seen, on whatever number of workers, and the
step is all the cursor there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from squadron.core.errors import InputError
from squadron.train.batching.packing import pack
from squadron.train.spec import TrainSpec

Row = Mapping[str, Any]


class Source(Protocol):
    """Where a worker's rows come from. `RowSource` is one; so is `squadron.train.batching.stream.ParquetStream`."""

    def steps(self, spec: TrainSpec) -> int:
        """Optimiser steps that `spec.epochs` passes take."""

    def read(self, spec: TrainSpec, rank: int, workers: int, start: int) -> Iterator[list[list[Row]]]:
        """From step `start` on, the rows of each of this worker's micro-batches, step by step, without end."""


@dataclass(frozen=True)
class RowSource:
    """Rows that can be asked for by number: a list of mappings, or `ArrowRows` on disk.

    `length(row)` is its number of tokens; packing needs it.
    """

    rows: Sequence[Row]
    length: Callable[[Row], int] | None = None

    def steps(self, spec: TrainSpec) -> int:
        return max(1, math.ceil(spec.epochs * len(self.bins(spec)) / spec.batch_size))

    def bins(self, spec: TrainSpec) -> list[list[int]]:
        """Row numbers that go into a batch together: several where they are packed, else one."""
        if not len(self.rows):
            raise InputError("there are no rows to train on", fix="give a file with at least one row")
        if not spec.packing:
            return [[number] for number in range(len(self.rows))]
        if self.length is None:
            raise InputError("rows of unknown length cannot be packed", fix="set packing to false")
        return pack([self.length(row) for row in self.rows], int(spec.max_length or 0))

    def read(self, spec: TrainSpec, rank: int, workers: int, start: int) -> Iterator[list[list[Row]]]:
        bins, step = self.bins(spec), start
        order = _Order(len(bins), spec.seed)
        while True:
            first = step * spec.batch_size
            picked = [bins[order[first + n]] for n in range(spec.batch_size)]
            size = spec.micro_batch_size
            micro = [picked[n : n + size] for n in range(0, spec.batch_size, size)]
            yield [[self.rows[row] for bin in part for row in bin] for part in micro[rank::workers]]
            step += 1


def in_order(rows: Sequence[Row], size: int, rank: int, workers: int) -> Iterator[tuple[Sequence[Row], bool]]:
    """Every row once, unshuffled, in micro-batches of `size` dealt out to the workers: for held-out losses.

    Workers must make equally many passes, so that those with less to do go through a micro-batch again. The flag says
    whether it counts.
    """
    starts = range(0, len(rows), size)
    for turn in range(-(-len(starts) // workers)):
        place = turn * workers + rank
        counts = place < len(starts)
        first = starts[place] if counts else 0
        yield [rows[n] for n in range(first, min(first + size, len(rows)))], counts


class _Order:
    """An endless sequence of bin numbers: one shuffle after the other, each a function of the seed and its epoch."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._epoch, self._shuffle = -1, np.empty(0, np.int64)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self._count)
        if epoch != self._epoch:
            self._epoch = epoch
            self._shuffle = np.random.default_rng([self._seed, epoch]).permutation(self._count)
        return int(self._shuffle[place])
