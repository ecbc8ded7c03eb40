"""Search over a saved index behind `POST /v1/search`. What is changed in its folder answers the next request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from squadron.core import console
from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.core.run_reader import outputs
from squadron.core.work import take_turns
from squadron.llm.embed import AnyEmbedder
from squadron.retrieval.index import Mode, SearchIndex
from squadron.serve import costs
from squadron.serve.service import Route, Service, Services

_UNITS, _TURN = 512, 16
"""Units of work at a time, and queries of one turn."""
_LOOK_EVERY_S = 1.0
"""Whether an index behind a URL has changed; one on this machine is looked at for every request."""
Text = Annotated[str, Field(min_length=1, max_length=32_768)]


class SearchRequest(Config):
    """A query, or several, to be answered by the best `k` documents of each."""

    model: str = Field(min_length=1, max_length=512)
    query: Text | Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)]
    k: int = Field(10, ge=1, le=1000)
    mode: Mode | None = Field(None, description="bm25: by words, dense: by meaning, hybrid: both; null: what it can")
    instruction: str | None = Field(None, max_length=8192, description="what is looked for, for models that read one")

    @property
    def queries(self) -> tuple[str, ...]:
        """The queries, one or several."""
        return (self.query,) if isinstance(self.query, str) else self.query


class Hit(Config):
    """A document that was found."""

    id: str
    score: float
    text: str


class Hits(Config):
    """The documents found for a query, the best first."""

    index: int
    documents: tuple[Hit, ...]


class SearchAnswer(Config):
    """What was found, in the order of the queries, in an index of so many documents."""

    object: Literal["list"] = "list"
    model: str
    mode: Mode
    documents: int
    data: tuple[Hits, ...]


class SavedIndex(Config):
    """An index that a run keeps for a server: its folder from the run's, and the model of its vectors. It stands in no
    folder of a stage, whose files never change."""

    path: str = "index"
    embedder: AnyEmbedder | None = None


def last_index(stage: str) -> Callable[[Folder], Services]:
    """The services of a run whose stage of this name returns a `SavedIndex`: the search over it, under the name of the
    run's folder. They raise InputError if there is none, or it is damaged."""

    def services(folder: Folder) -> Services:
        found = outputs(folder, stage, SavedIndex)[-1]
        index = folder / found.path
        SearchIndex.open(index, found.embedder)
        return Services((search_service(folder.name, index, found.embedder),))

    return services


def search_service(
    name: str, folder: Folder, embedder: AnyEmbedder | None = None, resources: WorkerResources | None = None
) -> Service:
    """A service of the index in a folder, which clients call `name`. Without the embedder of its vectors it is searched
    by words alone."""
    example = {"query": "what is looked for", "k": 5}
    route = Route(
        "/v1/search", "search", SearchRequest, SearchAnswer, "Find documents", example=example, work=_work,
        tokens=lambda request: costs.tokens_of(request.queries),
    )  # fmt: skip
    return Service(
        name, partial(SearchServer, name, folder, embedder), (route,), resources or WorkerResources(), 8, _UNITS,
        f"queries, each {costs.PASS:,} characters counted as one more", models=(name,),
    )  # fmt: skip


def _work(request: SearchRequest) -> int:
    return len(request.queries) + costs.tokens_of(request.queries) * 4 // costs.PASS


class SearchServer:
    """One index. It looks whether the folder has another now, and goes on with the one that it has where that cannot be
    read."""

    def __init__(self, name: str, folder: Folder, embedder: AnyEmbedder | None = None) -> None:
        self._name, self._folder = name, folder
        self._mode: Mode = "bm25" if embedder is None else "hybrid"
        self._index = SearchIndex.open(folder, embedder)
        self._refreshing, self._looked, self._said = threading.Lock(), time.monotonic(), ""

    def search(self, request: SearchRequest) -> SearchAnswer:
        """The best documents of each query. Raises InputError for a mode that the index does not have."""
        index, mode = self._refreshed(), request.mode or self._mode
        if mode != "bm25" and self._mode == "bm25":
            raise InputError(f"mode: {self._name} is searched by words alone, with mode bm25", where="mode")
        if empty := [number for number, query in enumerate(request.queries) if not query.strip()]:
            raise InputError(f"query: query {empty[0]} (counted from 0) is empty", where="query")
        data: list[Hits] = []
        for start in range(0, len(request.queries), _TURN):
            take_turns()
            found = index.search(request.queries[start : start + _TURN], request.k, mode, request.instruction)
            for places, scores in zip(found.places_QK.tolist(), found.scores_QK.tolist(), strict=True):
                hits = tuple(
                    _hit(index, place, score) for place, score in zip(places, scores, strict=True) if place >= 0
                )
                data.append(Hits(index=len(data), documents=hits))
        return SearchAnswer(model=request.model, mode=mode, documents=len(index), data=tuple(data))

    def _refreshed(self) -> SearchIndex:
        """The index as it is in the folder. While one request opens another, the others go on with the old one."""
        soon = not self._folder.path and time.monotonic() - self._looked < _LOOK_EVERY_S
        if soon or not self._refreshing.acquire(blocking=False):
            return self._index
        try:
            self._looked = time.monotonic()
            self._index = self._index.refresh()
            self._said = ""
        except InputError as error:
            if str(error) != self._said:  # once, not at every request
                self._said = str(error)
                console.complain(f"{console.plain(self._name)} goes on with the index that it has: {self._said}")
        finally:
            self._refreshing.release()
        return self._index


def _hit(index: SearchIndex, place: int, score: float) -> Hit:
    document = index.document(place)
    return Hit(id=document.id, score=score, text=document.text)
