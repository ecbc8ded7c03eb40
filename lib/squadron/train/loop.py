"""`fit`: one call trains any model on any number of workers, by Ray Train and DeepSpeed.

The driver's side: it starts the workers, hears of each step, and turns what went wrong into words. Where workers come
from is in `start.py`, what one does in `worker.py`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray

from squadron.core import console
from squadron.core.cluster import connect
from squadron.core.config import Config
from squadron.core.errors import ConfigError, InputError, ResourceError, SquadronError, WorkerError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.train.batching.batches import Row, RowSource, Source
from squadron.train.checkpoints import commits
from squadron.train.guard import TrainingStopped, read_stalls
from squadron.train.objectives import Objective
from squadron.train.spec import TrainSpec
from squadron.train.start import Alone, in_group
from squadron.train.worker import Training

if TYPE_CHECKING:
    import torch

OnStep = Callable[[int, dict[str, float]], None]
_POLL_S = 0.2


class Fitted(Config):
    """A finished run: where its weights are, and the metrics of every step, as they were saved with the weights."""

    step: int
    best_step: int
    restarts: int
    metrics: tuple[dict[str, float | None], ...]


def fit(
    objective: Objective,
    build: Callable[[], torch.nn.Module],
    data: Source | Sequence[Row],
    spec: TrainSpec,
    store: Folder,
    *,
    held_out: Sequence[Row] = (),
    workers: int = 1,
    resources: WorkerResources = WorkerResources(),  # noqa: B008 - frozen
    identity: str = "",
    on_step: OnStep | None = None,
) -> Fitted:
    """Train the model that `build` makes, or go on from the newest complete checkpoint in `store`.

    `objective` gives the loss, `data` the rows, `spec` everything else; `build` is called on every worker and must
    give the same model each time. `identity` names what it builds, so that no other model's checkpoint is gone on
    from. `on_step(step, metrics)` is called here as steps are taken, and again for steps that are repeated after the
    loss of a worker: for whoever watches. What counts is `Fitted.metrics`. The trained weights are those of
    `Reader(store, fitted.step)`.

    Raises ConfigError, InputError or ResourceError before anything starts if the settings contradict each other or the
    data, or the cluster has no room for the workers; TrainingStopped if the loss goes wrong; WorkerError if workers are
    lost more often than `spec.guard` allows. What was trained until the last checkpoint is kept in each case, and the
    same call goes on from there.
    """
    source: Source = data if hasattr(data, "read") else RowSource(data)  # type: ignore[assignment]
    spec.accumulation(workers)
    total = spec.steps or source.steps(spec)
    connect().require(workers, resources, "training")
    store.make()
    store.remove("stalls")
    restarts = 0
    if commits.complete_steps(store)[-1:] != [total] or commits.find_damage(store, total):
        training = Training(build, objective, source, held_out, spec, store, identity)
        restarts = _Group(training, workers, resources, on_step, total).run()
    best, curve = commits.best_step(store), commits.read_curve(store, total)
    return Fitted(step=total, best_step=best or total, restarts=restarts, metrics=tuple(curve))


class _Mailbox:
    """What workers tell the driver. An actor, so that it outlives them; one that is lost begins anew, empty."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, dict[str, float]]] = []
        self._errors: list[tuple[int, int, str]] = []
        self._refusal: tuple[str, str, str, str] | None = None
        self._warnings: list[str] = []
        self._starts = 0

    def step(self, step: int, metrics: dict[str, float]) -> None:
        self._steps.append((step, metrics))

    def warn(self, text: str) -> None:
        self._warnings.append(text)

    def take(self) -> tuple[list[tuple[int, dict[str, float]]], list[str], int]:
        """Steps and warnings since the last call, and how often the group has been started."""
        steps, self._steps = self._steps, []
        warnings, self._warnings = self._warnings, []
        return steps, warnings, self._starts

    def start(self, workers: int) -> tuple[int, bool]:
        """The number of this attempt, and whether to begin at all: not after a refusal, nor after an error that two
        attempts ended with."""
        attempt = self._starts // workers
        self._starts += 1
        kinds = {(number, _kind(text)) for number, _, text in self._errors}
        repeated = len({kind for _, kind in kinds}) < len(kinds)
        return attempt, self._refusal is None and not repeated

    def refuse(self, kind: str, what: str, where: str, fix: str) -> None:
        self._refusal = kind, what, where, fix

    def error(self, attempt: int, rank: int, text: str) -> None:
        self._errors.append((attempt, rank, text))

    def verdict(self) -> tuple[tuple[str, str, str, str] | None, list[tuple[int, int, str]]]:
        return self._refusal, self._errors


class _Group:
    """One group of workers and its driver."""

    def __init__(
        self, training: Training, workers: int, resources: WorkerResources, on_step: OnStep | None, total: int
    ) -> None:
        self._training, self._workers, self._resources, self._total = training, workers, resources, total
        self._on_step = on_step or (lambda step, metrics: None)
        self._mailbox: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox).remote()
        self._starts = 0

    def run(self) -> int:
        """Train to the end, and return how often the group was started again."""
        ended: list[BaseException | None] = []
        start = self._start()

        def fit() -> None:
            try:
                start()
                ended.append(None)
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=fit, name="training", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                self._listen()
                thread.join(_POLL_S)
        except BaseException:
            if isinstance(start, Alone):
                start.stop()
            raise
        self._listen()
        self._judge(ended[0])
        return max(0, self._starts - 1)

    def _start(self) -> Callable[[], Any]:
        if self._workers == 1 and not self._resources.gpus:
            return Alone(self._training, self._mailbox, self._resources)
        return in_group(self._training, self._mailbox, self._workers, self._resources)

    def _listen(self) -> None:
        steps, warnings, starts = ray.get(self._mailbox.take.remote())
        if starts // self._workers > self._starts:
            self._starts = starts // self._workers
            if self._starts > 1:
                self._tell_restart()
        for text in warnings:
            console.say(text)
        for step, metrics in steps:
            self._on_step(step, metrics)

    def _tell_restart(self) -> None:
        done = commits.complete_steps(self._training.store)
        why = "a worker was lost"
        if stalls := read_stalls(self._training.store):
            first = stalls[0]
            why = f"worker {first.rank} stood still for {first.seconds:g} s in step {first.step + 1}, {first.phase}"
        console.say(f"[yellow]{why}; all workers start again from step {done[-1] if done else 0}[/yellow]")

    def _judge(self, error: BaseException | None) -> None:
        refusal, errors = ray.get(self._mailbox.verdict.remote())
        if refusal is not None:
            kind, what, where, fix = refusal
            raise _KINDS.get(kind, WorkerError)(what, where=where, fix=fix)
        store = self._training.store
        if error is None and commits.complete_steps(store)[-1:] == [self._total]:
            return
        if errors:
            _, rank, text = errors[-1]
            what = f"worker {rank} failed, the last lines of its error:\n{_tail(text)}"
            raise WorkerError(what, where=str(store), fix=_advice(text))
        if isinstance(error, KeyboardInterrupt):
            raise error
        if stalls := read_stalls(store):
            first = stalls[0]
            what = f"worker {first.rank} stood still for {first.seconds:g} s in step {first.step + 1}: {first.phase}"
            fix = "its stacks are in that file; raise guard.stall_s if the phase is only slow"
            raise WorkerError(what, where=store.file(f"stalls/rank-{first.rank:02d}.json"), fix=fix)
        raise WorkerError(
            f"the workers were lost more than {self._training.spec.guard.max_restarts} times: {_tail(str(error))}",
            where=str(store),
            fix="look for a lack of memory; then give the same command to go on from the last checkpoint",
        ) from error


_KINDS: Mapping[str, type[SquadronError]] = {
    kind.__name__: kind for kind in (ConfigError, InputError, ResourceError, TrainingStopped, WorkerError)
}


def _kind(text: str) -> str:
    """The last line of a traceback without its numbers, which change from attempt to attempt."""
    return re.sub(r"\d+", "", text.strip().rpartition("\n")[2])


def _tail(text: str, count: int = 6) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def _advice(text: str) -> str:
    if "out of memory" in text.lower():
        return "lower micro_batch_size, set activation_checkpointing, or a higher sharding.zero; see `squadron plan`"
    return "fix the cause and give the same command: it resumes from the last checkpoint"
