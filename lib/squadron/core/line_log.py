"""Files of lines that outlive the process that wrote them, at whatever moment it ends.

A line is on disk before the next is written. Each is a JSON object with a seal of its own (`core/seals.py`). There are
two kinds of logs. Of a ledger every line counts: one that is damaged is an error, and only the last, which a kill may
have cut short, may be missing. Of a store of answers a damaged line counts as not there: its work is done again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from squadron.core.disk_errors import explaining_disk_errors
from squadron.core.errors import InputError
from squadron.core.folder import RESTORE, Folder
from squadron.core.seals import seal, unseal

_REMOTE_LINES, _REMOTE_S = 1000, 5.0


def line_files(folder: Folder, start: str = "") -> list[str]:
    """The names of all such files in a folder that begin with `start`, sorted."""
    return [name for name in folder.ls() if name.startswith(start) and name.partition(".")[2].startswith("jsonl")]


def files_of(folder: Folder, file: str) -> list[str]:
    """The names of the files that a `LineWriter` wrote for `file`: one at most in a local folder."""
    if folder.path:
        return [file] if folder.exists(file) else []
    return line_files(folder, file)


def append_row(folder: Folder, file: str, row: Mapping[str, Any]) -> None:
    """Add a row to a ledger."""
    folder.append_line(file, seal(json.dumps(row).encode()).decode())


def read_rows(folder: Folder, file: str, fix: str = RESTORE) -> list[dict[str, Any]]:
    """The rows of a ledger; none if it is not there. Raises InputError, with the line, if one is damaged."""
    if not folder.exists(file):
        return []
    *lines, rest = folder.read_bytes(file).split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(unseal(line))
        except ValueError as error:
            raise InputError(f"line {number} is damaged: {error}", where=folder.file(file), fix=fix) from None
    with contextlib.suppress(ValueError):  # cut short by a kill
        rows.append(unseal(rest))
    return rows


def rewrite_rows(folder: Folder, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Make a ledger hold these rows and no others."""
    folder.write_bytes(file, b"".join(seal(json.dumps(row).encode()) + b"\n" for row in rows))


def find_rows(folder: Folder, file: str) -> list[dict[str, Any]]:
    """The rows of a store, without those that are damaged; none if it is not there."""
    if not folder.exists(file):
        return []
    values = []
    for line in folder.read_bytes(file).split(b"\n"):
        with contextlib.suppress(ValueError):
            values.append(unseal(line))
    return values


class GrowingLog:
    """A log that grows line by line: a local one at once, a store's every few seconds, since it is written anew."""

    def __init__(self, folder: Folder, file: str) -> None:
        self._folder, self._file = folder, file
        self._lines: list[str] = []
        self._since = time.monotonic()

    def append(self, line: str) -> None:
        """Add a line, now or soon. Raises ResourceError if the disk is full."""
        self._lines.append(line)
        if self._folder.path or time.monotonic() - self._since >= _REMOTE_S:
            self.flush()

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Add a row of a ledger, with its seal."""
        self.append(seal(json.dumps(row).encode()).decode())

    def flush(self) -> None:
        """Write what is not written yet."""
        lines, self._lines = self._lines, []
        self._since = time.monotonic()
        if lines:
            self._folder.append_lines(self._file, lines)


class LineWriter:
    """Adds lines to one file: to a local one at once, to an object store every few seconds as one more file, whose
    name begins with the name of the first. One process at a time writes to a file."""

    def __init__(self, folder: Folder, file: str) -> None:
        self._folder, self._file = folder, file
        self._lines: list[bytes] = []
        self._parts, self._since = 0, time.monotonic()
        self._stream: io.FileIO | None = None

    def write_line(self, line: bytes) -> None:
        """Write a JSON object, which gets its seal here. Raises ResourceError if the disk is full."""
        sealed = seal(line) + b"\n"
        if self._stream is not None:
            rest = memoryview(sealed)
            with explaining_disk_errors(self._folder.file(self._file)):
                while rest:  # of a long line on a nearly full disk only a part is taken, and the next try fails
                    rest = rest[self._stream.write(rest) :]
            return
        self._lines.append(sealed)
        if len(self._lines) >= _REMOTE_LINES or time.monotonic() - self._since >= _REMOTE_S:
            self._flush()

    def __enter__(self) -> Self:
        if self._folder.path:
            with explaining_disk_errors(self._folder.file(self._file)):
                os.makedirs(self._folder.path, exist_ok=True)
                path = f"{self._folder.path}/{self._file}"
                may_be_cut = os.path.exists(path) and os.path.getsize(path) > 0
                self._stream = open(path, "ab", buffering=0)
                if may_be_cut:
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
