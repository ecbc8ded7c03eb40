"""Answers on disk, each under a key that stands for the content of what was asked.

A log is a folder of JSON lines. An answer is on disk before the next is taken in, so that a killed process loses
none that it was given; a line that a kill cut short, or that is damaged, counts as not there. The newest line
of a key holds, but a failure never replaces an answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

from squadron.core.errors import InputError
from squadron.core.folder import RESTORE, Folder
from squadron.core.json_text import storable, to_json
from squadron.core.line_log import LineWriter, files_of, line_files
from squadron.core.seals import unseal

STORES = ANSWERS, SCORES = "answers", "scores"
"""Folders of a run that hold logs, one a model or reward model."""

Entry = Mapping[str, Any]
"""A JSON object with `key`, and with a non-empty `error` if it is a failure."""


class Place(NamedTuple):
    """Where an entry stands: its file, the first byte, how many; and whether it is an answer or a failure."""

    file: str
    start: int
    size: int
    ok: bool


@dataclass
class Index:
    """Where each key's entry stands, and what all entries cost, those that newer ones replaced too."""

    places: dict[str, Place] = field(default_factory=dict)
    cost_usd: float = 0.0

    def answers(self, key: str) -> bool:
        """Whether the key has an answer: a failure is none."""
        return key in self.places and self.places[key].ok


class KeyedLog:
    """The entries of one folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def index(self) -> Index:
        index = Index()
        for file in line_files(self.folder):
            for entry, start, size in self._lines(file):
                key, ok = entry["key"], not entry.get("error")
                index.cost_usd += entry.get("cost_usd", 0.0)
                if ok or not index.answers(key):
                    index.places[key] = Place(file, start, size, ok)
        return index

    def read(self, file: str) -> dict[str, Entry]:
        """The answers that a writer wrote to `file`, by their keys, without failures; none if it is not there."""
        files = files_of(self.folder, file)
        entries = (entry for name in files for entry, _, _ in self._lines(name))
        return {entry["key"]: entry for entry in entries if not entry.get("error")}

    def reader(self) -> LogReader:
        """A reader of single entries by their place."""
        return LogReader(self.folder)

    def writer(self, file: str) -> LogWriter:
        """A writer that adds to `file`; one process alone writes to a file."""
        return LogWriter(self.folder, file)

    def _lines(self, file: str) -> Iterator[tuple[dict[str, Any], int, int]]:
        start = 0
        with self.folder.open(file) as stream:
            for line in stream:
                entry = _parse(line)
                if entry is not None:
                    yield entry, start, len(line)
                start += len(line)


def spent_usd(run: Folder) -> float:
    """What all answers and scores in a run folder cost."""
    stores = [run / name for name in STORES]
    return sum(KeyedLog(store / name).index().cost_usd for store in stores for name in store.ls())


class LogReader:
    """Reads entries by their place, with the files held open."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._open: dict[str, Any] = {}

    def read(self, place: Place) -> dict[str, Any]:
        stream = self._open.get(place.file)
        if stream is None:
            stream = self._open[place.file] = self._folder.open(place.file)
        stream.seek(place.start)
        entry = _parse(stream.read(place.size))
        if entry is None:
            where = self._folder.file(place.file)
            raise InputError("the answer has changed since it was found", where=where, fix=RESTORE)
        return entry

    def close(self) -> None:
        for stream in self._open.values():
            stream.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LogWriter(LineWriter):
    """Adds entries to one file, each a line."""

    def write(self, entry: Entry) -> None:
        """Raises ResourceError if the disk is full."""
        self.write_line(to_json(entry))


def _parse(line: bytes) -> dict[str, Any] | None:
    """The entry in a line; None if it is none that was ever written whole."""
    try:
        entry = unseal(line)
    except ValueError:
        return None
    if "key" not in entry:
        return None
    known = all(check(entry[name]) for name, check in _FIELDS.items() if name in entry)
    return entry if known and (entry.get("error") or "text" in entry or _is_amount(entry.get("value"))) else None


def _is_text(value: object) -> bool:
    """Whether it is a text that UTF-8 and Arrow can hold."""
    return isinstance(value, str) and storable(value) == value


def _is_amount(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_cost(value: object) -> bool:
    return _is_amount(value) and value >= 0  # type: ignore[operator]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_cost(value)


_FIELDS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("key", "text", "error", "note", "finish_reason"), _is_text),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "reasoning_tokens"), _is_count),
    "cost_usd": _is_cost,
    "value": lambda value: value is None or _is_amount(value),
}
"""What the fields of answers and of scores hold, where they are there."""
