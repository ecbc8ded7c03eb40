"""The marker of a finished stage, `done.json`: what it returned, and the sums of the files that are read again.

It is written last and commits the stage. A stage is finished with all that it tells, or it is entered again: nobody
reads numbers from a file that has changed since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder

MARKER, METRICS, FAILURES, HEADLINES, MEASURES, PANELS = (
    "done.json",
    "metrics.jsonl",
    "failures.jsonl",
    "headlines.json",
    "measures.json",
    "panels",
)
ENTER_AGAIN = "restore it from a copy, or remove done.json of this stage and give the same command again"
START_OVER = "restore it from a copy, or remove the folder of its stage and give the same command again"


class Marker(Config):
    """What `done.json` says. Secrets in `inputs` are masked; `files` are SHA-256 by names in the stage's folder."""

    inputs: dict[str, Any]
    input_paths: tuple[str, ...]
    output: Any
    seconds: float
    finished_at: str
    files: dict[str, str]

    def changed(self, folder: Folder, name: str) -> str:
        """What is wrong with a file of the finished stage; an empty text if it is what was written, or is none of those
        that the marker knows."""
        if name not in self.files:
            return ""
        if not folder.exists(name):
            return f"{name} is gone"
        known = self.files[name] == hashlib.sha256(folder.read_bytes(name)).hexdigest()
        return "" if known else f"{name} has changed since it was written"


def write_marker(
    folder: Folder,
    output: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    input_paths: Sequence[str] = (),
    seconds: float = 0.0,
    pictures: Iterable[str] = (),
) -> None:
    """Mark a stage as finished: what it has told, and the pictures in its panels, are part of it from now on."""
    told = [name for name in (METRICS, FAILURES, HEADLINES, MEASURES) if folder.exists(name)]
    told += [f"{PANELS}/{name}" for name in (folder / PANELS).ls()]
    told += [name for name in dict.fromkeys(pictures) if folder.exists(name)]
    files = {name: hashlib.sha256(folder.read_bytes(name)).hexdigest() for name in told}
    marker = Marker(
        inputs=dict(inputs or {}),
        input_paths=tuple(input_paths),
        output=output,
        seconds=round(seconds, 2),
        finished_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        files=files,
    )
    folder.write_json(MARKER, marker.model_dump(mode="json"))


def read_marker(folder: Folder) -> Marker:
    """The marker of a finished stage. Raises InputError if it is damaged."""
    try:
        return Marker.model_validate(folder.read_json(MARKER, ENTER_AGAIN))
    except ValidationError as error:
        raise InputError(f"no marker of a stage: {_first(error)}", where=folder.file(MARKER), fix=ENTER_AGAIN) from None


def check_told(folder: Folder, marker: Marker) -> None:
    """Raise InputError if what a finished stage has told is not what it was: metrics, headlines, measures, failures,
    panels. Pictures are the report's to check."""
    for name in marker.files:
        told = name in (METRICS, FAILURES, HEADLINES, MEASURES) or name.startswith(f"{PANELS}/")
        if told and (what := marker.changed(folder, name)):
            fix = START_OVER if name == METRICS else ENTER_AGAIN
            raise InputError(what, where=folder.file(name), fix=fix)


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
