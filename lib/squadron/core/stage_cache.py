"""Stages that one run takes over from others, so that runs that begin alike do not do the same work again."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from squadron.core import console
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.marker import MARKER, check_files, read_marker
from squadron.core.run_reader import read_failures


@dataclass(frozen=True)
class StageCache:
    """Where a run may take stages from.

    `runs` is a folder of run folders: what one of them has finished, another that would do the same (the fingerprint
    says so) takes over. `warm_start` names for stages, by their functions, work of another run that this one resumes
    with settings of its own, as population-based training does.
    """

    runs: Folder
    warm_start: Mapping[str, Folder] = field(default_factory=dict)

    def fill(self, folder: Folder, stage: str) -> None:
        """Copy into the folder of a stage of this name what other runs have done, unless it was begun here."""
        if folder.exists("started.json"):
            return
        if (work := self.warm_start.get(stage)) is not None:
            copy_stage(work, folder)
            return
        for name in self.runs.ls():
            finished = self.runs / name / "stages" / folder.name
            if finished != folder and finished.exists(MARKER) and _is_whole(finished):
                copy_stage(finished, folder)
                console.say(f"[dim]  {stage}: taken over from {console.plain(name)}[/dim]")
                return


def copy_stage(source: Folder, target: Folder) -> None:
    """Copy a stage's folder, whole or not at all. On a disk that can, files are linked and take no room: nothing
    changes a file that has been written."""
    if source.path and target.path:
        scratch = f"{target.path}.{uuid.uuid4().hex[:8]}.tmp"
        os.makedirs(os.path.dirname(target.path), exist_ok=True)
        try:
            shutil.copytree(source.path, scratch, copy_function=_link)
            os.rename(scratch, target.path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return
    names = [name for name in source.walk() if name != MARKER]
    for name in [*names, *([MARKER] if source.exists(MARKER) else [])]:  # the marker last: it says that all is there
        target.write_bytes(name, source.read_bytes(name))


def _link(source: str, target: str) -> None:
    """Logs are appended to in place, and copied; so is what cannot be linked."""
    if ".jsonl" not in os.path.basename(source):
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _is_whole(finished: Folder) -> bool:
    """Whether a stage has all its rows and all that it has told; another run's damage is not this one's."""
    try:
        check_files(finished, read_marker(finished))
        return not any(row["retry"] for row in read_failures(finished))
    except InputError:
        return False
