"""What a training run costs: its operations, and hours of a known card."""

from __future__ import annotations

from typing import NamedTuple

from squadron.core.errors import ConfigError, suggest
from squadron.train.planning.memory import Shapes, trainable_parameters
from squadron.train.spec import LoraSettings


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


class StepFlops(NamedTuple):
    """Floating-point operations: what the model needs, which MFU counts, and what the hardware does."""

    model: float
    hardware: float


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
        raise ConfigError(f"no GPU called {gpu!r}", where="gpu", fix=suggest(gpu, GPUS))
    operations = step_flops(shapes, tokens, sequence_length, lora, activation_checkpointing=False).model
    return operations / (GPUS[gpu].tflops * 1e12 * mfu * 3600)
