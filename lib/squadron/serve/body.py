"""The one way in for what clients send: the body of a request, as a JSON value that every part can hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

MOST_NESTED = 100
"""Lists and objects within one another. A schema of OpenAI's ten levels has some 30."""
MOST_PARTS = 50_000
"""Lists, objects and keys of a body. 4,096 messages of two parts each have some 45,000; what is sent to be read slowly
has a million."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_INFINITY = float("inf")


class BadBody(HTTPException):
    """A body that is no such JSON: what is wrong, and at which parameter."""

    def __init__(self, what: str, param: str | None = None, code: str = "invalid_json") -> None:
        super().__init__(400, what)
        self.param, self.code = param, code


class CheckedRoute(APIRoute):
    """A route whose requests are read by `read_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_checked(request: Request) -> Response:
            return await handle(_CheckedRequest(request.scope, request.receive))

        return handle_checked


class _CheckedRequest(Request):
    async def json(self) -> Any:
        return read_json(await self.body())


def read_json(body: bytes) -> Any:
    """The value of a body in UTF-8.

    Raises BadBody for text that is no JSON (RFC 8259) or has a key twice in one object; for numbers beyond a double and
    texts with half a surrogate pair, which cannot be handed on; for what is nested more than `MOST_NESTED` deep, or has
    more than `MOST_PARTS` lists, objects and keys.
    """
    if (parts := _count_parts(body)) > MOST_PARTS:
        raise BadBody(f"{parts:,} lists, objects and keys; {MOST_PARTS:,} are read at most", code="invalid_value")
    try:
        value = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise BadBody(f"not JSON in UTF-8: byte {error.start} begins no character") from None
    except json.JSONDecodeError as error:
        raise BadBody(f"not JSON: {error.msg}, line {error.lineno} column {error.colno}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise BadBody(f"not JSON that can be read: {error}") from None
    except RecursionError:
        raise BadBody(_TOO_DEEP) from None
    _check(value, has_halves=_ESCAPED_HALF.search(body) is not None)
    return value


_TOO_DEEP = f"lists and objects are nested more than {MOST_NESTED} deep"


def _count_parts(body: bytes) -> int:
    """Lists, objects and keys, before any is made. Exact where there are many: texts do not count."""
    signs = (b"[", b"{", b":")
    if (most := sum(map(body.count, signs))) <= MOST_PARTS:
        return most
    bare = _STRING.sub(b"", body)
    return sum(map(bare.count, signs))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BadBody(f"the key {twice!r:.80} stands twice in one object", code="invalid_value")
    return found


def _no_constant(name: str) -> Any:
    raise BadBody(f"not JSON: there is no {name} in it")


def _check(value: Any, has_halves: bool) -> None:
    """Raise BadBody for the first value that cannot be handed on; only with `has_halves` texts are looked at. Without
    recursion: the value may be deep."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), [value])]
    while waiting:
        place, container = waiting.pop()
        if len(place) > MOST_NESTED:
            raise BadBody(_TOO_DEEP, ".".join(place[1:4]), "invalid_value")
        values = container.values() if isinstance(container, dict) else container
        if has_halves or _INFINITY in values or -_INFINITY in values:
            _check_each(place, container)
        for key, part in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(part, dict | list):
                waiting.append(((*place, str(key)), part))


def _check_each(place: tuple[str, ...], container: Any) -> None:
    for key, part in container.items() if isinstance(container, dict) else enumerate(container):
        if wrong := _wrong(key) or _wrong(part):
            param = ".".join((*place, str(key))[1:]).encode(errors="replace").decode()
            raise BadBody(f"{param or 'the body'}: {wrong}", param or None, "invalid_value")


def _wrong(value: Any) -> str:
    """What is wrong with a text or a number; "" for nothing."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "half a surrogate pair is no character"
    elif isinstance(value, float) and not math.isfinite(value):
        return "the number is larger than can be held"
    return ""
