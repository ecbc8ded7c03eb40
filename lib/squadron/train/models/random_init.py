"""Small models of random weights with tokenizers of their own, on disk as transformers loads them: where a job starts
from nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from squadron.core.config import Config
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.builders import FromConfig
from squadron.train.text.tokenizer import load_tokenizer, store_tokenizer

if TYPE_CHECKING:
    from squadron.core.run import Stage


class SmallModelConfig(Config):
    """The size of a small model, which settings of it begin with."""

    hidden_size: int = Field(ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.heads}")
        return self

    def shape(self, vocabulary: int, context: int, initializer_range: float, rope_theta: float) -> FromConfig:
        """A model of this size, with as many key as query heads, and a feed-forward layer of 8/3 its width."""
        return FromConfig(
            vocabulary=vocabulary,
            hidden_size=self.hidden_size,
            layers=self.layers,
            heads=self.heads,
            kv_heads=None,
            intermediate_size=self.hidden_size * 8 // 3 // 8 * 8,
            context=context,
            initializer_range=initializer_range,
            rope_theta=rope_theta,
        )


def make_small_model(
    stage: Stage, place: str, texts: Iterable[str], shape: FromConfig, seed: int, **known: Any
) -> ModelArtifact:
    """Train a tokenizer on texts, make a model of this shape for it, and store both in the stage's folder `place`.

    The tokenizer has `shape.vocabulary` tokens at most. The same seed gives the same weights. `known` are further
    fields of the artifact.
    """
    tokenizer = store_tokenizer(texts, shape.vocabulary, stage.folder)
    return store_small_model(stage, place, tokenizer, shape, seed, **known)


def store_small_model(
    stage: Stage, place: str, tokenizer: str, shape: FromConfig, seed: int, **known: Any
) -> ModelArtifact:
    """`make_small_model` for the tokenizer at a path, which several models may share."""
    import torch

    words = load_tokenizer(tokenizer)
    special = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": None}
    torch.manual_seed(seed)
    model = replace(shape, vocabulary=len(words), special_tokens=special)()
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        words.save_pretrained(scratch)
        for file in sorted(Path(scratch).iterdir()):
            stage.folder.put(f"{place}/{file.name}", str(file))
    parameters = sum(weight.numel() for weight in model.parameters())
    return ModelArtifact.made(
        stage, place, parameters=parameters, context=shape.context, pad_token_id=words.pad_token_id, **known
    )
