"""What stands before the routes of a server: whom a request is for, its path, its rate and its size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from squadron.serve.auth_limits import read_key
from squadron.serve.front import refreshed
from squadron.serve.gateway import make_app
from squadron.serve.spec import Edge, KeyLimits, ServeSpec
from tests.unit.test_gateway import SERVICES, Here, send_to

KEY = {"Authorization": "Bearer first"}


class Asked:
    """The bodies that a server has read, in parts that come when they come."""

    def __init__(self, *parts: bytes, pause_s: float = 0.0, ends: bool = True) -> None:
        self._parts, self._pause_s, self._ends, self.read = list(parts), pause_s, ends, 0

    async def __call__(self) -> Any:
        await asyncio.sleep(self._pause_s)
        self.read += 1
        if not self._parts:
            await asyncio.sleep(3600 if self._ends else 0)
            return {"type": "http.disconnect"}
        body = self._parts.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(self._parts) or not self._ends}


def exchange(app: Any, path: str, asked: Asked, method: str = "POST", **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer by the application itself, whatever the path is."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"content-type": "application/json", "authorization": "Bearer first", **headers}
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()],
        "scheme": "http", "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, asked, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def app(*keys: str, **settings: Any) -> Any:
    return make_app(SERVICES, Here(), ServeSpec(**settings), [read_key(key) for key in keys])


PATHS = ["/v1/sum", "/adding/v1/sum", "/adding-2/v1/sum"]


@pytest.mark.parametrize("path", [*PATHS, "/v1/sum\n", "/v1/models", "/v1/models/x", "/metrics", "/stats"])
def test_a_key_s_share_holds_at_every_route_and_at_every_way_to_write_it(path: str) -> None:
    from squadron.serve.service import distinct

    spec = ServeSpec(requests_per_minute=2)
    served = make_app(distinct([*SERVICES, *SERVICES]), Here(), spec, [read_key("first")])
    method = "POST" if "sum" in path else "GET"
    statuses = [exchange(served, path, Asked(b'{"numbers": [1]}'), method)[0] for _ in range(4)]
    assert statuses[2:] == [429, 429] and 429 not in statuses[:2]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("//v1/sum", "POST", 404),
        ("/V1/SUM", "POST", 404),
        ("/v1/../v1/sum", "POST", 404),
        ("/v1/sum/", "POST", 404),
        ("/nowhere", "GET", 404),
        ("/v1/sum", "GET", 405),
        ("/v1/sum", "HEAD", 405),
        ("/v1/sum", "OPTIONS", 405),
        ("/v1/sum", "PUT", 405),
        ("/metrics", "POST", 405),
        ("/health", "POST", 405),
    ],
)
def test_what_no_route_takes_is_answered_by_its_head_alone(path: str, method: str, status: int) -> None:
    asked = Asked(b"1" * 1000)
    got, headers = exchange(app("first"), path, asked, method, content_length="1000")
    assert got == status and asked.read == 0 and headers["connection"] == "close"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": ""}, 401),
        ({"content_length": str(2**40)}, 413),
        ({"content_length": "-1"}, 413),
        ({"content_length": "1" * 10_000}, 413),
        ({"content_encoding": "gzip"}, 415),
    ],
)
def test_what_the_head_of_a_request_says_is_refused_before_its_body_is_read(
    headers: dict[str, str], status: int
) -> None:
    asked = Asked(b'{"numbers": [1]}')
    assert exchange(app("first"), "/v1/sum", asked, **{"content_length": "16", **headers})[0] == status
    assert asked.read == 0


def test_a_body_that_takes_too_long_or_breaks_off_is_refused_and_its_connection_ended() -> None:
    served = app("first", edge=Edge(body_timeout_s=0.2))
    slow = exchange(served, "/v1/sum", Asked(*(b" ",) * 100, pause_s=0.05), transfer_encoding="chunked")
    assert slow[0] == 408 and slow[1]["connection"] == "close"
    assert exchange(served, "/v1/sum", Asked(b'{"numbers"', ends=False))[0] == 400
    assert exchange(served, "/v1/sum", Asked(b'{"numbers"', b": [1]}"))[0] == 200


def test_bodies_of_one_key_that_are_at_work_are_bounded_together_and_others_are_not() -> None:
    async def together(keys: Iterable[str]) -> list[int]:
        sent: list[int] = []

        async def one(key: str) -> None:
            async def send(message: Any) -> None:
                if "status" in message:
                    sent.append(message["status"])

            scope = {
                "type": "http", "method": "POST", "path": "/v1/sum", "query_string": b"",
                "headers": [(b"content-type", b"application/json"), (b"authorization", f"Bearer {key}".encode())],
            }  # fmt: skip
            body = b'{"numbers": [504]}' + b" " * 60_000
            await served(scope, Asked(body[:9], body[9:], pause_s=0.05), send)

        await asyncio.gather(*map(one, keys))
        return sorted(sent)

    served = app("first", "second", timeout_s=0.5, edge=Edge(held_mb=0.1))
    for _ in range(2):  # what was at work is held no longer
        assert asyncio.run(together(["first"] * 4 + ["second"])) == [429, 429, 429, 504, 504]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST:8000", 200),
        ("mine.example", 200),
        ("mine.example:80", 200),
        ("", 403),
        ("localhost", 403),
        ("localhost:8001", 403),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("127.0.0.1:8000@evil.example", 403),
        ("mine.example.evil.example", 403),
    ],
)
def test_a_server_that_needs_no_key_answers_to_its_own_names_alone(host: str, status: int) -> None:
    served = app(names=("mine.example",))
    assert send_to(served, '{"numbers": [1]}', headers={"Host": host}).status_code == status
    assert send_to(served, "", "/health", "GET", {"Host": host}).status_code == status
    assert send_to(app("first"), '{"numbers": [1]}', headers={"Host": host, **KEY}).status_code == 200
    assert send_to(app(host="0.0.0.0", without_keys=True), "", "/health", "GET", {"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:8001"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 400),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 400),
        ({"Content-Type": "multipart/form-data"}, 400),
        ({"Content-Type": ""}, 400),
    ],
)
def test_a_page_from_elsewhere_cannot_use_a_server_that_needs_no_key(headers: dict[str, str], status: int) -> None:
    for spec in ({}, {"host": "0.0.0.0", "without_keys": True}):
        assert send_to(app(**spec), '{"numbers": [1]}', headers=headers).status_code == status


def test_tokens_that_are_used_up_leave_a_key_what_takes_none() -> None:
    served = app("first", tokens_per_minute=2, keys={})
    body = '{"numbers": [1, 2, 3], "stream": true}'
    assert [send_to(served, body, headers=KEY).status_code for _ in range(2)] == [200, 429]
    assert send_to(served, "", "/metrics", "GET", KEY).status_code == 200


def test_a_body_may_be_as_large_as_its_key_s_limit_says() -> None:
    served = app("small:first", max_body_mb=1, keys={"small": KeyLimits(max_body_mb=0.001)})
    assert exchange(served, "/v1/sum", Asked(b'{"numbers": [1]}', b" " * 2000))[0] == 413


def test_websockets_are_closed_at_once() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app("first")({"type": "websocket", "path": "/v1/sum", "headers": []}, Asked(), send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_state_is_looked_at_once_a_second_however_many_ask() -> None:
    looks = 0

    async def look() -> list[str]:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.02)
        return [str(looks)]

    async def ask() -> None:
        state = refreshed(look, every_s=0.2)
        assert await asyncio.gather(*(state() for _ in range(1000))) == [["1"]] * 1000
        await asyncio.sleep(0.25)
        assert await asyncio.gather(*(state() for _ in range(1000))) == [["2"]] * 1000

    asyncio.run(ask())
    assert looks == 2
