"""What the tests of all jobs must know of one job: `tests/contract/<job>.py` holds its `CONTRACT`."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squadron.core.folder import Folder
from squadron.core.run_reader import read_failures

FILES = "FILES"
"""In settings: the folder that a contract's files are written to."""


@dataclass(frozen=True)
class Refused:
    """Settings, and files that they name, with which the job ends by saying `said`."""

    said: str
    words: Sequence[str] = ()
    files: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contract:
    """One job: its smoke run, where that is killed, and what must come out of it all the same.

    `words` are the settings of the run that all tests share, after `smoke`, and `panels` words of its report. The run
    is killed as soon as its folder has a file of the pattern `half_way`; the stage `killed_in` is not
    finished then. Where `from_copy` is set, the killed run has the stages before that one from a finished run, without
    the files of these patterns. It is given again with the words `again` more. `same` gives what of a run may not
    depend on a kill, and files of the patterns `kept` are not written a second time. `refused` are inputs that end the
    job before there are any files of the pattern `spared`. `no_effect` are settings that decide nothing of a result;
    `late` are settings that do, each with the first stage that depends on it.
    """

    panels: Sequence[str]
    half_way: str
    killed_in: str
    same: Callable[[Path], Any]
    words: Sequence[str] = ()
    files: Mapping[str, Any] = field(default_factory=dict)
    from_copy: Sequence[str] | None = None
    killed_words: Sequence[str] = ()
    again: Sequence[str] = ()
    kept: str = "stages/*/done.json"
    refused: Sequence[Refused] = ()
    spared: str = "report.html"
    no_effect: Sequence[str] = ()
    late: Mapping[str, str] = field(default_factory=dict)


def find_contract(job: str) -> Contract:
    """The contract of a job."""
    contract: Contract = importlib.import_module(f"tests.contract.{job}").CONTRACT
    return contract


def write_files(folder: Path, files: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    """Write files, texts as they are and rows as lines of JSON, and return the words with the folder in them."""
    for name, content in files.items():
        lines = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
        (folder / name).write_text(lines)
    return [word.replace(FILES, str(folder)) for word in words]


def stages(folder: Path, name: str) -> list[Path]:
    """The folders of this stage in a run, as its recipe entered them."""
    names = json.loads((folder / "run.json").read_text())["stages"]
    return [folder / "stages" / known for known in names if known.rpartition("-")[0] == name]


def output(stage: Path) -> Any:
    """What a finished stage has returned."""
    return json.loads((stage / "done.json").read_text())["output"]


def outputs(*names: str) -> Callable[[Path], Any]:
    """What these stages of a run have returned."""
    return lambda folder: [output(stage) for name in names for stage in stages(folder, name)]


def contents(pattern: str) -> Callable[[Path], Any]:
    """What the files of a run's stages hold that match this pattern, by their places in the stage."""

    def read(folder: Path) -> dict[str, bytes]:
        return {"/".join(path.relative_to(folder).parts[2:]): path.read_bytes() for path in folder.glob(pattern)}

    return read


def failed_rows(run: Path) -> list[tuple[str, str]]:
    """Of rows that failed and would be tried again: the stage and the error."""
    folders = [Folder(str(path)) for path in sorted(run.glob("stages/*"))]
    return [(stage.name, row["error"]) for stage in folders for row in read_failures(stage) if row["retry"]]


def unlike(one: Any, other: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """Where two JSON values differ, and by what."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in unlike(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [found for n, pair in enumerate(zip(one, other, strict=True)) for found in unlike(*pair, f"{place}.{n}")]
    return [] if one == other else [(place, one, other)]


def copy_run(run: Path, folder: Path) -> Path:
    """A copy of a run, for a test that goes on with it."""
    return Path(shutil.copytree(run, folder))
