"""A model whose weights lie on several cards of one node, layer by layer, for models that are only asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from squadron.core.errors import ResourceError
from squadron.train.models.builders import Head, auto_class

if TYPE_CHECKING:
    import torch

_FREE = 0.1
"""Share of each card that is left for activations."""


def card_memory(cards: int) -> dict[int, int]:
    """Free bytes of as many cards as this process sees, at most `cards`; none without CUDA."""
    import torch

    seen = min(cards, torch.cuda.device_count()) if torch.cuda.is_available() else 0
    return {card: torch.cuda.mem_get_info(card)[0] for card in range(seen)}


def spread(config: Any, head: Head, memory: Mapping[int, int], dtype: torch.dtype, where: str = "") -> dict[str, int]:
    """On which card each part of a model goes, as `from_pretrained` takes it for `device_map`: alike on all, no layer
    cut in two. Looks at shapes alone. `memory`: free bytes of each card.

    Raises ResourceError if the cards do not hold it: what does not fit would otherwise run from the host's memory.
    """
    import torch
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    with torch.device("meta"):
        model = auto_class(head).from_config(config)
    model.tie_weights()
    whole: dict[Any, Any] = {card: int((1 - _FREE) * free) for card, free in memory.items()}
    layers = sorted(model._no_split_modules or ())
    even = get_balanced_memory(model, dict(whole), no_split_module_classes=layers, dtype=dtype)
    for room in (even, whole):
        room = {card: room[card] for card in whole}
        placed: dict[str, Any] = infer_auto_device_map(
            model, {**room, "cpu": 0}, no_split_module_classes=layers, dtype=dtype
        )
        if all(isinstance(card, int) for card in placed.values()):
            return placed
    needed = sum(weight.numel() for weight in model.parameters()) * dtype.itemsize / 1e9
    held = sum(memory.values()) / 1e9
    what = f"the model has {needed:,.0f} GB of weights; cards: {len(memory)}, with {held:,.0f} GB free in all"
    raise ResourceError(what, where=where, fix="raise gpus, or take a smaller model or precision")
