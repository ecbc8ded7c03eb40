"""The model that a run starts from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows
from squadron.methods.finetune.config import DataConfig, ObjectiveName, ScratchConfig, StartConfig
from squadron.methods.finetune.encoding import check_template, wanted_columns
from squadron.methods.finetune.records import BaseModel, Dataset
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.builders import FromConfig, local_folder


def prepare(
    stage: Stage, data: Dataset, objective: ObjectiveName, settings: DataConfig, config: StartConfig
) -> BaseModel:
    """Check that the model and its tokenizer are there and can do what is asked, before any weight is read.

    Raises InputError if there is no such model, ConfigError if it lacks the chat template that the data needs.
    """
    quiet_libraries()
    if config.path is None:
        model = _from_scratch(stage, data, objective, settings, config.scratch)
    else:
        model = _found(config.path)
    check_template(load_tokenizer(stage.run.folder, model), settings)
    stage.headline(f"parameters, {config.path or 'from scratch'}", f"{model.parameters / 1e6:,.2f} M")
    return model


def load_tokenizer(run: Folder, model: BaseModel) -> Any:
    """The model's tokenizer. Runs no code that comes with a model."""
    from transformers import AutoTokenizer

    place = local_folder(resolve(run, model.tokenizer, model.inside_run))
    return AutoTokenizer.from_pretrained(place, trust_remote_code=False)


def resolve(run: Folder, path: str, inside_run: bool) -> str:
    """Where transformers finds a model: its name or folder, or its place in the run folder."""
    return run.file(path) if inside_run else path


def _found(path: str) -> BaseModel:
    from transformers import AutoTokenizer

    from squadron.train.planning.memory import read_shapes

    place = os.path.abspath(path) if os.path.isdir(path) else path
    config = load_config(place)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"the model has no tokenizer that can be loaded: {first}", where=place) from error
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return BaseModel(
        path=place,
        inside_run=False,
        tokenizer=place,
        parameters=read_shapes(config).parameters,
        context=int(getattr(config, "max_position_embeddings", 0) or 2**20),
        pad_token_id=int(pad or 0),
        revision=str(getattr(config, "_commit_hash", "") or ""),
    )


def load_config(path: str) -> Any:
    """The configuration of a model of the hub or of a local folder; of the published ones that we know, without it.

    Raises InputError if it is neither.
    """
    from transformers import AutoConfig

    from squadron.train.models.architectures import find_architecture

    known = None if os.path.isdir(path) else find_architecture(path)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if known is not None:
            return known
        first = str(error).strip().partition("\n")[0]
        fix = "give a hub name (organisation/model) or a folder with config.json and safetensors files"
        raise InputError(f"there is no such model: {first}", where=path, fix=fix) from error


def _from_scratch(
    stage: Stage, data: Dataset, objective: ObjectiveName, settings: DataConfig, config: ScratchConfig
) -> BaseModel:
    import tempfile

    import torch

    from squadron.train.text.tokenizer import END, PAD, train_tokenizer

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        texts = _texts(ArrowRows(stage.run.folder, [data.train]), objective, settings)
        vocabulary = train_tokenizer(texts, config.vocabulary, place)
        torch.manual_seed(config.seed)
        model = small_model(config, vocabulary)()
        assert (PAD, END) == ("<|pad|>", "<|end|>")  # tokens 0 and 1 of every such tokenizer
        model.save_pretrained(place)  # type: ignore[operator]
        for file in sorted(place.iterdir()):
            stage.folder.put(f"model/{file.name}", str(file))
    path = f"{relative(stage.folder, stage.run.folder)}/model"
    return BaseModel(
        path=path,
        inside_run=True,
        tokenizer=path,
        parameters=sum(weight.numel() for weight in model.parameters()),
        context=config.context,
        pad_token_id=0,
    )


def small_model(config: ScratchConfig, vocabulary: int) -> FromConfig:
    """The builder of the model from scratch, for a tokenizer of `train_tokenizer` with so many tokens."""
    return FromConfig(
        vocabulary=vocabulary,
        hidden_size=config.hidden_size,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        intermediate_size=config.intermediate_size,
        context=config.context,
        special_tokens={"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None},  # type: ignore[dict-item]
    )


def _texts(records: ArrowRows, objective: ObjectiveName, settings: DataConfig) -> Iterator[str]:
    columns = [c for c in wanted_columns(objective, settings).values()]
    for record in records:
        for column in columns:
            yield from _strings(record[column])


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(value.get("content"))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
