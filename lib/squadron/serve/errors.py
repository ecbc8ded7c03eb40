"""What is answered where nothing can be: the form in which clients of OpenAI's interface expect errors."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from squadron.serve.body import BadBody

_log = logging.getLogger("squadron.serve")


class Problem(BaseModel):
    """What was wrong with a request."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """What was wrong, as OpenAI's interface says it."""

    error: Problem


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": meaning}
    for status, meaning in {
        400: "not JSON, or a value that cannot be used; `param` names it",
        401: "no key, or a wrong one",
        403: "from a web page of another site, or for a server of another name, where no key is needed",
        404: "no such model",
        408: "took too long to arrive",
        413: "larger than this server takes",
        415: "a body that is packed",
        429: "too many requests wait, or this key has used its share; Retry-After says when to come again",
        500: "a mistake of the server's, which its log names by the code",
        504: "took too long",
    }.items()
}


def error_response(
    status: int, message: str, kind: str, *, param: str | None = None, code: str | None = None, headers: Any = None
) -> JSONResponse:
    """An error as an answer."""
    content = ErrorAnswer(error=Problem(message=message, type=kind, param=param, code=code)).model_dump()
    return JSONResponse(content, status, {name: str(value) for name, value in (headers or {}).items()})


def handle_errors(app: FastAPI) -> None:
    """Let an application answer in this form whatever goes wrong in it."""
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(Exception)(_unforeseen)


def unforeseen(path: str, error: BaseException) -> tuple[str, str]:
    """Log a mistake of the server's; what is said of it, and the code by which the log is searched."""
    code = uuid.uuid4().hex[:12]
    _log.error(json.dumps({"code": code, "path": path, "error": type(error).__name__}), exc_info=error)
    return "something went wrong here; the server's log has more", code


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Says where and what, never repeats what was sent. Where OpenAI's clients look for 400, FastAPI says 422."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if "json" not in request.headers.get("content-type", ""):
        return error_response(400, "send JSON, and say so: Content-Type: application/json", "invalid_request_error")
    more = f", and {len(error.errors()) - 1} more" if len(error.errors()) > 1 else ""
    place = ".".join(str(part) for part in first["loc"][1:] if part not in _TYPES and "[" not in str(part))
    param = first.get("ctx", {}).get("param") or place or None
    code = _CODES.get(first["type"], "invalid_type" if first["type"].endswith("_type") else "invalid_value")
    message = f"{param or 'the request'}: {first['msg']}{more}"
    return error_response(400, message, "invalid_request_error", param=param, code=code)


_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "unsupported_parameter": "unsupported_parameter",
    "missing_required_parameter": "missing_required_parameter",
}
"""OpenAI's codes by pydantic's types of errors."""
_TYPES = {"str", "int", "float", "bool"}
"""By which pydantic tells the members of a union apart."""


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    named: dict[str, Any] = {"param": error.param, "code": error.code} if isinstance(error, BadBody) else {}
    return error_response(error.status_code, str(error.detail), "invalid_request_error", headers=error.headers, **named)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    message, code = unforeseen(request.url.path, error)
    return error_response(500, message, "server_error", code=code)
