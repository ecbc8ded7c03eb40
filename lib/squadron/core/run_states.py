"""How far runs have come, told from their folders alone: running, stopped, finished, with failed rows."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from squadron.core.errors import InputError, SquadronError
from squadron.core.folder import Folder
from squadron.core.lease import is_held
from squadron.core.line_log import find_rows
from squadron.core.manifest import FINISHED, MANIFEST, read_manifest
from squadron.core.marker import MARKER, METRICS
from squadron.core.run_reader import read_failures

_AT_ONCE = 16


@dataclass(frozen=True)
class RunState:
    """A run folder: its job, or what is wrong with it, and how far the run has come."""

    folder: Folder
    job: str
    state: str
    reported: bool


def read_states(runs: Folder) -> list[RunState]:
    """The runs in a folder, or behind a URL, by their names. One that cannot be read hides no other."""
    names = runs.ls()
    with ThreadPoolExecutor(_AT_ONCE) as threads:  # a store answers slowly, and many at once
        found = threads.map(lambda name: _find(runs / name), names)
        return [state for state in found if state is not None]


def read_state(run: Folder) -> RunState:
    """How far a run has come. Raises InputError if the folder is no run, or its description is damaged."""
    manifest = read_manifest(run)
    stages = [run / "stages" / name for name in manifest.get("stages") or []]
    reported = run.exists("report.html")
    finished = manifest[FINISHED] is not None if FINISHED in manifest else reported  # an earlier version's
    return RunState(run, manifest["job"], _tell(run, stages, finished), reported)


def _find(run: Folder) -> RunState | None:
    """The state of what may be a run: it has a description, or cannot be looked into."""
    try:
        return read_state(run) if MANIFEST in run.ls() else None
    except SquadronError as error:
        return RunState(run, error.what, "not readable", False)


def _tell(run: Folder, stages: list[Folder], finished: bool) -> str:
    at_work = next((stage for stage in stages if not stage.exists(MARKER)), None)
    if is_held(run):
        now = at_work or (stages[-1] if stages else None)
        return f"running: {_name(now)}{_step(now)}" if now is not None else "running"
    if at_work is not None:
        return f"stopped in {_name(at_work)}{_step(at_work)}"
    if not finished:
        return f"stopped after {_name(stages[-1])}" if stages else "stopped before its first stage"
    failed = sum(map(_failed_rows, stages))
    return f"finished, {failed} failed row{'s' * (failed > 1)}" if failed else "finished"


def _name(stage: Folder) -> str:
    return stage.name.rpartition("-")[0]


def _step(stage: Folder) -> str:
    """How far an unfinished stage has come, by what it has logged."""
    rows = find_rows(stage, METRICS)
    steps = [row["step"] for row in rows if isinstance(row.get("step"), int)]
    return f", step {max(steps)}" if steps else ""


def _failed_rows(stage: Folder) -> int:
    with contextlib.suppress(InputError):
        return len(read_failures(stage))
    return 0
