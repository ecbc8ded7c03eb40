"""A job of rows that take a moment each, whatever node answers them; each answer is noted."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from squadron.core.config import Config
from squadron.core.job import job
from squadron.core.rows import map_rows
from squadron.core.run import Run, Stage


class Squares(Config):
    """`count` rows of `row_s` seconds each; each time that one is answered is a line in `notes`. A row
    carries `pad_kb` kilobytes more."""

    notes: str
    count: int = 24
    row_s: float = 0.4
    pad_kb: int = 0


class Total(Config):
    """The sum of all squares."""

    total: int


class Square:
    """Squares a number, slowly."""

    def __init__(self, notes: str, row_s: float) -> None:
        self._notes, self._row_s = Path(notes), row_s

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        time.sleep(self._row_s)
        with self._notes.open("a") as stream:
            stream.write(f"{row['id']} {os.getpid()}\n")
        return {"square": row["n"] ** 2}


def square_all(stage: Stage, notes: str, count: int, row_s: float, pad_kb: int) -> Total:
    """Square all numbers."""
    rows = [{"id": str(n), "n": n, "pad": "x" * 1000 * pad_kb} for n in range(count)]
    answers = map_rows(stage, rows, Square, notes=notes, row_s=row_s)
    return Total(total=sum(answer["square"] for answer in answers))


@job(Squares)
def squares(run: Run, config: Squares) -> None:
    """Square numbers."""
    run.stage(square_all, config.notes, config.count, config.row_s, config.pad_kb)
