"""One training loop for every model in the house, from a two-layer policy to 83B parameters.

    from squadron.train import TrainSpec, fit, per_row

    fitted = fit(per_row(loss), build_model, rows, TrainSpec(epochs=3), Folder("runs/mine"), workers=2)

`loss(model, batch)` is any function; `squadron.train.objectives` holds those of language models, reward models,
classifiers and encoders. Ray Train starts the workers, DeepSpeed shards them, peft adapts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from squadron.train.loop import Fitted as Fitted
    from squadron.train.loop import fit as fit
    from squadron.train.objectives import per_row as per_row
    from squadron.train.spec import TrainSpec as TrainSpec

_PLACES = {"Fitted": "loop", "fit": "loop", "per_row": "objectives", "TrainSpec": "spec"}


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for: settings must load without Ray."""
    import importlib

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
