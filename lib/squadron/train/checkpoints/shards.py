"""The parts of the trainable weights, and of their optimiser states, that one worker owns under any ZeRO stage.

DeepSpeed keeps a float32 copy of what it updates in flat tensors: all of each weight on every worker at stage 0 (where
it is the weight itself), a stretch of the concatenated weights at stages 1 and 2, and the same share of each weight at
stage 3. A `Shard` names such a stretch by the weight it belongs to and where in the flattened weight it begins, which
is all that is needed to save it and to load it again under another stage or on another number of workers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's states of each weight, by torch's names."""


@dataclass
class Shard:
    """A stretch of one weight that this worker updates: `flat[offset : offset + numel]` is the weight's
    `[start : start + numel]`, flattened."""

    name: str
    start: int
    numel: int
    flat: torch.Tensor
    offset: int
    group: int

    @property
    def weight(self) -> torch.Tensor:
        """The float32 values, as a view."""
        return self._view(self.flat.data)

    def moment(self, optimizer: torch.optim.Optimizer, key: str) -> torch.Tensor:
        """One of the optimiser's states of these values, as a view."""
        return self._view(optimizer.state[self.flat][key])

    def _view(self, flat: torch.Tensor) -> torch.Tensor:
        return flat.view(-1).narrow(0, self.offset, self.numel)


def trainable(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that are trained, by name; a weight that two layers share counts once."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


def full_shape(weight: torch.nn.Parameter) -> tuple[int, ...]:
    """A weight's shape, also where ZeRO 3 holds only a part of it."""
    return tuple(getattr(weight, "ds_shape", weight.shape))


def shards(engine: Any) -> list[Shard]:
    """What this worker owns of every trainable weight, in the order of the module's parameters."""
    weights = trainable(engine.module)
    stage = engine.zero_optimization_stage()
    find = {0: _whole, 1: _stretch, 2: _stretch, 3: _share}[stage]
    found = (find(engine, name, weight) for name, weight in weights.items())
    return [shard for shard in found if shard is not None and shard.numel > 0]


def base_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The torch optimiser inside DeepSpeed's."""
    optimizer: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return optimizer


def make_states(engine: Any, owned: list[Shard], step: int) -> None:
    """Give every owned weight the optimiser states that it would have after `step` steps, as zeros.

    torch and DeepSpeed make them at the first step, too late to load a checkpoint into.
    """
    import torch

    optimizer = base_optimizer(engine)
    counts_in_tensors = isinstance(optimizer, torch.optim.AdamW)
    for flat in {id(shard.flat): shard.flat for shard in owned}.values():
        on_device = counts_in_tensors and optimizer.defaults.get("fused")
        count = torch.tensor(float(step), device=flat.device if on_device else "cpu")
        states = {key: torch.zeros_like(flat) for key in MOMENTS}
        optimizer.state[flat] = {"step": count if counts_in_tensors else step, **states}


def publish(engine: Any) -> None:
    """Hand float32 weights that were written through shards on to the weights that the model computes with."""
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        for group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if kept := optimizer.persistent_parameters:
            kept[0].partition(kept)
            kept[0].all_gather(kept)


@contextlib.contextmanager
def resident(engine: Any, group: int) -> Iterator[None]:
    """Hold a group of optimiser states in memory that DeepSpeed may have put on an NVMe disk."""
    optimizer = engine.optimizer
    swapped = engine.zero_optimization_stage() == 3 and optimizer._swappable_optimizer_subgroup(group)
    if swapped:
        optimizer._optimizer_states_and_gradient_swap_in(group)
    try:
        yield
    finally:
        if swapped:
            optimizer._optimizer_states_and_gradient_swap_out(group)


def _whole(engine: Any, name: str, weight: torch.nn.Parameter) -> Shard:
    return Shard(name, 0, weight.numel(), weight, 0, 0)


def _stretch(engine: Any, name: str, weight: torch.nn.Parameter) -> Shard | None:
    mapping = getattr(weight, "_hp_mapping", None)
    if mapping is None:
        return None
    flat = engine.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
    here, there = mapping.lp_fragment_address, mapping.hp_fragment_address
    return Shard(name, here.start, here.numel, flat, there.start, mapping.param_group_index)


def _share(engine: Any, name: str, weight: torch.nn.Parameter) -> Shard:
    optimizer = engine.optimizer
    group, offset, padded = optimizer.grad_position[optimizer.get_param_id(weight)]
    start = engine.global_rank * padded
    numel = max(0, min(padded, math.prod(full_shape(weight)) - start))
    return Shard(name, start, numel, optimizer.fp32_partitioned_groups_flat[group], offset, group)
