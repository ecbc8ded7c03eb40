"""What stands before everything else: keys, sizes and rates."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from squadron.serve.errors import error_response

OPEN_PATHS = frozenset({"/", "/health", "/ready", "/openapi.json"})
"""What needs no key: none of it tells what was asked, or by whom."""
_NAMED = re.compile(r"([A-Za-z0-9_.-]{1,64}):(.+)")


@dataclass(frozen=True)
class Key:
    """What is kept of a key, and what logs and limits call it."""

    name: str
    digest: bytes


def read_key(text: str) -> Key:
    """A key by what stands in the environment: `name:key`, or a key, whose name is the beginning of its digest."""
    named = _NAMED.fullmatch(text)
    known = digest(named[2] if named else text)
    return Key(named[1] if named else known.hex()[:8], known)


def digest(key: str) -> bytes:
    """What tells a key from others, and does not tell it."""
    return hashlib.sha256(key.encode()).digest()


class Allowance:
    """How much each key may still use. It fills up evenly, to one minute's worth; what is used beyond it is owed."""

    def __init__(self, per_minute: Callable[[str], float | None], clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` gives the rate of a key; None: no limit."""
        self._per_minute, self._clock = per_minute, clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait_s(self, key: str, amount: float = 1.0) -> float:
        """Seconds until a key may use `amount`, or what it can ever have; 0: now."""
        rate = self._per_minute(key)
        return 0.0 if rate is None else max(0.0, (min(amount, rate) - self._now(key, rate)) * 60 / rate)

    def use(self, key: str, amount: float = 1.0) -> None:
        """Note what a key has used."""
        if (rate := self._per_minute(key)) is not None:
            self._left[key] = (self._now(key, rate) - amount, self._clock())

    def _now(self, key: str, rate: float) -> float:
        left, at = self._left.get(key, (rate, self._clock()))
        return min(rate, left + (self._clock() - at) * rate / 60)


class Guard:
    """Turns away requests without a key, of a key that has used its share, and those that are too large, before
    anything reads them. `scope["key"]` is the name of the key from here on."""

    def __init__(
        self, app: Any, keys: tuple[Key, ...], max_mb: Callable[[str], float], requests: Allowance, tokens: Allowance
    ) -> None:
        self._app, self._keys, self._max_mb = app, keys, max_mb
        self._requests, self._tokens = requests, tokens

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        key = self._find(headers.get(b"authorization", b""))
        if key is None and scope["path"] not in OPEN_PATHS:
            answer = error_response(
                401, "no key, or a wrong one: send Authorization: Bearer KEY", "authentication_error"
            )
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
            return
        scope["key"] = key or "anybody"
        if scope["path"].startswith("/v1/") and (wait := self._wait(scope["key"])) > 0:
            said = f"this key has used its share; come again in {wait:.0f} s"
            headers_ = {"Retry-After": math.ceil(wait)}
            await error_response(429, said, "rate_limit_error", headers=headers_)(scope, receive, send)
            return
        max_mb = self._max_mb(scope["key"])
        body = await _read(headers.get(b"content-length", b"0"), receive, int(max_mb * 2**20))
        if body is None:
            too_large = f"the request is larger than {max_mb:g} MB"
            await error_response(413, too_large, "invalid_request_error")(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _find(self, authorization: bytes) -> str | None:
        """The name of the key that was sent. Compares with every key, each in the same time whatever was sent."""
        if not self._keys:
            return "anybody"
        scheme, _, key = authorization.decode("latin-1").partition(" ")
        sent = digest(key.strip()) if scheme.lower() == "bearer" else b""
        found = [known.name for known in self._keys if hmac.compare_digest(known.digest, sent)]
        return found[0] if found else None

    def _wait(self, key: str) -> float:
        wait = max(self._requests.wait_s(key), self._tokens.wait_s(key))
        if wait == 0:
            self._requests.use(key)
        return wait


async def _read(announced: bytes, receive: Any, most: int) -> bytes | None:
    """The body, or None if it has more than `most` bytes."""
    if announced.isdigit() and int(announced) > most:
        return None
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        if len(body) > most:
            return None
        more = message.get("more_body", False)
    return bytes(body)


def _replay(body: bytes, receive: Any) -> Callable[[], Awaitable[Any]]:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Any:
        return waiting.pop() if waiting else await receive()

    return read
