"""What a training run needs in memory and in GPU-hours, from the shapes of its model alone.

Bytes of one token in one decoder layer that autograd keeps for the backward pass, for layers shaped like Llama's and
Qwen2's, with attention that stores no scores (flash, SDPA). h hidden, i intermediate, q and k width of all query and of
all key heads, n query heads, r rank; b bytes of a number, 2 in bf16 and 4 in fp32; † only where the weight that it
multiplies is trained or adapted.

    two RMSNorms          float32 input and scale        2 (4h + 4)
                          normalised input †             2 bh
    query, key, value     their common input †           bh
    attention             query, key, value, output      b (2q + 2k)
                          log-sum-exp, float32           4n
    output projection     its input is attention's output
    gate, up              their common input †           bh
    SwiGLU                gate, silu(gate), up           3 bi
    down                  their product †                bi
    LoRA                  rank r, an adapted linear      br
      with dropout        own input and 1-byte mask in place of the common input, an adapted linear of that input

Outside the layers: the final norm, 4h + 4 and † bh; † the head's input, bh; the cosines and sines of the positions.
With LoRA the layers below the first adapter count too, although nothing flows back that far.
With activation checkpointing each layer keeps its input alone, bh, and one layer at a time is whole again.

What DeepSpeed keeps was read from its source, version 0.19: runtime/zero/stage_1_and_2.py and stage3.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from squadron.core.config import Config, flatten
from squadron.core.errors import ConfigError, ResourceError, nearest
from squadron.train.spec import BUCKET, LoraSettings, Offload, ShardingConfig, TrainSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GB = 10**9

CONTEXT = int(1.5 * GB)
"""CUDA's context, the workspaces of cuBLAS and NCCL's channels: an allowance, not derived."""

HOST_PROCESS = 4 * GB
"""Python, PyTorch and the CUDA libraries of one worker: an allowance, not derived."""

PREFETCH = 50_000_000
"""DeepSpeed's stage3_prefetch_bucket_size, in numbers."""

LIVE = 1_000_000_000
"""DeepSpeed's stage3_max_live_parameters and its sub_group_size, in numbers."""

SWAP_BUFFERS = 4
"""Buffers of a sub-group, in float32, through which DeepSpeed swaps optimiser states (buffer_count)."""

SWAPPED_WEIGHTS = 1_500_000_000
"""Numbers of weights on NVMe that DeepSpeed holds in the host's memory: max_in_cpu, and five of its buffer_size."""

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in nf4: 4 bits, an 8-bit scale per 64, a float32 scale per 256 of those (Dettmers et al. 2023)."""

MOST_WORKERS = 4096
"""Where the search for enough GPUs ends."""


class Gpu(NamedTuple):
    """A card. `gb`: memory, 10⁹ bytes; `tflops`: peak of dense bf16, 10¹² operations a second."""

    gb: float
    tflops: float


GPUS = {
    "A10G": Gpu(24, 70),
    "RTX 4090": Gpu(24, 165),
    "L40S": Gpu(48, 362),
    "A100-40": Gpu(40, 312),
    "A100-80": Gpu(80, 312),
    "H100": Gpu(80, 989),
    "H200": Gpu(141, 989),
    "B200": Gpu(180, 2250),
}
"""From the vendor's data sheets, without sparsity; H100 and H200 as SXM. A card has as many GiB as its sheet says GB,
or a little less: what that leaves over the plan's GB goes to the driver and to fragmentation."""


class LinearShape(NamedTuple):
    """One linear module: its full name in the model, its inputs and its outputs."""

    name: str
    inputs: int
    outputs: int

    @property
    def kind(self) -> str:
        """Its name in its layer, such as `q_proj`."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Shapes:
    """The sizes of a decoder. Counts are of numbers; a tied parameter counts once."""

    parameters: int
    parameters_per_layer: int
    """Of the largest layer."""
    largest_parameter: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    embedding: int
    tied: bool
    """The head's weight is the embedding's."""
    linears: tuple[LinearShape, ...]
    """Every linear module but the head: what `all-linear` and quantising touch."""

    @property
    def linear_parameters(self) -> int:
        """Numbers in the weights of `linears`, without biases."""
        return sum(linear.inputs * linear.outputs for linear in self.linears)


class MemoryPlan(Config):
    """Bytes of one worker at its peak, on its one GPU unless said otherwise."""

    weights: int
    gradients: int
    optimizer: int
    """Two moments, the float32 copy of the weights, and the moving average of them."""
    activations: int
    logits: int
    buffers: int
    """Buckets of communication, gathered weights, and passing tensors; under ZeRO also what the optimiser's step needs
    beyond what the backward pass has given back."""
    context: int
    host: int
    nvme: int

    @property
    def total(self) -> int:
        """Bytes on the GPU."""
        parts = (self.weights, self.gradients, self.optimizer, self.activations, self.logits, self.buffers)
        return sum(parts) + self.context


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


class StepFlops(NamedTuple):
    """Floating-point operations: what the model needs, which MFU counts, and what the hardware does."""

    model: float
    hardware: float


def read_shapes(config: PretrainedConfig) -> Shapes:
    """The sizes of the model that `config` describes, built on the meta device: no weight is allocated.

    Raises ConfigError for a model that is no decoder of Llama's shape.
    """
    import torch
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    absent = [name for name in ("hidden_size", "intermediate_size", "num_attention_heads") if not hasattr(text, name)]
    if absent:
        raise ConfigError(
            f"no plan for {config.model_type}: its configuration has no {', '.join(absent)}",
            where="model",
            fix="choose a decoder of Llama's or Qwen2's shape",
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(text)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    linears = tuple(
        LinearShape(name, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    stack = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    counts = [parameter.numel() for parameter in model.parameters()]
    heads = text.num_attention_heads
    return Shapes(
        parameters=sum(counts),
        parameters_per_layer=max(sum(p.numel() for p in layer.parameters()) for layer in stack),
        largest_parameter=max(counts),
        layers=len(stack),
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary=embedding.weight.shape[0],
        embedding=embedding.weight.numel(),
        tied=head.weight is embedding.weight,
        linears=linears,
    )


def adapted_linears(shapes: Shapes, lora: LoraSettings) -> list[LinearShape]:
    """The linear modules that get an adapter, by peft's rules: a pattern for whole names, or the ends of names."""
    targets = lora.target_modules
    if targets == "all-linear":
        return list(shapes.linears)
    if isinstance(targets, str):
        return [linear for linear in shapes.linears if re.fullmatch(targets, linear.name)]
    return [linear for linear in shapes.linears if any(f".{linear.name}".endswith(f".{end}") for end in targets)]


def trainable_parameters(shapes: Shapes, lora: LoraSettings | None) -> int:
    """Numbers that training changes: all of them, or those of the adapters."""
    if lora is None:
        return shapes.parameters
    return sum(lora.rank * (linear.inputs + linear.outputs) for linear in adapted_linears(shapes, lora))


def layer_activations(shapes: Shapes, precision: str, lora: LoraSettings | None) -> int:
    """Bytes of one token in one layer that autograd keeps: the table at the head of this module."""
    size = _bytes(precision)
    wide, narrow = shapes.heads * shapes.head_dim, shapes.kv_heads * shapes.head_dim
    norms = 2 * (4 * shapes.hidden + 4)
    attention = size * (2 * wide + 2 * narrow) + 4 * shapes.heads
    swiglu = 3 * size * shapes.intermediate
    always = norms + attention + swiglu
    if lora is None:
        return always + size * (4 * shapes.hidden + shapes.intermediate)
    adapted = adapted_linears(shapes, lora)
    ranks = size * lora.rank * len(adapted)
    if lora.dropout:
        inputs = sum((size + 1) * linear.inputs for linear in adapted)
        return always + (ranks + inputs) // shapes.layers
    kinds = {linear.kind for linear in adapted}
    shared = bool(kinds & {"q_proj", "k_proj", "v_proj", "qkv_proj"}) + bool(
        kinds & {"gate_proj", "up_proj", "gate_up_proj"}
    )
    product = shapes.intermediate if "down_proj" in kinds else 0
    return always + size * (shared * shapes.hidden + product) + ranks // shapes.layers


def activations(shapes: Shapes, spec: TrainSpec, lora: LoraSettings | None, tokens: int) -> int:
    """Bytes that autograd keeps of a forward pass over `tokens`, logits left out."""
    size = _bytes(spec.precision)
    layer = layer_activations(shapes, spec.precision, lora)
    trained = 0 if lora else 2 * size * shapes.hidden
    outside = 4 * shapes.hidden + 4 + trained + 2 * size * shapes.head_dim
    if not spec.activation_checkpointing:
        return tokens * (outside + shapes.layers * layer)
    return tokens * (outside + shapes.layers * size * shapes.hidden + layer)


def plan_memory(
    shapes: Shapes, spec: TrainSpec, workers: int, lora: LoraSettings | None, tokens_per_micro_batch: int
) -> MemoryPlan:
    """What one of `workers` needs to train the model so. Every token counts as a target of the loss."""
    size, sharding = _bytes(spec.precision), spec.sharding
    trained = trainable_parameters(shapes, lora)
    resident, sharded = _weights(shapes, size, lora, trained)
    weights = resident + (sharded // workers if sharding.zero == 3 else sharded)
    gradients = _gradients(spec, trained, size, workers)
    states, average = _optimizer(spec, trained, workers)
    kept = activations(shapes, spec, lora, tokens_per_micro_batch)
    targets = min(tokens_per_micro_batch, spec.loss_chunk or tokens_per_micro_batch)
    logits = targets * shapes.vocabulary * (8 + size)
    backward = _buffers(shapes, spec, lora, trained, sharded) + 16 * shapes.hidden * tokens_per_micro_batch
    step = _step(spec, trained, size, workers)
    host, nvme = HOST_PROCESS, 0
    if sharding.offload_optimizer != "none":
        share = trained // workers
        # The weights' or gradients' staging between the devices and, below ZeRO 3, the sum over micro-batches.
        host += average + size * share * (2 if sharding.zero < 3 and _accumulates(spec, workers) else 1)
        staging = 4 * SWAP_BUFFERS * min(share, LIVE)
        # 4: the float32 gradients that the optimiser on the CPU reads.
        host, nvme = _put(sharding.offload_optimizer, states + 4 * share, staging, host, nvme)
        states = average = 0
        gradients = gradients if sharding.zero == 1 else 0
    if sharding.offload_weights != "none":
        host, nvme = _put(sharding.offload_weights, sharded // workers, size * SWAPPED_WEIGHTS, host, nvme)
        weights = resident
    return MemoryPlan(
        weights=weights,
        gradients=gradients,
        optimizer=states + average,
        activations=kept,
        logits=logits,
        buffers=max(backward, step - kept - logits),
        context=CONTEXT,
        host=host,
        nvme=nvme,
    )


def fits(plan: MemoryPlan, gpu_bytes: float, host_bytes: float) -> bool:
    """Whether a GPU of `gpu_bytes` and a worker's share of the host of `host_bytes` hold the plan."""
    return plan.total <= gpu_bytes and plan.host <= host_bytes


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


def step_flops(
    shapes: Shapes, tokens: int, sequence_length: int, lora: LoraSettings | None, activation_checkpointing: bool
) -> StepFlops:
    """Operations of a forward and backward pass over `tokens`, in sequences of `sequence_length` with causal attention.

    Two a weight and token forwards, two for the gradients of activations, two for those of weights, which frozen
    weights do not have (Kaplan et al. 2020; Chowdhery et al. 2022, appendix B). Looking up an embedding costs none.
    """
    weights = shapes.parameters - (0 if shapes.tied else shapes.embedding)
    # Half of 4 · layers · width · length: a causal query sees half of the keys on average.
    attention = 2 * shapes.layers * shapes.heads * shapes.head_dim * sequence_length
    model = 6 * weights + 3 * attention
    if lora is not None:
        model = 4 * weights + 6 * trainable_parameters(shapes, lora) + 3 * attention
    # Checkpointing recomputes the layers and not the head.
    again = 2 * (weights - shapes.vocabulary * shapes.hidden) + attention if activation_checkpointing else 0
    return StepFlops(float(tokens * model), float(tokens * (model + again)))


def gpu_hours(
    shapes: Shapes,
    tokens: int,
    gpu: str,
    mfu: float = 0.4,
    sequence_length: int = 4096,
    lora: LoraSettings | None = None,
) -> float:
    """Hours of one `gpu` for training on `tokens`, at `mfu`, the share of the peak that the model's own operations get.

    Raises ConfigError for a card that is not in `GPUS`.
    """
    if gpu not in GPUS:
        raise ConfigError(f"no GPU called {gpu!r}", where="gpu", fix=nearest(gpu, GPUS))
    operations = step_flops(shapes, tokens, sequence_length, lora, activation_checkpointing=False).model
    return operations / (GPUS[gpu].tflops * 1e12 * mfu * 3600)


def _bytes(precision: str) -> int:
    return 2 if precision == "bf16" else 4


def _weights(shapes: Shapes, size: int, lora: LoraSettings | None, trained: int) -> tuple[int, int]:
    """Bytes of the weights that every worker holds whatever the stage, and of those that ZeRO 3 shards."""
    if lora is None:
        return 0, size * shapes.parameters
    if lora.quantize == "none":
        return 0, size * (shapes.parameters + trained)
    # bitsandbytes' backward pass reads the 4-bit weight of its forward pass: sharding it would save nothing.
    quantised = shapes.linear_parameters
    return int(NF4_BYTES * quantised), size * (shapes.parameters - quantised + trained)


def _gradients(spec: TrainSpec, trained: int, size: int, workers: int) -> int:
    zero = spec.sharding.zero
    if zero < 2:
        return size * trained
    # ZeRO 2 adds each micro-batch's share of the gradients to the sum from another buffer.
    return size * (trained // workers) * (2 if zero == 2 and _accumulates(spec, workers) else 1)


def _accumulates(spec: TrainSpec, workers: int) -> bool:
    return spec.batch_size > spec.micro_batch_size * workers


def _optimizer(spec: TrainSpec, trained: int, workers: int) -> tuple[int, int]:
    """Bytes of AdamW's states with the float32 copy of the weights, and of the moving average."""
    zero, offloaded = spec.sharding.zero, spec.sharding.offload_optimizer != "none"
    # In fp32, ZeRO 3 updates its shard of the weights in place, unless the optimiser is on another device.
    copies = spec.precision == "bf16" or zero in (1, 2) or offloaded
    share = trained // workers if zero else trained
    return share * (12 if copies else 8), 4 * share if spec.ema_decay is not None else 0


def _buffers(shapes: Shapes, spec: TrainSpec, lora: LoraSettings | None, trained: int, sharded: int) -> int:
    size, zero = _bytes(spec.precision), spec.sharding.zero
    largest, dequantised = shapes.largest_parameter, 0
    if lora is not None:
        largest = lora.rank * max((max(x.inputs, x.outputs) for x in adapted_linears(shapes, lora)), default=0)
        if lora.quantize != "none":
            dequantised = max(linear.inputs * linear.outputs for linear in shapes.linears)
    if zero == 0:
        return size * (min(BUCKET, trained) + dequantised)
    if zero < 3:
        # Two buckets, so that one is reduced while the other fills, and the gradient about to enter one.
        return size * (2 * min(BUCKET, trained) + largest + dequantised)
    gathered = min(sharded // size, max(LIVE, shapes.largest_parameter) + PREFETCH)
    # The bucket, and its copy in the order in which the workers' shards leave it.
    return size * (2 * min(BUCKET, trained) + largest + gathered + dequantised)


def _step(spec: TrainSpec, trained: int, size: int, workers: int) -> int:
    """Bytes of the optimiser's step alone: the shard of the gradients, flat, and again in float32."""
    zero = spec.sharding.zero
    if zero == 0 or spec.sharding.offload_optimizer != "none":
        return 0
    share = trained // workers
    return (6 if size == 2 else 4) * (min(share, LIVE) if zero == 3 else share)


def _put(device: Offload, moved: int, staging: int, host: int, nvme: int) -> tuple[int, int]:
    """Bytes of the host and of NVMe once `moved` is on `device`; NVMe needs `staging` on the host."""
    return (host + moved, nvme) if device == "cpu" else (host + staging, nvme + moved)


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
