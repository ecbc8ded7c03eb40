"""Files of lines that outlive the process that wrote them, at whatever moment it ends.

A line is on disk before the next is written. A line that a kill cut short is to be read as not there.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from types import TracebackType
from typing import Any, Self

from squadron.core.folder import Folder, explaining_disk_errors
from squadron.core.json_text import from_json

_REMOTE_LINES, _REMOTE_S = 1000, 5.0


def line_files(folder: Folder, start: str = "") -> list[str]:
    """The names of all such files in a folder that begin with `start`, sorted."""
    return [name for name in folder.ls() if name.startswith(start) and name.partition(".")[2].startswith("jsonl")]


def files_of(folder: Folder, file: str) -> list[str]:
    """The names of the files that a `LineWriter` wrote for `file`: one at most in a local folder."""
    if folder.path:
        return [file] if folder.exists(file) else []
    return line_files(folder, file)


def read_json_lines(folder: Folder, file: str) -> list[Any]:
    """The JSON values of a file's lines; a line that a kill cut short is left out."""
    values = []
    for line in folder.read_bytes(file).split(b"\n"):
        with contextlib.suppress(ValueError):
            values.append(from_json(line))
    return values


class LineWriter:
    """Adds lines to one file: to a local one at once, to an object store every few seconds as one more file, whose
    name begins with the name of the first. One process at a time writes to a file."""

    def __init__(self, folder: Folder, file: str) -> None:
        self._folder, self._file = folder, file
        self._lines: list[bytes] = []
        self._parts, self._since = 0, time.monotonic()
        self._stream: io.FileIO | None = None

    def write_line(self, line: bytes) -> None:
        """Raises ResourceError if the disk is full."""
        if self._stream is not None:
            rest = memoryview(line + b"\n")
            with explaining_disk_errors(self._folder.file(self._file)):
                while rest:  # of a long line on a nearly full disk only a part is taken, and the next try fails
                    rest = rest[self._stream.write(rest) :]
            return
        self._lines.append(line + b"\n")
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
