"""An embedding model behind `POST /v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64
import contextvars
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from squadron.core.errors import InputError
from squadron.core.profile import WorkerResources
from squadron.core.work import Work, current, doing, in_thread
from squadron.llm.embed import AnyEmbedder, open_embedder
from squadron.serve import costs
from squadron.serve import openai as api
from squadron.serve.openai_requests import EmbeddingRequest
from squadron.serve.service import Route, Service

_AT_ONCE, _UNITS = 32, 512
_ROWS, _CHARACTERS = 64, 32_768
"""Texts of one pass, and how many characters they have together if all were as long as the longest."""


def embedding_service(name: str, settings: AnyEmbedder, resources: WorkerResources | None = None) -> Service:
    """A service of an embedder, which clients call `name`."""
    example = {"input": ["a text", "another"]}
    route = Route(
        "/v1/embeddings", "embed", EmbeddingRequest, api.Embeddings, "Turn texts into vectors", example=example,
        work=costs.embedding_passes, tokens=costs.embedding_tokens,
    )  # fmt: skip
    load = partial(EmbeddingServer, name, settings)
    return Service(
        name, load, (route,), resources or WorkerResources(), _AT_ONCE, _UNITS, f"times {costs.PASS:,} characters",
        models=(name,),
    )  # fmt: skip


@dataclass(eq=False)
class _Waiting:
    """A request's texts that have no vector yet, by their places, the longest last."""

    client: str
    texts: list[tuple[int, str]]
    vectors: asyncio.Future[dict[int, Any]]
    count: int
    found: dict[int, Any] = field(default_factory=dict)


class EmbeddingServer:
    """One embedder. Texts of like lengths are embedded together, also those of several requests that wait, in passes
    that clients take turns in."""

    def __init__(self, name: str, settings: AnyEmbedder) -> None:
        self._name, self._model = name, open_embedder(settings)
        self._waiting: list[_Waiting] = []
        self._used: Counter[str] = Counter()
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
        ordered = sorted(enumerate(texts), key=lambda pair: len(pair[1]))
        one = _Waiting(current().client, ordered, asyncio.get_running_loop().create_future(), len(texts))
        self._waiting.append(one)
        if self._working is None or self._working.done():  # work of its own, not this request's
            self._working = asyncio.create_task(self._work(), context=contextvars.Context())
        vectors = await one.vectors
        return embeddings(request, [vectors[place] for place in range(len(texts))], self._name, costs.tokens_of(texts))

    async def _work(self) -> None:
        while True:
            self._waiting = [one for one in self._waiting if one.texts and not one.vectors.done()]
            if not self._waiting:
                self._used.clear()
                return
            chosen = self._choose()
            await self._embed(chosen)

    def _choose(self) -> list[tuple[_Waiting, int, str]]:
        """The texts of the next pass: of the client that has had the least so far, and of others as long as they are
        not longer."""
        ordered = sorted(self._waiting, key=lambda one: self._used[one.client])
        chosen: list[tuple[_Waiting, int, str]] = []
        longest = 0
        for one in ordered:
            while one.texts and len(chosen) < _ROWS:
                larger = max(longest, len(one.texts[0][1]))
                if chosen and (
                    (len(chosen) + 1) * larger > _CHARACTERS or (one is not ordered[0] and larger > longest)
                ):
                    break
                longest = larger
                chosen.append((one, *one.texts.pop(0)))
                self._used[one.client] += len(chosen[-1][2])
        return chosen

    async def _embed(self, chosen: Sequence[tuple[_Waiting, int, str]]) -> None:
        """Embed these; if that fails, one by one, so that an error is its request's alone."""
        with doing(Work()) as work:
            for one, _, _ in chosen:
                one.vectors.add_done_callback(lambda _: _end(work, chosen))
            try:
                rows = await in_thread(self._model.embed, [text for _, _, text in chosen])
            except Exception as error:
                if len(chosen) > 1:
                    for part in chosen:
                        if not part[0].vectors.done():
                            await self._embed([part])
                elif not chosen[0][0].vectors.done():
                    chosen[0][0].vectors.set_exception(error)
                return
        for (one, place, _), row in zip(chosen, rows, strict=True):
            one.found[place] = row
            if len(one.found) == one.count and not one.vectors.done():
                one.vectors.set_result(one.found)


def _end(work: Work, chosen: Sequence[tuple[_Waiting, int, str]]) -> None:
    if all(one.vectors.done() for one, _, _ in chosen):
        work.call_off()


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
