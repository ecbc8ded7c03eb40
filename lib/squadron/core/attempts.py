"""How often work that loses its worker is tried again, and how its attempts are counted.

Work comes in batches of numbered items. Before a worker begins some items it notes which, on disk. When it dies, the
worker that takes the batch over reads from these notes what the dead one was at.
"""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import UTC, datetime

from squadron.core.folder import Folder
from squadron.core.line_log import append_row, find_rows

MAX_ATTEMPTS = 3


def new_session() -> str:
    """A name for what one run writes. Workers of a killed run may still write: they do so under another name.
    Names sort by the time at which their runs began."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:4]}"


def lost_worker(timeout_s: float | None = None) -> str:
    """Why an item that took down its worker at every attempt has no answer."""
    overran = "" if timeout_s is None else f" or overran {timeout_s:g} s"
    return f"its worker died{overran} on each of {MAX_ATTEMPTS} attempts"


class AttemptLog:
    """The attempts at one batch: a line of a small file each. Only one worker at a time writes to it."""

    def __init__(self, folder: Folder, batch: str) -> None:
        self._folder, self._file = folder / "attempts", f"{batch}.jsonl"

    def counts(self) -> Counter[int]:
        """How often each item was begun; 0 for items that never were."""
        counts: Counter[int] = Counter()
        for first, stop in self._attempts():
            counts.update(range(first, stop))
        return counts

    def reached(self) -> int:
        """The number of the first item that was begun last: those before it are done."""
        attempts = self._attempts()
        return attempts[-1][0] if attempts else 0

    def begin(self, first: int, stop: int) -> None:
        """Note that the items from `first` up to `stop`, which is not among them, are begun now."""
        append_row(self._folder, self._file, {"first": first, "stop": stop})

    def _attempts(self) -> list[tuple[int, int]]:
        """A damaged note counts as none: the items are begun once more."""
        lines = find_rows(self._folder, self._file)
        return [(line["first"], line["stop"]) for line in lines if line.keys() == {"first", "stop"}]
