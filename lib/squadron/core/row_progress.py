"""How far the row in hand has come, told from inside it: a row of minutes or hours shows that it moves.

The share is in a file `rows/progress/<run>-<batch>` of the stage's folder while the worker of that batch has the row.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from squadron.core.folder import Folder

_LOCAL_S, _REMOTE_S = 1.0, 10.0  # it is written at most so often
_reporter: _Reporter | None = None


def report_progress(share: float) -> None:
    """Note that this share of the row in hand is done, from 0 to 1. Does nothing outside of `map_rows`."""
    if _reporter is not None:
        _reporter.report(share)


def read_progress(folder: Folder, batch: str) -> float:
    """The share that the row in hand of a batch has last reported; 0 if it has reported none."""
    places = folder / "progress"
    try:
        return float(places.read_bytes(batch)) if places.exists(batch) else 0.0
    except ValueError:  # read while it is written on a store that cannot replace a file at once
        return 0.0


@contextlib.contextmanager
def reporting(folder: Folder, batch: str) -> Iterator[None]:
    """Take what rows report in this block as the progress of `batch`."""
    global _reporter
    _reporter = _Reporter(folder / "progress", batch)
    try:
        yield
    finally:
        _reporter.clear()
        _reporter = None


class _Reporter:
    def __init__(self, folder: Folder, batch: str) -> None:
        self._folder, self._batch = folder, batch
        self._every_s = _LOCAL_S if folder.path else _REMOTE_S
        self._written_at = time.monotonic()
        self._written = False

    def report(self, share: float) -> None:
        now = time.monotonic()
        if now - self._written_at >= self._every_s:
            self._folder.write_bytes(self._batch, repr(float(share)).encode())
            self._written_at, self._written = now, True

    def clear(self) -> None:
        if self._written:
            self._folder.remove(self._batch)
            self._written = False
