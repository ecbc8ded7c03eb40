"""Several trainings of one stage: side by side on CPUs, one after the other on all GPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squadron.core.errors import WorkerError
from squadron.core.folder import Folder, relative
from squadron.core.profile import WorkerResources
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.train.batching.batches import Row, RowSource
from squadron.train.models.builders import PolicyWithReference, Pretrained
from squadron.train.objectives import Objective
from squadron.train.planning.allocation import place
from squadron.train.spec import TrainSpec

_A_WEEK_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class TrainJob:
    """One training: what from, on what, how. `name` is its folder; of a policy with its reference, the policy is what
    is exported."""

    name: str
    build: Pretrained | PolicyWithReference
    objective: Objective
    rows: Sequence[Row]
    spec: TrainSpec
    tokenizer: str | None = None

    @property
    def policy(self) -> Pretrained:
        """What is trained."""
        return self.build.policy if isinstance(self.build, PolicyWithReference) else self.build


@dataclass(frozen=True)
class TrainResult:
    """A finished training: its model's folder (relative to the run folder) and the loss of each step."""

    name: str
    path: str
    losses: tuple[float, ...]


def train_several(stage: Stage, lessons: Sequence[TrainJob]) -> list[TrainResult]:
    """Train and export every lesson into `<stage>/<name>/model`; finished ones are kept, others go on where they were.

    Where the workers of training have no GPU and no number of workers was asked for, lessons run side by side, each on
    an even share of a node's cores; else one after the other by `fit`. Raises WorkerError if one fails, with its cause;
    the others are kept.
    """
    shares = [place(stage, lesson.spec)[1] for lesson in lessons]
    if not goes_alone(stage, shares):
        return [_in_turn(stage, lesson) for lesson in lessons]
    named = {lesson.name: lesson for lesson in lessons}
    side_by_side(stage, list(named), _train_here, shares[0].cpus, lessons=named, folder=stage.folder)
    return [_learned(stage, lesson) for lesson in lessons]


def goes_alone(stage: Stage, shares: Sequence[WorkerResources]) -> bool:
    """Whether trainings with these shares of a node each take one process without a GPU: nobody asked for more."""
    return all(share.gpus == 0 for share in shares) and (stage.run.profile.workers or 1) <= 1


def side_by_side(
    stage: Stage, names: Sequence[str], train: Callable[..., dict[str, Any]], cpus: float, **shared: Any
) -> None:
    """Call `train({"id": name}, **shared)` for each name on a worker of its own. `cpus` are the cores of a node, of
    which each gets an even share, one at the least. Raises WorkerError if one fails, with its cause; the others are
    kept."""
    each = stage.run.profile.worker.model_copy(update={"cpus": max(1, cpus // len(names))})
    rows = [{"id": name} for name in names]
    map_rows(stage, rows, train, unit="model", timeout_s=_A_WEEK_S, resources=each, **shared)
    if failures := stage.failures():
        what = f"{len(failures)} of {len(names)} trainings failed; {failures[0]['item']}: {failures[0]['error']}"
        fix = "mend the cause and give the same command: the others are kept"
        raise WorkerError(what, where=str(stage.folder), fix=fix)


def _in_turn(stage: Stage, lesson: TrainJob) -> TrainResult:
    from squadron.core.progress import progress
    from squadron.train.loop import fit

    source, store = _source(lesson), stage.folder / lesson.name
    workers, resources = place(stage, lesson.spec)
    with progress(lesson.spec.steps or source.steps(lesson.spec), lesson.name, "step") as bar:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            _note_loss(store, step, metrics)
            bar.advance(step - bar.done)

        fitted = fit(
            lesson.objective,
            lesson.build,
            source,
            lesson.spec,
            store,
            workers=workers,
            resources=resources,
            identity=lesson.policy.path,
            on_step=on_step,
        )
    if not store.exists("model/config.json"):
        _export(lesson, store, fitted.step, clean_process=True)
    return _learned(stage, lesson)


def _train_here(row: dict[str, Any], lessons: dict[str, TrainJob], folder: Folder) -> dict[str, Any]:
    """Train and export one lesson in this process. Runs on a worker."""
    lesson = lessons[row["id"]]
    store = folder / lesson.name
    step = train_alone(
        lesson.objective,
        lesson.build,
        _source(lesson),
        lesson.spec,
        store,
        identity=lesson.policy.path,
        on_step=lambda step, metrics: _note_loss(store, step, metrics),
    )
    _export(lesson, store, step, clean_process=False)
    return {"step": step}


def train_alone(
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


def _source(lesson: TrainJob) -> RowSource:
    return RowSource(lesson.rows, lambda row: int(row["length"]))


def _export(lesson: TrainJob, store: Folder, step: int, *, clean_process: bool) -> None:
    from squadron.train.checkpoints.checkpoint import Reader
    from squadron.train.checkpoints.export import export

    with Reader(store, step) as reader, tempfile.TemporaryDirectory() as scratch:
        export(lesson.policy, reader, Path(scratch), tokenizer=lesson.tokenizer, clean_process=clean_process)
        files = sorted(Path(scratch).iterdir(), key=lambda file: file.name == "config.json")
        for file in files:  # config.json last: a folder that has one is whole
            store.put(f"model/{file.name}", str(file))


def _note_loss(store: Folder, step: int, metrics: dict[str, float]) -> None:
    store.append_line("losses.jsonl", f'{{"step": {step}, "loss": {metrics["loss"]}}}')


def _learned(stage: Stage, lesson: TrainJob) -> TrainResult:
    store = stage.folder / lesson.name
    by_step = {row["step"]: row["loss"] for row in store.read_lines("losses.jsonl")}
    path = relative(stage.folder, stage.run.folder, f"{lesson.name}/model")
    return TrainResult(lesson.name, path, tuple(by_step[step] for step in sorted(by_step)))
