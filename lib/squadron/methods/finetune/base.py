"""The model that a run starts from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from squadron.core.run import Stage
from squadron.data.rows import ArrowRows
from squadron.methods.finetune.config import DataConfig, ObjectiveName, StartConfig
from squadron.methods.finetune.encoding import check_template
from squadron.methods.finetune.records import Dataset
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.base import find_model, load_config
from squadron.train.models.families import read_template
from squadron.train.models.random_init import make_small_model
from squadron.train.planning.memory import read_shapes


def prepare_model(
    stage: Stage, data: Dataset, objective: ObjectiveName, settings: DataConfig, config: StartConfig
) -> ModelArtifact:
    """Find the model, or make a small one with a tokenizer of its own.

    No weight is read. Raises InputError if there is no such model, ConfigError if it lacks the chat template that the
    data needs.
    """
    quiet_libraries()
    if config.path is None:
        texts = _texts(data.train.rows(stage.run.folder))
        model = make_small_model(stage, "model", texts, config.scratch.model, config.scratch.seed)
    else:
        model = find_model(config.path, resizes=config.resize_embeddings)
        parameters = read_shapes(load_config(str(model.source))).parameters
        model = model.model_copy(update={"parameters": parameters})
    if config.chat_template is not None:
        model = model.model_copy(update={"chat_template": read_template(config.chat_template)})
    check_template(model.load_tokenizer(stage.run.folder), settings, data.chats)
    stage.headline(f"parameters, {config.path or 'from scratch'}", f"{(model.parameters or 0) / 1e6:,.2f} M")
    return model


def _texts(records: ArrowRows) -> Iterator[str]:
    for record in records:
        yield from texts_of(record["example"])


def texts_of(value: Any) -> Iterator[str]:
    """Every text in an example."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_of(item)
