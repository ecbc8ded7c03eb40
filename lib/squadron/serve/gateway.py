"""The web application in front of services: keys, limits, and errors that say what was wrong.

It knows nothing of Ray: `ask(service, method, request)` brings a request to whoever answers it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from squadron import __version__
from squadron.core.errors import SquadronError
from squadron.serve.service import Route, Service
from squadron.serve.spec import ServeSpec

Ask = Callable[[str, str, BaseModel], Awaitable[BaseModel]]
_log = logging.getLogger("squadron.serve")
_OPEN_PATHS = frozenset({"/health", "/openapi.json", "/docs"})
_RETRY_AFTER_S = 1


class Busy(Exception):
    """As many requests wait as may."""


class Problem(BaseModel):
    """What was wrong with a request."""

    message: str
    type: str
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The form in which clients of OpenAI's interface expect errors too."""

    error: Problem


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": meaning}
    for status, meaning in {
        400: "not JSON",
        401: "no key, or a wrong one",
        413: "larger than this server takes",
        422: "a value that cannot be used",
        429: "too many requests wait; Retry-After says when to come again",
        500: "a mistake of the server's, which its log names by the code",
        504: "took too long",
    }.items()
}


def make_app(services: Sequence[Service], ask: Ask, spec: ServeSpec, digests: Sequence[bytes]) -> FastAPI:
    """The application that answers for these services. `digests` are those of the keys (`digest`); none: no key is
    asked for."""
    app = FastAPI(title="Squadron", version=__version__, redoc_url=None)
    for service in services:
        for route in service.routes:
            _add_route(app, service.name, route, ask, spec.timeout_s)

    @app.get("/health", summary="Whether the server is up, and what it serves")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "services": [service.name for service in services]}

    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(Exception)(_unforeseen)
    app.add_middleware(Guard, digests=tuple(digests), max_mb=spec.max_body_mb)
    return app


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def _add_route(app: FastAPI, service: str, route: Route, ask: Ask, timeout_s: float) -> None:
    async def answer(request: Any) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await ask(service, route.method, request)
        except Busy:
            return _error(429, "too many requests wait", "rate_limit_error", headers={"Retry-After": _RETRY_AFTER_S})
        except TimeoutError:
            return _error(504, f"no answer within {timeout_s:g} s", "timeout_error")
        except SquadronError as error:
            fix = f"; {error.fix}" if error.fix else ""
            return _error(422, f"{error.what}{fix}", "invalid_request_error")

    answer.__annotations__ = {"request": route.request, "return": route.response}
    security = [Security(HTTPBearer(auto_error=False))]
    app.post(
        route.path, summary=route.summary, responses=_ERRORS, dependencies=security, operation_id=route.path.strip("/")
    )(answer)


class Guard:
    """Turns away requests without a key and requests that are too large, before anything reads them."""

    def __init__(self, app: Any, digests: tuple[bytes, ...], max_mb: float) -> None:
        self._app, self._digests, self._max_mb, self._max_bytes = app, digests, max_mb, int(max_mb * 2**20)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not self._may_pass(scope["path"], headers.get(b"authorization", b"")):
            answer = _error(401, "no key, or a wrong one: send Authorization: Bearer KEY", "authentication_error")
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
            return
        body = await self._read(headers.get(b"content-length", b"0"), receive)
        if body is None:
            too_large = f"the request is larger than {self._max_mb:g} MB"
            await _error(413, too_large, "invalid_request_error")(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _may_pass(self, path: str, authorization: bytes) -> bool:
        """Compares with every key, each in the same time whatever was sent."""
        if not self._digests or path in _OPEN_PATHS:
            return True
        scheme, _, key = authorization.decode("latin-1").partition(" ")
        sent = digest(key.strip()) if scheme.lower() == "bearer" else b""
        return sum(hmac.compare_digest(known, sent) for known in self._digests) > 0

    async def _read(self, announced: bytes, receive: Any) -> bytes | None:
        """The body, or None if it is too large."""
        if announced.isdigit() and int(announced) > self._max_bytes:
            return None
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                return None
            more = message.get("more_body", False)
        return bytes(body)


def _replay(body: bytes, receive: Any) -> Callable[[], Awaitable[Any]]:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Any:
        return waiting.pop() if waiting else await receive()

    return read


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Says where and what, never repeats what was sent."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _error(400, f"not JSON: {first['ctx']['error']}", "invalid_request_error")
    more = f", and {len(error.errors()) - 1} more" if len(error.errors()) > 1 else ""
    if "json" not in request.headers.get("content-type", ""):
        return _error(422, "send JSON, and say so: Content-Type: application/json", "invalid_request_error")
    place = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return _error(422, f"{place}: {first['msg']}{more}", "invalid_request_error")


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), "invalid_request_error", headers=error.headers)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    code = uuid.uuid4().hex[:12]
    _log.error(json.dumps({"code": code, "path": request.url.path, "error": type(error).__name__}), exc_info=error)
    return _error(500, "something went wrong here; the server's log has more", "server_error", code=code)


def _error(status: int, message: str, kind: str, *, code: str | None = None, headers: Any = None) -> JSONResponse:
    content = ErrorAnswer(error=Problem(message=message, type=kind, code=code)).model_dump()
    return JSONResponse(content, status, {name: str(value) for name, value in (headers or {}).items()})
