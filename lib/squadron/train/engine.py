"""DeepSpeed around one model and its objective."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from squadron.train.checkpoints.shards import full_shape, trainable
from squadron.train.library_setup import quiet_libraries
from squadron.train.spec import BUCKET, TrainSpec

if TYPE_CHECKING:
    import torch

    from squadron.train.objectives import Objective


def deepspeed_config(spec: TrainSpec, workers: int, cuda: bool) -> dict[str, Any]:
    """DeepSpeed's configuration of this run."""
    sharding = spec.sharding
    zero: dict[str, Any] = {"stage": sharding.zero, "contiguous_gradients": True, "overlap_comm": cuda}
    if sharding.offload_optimizer != "none":
        zero["offload_optimizer"] = _offload(sharding.offload_optimizer, sharding.nvme_path, cuda)
    if sharding.offload_weights != "none":
        zero["offload_param"] = _offload(sharding.offload_weights, sharding.nvme_path, cuda)
    return {
        "train_micro_batch_size_per_gpu": spec.micro_batch_size,
        "gradient_accumulation_steps": spec.accumulation(workers),
        "gradient_clipping": spec.optimizer.max_grad_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": spec.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        # Without a GPU, DeepSpeed insists on an optimiser of its own that has to be compiled first.
        "zero_force_ds_cpu_optimizer": cuda and sharding.offload_optimizer != "none",
        "steps_per_print": 2**31,
    }


def start_engine(build: Callable[[], Any], objective: Objective, spec: TrainSpec, workers: int, cuda: bool) -> Any:
    """Build the model on this worker and hand it to DeepSpeed. torch.distributed must be up."""
    deepspeed = quiet_deepspeed(cuda)
    config = deepspeed_config(spec, workers, cuda)
    with _building(config):
        model = build()
    _compute_frequencies(model)
    if spec.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    module = _loss_module(model, objective)
    _hide_quantised(module)
    # DeepSpeed allocates its bucket whole, half a billion numbers by default, however small the model is.
    numel = sum(math.prod(full_shape(weight)) for weight in trainable(module).values())
    config["zero_optimization"]["reduce_bucket_size"] = min(BUCKET, numel)
    optimizer = _optimizer(module, spec, cuda)
    buffers = [(part, name, values) for part in module.modules() for name, values in part._buffers.items()]
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config, dist_init_required=False)
    for part, name, values in buffers:
        # DeepSpeed has rounded them to bf16: the frequencies of rotary embeddings too, whose angles then drift.
        if values is not None:
            part._buffers[name] = values.to(engine.device)
    if spec.compile:
        engine.compile()
    return engine


def quiet_deepspeed(cuda: bool) -> Any:
    """The deepspeed package, set up for this kind of device and without its pages of log."""
    if not cuda:
        os.environ["DS_ACCELERATOR"] = "cpu"
    quiet_libraries()
    import deepspeed
    import deepspeed.ops

    if not cuda:
        # An operator that it compiles on first use, half a minute each time, for all-reduces that gloo does as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", auto_mpi_discovery=False, verbose=False)
    return deepspeed


def set_learning_rate(engine: Any, rate: float) -> None:
    for group in engine.optimizer.param_groups:
        group["lr"] = rate


@contextlib.contextmanager
def _building(config: dict[str, Any]) -> Iterator[None]:
    """Under ZeRO 3, let transformers' `from_pretrained` shard each weight as it is read: no worker holds them all."""
    if config["zero_optimization"]["stage"] < 3:
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    keep = HfDeepSpeedConfig(config)  # transformers looks it up for as long as it lives
    try:
        yield
    finally:
        del keep
        unset_hf_deepspeed_config()


def _compute_frequencies(model: Any) -> None:
    """Compute the frequencies of rotary embeddings again where they were rounded.

    Under ZeRO 3 and bf16, transformers makes them in bf16, off by up to 0.4%: at the thousandth token that is radians.
    """
    import torch

    for part in model.modules():
        frequencies = part._buffers.get("inv_freq")
        if frequencies is not None and frequencies.dtype != torch.float32 and hasattr(part, "config"):
            part._buffers.update(type(part)(part.config)._buffers)


def _loss_module(model: torch.nn.Module, objective: Objective) -> torch.nn.Module:
    """Model and objective as one module: whatever the loss calls of the model, DeepSpeed's hooks see it."""
    import torch

    class LossModule(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            answer = objective(self.model, batch)
            return answer if isinstance(answer, tuple) else (answer, {})

    return LossModule()


def _hide_quantised(module: torch.nn.Module) -> None:
    """Keep 4-bit weights out of ZeRO 3: every worker holds all of them.

    bitsandbytes' backward pass reads the tensor that its forward pass saw, so that a weight gathered for the forward
    pass stays in memory until the backward one, and sharding it would save nothing; and with it sharded the gradients
    were wrong (DeepSpeed 0.19 with bitsandbytes 0.50).
    """
    for part in module.modules():
        weight = part._parameters.get("weight")
        if weight is not None and type(weight).__name__ == "Params4bit":
            del part._parameters["weight"]
            part.__dict__["weight"] = weight


def _optimizer(module: torch.nn.Module, spec: TrainSpec, cuda: bool) -> torch.optim.Optimizer:
    import torch

    weights = list(trainable(module).values())
    settings = spec.optimizer
    groups = [
        {"params": [w for w in weights if len(full_shape(w)) >= 2], "weight_decay": settings.weight_decay},
        {"params": [w for w in weights if len(full_shape(w)) < 2], "weight_decay": 0.0},
    ]
    common: dict[str, Any] = {"lr": settings.learning_rate, "betas": settings.betas, "eps": settings.epsilon}
    filled = [group for group in groups if group["params"]]
    if cuda and spec.sharding.offload_optimizer != "none":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(filled, adamw_mode=True, **common)
    return torch.optim.AdamW(filled, fused=cuda or None, **common)


def _offload(device: str, nvme_path: str | None, cuda: bool) -> dict[str, Any]:
    return {"device": device, "pin_memory": cuda, **({"nvme_path": nvme_path} if device == "nvme" else {})}
