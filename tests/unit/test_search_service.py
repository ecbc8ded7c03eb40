"""A served index: what is found is what the index finds, also right after it was changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.llm.embed import PackagedEmbedder
from squadron.retrieval.documents import Document
from squadron.retrieval.index import SearchIndex
from squadron.serve.gateway import make_app
from squadron.serve.search import SavedIndex, SearchAnswer, SearchRequest, SearchServer, last_index, search_service
from squadron.serve.spec import ServeSpec

DOCUMENTS = [
    Document("weather", "What the weather will be tomorrow"),
    Document("flight", "Book a flight to a city"),
    Document("currency", "Convert an amount of money from one currency to another"),
]


def ask(server: SearchServer, query: str | tuple[str, ...], **settings: Any) -> SearchAnswer:
    return server.search(SearchRequest(model="m", query=query, **settings))


def names(answer: SearchAnswer) -> list[list[str]]:
    assert [hits.index for hits in answer.data] == list(range(len(answer.data)))
    return [[hit.id for hit in hits.documents] for hits in answer.data]


def test_one_query_or_several_find_what_the_index_finds(tmp_path: Path) -> None:
    folder, model = Folder(tmp_path), PackagedEmbedder()
    index = SearchIndex.build(folder, DOCUMENTS, embedder=model)
    server = SearchServer("m", folder, model)
    queries = ("exchange dollars", "flight", "will it rain") * 9
    for mode in ("bm25", "dense", "hybrid"):
        found, expected = ask(server, queries, k=2, mode=mode), index.search(queries, 2, mode)
        assert names(found) == [[DOCUMENTS[at].id for at in row if at >= 0] for row in expected.places_QK.tolist()]
        assert found.documents == 3 and found.mode == mode
    assert names(ask(server, "exchange dollars", k=1)) == [["currency"]]
    assert ask(server, "flight").data[0].documents[0].text == "Book a flight to a city"


def test_a_change_in_the_folder_answers_the_next_request_and_embeds_what_is_new(tmp_path: Path) -> None:
    folder, model = Folder(tmp_path), PackagedEmbedder()
    index = SearchIndex.build(folder, DOCUMENTS, embedder=model)
    server = SearchServer("m", folder, model)
    assert names(ask(server, "train", mode="bm25")) == [[]]
    _, done = index.update([Document("train", "Buy a train ticket, tried only here")], removed=["flight"])
    assert (done.added, done.removed) == (1, 1) and done.embedded <= 1
    assert names(ask(server, ("train", "flight"), k=1, mode="bm25")) == [["train"], []]
    assert names(ask(server, "travel by rail", k=1)) == [["train"]]


def test_an_index_that_cannot_be_read_any_more_is_told_and_the_old_one_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SearchIndex.build(Folder(tmp_path), DOCUMENTS)
    server = SearchServer("m", Folder(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    for _ in range(2):
        assert names(ask(server, "flight", k=1)) == [["flight"]]
    assert capsys.readouterr().err.count("goes on with the index that it has") == 1
    SearchIndex.build(Folder(tmp_path / "new"), DOCUMENTS[:1])
    with pytest.raises(InputError, match=r"manifest\.json"):
        SearchServer("m", Folder(tmp_path))


def test_what_cannot_be_searched_is_refused_by_name(tmp_path: Path) -> None:
    SearchIndex.build(Folder(tmp_path), DOCUMENTS)
    server = SearchServer("m", Folder(tmp_path))
    assert ask(server, "flight").mode == "bm25"
    with pytest.raises(InputError, match="mode: m is searched by words alone"):
        ask(server, "flight", mode="dense")
    with pytest.raises(InputError, match=r"query 1 .* is empty"):
        ask(server, ("flight", " "))
    with pytest.raises(InputError, match=r"searched by words|no vectors"):
        SearchServer("m", Folder(tmp_path), PackagedEmbedder())
    for wrong in ({"query": ""}, {"query": ()}, {"k": 0}, {"k": 10**6}, {"mode": "magic"}, {"query": ("a",) * 257}):
        with pytest.raises(ValidationError):
            SearchRequest(**{"model": "m", "query": "a", **wrong})


def test_work_and_tokens_are_counted_from_the_request(tmp_path: Path) -> None:
    (route,) = search_service("m", Folder(tmp_path)).routes
    assert route.work is not None and route.tokens is not None
    assert route.work(SearchRequest(model="m", query="a")) == 1
    long = SearchRequest(model="m", query=("a" * 8192, "b"))
    assert route.work(long) == 3 and route.tokens(long) == 2050


class Here:
    """What stands for Ray Serve: the server in this process."""

    def __init__(self, server: SearchServer) -> None:
        self.server = server

    async def ask(self, service: str, method: str, request: Any, client: str) -> Any:
        return getattr(self.server, method)(request)

    async def ready(self) -> list[str]:
        return []


def test_over_http_it_answers_and_says_what_is_wrong(tmp_path: Path) -> None:
    SearchIndex.build(Folder(tmp_path), DOCUMENTS)
    service = search_service("tools", Folder(tmp_path))
    app = make_app((service,), Here(service.build()), ServeSpec(), [])  # type: ignore[arg-type]

    async def post(content: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.post("/v1/search", json=content)

    (route,) = service.routes
    example = asyncio.run(post({"model": "tools", **(route.example or {})}))
    assert example.status_code == 200 and example.json()["documents"] == 3
    found = asyncio.run(post({"model": "tools", "query": ["flight", "money"], "k": 1})).json()
    assert [hits["documents"][0]["id"] for hits in found["data"]] == ["flight", "currency"]
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"query": "a", "mode": "dense"}, 400, "searched by words alone"),
        ({"query": "a", "k": 0}, 400, "k: "),
        ({"query": "a", "kk": 1}, 400, "kk"),
        ({"query": "a", "model": "other"}, 404, "other"),
    ]
    for content, status, words in wrong:
        answer = asyncio.run(post({"model": "tools", **content}))
        assert answer.status_code == status and words in answer.json()["error"]["message"], answer.text


def keep(stage: Stage) -> SavedIndex:
    """Index a few documents."""
    SearchIndex.build(stage.run.folder / "index", DOCUMENTS)
    return SavedIndex()


def test_a_run_serves_the_index_that_it_keeps_also_after_a_change(tmp_path: Path) -> None:
    run = Run("search", SavedIndex(), Folder(tmp_path / "mine"), Profile(name="auto"), track=())
    run.open()
    run.stage(keep)
    run.close()
    SearchIndex.open(run.folder / "index").update([Document("train", "Buy a train ticket")])
    (service,) = last_index("keep")(run.folder).services
    assert service.models == ("mine",)
    assert names(ask(service.build(), "train", k=1)) == [["train"]]
    (tmp_path / "mine" / "index" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"manifest\.json"):
        last_index("keep")(run.folder)
