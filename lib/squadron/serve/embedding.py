"""An embedding model behind `POST /v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from functools import partial
from typing import Any

from squadron.core.errors import InputError
from squadron.core.profile import WorkerResources
from squadron.llm.embed import AnyEmbedder, Vectors, open_embedder
from squadron.serve import openai as api
from squadron.serve.openai_requests import EmbeddingRequest
from squadron.serve.service import Route, Service

_AT_ONCE = 32


def embedding_service(name: str, settings: AnyEmbedder, resources: WorkerResources | None = None) -> Service:
    """A service of an embedder, which clients call `name`."""
    example = {"input": ["a text", "another"]}
    route = Route(
        "/v1/embeddings", "embed", EmbeddingRequest, api.Embeddings, "Turn texts into vectors", example=example
    )
    load = partial(EmbeddingServer, name, settings)
    return Service(name, load, (route,), resources or WorkerResources(), max_parallel=_AT_ONCE, models=(name,))


class EmbeddingServer:
    """One embedder. Requests that arrive while it is at work are embedded together, next."""

    def __init__(self, name: str, settings: AnyEmbedder) -> None:
        self._name, self._model = name, open_embedder(settings)
        self._waiting: list[tuple[list[str], asyncio.Future[Vectors]]] = []
        self._working: asyncio.Task[None] | None = None

    async def embed(self, request: EmbeddingRequest) -> api.Embeddings:
        """A vector for each text. Raises InputError for one that is empty, or tokens, which are not this model's: its
        clients do not know them."""
        texts = [given for given in request.inputs if isinstance(given, str)]
        if len(texts) < len(request.inputs):
            fix = "send text; LangChain does with check_embedding_ctx_length=False"
            raise InputError(f"input: {self._name} takes texts, and no ids of tokens", where="input", fix=fix)
        if any(not text.strip() for text in texts):
            raise InputError("input: an empty text has no vector", where="input")
        future: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, future))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        vectors = await future
        return embeddings(request, vectors, self._name, 0)

    async def _work(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting, []
            texts = [text for some, _ in together for text in some]
            try:
                vectors: Any = await asyncio.to_thread(self._model.embed, texts)
            except Exception as error:
                for _, future in together:
                    if not future.done():
                        future.set_exception(error)
                continue
            _deal_out(vectors, together)


def _deal_out(vectors: Vectors, together: Sequence[tuple[list[str], asyncio.Future[Vectors]]]) -> None:
    start = 0
    for some, future in together:
        if not future.done():
            future.set_result(vectors[start : start + len(some)])
        start += len(some)


def embeddings(request: EmbeddingRequest, vectors: Any, model: str, tokens: int) -> api.Embeddings:
    """Vectors in the form that was asked for."""
    import numpy as np

    rows = np.asarray(vectors, np.float32)
    if request.encoding_format == "base64":
        data: list[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
    else:
        data = rows.tolist()
    listed = [api.Embedding(index=number, embedding=vector) for number, vector in enumerate(data)]
    return api.Embeddings(data=listed, model=model, usage=api.usage(tokens, 0))
