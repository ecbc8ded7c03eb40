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
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from squadron.core.config import Config
from squadron.core.errors import ConfigError
from squadron.train.spec import BUCKET, LoraSettings, Offload, TrainSpec

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
