"""Steps inside a forward pass, which may take long: others have their turn between two layers."""

from __future__ import annotations

from typing import Any

from squadron.core.work import take_turns


def take_turns_between_layers(model: Any) -> Any:
    """The model, whose passes end between two layers where their work is called off (`core/work.py`)."""
    from torch.nn import ModuleList

    for module in model.modules():
        if isinstance(module, ModuleList):
            for layer in module:
                layer.register_forward_pre_hook(_between)
    return model


def _between(layer: Any, inputs: Any) -> None:
    take_turns()
