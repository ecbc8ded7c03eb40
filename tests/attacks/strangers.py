"""Attacks without a key: what anybody who reaches the server can send."""

from __future__ import annotations

from tests.attacks.attack import (
    ACT,
    CHAT,
    EMBED,
    PLAN,
    Act,
    Attack,
    Attacker,
    ask,
    attack,
    chat,
    post,
)
from tests.attacks.connections import REFUSED
from tests.attacks.wire import request


def _headers(*values: bytes, path: str = "/v1/models", name: bytes = b"Authorization") -> Act:
    """A request with each of these as a header."""

    async def act(attacker: Attacker) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n".encode()
        await attacker.together(attacker.raw(head + name + b": " + value + b"\r\n\r\n") for value in values)

    return act


async def _guesses(attacker: Attacker) -> None:
    async def some(start: int) -> None:
        for number in range(60):
            await attacker.send("POST", CHAT, chat(), key=f"guess {start + number}")

    await attacker.together(some(60 * batch) for batch in attacker.times(16))


async def _methods(attacker: Attacker) -> None:
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "HEAD", "PROPFIND", "get"):
        for path in ("/", "/health", CHAT, "/v1/models", "*"):
            await attacker.raw(request(method, path, {"Connection": "close"}))


async def _paths(attacker: Attacker) -> None:
    paths = [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/../../stats",
        "//",
        "/v1//chat/completions",
        "/.env",
        "/docs",
        "/redoc",
        "/-/healthz",
        "/-/routes",
        "/static/..%2f..%2fetc/passwd",
        "/%00",
        "/%ff%fe",
        "/v1/models/" + "%41" * 5000,
        "/tiny/v1/chat/completions",
        "/flame/v1/act",
        "/api/serve/applications/",
        "/;/",
        "/?",
    ]
    await attacker.together(attacker.send("GET", path, key=None) for path in paths)


_BIG = b"x" * (32 * 2**20)

ATTACKS: tuple[Attack, ...] = (
    attack("1,000 wrong keys", _guesses, "401 429"),
    attack(
        "odd Authorization headers",
        _headers(
            b"",
            b"Bearer",
            b"Bearer ",
            b"bearer  \t",
            b"Basic dTpw",
            b"Bearer " + b"a" * 4000,
            b"Bearer \xff\xfe",
            b"Bearer null",
            b"Bearer a, Bearer b",
            b"Digest username=a",
            b"\xc3\xa9",
            b"Bearer \xe2\x80\xae",
            b"a" * 4000,
        ),
        "400 401 431 429",
    ),
    attack("an Authorization of 60 kB", _headers(*[b"Bearer " + b"a" * 60_000] * 50), "400 401 431 429 closed"),
    attack(
        "an X-Request-Id of 60 kB",
        _headers(*[b"a" * 60_000] * 50, path="/health", name=b"X-Request-Id"),
        REFUSED + " 200",
    ),
    attack(
        "an X-Request-Id with line ends and quotes",
        _headers(
            b'a"b',
            b"a%0d%0aSet-Cookie: a",
            b"\x1b[31m",
            b"\xff\xfe",
            b"a\tb",
            b"{}",
            path="/health",
            name=b"X-Request-Id",
        ),
        REFUSED + " 200",
    ),
    attack(
        "Hosts from elsewhere",
        _headers(
            b"evil.example",
            b"127.0.0.1.evil.example",
            b"[::1",
            b"",
            b"a" * 4000,
            b"a b",
            path="/health",
            name=b"X-Forwarded-Host",
        ),
        REFUSED + " 200",
    ),
    attack(
        "Origins from elsewhere",
        _headers(b"http://evil.example", b"null", b"file://", path="/health", name=b"Origin"),
        REFUSED + " 200",
    ),
    attack(
        "forwarded addresses",
        _headers(b"127.0.0.1", b"127.0.0.1, 10.0.0.1", b"a" * 4000, path="/stats", name=b"X-Forwarded-For"),
        "401 400 431 429",
    ),
    attack("cookies of 4 kB", _headers(*[b"a=b; " * 800] * 50, path="/", name=b"Cookie"), "200 400 429 431"),
    attack("all methods everywhere", _methods, "200 204 400 401 403 404 405 429 501 closed"),
    attack("paths from elsewhere", _paths, "200 400 401 404 405 414 429"),
    attack("1,000 unknown paths", ask("GET", "/unknown", times=1000), "401 404 429 503 closed"),
    attack("1,000 times /ready", ask("GET", "/ready", times=1000), "200 429 503 closed"),
    attack("1,000 times /health", ask("GET", "/health", times=1000), "200 429 503 closed"),
    attack("1,000 times /openapi.json", ask("GET", "/openapi.json", times=1000), "200 429 503 closed"),
    attack("1,000 times the page", ask("GET", "/", times=1000), "200 429 503 closed"),
    attack("500 times /metrics", ask("GET", "/metrics", times=500), "401 429 503 closed"),
    attack("bodies of 32 MB without a key", post(CHAT, _BIG, times=4, key=None), "401 413 429 closed"),
    attack("bodies of 32 MB at a page", post("/health", _BIG, times=4, key=None), "401 405 413 429 closed"),
    attack("bodies of 32 MB at /ready", post("/ready", _BIG, times=4, key=None), "401 405 413 429 closed"),
    attack("500 chats without a key", post(CHAT, chat(), times=500, key=None), "401 429 503 closed"),
    attack("plans without a key", post(PLAN, {}, times=20, key=None), "401 429"),
    attack("embeddings with a key in the query", post(EMBED + "?api_key=a&key=a", {}, key=None), "401"),
    attack("actions with two keys", post(ACT, {}, key=None, Authorization="Bearer a,the-attackers-key"), "401"),
)
