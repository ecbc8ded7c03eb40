"""What one worker of a training run does, from the first step to the last. Knows torch.distributed, not Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from squadron.core import console
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.train import engine as deepspeed
from squadron.train.batching.batches import Row, Source, in_order
from squadron.train.checkpoints import checkpoint as checkpoints
from squadron.train.checkpoints import commits
from squadron.train.checkpoints.shards import Shard, full_shape, make_states, shards, trainable
from squadron.train.guard import LossGuard, TrainingStopped, Watch, keep_batch
from squadron.train.objectives import Objective
from squadron.train.spec import TrainSpec, describe

if TYPE_CHECKING:
    import torch

Report = Callable[[int, dict[str, float]], None]
Warn = Callable[[str], None]
PREFIX = "model."
"""What the names of a model's weights begin with in checkpoints."""


@dataclass(frozen=True)
class Training:
    """All that a worker must know. Travels pickled, without weights."""

    build: Callable[[], torch.nn.Module]
    objective: Objective
    source: Source
    held_out: Sequence[Row]
    spec: TrainSpec
    store: Folder
    identity: str


@dataclass
class Worker:
    """One rank of a run: its engine, what it owns, and where it stands."""

    training: Training
    rank: int
    workers: int
    device: torch.device
    report: Report
    warn: Warn
    total: int = 0
    watch: Watch = field(init=False)
    engine: Any = None
    owned: list[Shard] = field(default_factory=list)
    averages: dict[str, torch.Tensor] = field(default_factory=dict)
    guard: LossGuard = field(default_factory=lambda: LossGuard(None))
    curve: commits.Curve = field(default_factory=list)

    @property
    def spec(self) -> TrainSpec:
        return self.training.spec


def train(
    training: Training, rank: int, workers: int, device: torch.device, report: Report, warn: Warn = console.say
) -> int:
    """Train to the last step, from the newest complete checkpoint if there is one, and return the number of steps.

    Every worker of the group calls this, with torch.distributed set up. A damaged checkpoint is passed over with a
    warning. Raises TrainingStopped, on all workers at the same step, if the loss goes wrong, and InputError for a
    checkpoint of another model or run, or if all there are are damaged.
    """
    spec = training.spec
    worker = Worker(training, rank, workers, device, report, warn)
    watch = worker.watch = Watch(rank, training.store, spec.guard.stall_s, spec.guard.start_s)
    try:
        total = worker.total = spec.steps or training.source.steps(spec)
        with watch.phase(0, "start"):
            start = _start(worker)
        for step, micro in _prefetched(worker, start):
            _one_step(worker, step, micro)
    finally:
        watch.close()
        if worker.engine is not None:
            worker.engine.destroy()
    return total


def _start(worker: Worker) -> int:
    """Build the model, load the newest checkpoint, and return the step to go on from."""
    training, spec = worker.training, worker.spec
    import torch

    torch.manual_seed(spec.seed)
    cuda = worker.device.type == "cuda"
    worker.engine = deepspeed.start_engine(training.build, training.objective, spec, worker.workers, cuda)
    worker.owned = shards(worker.engine)
    if spec.ema_decay is not None:
        worker.averages = {shard.name: shard.weight.clone() for shard in worker.owned}
    worker.guard = LossGuard(spec.guard.explode_factor)
    step = _newest_whole(worker)
    if step is None:
        make_states(worker.engine, worker.owned, 0)
        return 0
    with checkpoints.Reader(training.store, step, verified=True) as reader:
        checkpoints.check_same(reader.about, _shapes(worker), _identity(worker))
        checkpoints.load_shards(worker.engine, worker.owned, worker.averages, reader)
    worker.curve = commits.read_curve(training.store, step)
    worker.guard = LossGuard(spec.guard.explode_factor, [row["loss"] for row in worker.curve])
    return step


def _newest_whole(worker: Worker) -> int | None:
    """The newest complete checkpoint that is as it was written; None if there is no complete one at all.

    Each worker reads a share of a checkpoint's parts. Raises InputError, on all workers, if every one is damaged.
    """
    store, rank, workers = worker.training.store, worker.rank, worker.workers
    if rank == 0:
        commits.clear_incomplete(store)
    steps: list[int] = _gather(commits.complete_steps(store) if rank == 0 else [], workers)[0]
    damaged: dict[int, InputError] = {}
    for step in reversed(steps):
        found = [error for error in _gather(commits.find_damage(store, step, rank, workers), workers) if error]
        if found:
            damaged[step] = found[0]
            continue
        if rank == 0:
            for other, error in damaged.items():
                commits.pass_over(store, other)
                said = f"{error.where}: {error.what}; training goes on from step {step}"
                worker.warn(f"[yellow]{console.plain(said)}[/yellow]")
        return step
    for error in damaged.values():
        fix = f"restore this file, or remove {store.file('checkpoints')} to train from the beginning"
        raise InputError(error.what, where=error.where, fix=fix)
    return None


def _one_step(worker: Worker, step: int, micro: list[tuple[list[Row], Any]]) -> None:
    """Train on one batch; evaluate, save and report as the settings say."""
    spec, watch, total = worker.spec, worker.watch, worker.total
    started = time.perf_counter()
    rate = spec.learning_rate(step, total)
    deepspeed.set_learning_rate(worker.engine, rate)
    metrics = _accumulate(worker, step, micro)
    with watch.phase(step, "update"):
        worker.engine.step()
        if spec.ema_decay is not None:
            for shard in worker.owned:
                worker.averages[shard.name].lerp_(shard.weight, 1 - spec.ema_decay)
    metrics |= {"learning_rate": rate, "seconds": time.perf_counter() - started}
    norm = worker.engine.get_global_grad_norm()
    if norm is not None:
        metrics["grad_norm"] = float(norm)
    saves, evaluates = _due(spec, step + 1, total)
    if len(worker.training.held_out) and evaluates:
        with watch.phase(step, "evaluate"):
            metrics["held_out_loss"] = _evaluate(worker)
    worker.curve.append({"step": step + 1, **metrics})
    if saves:
        with watch.phase(step, "save"):
            _save(worker, step + 1, metrics.get("held_out_loss"))
    if worker.rank == 0:
        worker.report(step + 1, metrics)


def _due(spec: TrainSpec, done: int, total: int) -> tuple[bool, bool]:
    """Whether a checkpoint and a held-out loss are due after so many steps. To keep the best, each is measured."""
    saves = done == total or done % spec.checkpoint.every == 0
    regular = spec.evaluate_every is not None and done % spec.evaluate_every == 0
    return saves, done == total or regular or (saves and spec.checkpoint.keep_best)


def _accumulate(worker: Worker, step: int, micro: list[tuple[list[Row], Any]]) -> dict[str, float]:
    """Forward and backward over this worker's micro-batches; the metrics of the whole batch of all workers.

    Every token (or pair, or row) of the batch counts alike, however the batch is dealt out: a micro-batch's mean loss
    is weighted by its share of what the whole batch weighs.
    """
    import torch

    objective, engine = worker.training.objective, worker.engine
    batches = [{name: t.to(worker.device, non_blocking=True) for name, t in batch.items()} for _, batch in micro]
    weights = [objective.weight(batch) for batch in batches]
    counts = torch.tensor([sum(weights), sum(map(_tokens, batches))], dtype=torch.float64, device=worker.device)
    whole, tokens = _sum(counts, worker.workers).tolist()
    sums: dict[str, torch.Tensor] = {}
    for number, (batch, weight) in enumerate(zip(batches, weights, strict=True)):
        torch.manual_seed(_seed(worker, step, number))
        with worker.watch.phase(step, "forward", number):
            loss, metrics = engine(batch)
        with worker.watch.phase(step, "backward", number):
            # DeepSpeed takes the mean over micro-batches and workers.
            engine.backward(loss * (weight / max(whole, 1e-12) * len(batches) * worker.workers))
        for name, value in {"loss": loss, **metrics}.items():
            sums[name] = sums.get(name, 0) + value.detach().double() * weight
        if number + 1 < len(batches):
            engine.step()
    values = _sum(torch.stack(list(sums.values())), worker.workers) / max(whole, 1e-12)
    means = dict(zip(sums, values.tolist(), strict=True))
    if problem := worker.guard.problem(means["loss"]):
        name = keep_batch(worker.training.store, step, worker.rank, batches, [rows for rows, _ in micro])
        raise TrainingStopped(
            f"training stopped at step {step + 1}: {problem}",
            where=f"{worker.training.store.file(name)} holds the batch of worker {worker.rank}",
            fix="look at these rows; lower optimizer.learning_rate or give more warm-up, then give the same command",
        )
    return {**means, "tokens": tokens}


def _evaluate(worker: Worker) -> float:
    """The mean held-out loss, over all workers."""
    import torch

    objective, engine, spec = worker.training.objective, worker.engine, worker.spec
    total = torch.zeros(2, dtype=torch.float64, device=worker.device)
    engine.eval()
    with torch.no_grad():
        for rows, counts in in_order(worker.training.held_out, spec.micro_batch_size, worker.rank, worker.workers):
            batch = {name: t.to(worker.device) for name, t in objective.collate(rows).items()}
            loss, _ = engine(batch)
            weight = objective.weight(batch) * counts
            total += torch.stack([loss.double() * weight, torch.full_like(total[0], weight)])
    engine.train()
    loss_sum, weight_sum = _sum(total, worker.workers).tolist()
    return loss_sum / max(weight_sum, 1e-12)


def _save(worker: Worker, step: int, held_out_loss: float | None) -> None:
    """Save a checkpoint; the marker that completes it is written when every worker's part is there."""
    training, keep = worker.training, worker.spec.checkpoint
    folder = training.store / "checkpoints" / commits.name_of(step)
    part = checkpoints.save_shards(worker.engine, worker.owned, worker.averages, folder, worker.rank, worker.workers)
    parts = _gather(part, worker.workers)
    if worker.rank == 0:
        about = commits.Complete(
            step=step,
            files=dict(parts),
            shapes=_shapes(worker),
            identity=_identity(worker),
            held_out_loss=held_out_loss,
        )
        commits.commit(folder, about, worker.curve)
        checkpoints.prune(training.store, keep.keep_last, keep.keep_best)


def _prefetched(worker: Worker, start: int) -> Iterator[tuple[int, list[tuple[list[Row], Any]]]]:
    """Steps with their collated micro-batches, the next step's made in a thread while this one computes."""
    training, total = worker.training, worker.total
    if start >= total:
        return
    steps = training.source.read(worker.spec, worker.rank, worker.workers, start)

    def collate() -> list[tuple[list[Row], Any]]:
        return [(rows, training.objective.collate(rows)) for rows in next(steps)]

    with ThreadPoolExecutor(1, "collate") as thread:
        coming = thread.submit(collate)
        for step in range(start, total):
            with worker.watch.phase(step, "data"):
                micro = coming.result()
            if step + 1 < total:
                coming = thread.submit(collate)
            yield step, micro


def _shapes(worker: Worker) -> dict[str, tuple[int, ...]]:
    return {name: full_shape(weight) for name, weight in trainable(worker.engine.module).items()}


def _identity(worker: Worker) -> dict[str, Any]:
    return {"model": worker.training.identity, **describe(worker.spec), "total steps": worker.total}


def _seed(worker: Worker, step: int, number: int) -> int:
    """Dropout of a micro-batch is a function of the run's seed, the step and the micro-batch's place in the batch."""
    import numpy as np

    place = number * worker.workers + worker.rank
    return int(np.random.SeedSequence([worker.spec.seed, step, place]).generate_state(1, np.uint64)[0] >> 1)


def _tokens(batch: Mapping[str, torch.Tensor]) -> float:
    if masks := [tensor for name, tensor in batch.items() if name.endswith("mask")]:
        return float(sum(mask.sum() for mask in masks))
    return float(batch["input_ids"].numel()) if "input_ids" in batch else 0.0


def _sum(values: torch.Tensor, workers: int) -> torch.Tensor:
    import torch.distributed as dist

    if workers > 1:
        dist.all_reduce(values)
    return values


def _gather(value: Any, workers: int) -> list[Any]:
    """What all workers have, in the order of their ranks."""
    import torch.distributed as dist

    values: list[Any] = [value]
    if workers > 1:
        values = [None] * workers
        dist.all_gather_object(values, value)
    return values
