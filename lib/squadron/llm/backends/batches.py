"""Batches for models in this process: halved where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from squadron.core.work import take_turns

Row = TypeVar("Row")
Value = TypeVar("Value")


def in_batches(
    rows: Iterable[Row], compute: Callable[[Sequence[Row]], Sequence[Value]], batch_size: int
) -> Iterator[tuple[Row, Value | None, str]]:
    """Each row with its value, or with why it has none, in their order: `compute` gives the values of up to
    `batch_size` rows. A batch that does not fit into memory is computed in two halves, down to a single row."""
    remaining = iter(rows)
    while batch := list(islice(remaining, batch_size)):
        yield from _halving(batch, compute)


def _halving(
    batch: list[Row], compute: Callable[[Sequence[Row]], Sequence[Value]]
) -> Iterator[tuple[Row, Value | None, str]]:
    import torch

    take_turns()
    try:
        values = compute(batch)
    except torch.OutOfMemoryError as error:
        failed = f"out of memory: {str(error).partition(chr(10))[0]}"
    else:
        yield from ((row, value, "") for row, value in zip(batch, values, strict=True))
        return
    # Only here is the memory free that the error's traceback held.
    torch.cuda.empty_cache()
    if len(batch) == 1:
        yield batch[0], None, failed
        return
    half = len(batch) // 2
    yield from _halving(batch[:half], compute)
    yield from _halving(batch[half:], compute)
