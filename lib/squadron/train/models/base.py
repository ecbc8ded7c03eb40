"""The model that a job starts from: found on the hub or in a folder, and checked before any weight is read."""

from __future__ import annotations

import os
from typing import Any

from squadron.core.errors import ConfigError
from squadron.core.inputs import InputPath
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.builders import local_folder
from squadron.train.models.errors import check_chat_template, explaining_load_errors
from squadron.train.text.tokenizer import load_tokenizer


def find_model(
    path: str, who: str = "the model", *, chats: bool = False, resizes: bool = False, **known: Any
) -> ModelArtifact:
    """The model of the hub, of a local folder or of a URL, with a tokenizer, which has a chat template if it `chats`.

    `who` is what errors call it, `known` are further fields of the artifact. If it `resizes`, its embedding gets a row
    for every token that it lacks one for. Raises InputError if there is no such model or tokenizer, ConfigError if it
    lacks the chat template, or has tokens without rows. Runs no code that comes with a model.
    """
    place = os.path.abspath(path) if os.path.isdir(path) else path
    config = load_config(place, who)
    tokenizer = load_tokenizer(place, who)
    rows = missing_rows(config, tokenizer)
    if rows is not None and not resizes:
        fix = "set model.resize_embeddings=true (finetune), or resize it with transformers and save it again"
        what = f"{who} has a tokenizer of {rows:,} tokens and an embedding of {_rows(config):,} rows"
        raise ConfigError(what, where=path, fix=fix)
    if chats:
        check_chat_template(tokenizer, path, who)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return ModelArtifact(
        source=InputPath(place),
        context=int(getattr(config, "max_position_embeddings", 0) or 2**20),
        pad_token_id=int(pad or 0),
        rows=rows,
        revision=str(getattr(config, "_commit_hash", "") or ""),
        **known,
    )


def missing_rows(config: Any, tokenizer: Any) -> int | None:
    """How many rows an embedding needs for every token of a tokenizer; None if it has them."""
    needed = max(tokenizer.get_vocab().values(), default=-1) + 1
    return needed if needed > _rows(config) else None


def _rows(config: Any) -> int:
    return int(getattr(config.get_text_config(), "vocab_size", 2**62))


def load_config(path: str, who: str = "the model") -> Any:
    """transformers' configuration of a model; of the published ones that we know, without it and without the hub.

    Raises InputError if there is no such model.
    """
    from transformers import AutoConfig

    from squadron.core.errors import InputError
    from squadron.train.models.architectures import find_architecture

    known = None if os.path.isdir(path) else find_architecture(path)
    try:
        with explaining_load_errors(path, who):
            return AutoConfig.from_pretrained(local_folder(path), trust_remote_code=False)
    except InputError:
        if known is None:
            raise
        return known
