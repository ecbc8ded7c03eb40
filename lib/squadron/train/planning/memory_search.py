"""The settings that make a model fit the cards at hand, and what would fit where none do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from squadron.core.config import flatten
from squadron.core.errors import ResourceError
from squadron.train.planning.memory import GB, MemoryPlan, Shapes, fits, plan_memory
from squadron.train.spec import LoraSettings, Offload, ShardingConfig, TrainSpec

MOST_WORKERS = 4096
"""Where the search for enough GPUs ends."""


class Suggestion(NamedTuple):
    """Settings that fit, and what they need. `changes` are the settings that differ, as `key=value`."""

    spec: TrainSpec
    lora: LoraSettings | None
    workers: int
    plan: MemoryPlan
    changes: tuple[str, ...]


class Alternatives(NamedTuple):
    """The nearest things that fit where what was asked does not; None for each that does not fit either."""

    lora: Suggestion | None
    qlora: Suggestion | None
    more_gpus: Suggestion | None
    """What was asked, on the fewest GPUs."""


def cheapest(
    shapes: Shapes,
    spec: TrainSpec,
    lora: LoraSettings | None,
    gpu_gb: float,
    host_gb: float,
    workers: int,
    sequence_length: int,
) -> Suggestion | None:
    """The settings that fit and cost the least speed: more sharding, then activation checkpointing, smaller
    micro-batches, the optimiser offloaded to the CPU, the weights too, and both to NVMe if the spec names a folder. A
    batch that cannot be dealt out evenly to the workers becomes the next larger one that can.

    `gpu_gb` is the memory of a card and `host_gb` a worker's share of the host's, in 10⁹ bytes. None if nothing fits;
    then see `alternatives`.
    """
    for candidate in _candidates(spec, workers):
        plan = plan_memory(shapes, candidate, workers, lora, candidate.micro_batch_size * sequence_length)
        if fits(plan, gpu_gb * GB, host_gb * GB):
            return Suggestion(candidate, lora, workers, plan, _changes(spec, candidate))
    return None


def alternatives(
    shapes: Shapes,
    spec: TrainSpec,
    lora: LoraSettings | None,
    gpu_gb: float,
    host_gb: float,
    workers: int,
    sequence_length: int,
) -> Alternatives:
    """What fits instead: LoRA on the same GPUs, then QLoRA, and what was asked on the fewest GPUs that hold it.

    Arguments as for `cheapest`, which found nothing. Only methods that need less than the one asked for are tried.
    """
    adapters = (lora or LoraSettings()).model_copy(update={"quantize": "none"})
    quantised = adapters.model_copy(update={"quantize": "nf4"})

    def attempt(method: LoraSettings | None, count: int) -> Suggestion | None:
        return cheapest(shapes, spec, method, gpu_gb, host_gb, count, sequence_length)

    return Alternatives(
        lora=attempt(adapters, workers) if lora is None else None,
        qlora=attempt(quantised, workers) if lora is None or lora.quantize == "none" else None,
        more_gpus=_fewest(lambda count: attempt(lora, count), workers + 1),
    )


def refusal(
    name: str,
    shapes: Shapes,
    spec: TrainSpec,
    lora: LoraSettings | None,
    gpu_gb: float,
    host_gb: float,
    workers: int,
    sequence_length: int,
) -> ResourceError:
    """The error to raise where `cheapest` finds nothing for the model called `name`: the least that it would need here,
    and as its fix what would work. Arguments as for `cheapest`."""
    least = min(
        (
            plan_memory(shapes, candidate, workers, lora, candidate.micro_batch_size * sequence_length)
            for candidate in _candidates(spec, workers)
        ),
        key=lambda plan: (not fits(plan, gpu_gb * GB, float("inf")), max(plan.total - gpu_gb * GB, plan.host)),
    )
    other = alternatives(shapes, spec, lora, gpu_gb, host_gb, workers, sequence_length)
    found = [suggestion for suggestion in other if suggestion is not None]
    return ResourceError(
        f"{name} cannot be trained {_method(lora)} here: the least it needs is {_gb(least.total)} on each GPU and "
        f"{_gb(least.host)} of the host's memory for each worker",
        where=f"{_cards(workers, gpu_gb)} with {host_gb:,.0f} GB of the host's memory each",
        fix="; or ".join(_sentence(suggestion, gpu_gb) for suggestion in found)
        or "choose a smaller model, shorter sequences, larger GPUs or more memory",
    )


def _candidates(spec: TrainSpec, workers: int) -> Iterator[TrainSpec]:
    """The spec with settings that need ever less of the GPU and ever more time, and with the next larger batch that can
    be dealt out evenly to the workers."""
    stages = (1, 2, 3) if spec.precision == "bf16" else (0, 1, 2, 3)
    share = -(-spec.batch_size // workers)
    spec = spec.model_copy(update={"batch_size": share * workers})
    micros = [rows for rows in range(min(spec.micro_batch_size, share), 0, -1) if share % rows == 0]
    for checkpointing in sorted({spec.activation_checkpointing, True}):
        yield from (_resharded(spec, micros[0], checkpointing, zero=zero) for zero in stages)
    for rows in micros[1:]:
        yield from (_resharded(spec, rows, True, zero=zero) for zero in stages)
    offloads: list[tuple[int, Offload, Offload]] = [(2, "cpu", "none"), (3, "cpu", "none"), (3, "cpu", "cpu")]
    if spec.sharding.nvme_path:
        offloads += [(3, "nvme", "cpu"), (3, "nvme", "nvme")]
    for zero, optimizer, weights in offloads:
        for rows in micros:
            yield _resharded(spec, rows, True, zero=zero, offload_optimizer=optimizer, offload_weights=weights)


def _resharded(spec: TrainSpec, micro_batch_size: int, checkpointing: bool, **sharding: int | str) -> TrainSpec:
    settings = {**sharding, "nvme_path": spec.sharding.nvme_path}
    update = {
        "micro_batch_size": micro_batch_size,
        "activation_checkpointing": checkpointing,
        "sharding": ShardingConfig.model_validate(settings),
    }
    return spec.model_copy(update=update)


def _changes(before: TrainSpec, after: TrainSpec) -> tuple[str, ...]:
    old, new = flatten(before.model_dump()), flatten(after.model_dump())
    return tuple(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in new.items()
        if value != old[key]
    )


def _fewest(attempt: Callable[[int], Suggestion | None], start: int) -> Suggestion | None:
    """What `attempt` finds for the smallest number from `start` for which it finds anything: more never hurt."""
    short, enough = start - 1, start
    while (found := attempt(enough)) is None:
        if enough >= MOST_WORKERS:
            return None
        short, enough = enough, min(2 * enough, MOST_WORKERS)
    while enough - short > 1:
        middle = (short + enough) // 2
        fewer = attempt(middle)
        if fewer is None:
            short = middle
        else:
            found, enough = fewer, middle
    return found


def _sentence(suggestion: Suggestion, gpu_gb: float) -> str:
    changed = f" with {' '.join(suggestion.changes)}" if suggestion.changes else ""
    return (
        f"train {_method(suggestion.lora)} on {_cards(suggestion.workers, gpu_gb)}{changed}, "
        f"which needs {_gb(suggestion.plan.total)} on each and {_gb(suggestion.plan.host)} of the host's memory"
    )


def _method(lora: LoraSettings | None) -> str:
    if lora is None:
        return "in full"
    return f"by {'LoRA' if lora.quantize == 'none' else 'QLoRA'} of rank {lora.rank}"


def _cards(workers: int, gpu_gb: float) -> str:
    return f"{workers} GPU{'s' if workers > 1 else ''} of {gpu_gb:g} GB"


def _gb(count: int) -> str:
    return f"{count / GB:,.1f} GB"
