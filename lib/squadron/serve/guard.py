"""What stands before everything else: whom a request is for, its key, its path, its rate and its size."""

from __future__ import annotations

import asyncio
import hmac
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.routing import BaseRoute, Match

from squadron.serve.auth_limits import Allowance, Key, digest
from squadron.serve.errors import error_response
from squadron.serve.same_site import wrong_site
from squadron.serve.spec import ServeSpec

OPEN_PATHS = frozenset({"/", "/health", "/ready", "/openapi.json"})
"""What needs no key: none of it tells what was asked, or by whom."""

ACCEPTED = "x-squadron-key"
"""A header by which HAProxy learns that a request had a key of the server's. Clients never see it."""


class Guard:
    """Turns away requests from pages elsewhere, without a key, to no route, of a key that has used its share, and those
    that are too large or too slow, before anything reads them. `scope["key"]` is the name of the key from here on.

    A request to any route that needs a key counts as one of the key's requests. One of which the body was not read ends
    its connection.
    """

    def __init__(
        self, app: Any, keys: tuple[Key, ...], spec: ServeSpec, routes: Sequence[BaseRoute], tokens: Allowance,
        pages: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._open = OPEN_PATHS | pages
        self._app, self._keys, self._spec, self._routes = app, keys, spec, routes
        self._requests = Allowance(lambda key: spec.limit("requests_per_minute", key))
        self._tokens = tokens
        self._held: Counter[str] = Counter()  # bytes of bodies, by key

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":  # there is none
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        key = self._find(headers.get(b"authorization", b""))
        scope["key"] = key or "anybody"
        refused = self._refusal(scope, headers, key)
        if key is not None and self._keys:
            send = _saying_accepted(send)
        if refused is not None:
            if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
                refused.headers["Connection"] = "close"
            await refused(scope, receive, send)
        elif scope["method"] == "POST":
            await self._with_body(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Any, headers: dict[bytes, bytes], key: str | None) -> Any:
        """What is wrong with a request, as far as its head says."""
        if not self._keys and (wrong := wrong_site(scope["method"], headers, self._spec)):
            return error_response(403, wrong, "permission_error")
        route, allowed = _find_route(self._routes, scope)
        if key is None and getattr(route, "path", None) not in self._open:
            said = "no key, or a wrong one: send Authorization: Bearer KEY"
            return error_response(401, said, "authentication_error", headers={"WWW-Authenticate": "Bearer"})
        if route is None:
            return error_response(404, "there is nothing here", "invalid_request_error")
        if scope["method"] not in allowed:
            said = f"send {' or '.join(sorted(allowed))} here"
            return error_response(405, said, "invalid_request_error", headers={"Allow": ", ".join(sorted(allowed))})
        if route.path not in self._open and (wait := self._wait(scope["key"], scope["method"])) > 0:
            said = f"this key has used its share; come again in {wait:.0f} s"
            return error_response(429, said, "rate_limit_error", headers={"Retry-After": math.ceil(wait)})
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            return error_response(415, "send the body as it is, without Content-Encoding", "invalid_request_error")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self._most(scope["key"]):
            return self._too_large(scope["key"])
        return None

    async def _with_body(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand on a request with its whole body, of which all that one key has sent is bounded."""
        key, body = scope["key"], bytearray()
        try:
            async with asyncio.timeout(self._spec.edge.body_timeout_s):
                refused = await self._read(key, receive, body)
        except TimeoutError:
            seconds = f"{self._spec.edge.body_timeout_s:g} s"
            refused = error_response(408, f"the request took longer than {seconds} to arrive", "timeout_error")
        try:
            if refused is None:
                await self._app(scope, _replay(body, receive), send)
            else:
                refused.headers["Connection"] = "close"
                await refused(scope, receive, send)
        finally:
            self._held[key] -= len(body)
            if not self._held[key]:
                del self._held[key]

    async def _read(self, key: str, receive: Any, body: bytearray) -> Any:
        """Read the body, and count it as held; what to answer if that cannot be."""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return error_response(400, "the request was cut short", "invalid_request_error")
            part = message.get("body", b"")
            body += part
            self._held[key] += len(part)
            if len(body) > self._most(key):
                return self._too_large(key)
            if self._held[key] > self._spec.edge.held_mb * 2**20:
                said = f"more than {self._spec.edge.held_mb:g} MB of requests of this key are at work"
                return error_response(429, said, "rate_limit_error", headers={"Retry-After": 1})
            more = message.get("more_body", False)
        return None

    def _most(self, key: str) -> int:
        return int(self._spec.limit("max_body_mb", key) * 2**20)

    def _too_large(self, key: str) -> Any:
        said = f"the request is larger than {self._spec.limit('max_body_mb', key):g} MB"
        return error_response(413, said, "invalid_request_error")

    def _find(self, authorization: bytes) -> str | None:
        """The name of the key that was sent. Compares with every key, each in the same time whatever was sent."""
        if not self._keys:
            return "anybody"
        scheme, _, key = authorization.decode("latin-1").partition(" ")
        sent = digest(key.strip()) if scheme.lower() == "bearer" else b""
        found = [known.name for known in self._keys if hmac.compare_digest(known.digest, sent)]
        return found[0] if found else None

    def _wait(self, key: str, method: str) -> float:
        """Seconds until a key may send its next request; 0: now, and it counts. Only work takes tokens."""
        wait = max(self._requests.wait_s(key), self._tokens.wait_s(key) if method == "POST" else 0)
        if wait == 0:
            self._requests.use(key)
        return wait


def _find_route(routes: Sequence[BaseRoute], scope: Any) -> tuple[Any, set[str]]:
    """The route that a request goes to, by the rules of the router itself, and the methods that its path has."""
    found, methods = None, set[str]()
    for route in routes:
        match, _ = route.matches(scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
            found = route if found is None or match is Match.FULL else found
    return found, methods


def _saying_accepted(send: Any) -> Callable[[Any], Awaitable[None]]:
    """Tell HAProxy that the key is one of the server's: it lets it through where it turns others away."""

    async def note(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (ACCEPTED.encode(), b"1")]}
        await send(message)

    return note


def _replay(body: bytearray, receive: Any) -> Callable[[], Awaitable[Any]]:
    waiting = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def read() -> Any:
        return waiting.pop() if waiting else await receive()

    return read
