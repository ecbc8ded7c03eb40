"""Answers on disk, each under a key that stands for the content of what was asked.

A log is a folder of JSON lines. An answer is on disk before the next is taken in, so that a killed process loses
none that it was given; a line that a kill cut short counts as not there. The newest line of a key holds, but a failure
never replaces an answer.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

from squadron.core.folder import Folder, explaining_disk_errors

STORES = ANSWERS, SCORES = "answers", "scores"
"""Folders of a run that hold logs, one a model or reward model."""
_REMOTE_LINES, _REMOTE_S = 1000, 5.0

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
        for file in self._files():
            for entry, start, size in self._lines(file):
                key, ok = entry["key"], not entry.get("error")
                index.cost_usd += entry.get("cost_usd", 0.0)
                if ok or not index.answers(key):
                    index.places[key] = Place(file, start, size, ok)
        return index

    def read(self, file: str) -> dict[str, Entry]:
        """The answers of one file by their keys; failures are left out, and a file that is not there has none."""
        if not self.folder.exists(file):
            return {}
        return {entry["key"]: entry for entry, _, _ in self._lines(file) if not entry.get("error")}

    def reader(self) -> LogReader:
        """A reader of single entries by their place."""
        return LogReader(self.folder)

    def writer(self, file: str) -> LogWriter:
        """A writer that adds to `file`; one process alone writes to a file."""
        return LogWriter(self.folder, file)

    def _files(self) -> list[str]:
        return [name for name in self.folder.ls() if name.partition(".")[2].startswith("jsonl")]

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
        entry: dict[str, Any] = json.loads(stream.read(place.size))
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


class LogWriter:
    """Adds entries to one file: to a local one at once, to an object store every few seconds as one more file."""

    def __init__(self, folder: Folder, file: str) -> None:
        self._folder, self._file = folder, file
        self._lines: list[bytes] = []
        self._parts, self._since = 0, time.monotonic()
        self._stream: io.FileIO | None = None

    def write(self, entry: Entry) -> None:
        """Raises ResourceError if the disk is full."""
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        if self._stream is not None:
            with explaining_disk_errors(self._folder.file(self._file)):
                self._stream.write(line)
            return
        self._lines.append(line)
        if len(self._lines) >= _REMOTE_LINES or time.monotonic() - self._since >= _REMOTE_S:
            self._flush()

    def __enter__(self) -> LogWriter:
        if self._folder.path:
            with explaining_disk_errors(self._folder.file(self._file)):
                os.makedirs(self._folder.path, exist_ok=True)
                path = f"{self._folder.path}/{self._file}"
                half_a_line = os.path.exists(path) and os.path.getsize(path) > 0
                self._stream = open(path, "ab", buffering=0)
                if half_a_line:
                    self._stream.write(b"\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
        else:
            self._flush()

    def _flush(self) -> None:
        if self._lines:
            name = f"{self._file}-{time.time_ns():020d}-{self._parts}"
            self._folder.write_bytes(name, b"".join(self._lines))
            self._parts += 1
        self._lines, self._since = [], time.monotonic()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return entry if isinstance(entry, dict) and "key" in entry else None
