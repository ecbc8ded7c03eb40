"""Checkpoints as a training of one worker leaves them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from squadron.core.folder import Folder
from squadron.train.checkpoints.commits import Complete, commit
from squadron.train.worker import PREFIX


def write_checkpoint(store: Folder, model: Any) -> None:
    """The weights of a model that are trained, at step 1."""
    from safetensors.torch import save_file

    trained = [(name, weight.detach()) for name, weight in model.named_parameters() if weight.requires_grad]
    weights = {f"{PREFIX}{name}": weight for name, weight in trained}
    place = Path(store.path) / "checkpoints" / "step-000001"
    place.mkdir(parents=True)
    tensors = {f"{name}|weight": weight.flatten().clone() for name, weight in weights.items()}
    save_file(tensors, place / "rank-00-of-01.safetensors", metadata={"starts": json.dumps(dict.fromkeys(weights, 0))})
    digest = hashlib.sha256((place / "rank-00-of-01.safetensors").read_bytes()).hexdigest()
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    about = Complete(step=1, files={"rank-00-of-01.safetensors": digest}, shapes=shapes, identity={})
    commit(Folder(place), about)
