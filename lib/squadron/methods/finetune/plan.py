"""What a fine-tuning run needs, from its configuration and the model's shapes alone."""

from __future__ import annotations

from typing import Any

from squadron.core.errors import SquadronError
from squadron.core.profile import Profile
from squadron.methods.finetune.config import FinetuneConfig, ModelConfig


def estimate(config: FinetuneConfig, workers: int, profile: Profile) -> list[tuple[str, str]]:
    """Rows for `squadron plan`: parameters, memory of each worker, whether it fits, what a billion tokens cost."""
    from squadron.train.planning.checks import training_rows
    from squadron.train.planning.memory import read_shapes

    name = config.model.path or "the model from scratch"
    try:
        shapes = read_shapes(_architecture(config.model))
    except SquadronError as error:
        return [("model", error.what)]
    return training_rows(name, shapes, config.training, config.model.lora, workers, profile)


def _architecture(config: ModelConfig) -> Any:
    from squadron.train.models.architectures import find_architecture
    from squadron.train.models.base import load_config

    if config.path is None:
        return config.scratch.model.config()
    # Those that we know are not asked of the hub, so that planning them works, and at once, without a network.
    return find_architecture(config.path) or load_config(config.path)
