"""What training a language model takes, by its shapes: rows for a plan, a check before it starts, and what was made of
the hardware afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squadron.core.errors import SquadronError
from squadron.core.profile import Profile, WorkerResources
from squadron.train.models.artifact import ModelArtifact
from squadron.train.planning import cost, memory
from squadron.train.planning import memory_search as fitting
from squadron.train.planning.memory import GB, Shapes
from squadron.train.spec import LoraSettings, TrainSpec

if TYPE_CHECKING:
    from squadron.core.run import Stage

_LONGEST = 2048
"""Tokens of a row where no limit is set, for planning."""


def training_rows(
    name: str, shapes: Shapes, spec: TrainSpec, lora: LoraSettings | None, workers: int, profile: Profile
) -> list[tuple[str, str]]:
    """Rows for `squadron plan`: parameters, memory of each worker, whether it fits, what a billion tokens cost. `name`
    is what the user calls the model."""
    length = spec.max_length or _LONGEST
    # A profile with cards stands for a machine that is not this one.
    count = profile.workers or spec.most_workers(profile.trainers or workers)
    needed = memory.plan_memory(shapes, spec, count, lora, length * spec.micro_batch_size)
    trained = memory.trainable_parameters(shapes, lora)
    rows = [
        ("parameters", f"{shapes.parameters:,}; {trained:,} are trained ({trained / shapes.parameters:.2%})"),
        ("training workers", f"{count}; {spec.sharding.zero=}".replace("spec.sharding.zero=", "ZeRO ")),
        ("memory of each", _parts(needed)),
    ]
    if profile.gpu is None:
        return rows
    card = cost.GPUS[profile.gpu]
    host = 10**6  # what a node has is not known before there is a cluster
    fits = memory.fits(needed, card.gb * memory.GB, host * memory.GB)
    rows.append((f"on {profile.gpu}, {card.gb:g} GB", "fits" if fits else "does not fit"))
    if not fits:
        refusal = fitting.refusal(name, shapes, spec, lora, card.gb, host, count, length)
        rows.append(("what would", refusal.fix))
    hours = cost.gpu_hours(shapes, 10**9, profile.gpu, sequence_length=length, lora=lora)
    rows.append(("a billion tokens", f"{hours:,.0f} GPU-hours at 40% of the card's peak"))
    return rows


def check_fits(
    stage: Stage,
    model: ModelArtifact,
    spec: TrainSpec,
    lora: LoraSettings | None,
    workers: int,
    resources: WorkerResources,
    longest: int,
) -> None:
    """Raise ResourceError, with the nearest setting that would work, if the model cannot be trained here."""
    shapes = _shapes(stage, model)
    if shapes is None:
        return
    node = max(stage.cluster.nodes, key=lambda node: node.memory_gb)
    host_gb = node.memory_gb * 2**30 / memory.GB / min(workers, max(1, node.fit(resources)))
    card_gb = _card_gb(stage) if resources.gpus else host_gb
    if card_gb is None:
        return
    length = (spec.max_length if spec.packing else None) or longest
    needed = memory.plan_memory(shapes, spec, workers, lora, length * spec.micro_batch_size)
    if not resources.gpus:
        # Without a GPU, what would lie on the card lies in the worker's memory, less what CUDA would take.
        if needed.total - needed.context + needed.host <= card_gb * memory.GB:
            return
    elif memory.fits(needed, card_gb * memory.GB, host_gb * memory.GB):
        return
    raise fitting.refusal(str(model.source or model.path), shapes, spec, lora, card_gb, host_gb, workers, length)


def utilisation(
    stage: Stage,
    model: ModelArtifact,
    spec: TrainSpec,
    lora: LoraSettings | None,
    workers: int,
    resources: WorkerResources,
    tokens: float,
    seconds: float,
    mean_length: int,
) -> list[list[Any]]:
    """Model FLOPs utilisation: the arithmetic that the model asks for over what the hardware could do, as rows of a
    table. `tokens` and `seconds` are those of a step, `mean_length` the tokens of a row."""
    shapes = _shapes(stage, model)
    if shapes is None:
        return []
    flops = cost.step_flops(shapes, round(tokens), mean_length, lora, spec.activation_checkpointing).model
    gpu = stage.run.profile.gpu
    peak = cost.GPUS[gpu].tflops * 1e12 * workers if gpu and resources.gpus else _matrix_product_rate() * workers
    source = f"{gpu}'s peak" if gpu and resources.gpus else "this machine's own rate of large matrix products"
    share = flops / seconds / peak
    stage.headline("MFU" if gpu and resources.gpus else "MFU, of own matrix products", f"{share:.0%}")
    return [["arithmetic", f"{flops / seconds / 1e9:,.1f} GFLOP/s"], ["MFU", f"{share:.1%} of {source}"]]


def _matrix_product_rate() -> float:
    """Floating-point operations a second of a large float32 matrix product on this node, best of five."""
    import time

    import torch

    size, best = 1024, float("inf")
    a, b = torch.randn(size, size), torch.randn(size, size)
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _shapes(stage: Stage, model: ModelArtifact) -> Shapes | None:
    """The model's shapes; None for a kind of model that the plan does not know."""
    from squadron.train.models.base import load_config

    try:
        return memory.read_shapes(load_config(model.locate(stage.run.folder)))
    except SquadronError:
        return None


def _card_gb(stage: Stage) -> float | None:
    """Memory of one card: by the profile's name for it, else as this process sees it."""
    if stage.run.profile.gpu:
        return cost.GPUS[stage.run.profile.gpu].gb
    import torch

    return torch.cuda.get_device_properties(0).total_memory / GB if torch.cuda.is_available() else None


def _parts(plan: memory.MemoryPlan) -> str:
    names = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "context")
    parts = ", ".join(f"{name} {getattr(plan, name) / GB:.1f}" for name in names if getattr(plan, name) >= GB / 20)
    more = "".join(
        f"; {getattr(plan, place) / GB:.0f} GB {where}"
        for place, where in (("host", "of the node's memory"), ("nvme", "on nvme"))
        if getattr(plan, place)
    )
    return f"{plan.total / GB:.1f} GB ({parts}){more}"
