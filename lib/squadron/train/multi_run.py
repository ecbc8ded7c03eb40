"""Several trainings of one stage: side by side on CPUs, one after the other on all GPUs."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from squadron.core import console
from squadron.core.errors import SquadronError, WorkerError
from squadron.core.folder import Folder, relative
from squadron.core.line_log import GrowingLog
from squadron.core.profile import WorkerResources
from squadron.core.run import Stage
from squadron.train.batching.batches import Row, RowSource
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.checkpoints.commits import complete_steps, newest_curve, read_curve
from squadron.train.models.builders import PolicyWithReference
from squadron.train.objectives import Objective
from squadron.train.planning.allocation import place
from squadron.train.spec import TrainSpec
from squadron.train.text.fitting import tokens

_FINISHED, _LOG = "finished.json", "metrics.jsonl"
_START_TIMEOUT_S = 1800.0  # other runs may hold the cores for a while


def row_length(row: Row) -> int:
    """Tokens of an encoded row, all of which stand in one where rows are packed."""
    return tokens(row, packed=True)


@dataclass(frozen=True)
class TrainJob:
    """One training: what makes the model, by which objective, on what, how. `name` is its folder.

    `export` writes the trained model's files into a folder, one of them `config.json`. Without it they are those of a
    language model, with the tokenizer at `tokenizer`; of a policy with its reference, the policy. `length` is what rows
    are batched by, if anything. `identity` names what a checkpoint belongs to; of a language model, its path does.
    """

    name: str
    build: Callable[[], Any]
    objective: Objective
    rows: Sequence[Row]
    spec: TrainSpec
    tokenizer: str | None = None
    held_out: Sequence[Row] = ()
    length: Callable[[Row], int] | None = row_length
    identity: str = ""
    export: Callable[[Reader, Path], None] | None = None

    @property
    def policy(self) -> Any:
        """What is trained."""
        return self.build.policy if isinstance(self.build, PolicyWithReference) else self.build

    @property
    def arguments(self) -> dict[str, Any]:
        """What `fit` and `train_in_process` both take by name."""
        return {"held_out": self.held_out, "identity": self.identity or self.policy.path}


@dataclass(frozen=True)
class TrainResult:
    """A finished training: its model's folder (relative to the run folder) and the metrics of each step."""

    name: str
    path: str
    metrics: tuple[dict[str, float], ...]

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss of each step."""
        return tuple(row["loss"] for row in self.metrics)


def train_several(stage: Stage, jobs: Sequence[TrainJob]) -> list[TrainResult]:
    """Train and export every job into `<stage>/<name>/model`. Finished jobs are kept, others resume where they were.

    Where the workers of training have no GPU and no number of workers was asked for, jobs run side by side, each on an
    even share of a node's cores; else one after the other by `fit`. Raises WorkerError if one fails, with its cause;
    the others are kept.
    """
    shares = [place(stage, job.spec)[1] for job in jobs]
    if one_process_each(stage, shares):
        run_side_by_side(stage, {job.name: partial(_train_here, job, stage.folder) for job in jobs}, shares[0].cpus)
    else:
        for job in jobs:
            _train_by_group(stage, job)
    return [_result(stage, job) for job in jobs]


def one_process_each(stage: Stage, shares: Sequence[WorkerResources]) -> bool:
    """Whether trainings with these shares of a node run in one process each: without GPUs, and with no number of
    workers asked for."""
    return all(share.gpus == 0 for share in shares) and (stage.run.profile.workers or 1) <= 1


def run_side_by_side(stage: Stage, trainings: Mapping[str, Callable[[], None]], cpus: float) -> None:
    """Run each training on a worker of its own. Each resumes by itself where it was; one that finished before, by its
    note in the stage's folder of that name, is not run again. A training may take any time.

    `cpus` are the cores of a node, of which each gets an even share, but at least one. Raises WorkerError if one fails,
    with its cause; the others are run to their end and kept.
    """
    from squadron.core.actors import ActorPool
    from squadron.core.progress import progress

    left = [name for name in trainings if not (stage.folder / name).exists(_FINISHED)]
    if len(left) < len(trainings):
        console.say(f"  {len(trainings) - len(left)} of {len(trainings)} were done before")
    if not left:
        return
    share = stage.run.profile.worker.model_copy(update={"cpus": max(1, cpus // len(trainings))})
    workers = stage.claim_workers(f"{stage.name} (model)", len(left), share)
    with (
        ActorPool(_Trainer, workers, share, purpose=stage.name, start_timeout_s=_START_TIMEOUT_S) as pool,
        progress(len(trainings), stage.name, "model", done=len(trainings) - len(left)) as bar,
    ):
        for outcome in pool.map("train", [(trainings[name],) for name in left], timeout_s=math.inf):
            name = left[int(str(outcome.key))]
            cause = str(outcome.failure) if outcome.failure is not None else str(outcome.value)
            if cause:
                stage.fail(name, cause)
            else:
                (stage.folder / name).write_json(_FINISHED, {})
            bar.advance()
    if failures := stage.failures():
        what = f"{len(failures)} of {len(trainings)} trainings failed; {failures[0]['item']}: {failures[0]['error']}"
        fix = "fix the cause and give the same command: the others are kept"
        raise WorkerError(what, where=str(stage.folder), fix=fix)


class _Trainer:
    """The work of an actor: trainings, one after the other."""

    def train(self, training: Callable[[], None]) -> str:
        """What the user has to fix, if the training fails for that; any other error is raised."""
        try:
            training()
        except SquadronError as error:
            return str(error)
        return ""


def _train_by_group(stage: Stage, job: TrainJob) -> None:
    """Train and export one job on a group of workers."""
    from squadron.core.progress import progress
    from squadron.train.loop import fit

    source, store = _source(job), stage.folder / job.name
    workers, resources = place(stage, job.spec)
    _restore_log(store)
    log = GrowingLog(store, _LOG)
    with progress(job.spec.steps or source.steps(job.spec), job.name, "step") as bar:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            _note(log, step, metrics)
            bar.advance(step - bar.done)

        fitted = fit(
            job.objective,
            job.build,
            source,
            job.spec,
            store,
            workers=workers,
            resources=resources,
            on_step=on_step,
            **job.arguments,
        )
    _restore_log(store)
    if not store.exists("model/config.json"):
        _export(job, store, fitted.step, clean_process=True)


def _train_here(job: TrainJob, folder: Folder) -> None:
    """Train and export one job in this process. Runs on a worker."""
    store = folder / job.name
    _restore_log(store)
    log = GrowingLog(store, _LOG)
    step = train_in_process(
        job.objective,
        job.build,
        _source(job),
        job.spec,
        store,
        on_step=lambda step, metrics: _note(log, step, metrics),
        **job.arguments,
    )
    _restore_log(store)
    _export(job, store, step, clean_process=False)


def train_in_process(
    objective: Objective,
    build: Callable[[], Any],
    source: RowSource,
    spec: TrainSpec,
    store: Folder,
    *,
    held_out: Sequence[Row] = (),
    identity: str = "",
    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> int:
    """`fit` with one worker that is this process: the same loop without Ray. Returns the number of steps."""
    import torch

    from squadron.train.library_setup import quiet_libraries
    from squadron.train.start import join_alone
    from squadron.train.worker import Training, train

    quiet_libraries()
    join_alone()
    training = Training(build, objective, source, held_out, spec, store.make(), identity)
    return train(training, 0, 1, torch.device("cpu"), on_step)


def _source(job: TrainJob) -> RowSource:
    return RowSource(job.rows, job.length)


def _export(job: TrainJob, store: Folder, step: int, *, clean_process: bool) -> None:
    from squadron.train.checkpoints.export import export

    with Reader(store, step) as reader, tempfile.TemporaryDirectory() as scratch:
        if job.export is not None:
            job.export(reader, Path(scratch))
        else:
            export(job.policy, reader, Path(scratch), tokenizer=job.tokenizer, clean_process=clean_process)
        names = sorted(file.relative_to(scratch).as_posix() for file in Path(scratch).rglob("*") if file.is_file())
        for file in sorted(names, key=lambda file: file == "config.json"):  # last: a folder that has one is whole
            store.put(f"model/{file}", str(Path(scratch, file)))


def _note(log: GrowingLog, step: int, metrics: dict[str, float]) -> None:
    """Log a step, for whoever watches."""
    log.append(json.dumps({"step": step, **metrics}))


def _restore_log(store: Folder) -> None:
    """Make the log hold what was saved, and nothing else."""
    store.write_bytes(_LOG, "".join(json.dumps(row) + "\n" for row in newest_curve(store)).encode())


def _result(stage: Stage, job: TrainJob) -> TrainResult:
    """What a finished training has left: the metrics are those that were saved with its weights."""
    store = stage.folder / job.name
    curve = read_curve(store, complete_steps(store)[-1])
    return TrainResult(job.name, relative(stage.folder, stage.run.folder, f"{job.name}/model"), tuple(curve))
