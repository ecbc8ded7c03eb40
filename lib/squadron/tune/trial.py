"""One trial of a sweep as Ray Tune sees it.

Ray Tune starts `follow` in an actor inside a placement group, which all that it starts would have to fit into. So the
job runs in a process of its own (`squadron.tune.process`), which says in its record what it has reached, and `follow`
tells Ray Tune.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.stage_cache import copy_stage
from squadron.tune.partition import Share
from squadron.tune.process import Task
from squadron.tune.space import Settings
from squadron.tune.spec import Record, SweepSpec
from squadron.tune.trial_store import TrialStore, number_of

NAME = "sweep/trial"
"""Under which Ray Tune's configuration of a new trial holds its name; no setting's path has a slash."""

_ATTEMPTS = 3  # of a job whose process dies
_LOOK_EVERY_S = 0.3


@dataclass(frozen=True)
class Trials:
    """What all trials of a sweep have in common. `session` tells failures of this start of the sweep from older ones,
    which are tried again. Paths that settings name begin at `directory`."""

    spec: SweepSpec
    trial_store: TrialStore
    profile: Profile
    shares: tuple[Share | None, ...]
    track: tuple[str, ...]
    session: str
    directory: str

    def task(self, name: str, settings: Settings, warm_start: Mapping[str, Folder]) -> Task:
        """What the process of a trial is given."""
        context = ray.get_runtime_context()
        return Task(
            name=name, settings=settings, spec=self.spec,
            folder=self.trial_store.folder.url, sweep=self.trial_store.sweep,
            session=self.session, profile=self.profile, track=self.track,
            share=self.shares[number_of(name) % len(self.shares)],
            warm_start={stage: folder.url for stage, folder in warm_start.items()},
            address=context.gcs_address, runtime_env=dict(context.runtime_env),
        )  # fmt: skip


def follow(config: Mapping[str, Any], trials: Trials) -> None:
    """Run the job with these settings, and report to Ray Tune every value of the metric that it logs, and the one that
    it ends with. A trial that ended before reports what it did then. One that fails reports no more: its record says
    so, and Ray Tune is not told, since it would start the trial again."""
    from ray import tune

    name, trial_store = tune.get_context().get_trial_name(), trials.trial_store
    settings = {key: config[key] for key in trials.spec.over}
    checkpoint = tune.get_checkpoint()
    sent = 0 if checkpoint is None else len(trial_store.curve(name))

    def send() -> None:
        nonlocal sent
        for row in trial_store.curve(name)[sent:]:
            sent += 1
            _report({trials.spec.metric: row["value"]}, name, row)
            if trials.spec.scheduler == "pbt":  # the run waits until it may continue as it is
                trial_store.notes(name).write_json("taken.json", {"values": sent})

    record = trial_store.read(name)
    if record is None or not _has_ended(record, trials.session):
        warm_start = _warm_start(checkpoint, trials, name)
        if record is not None and not warm_start and trials.spec.scheduler == "pbt":
            settings = record.settings  # those that it has come to, in an earlier start
        record = _run_watched(trials, trials.task(name, settings, warm_start), send)
    send()
    if record.status == "finished":
        tune.report({trials.spec.metric: record.value})


def _has_ended(record: Record, session: str) -> bool:
    """Whether a trial is not to be run again: what failed at an earlier start is."""
    return record.status in ("finished", "stopped") or (record.status == "failed" and record.session == session)


def _run_watched(trials: Trials, task: Task, send: Callable[[], None]) -> Record:
    """The record of a run that has ended; one whose process dies, or is lost, resumes in another."""
    trial_store, name = trials.trial_store, task.name
    for _ in range(_ATTEMPTS):
        trial_store.write(name, task.record())
        code = _run_process(trial_store.notes(name), task, trials.directory, send)
        record = trial_store.read(name)
        if record is not None and record.status != "running":
            return record
    record = task.record(status="failed", error=f"its process ended with status {code}, {_ATTEMPTS} times")
    trial_store.write(name, record)
    return record


def _run_process(notes: Folder, task: Task, directory: str, send: Callable[[], None]) -> int:
    """Run the task in a process, and call `send` now and then meanwhile. What it prints is kept next to its record,
    where that is on a disk. Returns its status."""
    command = [sys.executable, "-m", "squadron.tune.process"]
    where = directory if os.path.isdir(directory) else None
    with open(f"{notes.path}/log.txt" if notes.path else os.devnull, "ab") as log:
        process = subprocess.Popen(command, cwd=where, stdin=subprocess.PIPE, stdout=log, stderr=log)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # one that died at once is seen below
        pipe.write(task.model_dump_json().encode())  # by no file: a runtime environment may hold keys
    try:
        while process.poll() is None:
            time.sleep(_LOOK_EVERY_S)
            send()
    finally:
        process.kill()
        code = process.wait()
    return code


def _report(metrics: Mapping[str, float], name: str, row: Mapping[str, Any]) -> None:
    """Report to Ray Tune, with where the work behind it is kept, if it is."""
    import tempfile

    from ray import tune

    if "work" not in row:
        tune.report(dict(metrics))
        return
    with tempfile.TemporaryDirectory() as scratch:
        stage = row["stage"].rpartition("-")[0]
        Folder(scratch).write_json("work.json", {"trial": name, "stage": stage, "work": row["work"]})
        tune.report(dict(metrics), checkpoint=tune.Checkpoint.from_directory(scratch))


def _warm_start(checkpoint: Any, trials: Trials, name: str) -> dict[str, Folder]:
    """Another trial's work that Ray Tune wants this one to resume, by its stage: a copy, since the other continues
    meanwhile. Where the other no longer has that checkpoint, a later one serves. A trial's own work is found in its
    run folder."""
    if checkpoint is None:
        return {}
    with checkpoint.as_directory() as place:
        row = Folder(place).read_json("work.json")
    if row["trial"] == name:
        return {}
    wanted = Folder(row["work"])
    kept, stage = trials.trial_store.notes(row["trial"]) / "work", wanted.name.rpartition("-")[0]
    given = trials.trial_store.notes(name) / "given" / uuid.uuid4().hex[:8]
    for _ in range(_ATTEMPTS):
        later = [kept / one for one in kept.ls() if one.startswith(f"{stage}-")]
        try:
            copy_stage(wanted if wanted.exists() else later[-1], given)
            return {row["stage"]: given}
        except (FileNotFoundError, shutil.Error, IndexError):
            continue
    return {}  # gone: it resumes its own
