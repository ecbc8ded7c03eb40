"""One run of a job: a folder that a person can `ls`, and stages that are never done twice.

    runs/flame-demo/
        run.json            job, versions, seed, commit
        config.yaml         the resolved configuration
        report.html
        stages/
            collect_demos-3f2a91c0de12/     the name carries a fingerprint of all that the stage depends on
                started.json  done.json     inputs; output. `done.json` is written last and commits the stage
                metrics.jsonl failures.jsonl headlines.json measures.json panels/
                …                           the stage's own files

A changed setting gives another fingerprint and so another folder: what an earlier setting computed stays where it was,
and is found again if the setting is changed back. Settings that decide nothing (`config.operational`) and the places of
input files are no part of it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, get_type_hints

from squadron.core import console
from squadron.core.config import Config, changes, fingerprint, to_yaml
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.idle import IdleWorkers
from squadron.core.inputs import find_inputs, recall, remember, replace_paths
from squadron.core.lease import LEASES, Lease, lock
from squadron.core.line_log import GrowingLog, append_row, find_rows, read_rows, rewrite_rows
from squadron.core.manifest import FINISHED, FORMAT, MANIFEST, describe_environment, read_manifest, refuse_links
from squadron.core.marker import (
    FAILURES,
    HEADLINES,
    MARKER,
    MEASURES,
    METRICS,
    PANELS,
    START_OVER,
    check_files,
    read_marker,
    write_marker,
)
from squadron.core.masking import mask_secrets, mask_text, masked_keys
from squadron.core.profile import Profile, WorkerResources
from squadron.core.run_reader import by_step, read_failures, read_output
from squadron.core.seals import seal_yaml

if TYPE_CHECKING:
    from squadron.core.cluster import Cluster
    from squadron.core.panels import Panel
    from squadron.core.stage_cache import StageCache
    from squadron.core.tracking import Tracker

STAND_INS = "stand_ins"
"""Of a rehearsal: what plays in place of models and data."""
OutputT = TypeVar("OutputT", bound=Config)
Inputs = ParamSpec("Inputs")


@dataclass
class Run:
    """A job at work in its folder. Recipes call `stage`; the rest serves stages and the report."""

    job: str
    config: Config
    folder: Folder
    profile: Profile
    address: str | None = None
    track: tuple[str, ...] = ("tensorboard",)
    rerun: tuple[str, ...] = ()
    rehearsal: bool = False
    stages: list[Stage] = field(default_factory=list)
    cluster: Cluster | None = None
    idle: IdleWorkers = field(default_factory=IdleWorkers)
    stage_cache: StageCache | None = None
    on_log: Callable[[Stage, int, dict[str, float]], None] | None = None
    _manifest: dict[str, Any] = field(default_factory=dict)
    _lock: Any = None

    def stage(
        self,
        function: Callable[Concatenate[Stage, Inputs], OutputT],
        *inputs: Inputs.args,
        **named: Inputs.kwargs,
    ) -> OutputT:
        """Run `function(stage, *inputs)` once for these inputs, and return its output.

        A finished stage is read from its marker. An unfinished one is entered again with the folder it had, and goes
        on from what it finds there; so is a finished one that left failed rows, to retry them, and one that `rerun`
        names, say for other pictures. Inputs and output are `Config` records.
        """
        self.check_held()
        stage = Stage.of(self, function, inputs, named)
        self._note(stage)
        if self.stage_cache is not None:
            self.stage_cache.fill(stage.folder, stage.name)
        output_type = get_type_hints(function)["return"]
        if stage.done and not stage.rows_to_retry and stage.name not in self.rerun:
            stage.say_kept()
            kept: OutputT = stage.kept(output_type)
            return kept
        stage.explain_rerun()
        console.say(f"[bold]▸ {stage.name}[/bold]  {stage.purpose}")
        stage.begin()
        started = time.monotonic()
        try:
            output = function(stage, *inputs, **named)
        finally:
            stage.close()
        self.check_held()
        stage.commit(output, time.monotonic() - started)
        return output

    def open(self) -> None:
        """Claim the folder for this job. Raises InputError if it belongs to another job, was written by an earlier
        version, or is in use."""
        self.folder.make()
        refuse_links(self.folder)
        if self.folder.exists(MANIFEST):
            owner = read_manifest(self.folder)["job"]
            if owner != self.job:
                fix = "give this job a folder of its own with --run"
                what = f"this run folder belongs to the job {owner!r}, not {self.job!r}"
                raise InputError(what, where=str(self.folder), fix=fix)
            recall(self.folder)
        elif foreign := [name for name in self.folder.ls() if name not in ("stages", STAND_INS, ".lock", LEASES)]:
            fix = "choose an empty or new folder with --run"
            raise InputError(f"not a run folder: it holds {', '.join(foreign[:3])}", where=str(self.folder), fix=fix)
        self._lock = lock(self.folder)
        self._manifest = {
            "job": self.job,
            "format": FORMAT,
            **({"rehearsal": True} if self.rehearsal else {}),
            **describe_environment(),
            "seed": getattr(self.config, "seed", None),
            FINISHED: None,
        }
        self.folder.write_json(MANIFEST, self._manifest)
        self.folder.write_bytes("config.yaml", seal_yaml(to_yaml(self.config).encode()))

    def measured(self) -> dict[str, float]:
        """What the stages of this run have measured; of what more than one stage has, the mean."""
        rows = [stage.folder.find_json(MEASURES, {}) for stage in self.stages]
        names = {name for row in rows for name in row}
        return {name: fmean(row[name] for row in rows if name in row) for name in names}

    def check_held(self) -> None:
        """Raise ResourceError if another process has taken over the folder, which may happen behind a URL."""
        if isinstance(self._lock, Lease):
            self._lock.check()

    def finish(self) -> None:
        """Note that the recipe has come to its end: until the folder is entered again, the run is finished."""
        self._manifest[FINISHED] = _now()
        self.folder.write_json(MANIFEST, self._manifest)

    def close(self) -> None:
        """Let go of workers and of the folder."""
        self.idle.close()
        if self._lock is not None:
            self._lock.close()

    def _note(self, stage: Stage) -> None:
        """Keep the order of this run's stages in its manifest: the report shows these, not what older settings left."""
        remember(self.folder)
        self.stages.append(stage)
        self._manifest["stages"] = [known.folder.name for known in self.stages]
        self.folder.write_json(MANIFEST, self._manifest)


@dataclass
class Stage:
    """One step of a run: the folder where it keeps its files, and what it tells the user."""

    run: Run
    name: str
    purpose: str
    inputs: dict[str, Any]
    folder: Folder
    input_paths: list[str] = field(default_factory=list)
    _tracker: Tracker | None = None
    _panels: int = 0
    _pictures: list[str] = field(default_factory=list)
    _headlines: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(run: Run, function: Callable[..., Any], inputs: tuple[Any, ...], named: dict[str, Any]) -> Stage:
        """The stage that `function` on `inputs` is, whether or not it has run."""
        names = list(get_type_hints(function))[1:]
        given = dict(zip(names, inputs, strict=False)) | named
        values = {name: _plain(value) for name, value in given.items()}
        name = function.__name__
        purpose = (function.__doc__ or "").strip().partition("\n")[0]
        folder = run.folder / "stages" / f"{name}-{fingerprint([name, given])}"
        return Stage(run, name, purpose, values, folder, [str(path) for _, path in find_inputs(given)])

    def __post_init__(self) -> None:
        self._log = GrowingLog(self.folder, METRICS)

    @property
    def done(self) -> bool:
        return self.folder.exists(MARKER)

    @property
    def rows_to_retry(self) -> int:
        """How many rows failed and may succeed on another try."""
        return sum(1 for row in self.failures() if row["retry"])

    @property
    def cluster(self) -> Cluster:
        """The Ray cluster, connected on first use and shared by all stages. Who starts workers on it claims it."""
        if self.run.cluster is None:
            from squadron.core.cluster import check_shared, connect

            cluster, profile = connect(self.run.address), self.run.profile
            check_shared(self.run.folder)
            console.say(f"[dim]Ray: {cluster}[/dim]")
            if profile.trainer is not None:  # before hours of other stages, not after them
                cluster.require(profile.trainers or 1, profile.trainer, f"the profile {profile.name}", profile.wait_s)
            self.run.cluster = cluster
        return self.run.cluster

    def claim_cluster(self) -> Cluster:
        """Stop idle workers, so that they make room for new ones, and return the cluster."""
        self.run.idle.close()
        return self.cluster

    def claim_workers(self, purpose: str, tasks: int, resources: WorkerResources | None = None) -> int:
        """Stop idle workers, and return how many to start for `tasks` independent tasks: as many as asked for, else as
        many as fit. On a cluster that can grow to the machines of the profile, those that do not fit yet start later.

        Raises ResourceError before anything starts if the cluster cannot hold them.
        """
        cluster, profile = self.claim_cluster(), self.run.profile
        if resources is not None:
            cluster.require(1, resources, purpose, profile.wait_s)
            return min(tasks, cluster.fit(resources, profile.max_workers))
        cluster.require(profile.workers or 1, profile.worker, purpose, profile.wait_s)
        return min(tasks, profile.workers or cluster.room(profile))

    def log(self, step: int, **metrics: float) -> None:
        """Record metrics of one step in the run folder and in every tracker."""
        self._log.append_row(_finite_row({"step": step, **metrics}))
        self._tell(step, metrics)

    def restore_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Make the log hold what was committed and nothing else: `rows`, each with its `step`, in order.

        A log is written after the state that it tells of, and not with it. After a kill it may lack steps that are
        saved and hold some that are not, and what is damaged in it is restored. Trackers and `Run.on_log` are told of
        the steps that were missing.
        """
        self._log.flush()
        known = {row.get("step") for row in find_rows(self.folder, METRICS)}
        rewrite_rows(self.folder, METRICS, [_finite_row({**row, "step": int(row["step"])}) for row in rows])
        for row in rows:
            metrics = {name: math.nan if value is None else value for name, value in row.items() if name != "step"}
            if row["step"] not in known:
                self._tell(int(row["step"]), metrics)

    def measure(self, **values: float) -> None:
        """Final numbers by which runs of this job can be compared: those that the job declares as its `metrics`."""
        self.folder.write_json(MEASURES, self.folder.find_json(MEASURES, {}) | values)

    def metrics(self) -> list[dict[str, float]]:
        """What `log` recorded, one row a step; a step done again after a restart counts once, as done last. Raises
        InputError if a row is damaged."""
        self._log.flush()
        return by_step(read_rows(self.folder, METRICS, START_OVER), self.folder.file(METRICS))

    def fail(self, item: str, error: str, *, retry: bool = True) -> None:
        """Keep a failed row: counted, shown in the report and, if `retry`, tried again by the next run."""
        append_row(self.folder, FAILURES, {"item": item, "error": mask_text(error), "retry": retry})

    def failures(self) -> list[dict[str, Any]]:
        """Rows that failed, each with `item`, `error` and `retry`. Raises InputError if one is damaged."""
        return read_failures(self.folder)

    def show(self, panel: Panel) -> None:
        """Put a table, curves, images, a film or text into the report, without secrets that it may hold."""
        self._panels += 1
        from squadron.core.panels import files_of_panel

        self._pictures += files_of_panel(panel)
        (self.folder / PANELS).write_json(f"{self._panels:02d}.json", mask_secrets(panel.model_dump(mode="json")))

    def headline(self, label: str, value: str) -> None:
        """A headline number for the table at the end of the job and the head of the report."""
        self._headlines.pop(label, None)  # the last one stands last
        self._headlines[label] = mask_text(value)
        self.folder.write_json(HEADLINES, {"headlines": list(self._headlines.items())})

    def explain_rerun(self) -> None:
        """Say which settings changed, if this stage was finished before with others."""
        if self.done or self.folder.exists("started.json"):
            return
        now = {stage.folder.name for stage in self.run.stages}  # a recipe may enter a stage more than once
        known = (self.run.folder / "stages").ls()
        siblings = [name for name in known if name.rpartition("-")[0] == self.name and name not in now]
        others = [self.run.folder / "stages" / name for name in siblings]
        finished = []
        for folder in others:
            with contextlib.suppress(InputError):  # nothing but this sentence hangs on it
                finished.append(read_marker(folder))
        if not finished:
            return
        last = max(finished, key=lambda marker: marker.finished_at)
        changed = changes(last.inputs, self.inputs, most=4)
        shown = "; ".join(changed) or f"what is in {', '.join(self._unseen()) or 'its inputs'}"
        console.say(
            f"[yellow]{self.name} runs again, its earlier result is kept. Changed:[/yellow] {console.plain(shown)}"
        )

    def _unseen(self) -> list[str]:
        """Inputs in which a change does not show: the content of files, and secrets."""
        others = replace_paths(self.inputs, dict.fromkeys(self.input_paths, ""))
        return [*map(mask_text, self.input_paths), *masked_keys(mask_secrets(others))]

    def kept(self, output_type: type[OutputT]) -> OutputT:
        """The output of this finished stage. Input files that were moved since are named where they are now, and so are
        URLs that were written down without the secrets in them. Raises InputError if what the stage left has changed
        since."""
        marker = read_marker(self.folder)
        check_files(self.folder, marker)
        moved = dict(zip(marker.input_paths, self.input_paths, strict=False))
        return read_output(output_type, replace_paths(marker.output, moved), self.folder)

    def say_kept(self) -> None:
        """Say that this finished stage is kept, and which settings changed that decide nothing of its result."""
        changed = changes(read_marker(self.folder).inputs, self.inputs, most=4)
        note = f"; of no effect on it: {console.plain('; '.join(changed))}" if changed else ""
        console.say(f"[dim]✓ {self.name}: finished before, kept{note}[/dim]")

    def begin(self) -> None:
        """Mark the stage as entered and forget what an earlier attempt showed. One that had been finished is so no
        more until it is again: killed before, it is entered again."""
        self.folder.make()
        for stale in (MARKER, PANELS, FAILURES, HEADLINES, MEASURES):
            self.folder.remove(stale)
        self.folder.write_json("started.json", {"inputs": mask_secrets(self.inputs), "started_at": _now()})
        if self.run.track:
            from squadron.core.tracking import trackers

            config = mask_secrets(self.run.config.model_dump(mode="json"))
            self._tracker = trackers(self.run.track, f"{self.run.folder.name}/{self.name}", self.folder, config)

    def commit(self, output: Config, seconds: float) -> None:
        """Write the marker that makes the stage finished. Of the output, a later start needs every value as it is: only
        URLs of inputs are masked in it, since `kept` puts them back."""
        masked = {path: str(mask_secrets(path)) for path in self.input_paths if "://" in path}
        write_marker(
            self.folder,
            replace_paths(output.model_dump(mode="json"), masked),
            inputs=mask_secrets(self.inputs),
            input_paths=[masked.get(path, path) for path in self.input_paths],
            seconds=seconds,
            pictures=self._pictures,
        )

    def _tell(self, step: int, metrics: dict[str, Any]) -> None:
        if self._tracker is not None:
            self._tracker.log(step, {f"{self.name}/{key}": value for key, value in metrics.items()})
        if self.run.on_log is not None:
            self.run.on_log(self, step, metrics)

    def close(self) -> None:
        try:
            self._log.flush()
        finally:
            if self._tracker is not None:
                self._tracker.close()
                self._tracker = None


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _finite_row(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _finite(value) for key, value in row.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
