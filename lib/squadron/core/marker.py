"""The marker of a finished stage, `done.json`: what it returned, and the sums of the files that are read again.

It is written last and commits the stage. A stage is finished with all that it tells, or it is entered again: nobody
reads numbers from a file that has changed since.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from squadron.core.config import Config
from squadron.core.digests import REMOTE_BYTES, digest
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
_OWN_SUMS = re.compile(
    r"(^|/)(rows|checkpoints|parts|stalls|ray-train|tensorboard|wandb)/|(^|/)(started|wandb)\.json$|\.npz$"
)
"""Files whose parts have sums of their own, and those of other programs, which nobody here reads."""
START_OVER = "restore it from a copy, or remove the folder of its stage and give the same command again"


class Marker(Config):
    """What `done.json` says. Secrets in `inputs` are masked; `files` are SHA-256 by names in the stage's folder, of all
    that is read again, but what artifacts, checkpoints and rows of answers have sums of themselves."""

    inputs: dict[str, Any]
    input_paths: tuple[str, ...]
    output: Any
    seconds: float
    finished_at: str
    files: dict[str, str]
    pictures: tuple[str, ...] = ()

    def changed(self, folder: Folder, name: str) -> str:
        """What is wrong with a file of the finished stage; an empty text if it is what was written, or is none of those
        that the marker knows."""
        if name not in self.files:
            return ""
        if not folder.exists(name):
            return f"{name} is gone"
        return "" if _sum(folder, name) == self.files[name] else f"{name} has changed since it was written"


def write_marker(
    folder: Folder,
    output: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    input_paths: Sequence[str] = (),
    seconds: float = 0.0,
    pictures: Sequence[str] = (),
) -> None:
    """Mark a stage as finished. What it has written is part of it from now on; `pictures` are those in its panels."""
    artifacts = [folder.url + "/" + path for path in _paths_of_artifacts(output, folder.name)]
    names = [name for name in folder.walk() if name != MARKER and not _OWN_SUMS.search(name)]
    marker = Marker(
        inputs=dict(inputs or {}),
        input_paths=tuple(input_paths),
        output=output,
        seconds=round(seconds, 2),
        finished_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        files={name: _sum(folder, name) for name in names if not _is_under(folder.file(name), artifacts)},
        pictures=tuple(dict.fromkeys(pictures)),
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
    _check(folder, marker, [name for name in marker.files if _is_told(name)])


def check_files(folder: Folder, marker: Marker) -> None:
    """Raise InputError if a file of a finished stage is not what it was. Pictures are the report's to check."""
    _check(folder, marker, [name for name in marker.files if name not in marker.pictures])


def _check(folder: Folder, marker: Marker, names: Iterable[str]) -> None:
    for name in names:
        if what := marker.changed(folder, name):
            fix = ENTER_AGAIN if _is_told(name) and name != METRICS else START_OVER
            raise InputError(what, where=folder.file(name), fix=fix)


def _is_told(name: str) -> bool:
    return name in (METRICS, FAILURES, HEADLINES, MEASURES) or name.startswith(f"{PANELS}/")


def _sum(folder: Folder, name: str) -> str:
    size = 0 if folder.path else folder.size(name)
    return digest(folder, name) if size <= REMOTE_BYTES else f"{size} bytes"


def _paths_of_artifacts(output: Any, stage: str) -> Iterator[str]:
    """The paths in this stage's folder of the artifacts in what it returned: they are checked where they are read."""
    if isinstance(output, Mapping):
        path = output.get("path")
        if isinstance(path, str) and output.get("sha256") and path.startswith(f"stages/{stage}/"):
            yield path.removeprefix(f"stages/{stage}/")
    for item in output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ():
        yield from _paths_of_artifacts(item, stage)


def _is_under(file: str, places: Iterable[str]) -> bool:
    return any(f"{file}/".startswith(f"{place}/") for place in places)


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
