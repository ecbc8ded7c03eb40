"""Settings of one training run: how long, in what batches, by what optimiser, sharded how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from squadron.core.config import Config, decisive, identity, operational
from squadron.core.errors import ConfigError
from squadron.core.rehearsal import AtMost

BUCKET = 500_000_000
"""Numbers that ZeRO exchanges at once, at most: DeepSpeed's default reduce_bucket_size."""

Offload = Literal["none", "cpu", "nvme"]


class OptimizerConfig(Config):
    """AdamW (Loshchilov & Hutter 2019). Biases and norms, everything of fewer than two dimensions, do not decay."""

    learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0, description="clip the gradient of all parameters together; 0: never")


class ScheduleConfig(Config):
    """The learning rate by step: a linear warm-up, then a decay to `final_ratio` of the peak."""

    kind: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of all steps")
    final_ratio: float = Field(0.1, ge=0, le=1, description="last learning rate over the peak; not for constant")


class ShardingConfig(Config):
    """DeepSpeed's ZeRO (Rajbhandari et al. 2020) and offloading."""

    zero: Literal[0, 1, 2, 3] = Field(
        1, description="0 shards nothing, 1 optimiser states, 2 gradients too, 3 weights too"
    )
    offload_optimizer: Offload = "none"
    offload_weights: Offload = Field("none", description="ZeRO 3 only")
    nvme_path: str | None = Field(None, description="folder on a fast local disk, for offloading to nvme")

    @model_validator(mode="after")
    def _offload_fits_stage(self) -> ShardingConfig:
        if self.offload_weights != "none" and self.zero != 3:
            raise ValueError("offload_weights needs zero: 3")
        if self.offload_optimizer != "none" and self.zero == 0:
            raise ValueError("offload_optimizer needs zero: 1, 2 or 3")
        if "nvme" in (self.offload_optimizer, self.offload_weights):
            if self.zero != 3:
                raise ValueError("offloading to nvme needs zero: 3")
            if not self.nvme_path:
                raise ValueError("offloading to nvme needs nvme_path, a folder on a fast local disk")
        return self


class CheckpointConfig(Config):
    """When to save and what to keep."""

    every: Annotated[int, AtMost(1)] = operational(
        200, ge=1, description="steps between checkpoints; the last step always saves one"
    )
    keep_last: int = operational(2, ge=1)
    keep_best: bool = Field(False, description="also keep the one with the lowest held-out loss")


class GuardConfig(Config):
    """What counts as going wrong."""

    explode_factor: float | None = Field(
        10.0, gt=1, description="stop when the loss is so many times its mean over the first ten steps; None: never"
    )
    stall_s: float = Field(1800.0, gt=0, description="longest time for one phase of one step before it is a stall")
    start_s: float = Field(3600.0, gt=0, description="longest time to load the model and the checkpoint")
    max_restarts: int = Field(3, ge=0, description="restarts of the group of workers after the loss of one")


class TrainSpec(Config):
    """One training run. Rows are what the data holds; packed, one row of a batch is a bin of several."""

    steps: Annotated[int | None, AtMost(2, unset=2)] = Field(
        None, ge=1, description="optimiser steps; None: as many as `epochs` asks for"
    )
    epochs: Annotated[float, AtMost(1)] = Field(1.0, gt=0, description="passes over the data, where steps is not given")
    batch_size: Annotated[int, AtMost(4)] = decisive(
        8, ge=1, description="rows of one optimiser step, over all workers"
    )
    micro_batch_size: Annotated[int, AtMost(2)] = operational(
        8, ge=1, description="rows of one forward and backward pass of one worker"
    )
    max_length: int | None = Field(None, ge=2, description="tokens of a row at most; None: any")
    packing: bool = Field(False, description="fill each row up to max_length with several, which do not see each other")
    precision: Literal["fp32", "bf16"] = "fp32"
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    sharding: ShardingConfig = operational(ShardingConfig())
    activation_checkpointing: bool = operational(False, description="recompute each layer in the backward pass")
    loss_chunk: int = operational(
        0, ge=0, description="tokens whose logits are in memory at once in the loss; 0: all at once"
    )
    fused_kernels: bool = operational(
        True, description="Liger's, for language models on GPUs, where they are installed"
    )
    compile: bool = operational(False, description="torch.compile; worth its minutes on GPUs")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="keep a moving average of the weights")
    evaluate_every: Annotated[int | None, AtMost(1)] = decisive(
        None, ge=1, description="steps between held-out losses; None: at the end"
    )
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = operational(GuardConfig())
    seed: int = Field(0, ge=0, description="order of rows, dropout")

    @model_validator(mode="after")
    def _settings_agree(self) -> TrainSpec:
        if self.batch_size % self.micro_batch_size:
            fits = max(n for n in range(1, self.micro_batch_size + 1) if self.batch_size % n == 0)
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}; {fits} fits"
            )
        if self.packing and self.max_length is None:
            raise ValueError("packing needs max_length, the tokens that a packed row holds")
        if self.precision == "bf16" and self.sharding.zero == 0:
            raise ValueError("bf16 needs sharding.zero of 1 or more, which keeps float32 weights to update")
        return self

    def accumulation(self, workers: int) -> int:
        """Micro-batches of one step on each of `workers`. Raises ConfigError if they cannot be dealt out evenly."""
        micro = self.batch_size // self.micro_batch_size
        if micro % workers == 0:
            return micro // workers
        fewer = self.most_workers(workers)
        larger = -(-micro // workers) * workers * self.micro_batch_size
        raise ConfigError(
            f"a batch of {self.batch_size} rows in micro-batches of {self.micro_batch_size} "
            f"cannot be dealt out evenly to {workers} workers",
            where="batch_size, micro_batch_size",
            fix=f"set batch_size to {larger}, or --workers to {fewer}",
        )

    def most_workers(self, workers: int) -> int:
        """The largest number, at most `workers`, that the batch can be dealt out to evenly."""
        micro = self.batch_size // self.micro_batch_size
        return max(n for n in range(1, workers + 1) if micro % n == 0)

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of optimiser step `step` (from 0) of `steps`."""
        import math

        peak, final = self.optimizer.learning_rate, self.schedule.final_ratio
        warmup = round(self.schedule.warmup_ratio * steps)
        if step < warmup:
            return peak * (step + 1) / warmup
        if self.schedule.kind == "constant":
            return peak
        done = (step - warmup) / max(1, steps - 1 - warmup)
        left = 1 - done if self.schedule.kind == "linear" else (1 + math.cos(math.pi * done)) / 2
        return peak * (final + (1 - final) * left)


class LoraSettings(Config):
    """Low-rank adapters (Hu et al. 2021) by peft; `quantize` makes it QLoRA (Dettmers et al. 2023)."""

    rank: Annotated[int, AtMost(4)] = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = Field("all-linear", description="peft's names; all-linear leaves the head")
    quantize: Literal["none", "nf4"] = Field("none", description="nf4: frozen weights in 4 bits, doubly quantised")


class ContrastiveConfig(Config):
    """How an encoder learns to find documents. Negatives come from the whole batch, on however many workers it is:
    `training.micro_batch_size` decides nothing here, `texts_at_once` bounds the memory."""

    temperature: float = Field(0.02, gt=0, description="cosines are divided by it")
    negatives: int = Field(7, ge=0, description="of its own for each query, besides the documents of the others")
    texts_at_once: int = operational(
        0, ge=0, description="texts of one pass, each computed again for the gradient; 0: the batch in one pass"
    )
    training: TrainSpec = TrainSpec()


def describe(spec: TrainSpec) -> dict[str, Any]:
    """What of the settings decides the weights: a checkpoint of other settings is another run's."""
    decides: dict[str, Any] = identity(spec)
    return {name: value for name, value in decides.items() if name not in ("evaluate_every", "checkpoint")}
