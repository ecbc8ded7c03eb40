"""The process in which one trial's job runs: a driver of its own on the cluster.

To Ray it is a driver, as a run by hand is: however it ends, Ray frees all that it had started. An actor's placement
groups, Ray Train's among them, would stay until the whole sweep is over.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

from squadron.core.cluster import Node
from squadron.core.config import Config
from squadron.core.errors import ResourceError, SquadronError
from squadron.core.folder import Folder
from squadron.core.host import end_with_parent
from squadron.core.line_log import append_row
from squadron.core.masking import mask_text
from squadron.core.profile import Profile
from squadron.core.stage_cache import StageCache, copy_stage
from squadron.tune.spec import Record, SweepSpec
from squadron.tune.trial_store import TrialStore, number_of

_LOCK_PATIENCE_S, _DECISION_PATIENCE_S = 60.0, 60.0
_SNAPSHOTS_KEPT = 3


class Task(Config):
    """All that the process of a trial is given. `session` is the start of the sweep that it belongs to; `warm_start`
    gives, by stage, the work of another trial to resume."""

    name: str
    settings: dict[str, Any]
    spec: SweepSpec
    folder: str
    sweep: str
    session: str
    profile: Profile
    share: tuple[Node, ...] | None
    track: tuple[str, ...]
    warm_start: dict[str, str]
    address: str
    runtime_env: dict[str, Any]

    @property
    def trial_store(self) -> TrialStore:
        return TrialStore(Folder(self.folder), self.sweep)

    def record(self, **known: Any) -> Record:
        """A record of this trial."""
        return Record(number=number_of(self.name), settings=self.settings, session=self.session, **known)


def main() -> None:
    """Run the job of the task that standard input holds as JSON, and leave a record of it: `finished` or `failed`."""
    end_with_parent()  # a trial that is stopped works no longer; elsewhere than on Linux it runs until Ray is gone
    task = Task.model_validate_json(sys.stdin.buffer.read())
    started = time.monotonic()
    try:
        outcome: dict[str, Any] = {"status": "finished", "value": _run_job(task)}
    except Exception as error:
        sys.stderr.write(mask_text(traceback.format_exc()))
        text = mask_text(str(error) if isinstance(error, SquadronError) else f"{type(error).__name__}: {error}")
        outcome = {"status": "failed", "error": text}
    known = task.trial_store.read(task.name)
    if known is None or known.status != "stopped":  # a trial that is asked to stop may be at its end already
        task.trial_store.write(task.name, task.record(seconds=round(time.monotonic() - started, 2), **outcome))


def _run_job(task: Task) -> float:
    """Run the job, and return the value of the metric. Raises SquadronError if the run ends without one, and what the
    job raises."""
    from squadron.core import registry, runner
    from squadron.core.cluster import Cluster, connect
    from squadron.core.config import from_values
    from squadron.core.run import Run

    trial_store, spec = task.trial_store, task.spec
    job = registry.load_job(spec.job)
    config = from_values(job.config_type, spec.base, task.settings)
    work = Run(job.name, config, trial_store.run_folder(task.name), task.profile, track=task.track)
    work.stage_cache = StageCache(
        trial_store.folder / "trials", {stage: Folder(url) for stage, url in task.warm_start.items()}
    )
    work.on_log = _Curve(task)
    _open(work)
    try:
        connect(task.address, runtime_env=task.runtime_env)
        work.cluster = Cluster(task.share)
        runner.execute(job, work)
    finally:
        work.close()
    logged = [row["value"] for row in trial_store.curve(task.name)]
    value = work.measured().get(spec.metric, logged[-1] if logged else None)
    if value is None or value != value:
        raise SquadronError(f"the run came to its end without a value of {spec.metric}")
    return float(value)


class _Curve:
    """Keeps what a run logs of the metric; steps that it does again after a restart are kept once."""

    def __init__(self, task: Task) -> None:
        self._notes, self._metric = task.trial_store.notes(task.name), task.spec.metric
        self._keeps_work = task.spec.scheduler == "pbt"
        rows = task.trial_store.curve(task.name)
        self._known, self._count = {(row["stage"], row["step"]) for row in rows}, len(rows)

    def __call__(self, stage: Any, step: int, metrics: Mapping[str, float]) -> None:
        value, at = metrics.get(self._metric), (stage.folder.name, step)
        if value is None or value != value or at in self._known:
            return
        self._known.add(at)
        row = {"stage": at[0], "step": step, "value": float(value)}
        if self._keeps_work:
            row["work"] = self._keep(stage, step)
        append_row(self._notes, "curve.jsonl", row)
        self._count += 1
        if self._keeps_work:
            self._wait()

    def _wait(self) -> None:
        """Wait until Ray Tune has taken the value. Where it wants this trial to resume another's work, it ends this
        process instead; a run that went ahead meanwhile would be at its end before anything is decided."""
        deadline = time.monotonic() + _DECISION_PATIENCE_S
        while time.monotonic() < deadline:
            if self._notes.find_json("taken.json", {"values": 0})["values"] >= self._count:
                return
            time.sleep(0.05)

    def _keep(self, stage: Any, step: int) -> str:
        """Keep the work of the stage as it is now, for others to resume."""
        kept = self._notes / "work"
        place = kept / f"{stage.folder.name}-{step:08d}"
        if not place.exists():
            copy_stage(stage.folder, place)
        for old in kept.ls()[:-_SNAPSHOTS_KEPT]:
            kept.remove(old)
        return place.url


def _open(work: Any) -> None:
    """Open a run folder that a process which has just been ended may still hold."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            work.open()
            return
        except ResourceError as error:
            if "another process" not in error.what or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main()
