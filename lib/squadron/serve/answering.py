"""One request from its admission to the end of its answer: what it may cost is reserved before, and it ends when its
time is over or its client has gone."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from squadron.core.errors import InputError, SquadronError
from squadron.serve import openai
from squadron.serve.admission import Busy
from squadron.serve.errors import error_response, unforeseen
from squadron.serve.front import Front
from squadron.serve.service import Context, Event, Route, Service

_RETRY_AFTER_S = 1
_GONE = 499
"""What is noted where a client has gone before there was an answer, as nginx does."""


class _Gone(Exception):
    """The client waits no longer."""


class _UsedUp(Exception):
    """A key has used its tokens: seconds until it has enough again."""


_REFUSED = (Busy, _UsedUp, TimeoutError, SquadronError)


async def answer_whole(front: Front, service: Service, route: Route, request: BaseModel, http: Request) -> Any:
    """The answer, or why there is none."""
    try:
        async with asyncio.timeout(front.spec.timeout_s), _admitted(front, service, route, request, http) as bill:
            asked = front.asker.ask(service.name, route.method, request, http.scope["key"])
            answer = await _while_present(http, asked)
            used = getattr(answer, "usage", None)
            bill.settle(*((used.prompt_tokens, used.completion_tokens) if isinstance(used, openai.Usage) else ()))
    except _Gone:
        return Response(status_code=_GONE)
    except _REFUSED as error:
        return _refusal(error, front)
    front.log(http.scope, request, answer)
    return answer


async def answer_in_parts(front: Front, service: Service, route: Route, request: BaseModel, http: Request) -> Any:
    """The answer as server-sent events. What is wrong before its first part is an ordinary error."""
    assert route.stream is not None
    context = Context(
        openai.new_id("stream"), openai.now(), secrets.randbelow(2**63), client=http.scope["key"]
    )  # fmt: skip
    parts = front.asker.stream(service.name, route.stream, request, context)
    async with contextlib.AsyncExitStack() as held:
        try:
            async with asyncio.timeout(front.spec.timeout_s):
                bill = await held.enter_async_context(_admitted(front, service, route, request, http))
                held.push_async_callback(parts.aclose)  # type: ignore[attr-defined]
                first = await _while_present(http, anext(parts))  # type: ignore[arg-type]
        except _Gone:
            return Response(status_code=_GONE)
        except _REFUSED as error:
            return _refusal(error, front)
        return _Streamed(_events(front, first, parts, bill, http), held.pop_all())


class _Streamed(StreamingResponse):
    """A stream of events that gives back what it holds, also if nobody reads it."""

    def __init__(self, events: AsyncIterator[str], held: contextlib.AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._held = held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def _events(
    front: Front, first: list[Event], parts: AsyncIterator[list[Event]], bill: _Bill, http: Request
) -> AsyncIterator[str]:
    last = first[-1]
    try:
        async with asyncio.timeout(front.spec.timeout_s):
            async for some in _after(first, parts):
                last = some[-1]
                yield "".join(f"data: {event.data}\n\n" for event in some)
        yield "data: [DONE]\n\n"
    except Exception as error:  # the status has been sent: the rest is told in the stream
        yield f"data: {bytes(_told(error, http, front).body).decode()}\n\n"
    finally:  # also what was written for somebody who has gone
        bill.settle(last.prompt_tokens, last.completion_tokens)


async def _after(first: list[Event], rest: AsyncIterator[list[Event]]) -> AsyncIterator[list[Event]]:
    yield first
    async for some in rest:
        yield some


class _Bill:
    """Tokens that a request may take are used when it begins; what it has taken is known when it ends. Of one that was
    given up they stay used: nobody knows how far it came."""

    def __init__(self, front: Front, scope: Any, tokens: int) -> None:
        self._front, self._scope, self._reserved = front, scope, tokens
        if (wait_s := front.tokens.wait_s(scope["key"], tokens)) > 0:
            raise _UsedUp(wait_s)
        front.tokens.use(scope["key"], tokens)

    def settle(self, prompt: int | None = None, completion: int = 0) -> None:
        """So many were read and written; None: as many as were reserved."""
        prompt = self._reserved if prompt is None else prompt
        self._front.tokens.use(self._scope["key"], -self._reserved)
        self._reserved = 0
        self._front.charge(self._scope, prompt, completion)


@contextlib.asynccontextmanager
async def _admitted(
    front: Front, service: Service, route: Route, request: BaseModel, http: Request
) -> AsyncIterator[_Bill]:
    """Be at work, with what the request may take reserved. Raises InputError for one that is too much at any time."""
    units = 1 if route.work is None else route.work(request)
    if service.capacity is not None and units > service.capacity:
        what = f"the request takes up to {units:,} {service.unit}; {service.name} takes at most {service.capacity:,}"
        raise InputError(what, fix="send it in parts, or ask for less")
    key = http.scope["key"]
    bill = _Bill(front, http.scope, 0 if route.tokens is None else route.tokens(request))
    try:
        async with front.admissions[service.name].enter(key, units):
            yield bill
    except (Busy, SquadronError):
        bill.settle(0, 0)
        raise


async def _while_present(http: Request, answer: Coroutine[Any, Any, Any]) -> Any:
    """The answer, unless the client goes. Raises _Gone then."""
    working, watching = asyncio.ensure_future(answer), asyncio.create_task(_gone(http))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _Gone
        return working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _told(error: Exception, http: Request, front: Front) -> Any:
    """What is said of an error amid a stream."""
    if isinstance(error, _REFUSED):
        return _refusal(error, front)
    message, code = unforeseen(http.url.path, error)
    return error_response(500, message, "server_error", code=code)


def _refusal(error: Exception, front: Front) -> Any:
    if isinstance(error, Busy):
        headers = {"Retry-After": _RETRY_AFTER_S}
        return error_response(429, "too many requests wait", "rate_limit_error", headers=headers)
    if isinstance(error, _UsedUp):
        headers = {"Retry-After": math.ceil(error.args[0])}
        said = f"this key has used its tokens; come again in {error.args[0]:.0f} s, or ask for less"
        return error_response(429, said, "rate_limit_error", headers=headers)
    if isinstance(error, TimeoutError):
        return error_response(504, f"no answer within {front.spec.timeout_s:g} s", "timeout_error")
    assert isinstance(error, SquadronError)
    message = error.what + (f"; {error.fix}" if error.fix else "")
    code = getattr(error, "code", "invalid_value")
    return error_response(400, message, "invalid_request_error", param=error.where or None, code=code)
