"""The web application in front of services. It knows nothing of Ray: an `Asker` brings requests to those who answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Security
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer

from squadron import __version__
from squadron.serve import openai
from squadron.serve.answering import answer_in_parts, answer_whole
from squadron.serve.auth_limits import Key
from squadron.serve.body import CheckedRoute
from squadron.serve.errors import ERRORS, error_response, handle_errors
from squadron.serve.front import Asker, Front, refreshed
from squadron.serve.guard import Guard
from squadron.serve.metrics import Metered
from squadron.serve.page import render
from squadron.serve.service import Page, Route, Service, pages, paths
from squadron.serve.spec import ServeSpec


def make_app(services: Sequence[Service], asker: Asker, spec: ServeSpec, keys: Sequence[Key]) -> FastAPI:
    """The application that answers for these services, to who presents one of the keys; none: to anybody."""
    front = Front(services, asker, spec, several=len(keys) > 1)
    app = _Application(title="Squadron", version=__version__, redoc_url=None, docs_url=None)
    app.router.route_class = CheckedRoute
    app.router.redirect_slashes = False
    for path, several in paths(services).items():
        _add_route(app, path, several, front)
    for path, page in pages(services).items():
        _add_page(app, path, page)
    _add_own_routes(app, front)
    handle_errors(app)
    app.add_middleware(Guard, keys=tuple(keys), spec=spec, routes=app.router.routes, tokens=front.tokens,
        pages=frozenset(pages(services)),
    )  # fmt: skip
    app.add_middleware(Metered, meter=front.meter)
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's document, without the 422 that it writes down for itself: what is wrong is answered with 400."""
        if self.openapi_schema:
            return self.openapi_schema
        document = super().openapi()
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        return document


def _add_own_routes(app: FastAPI, front: Front) -> None:
    security = [Security(HTTPBearer(auto_error=False))]
    names = [service.name for service in front.services]
    waiting_for, shown = refreshed(front.asker.ready), render(front.services)
    common: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (401, 429, 500)}

    @app.get("/health", summary="Whether the server is up, and what it serves")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "services": names}

    @app.get("/ready", summary="Whether every service answers", responses={503: {"description": "not yet"}})
    async def ready(response: Response) -> dict[str, Any]:
        missing = await waiting_for()
        response.status_code = 503 if missing else 200
        return {"ready": not missing, "waiting_for": missing}

    @app.get(
        "/metrics", summary="Metrics for Prometheus", dependencies=security,
        responses=common | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )  # fmt: skip
    async def metrics() -> Response:
        return PlainTextResponse(front.meter.text(), media_type="text/plain; version=0.0.4")

    @app.get("/stats", summary="Requests by path", dependencies=security, responses=common)
    async def stats() -> list[dict[str, Any]]:
        return front.meter.summary()

    @app.get("/", summary="A page to try it", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        return HTMLResponse(shown, headers={"Content-Security-Policy": _POLICY})

    models = [openai.ModelCard(id=model) for service in front.services for model in service.models]

    @app.get("/v1/models", summary="What is served under the name of a model", dependencies=security, responses=common)
    async def list_models() -> openai.ModelList:
        return openai.ModelList(data=models)

    @app.get(
        "/v1/models/{model:path}", summary="One of them", dependencies=security, response_model=openai.ModelCard,
        responses=common | {400: ERRORS[400], 404: ERRORS[404]},
    )  # fmt: skip
    async def find_model(model: str) -> Any:
        return next((card for card in models if card.id == model), _no_such_model(model))


_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


def _add_route(app: FastAPI, path: str, several: list[tuple[Service, Route]], front: Front) -> None:
    first = several[0][1]

    async def answer(http: Request, request: Any) -> Any:
        service, route = several[0]
        if "model" in first.request.model_fields:
            found = [pair for pair in several if request.model in pair[0].models]
            if not found:
                return _no_such_model(request.model)
            service, route = found[0]
        most = front.spec.limit("max_tokens", http.scope["key"])
        if (refused := _too_long(request, most)) is not None:
            return refused
        request = _capped(request, most)
        front.log(http.scope, request)
        if route.stream is not None and getattr(request, "stream", False):
            return await answer_in_parts(front, service, route, request, http)
        return await answer_whole(front, service, route, request, http)

    answer.__annotations__ = {"http": Request, "request": first.request, "return": first.response}
    errors = {
        status: error for status, error in ERRORS.items() if status != 404 or "model" in first.request.model_fields
    }
    streamed = {"content": {"text/event-stream": {"schema": _EVENT}}} if first.stream else {}
    app.post(
        path, summary=first.summary, dependencies=[Security(HTTPBearer(auto_error=False))],
        responses=errors | ({200: streamed} if streamed else {}),
        operation_id=path.strip("/").replace("/", "_"),
    )(answer)  # fmt: skip


def _add_page(app: FastAPI, path: str, page: Page) -> None:
    async def show() -> HTMLResponse:
        return HTMLResponse(page.html, headers={"Content-Security-Policy": _POLICY})

    app.get(path, summary=page.summary, response_class=HTMLResponse, operation_id=path.strip("/").replace("/", "_"))(
        show
    )


def _too_long(request: Any, most: int | None) -> Any:
    """The refusal of a request for a longer answer than this server gives."""
    asked = _tokens_asked(request)
    if most is None or asked is None or asked <= most:
        return None
    said = f"max_tokens: at most {most:,} here"
    return error_response(400, said, "invalid_request_error", param="max_tokens", code="invalid_value")


def _capped(request: Any, most: int | None) -> Any:
    """The request, with the longest answer that this server gives where it asks for no length."""
    if most is None or "max_tokens" not in type(request).model_fields or _tokens_asked(request) is not None:
        return request
    return request.model_copy(update={"max_tokens": min(request.max_tokens or most, most)})


def _tokens_asked(request: Any) -> int | None:
    names = [name for name in ("max_completion_tokens", "max_tokens") if name in request.model_fields_set]
    return next((tokens for name in names if (tokens := getattr(request, name)) is not None), None)


def _no_such_model(model: str) -> Any:
    said = f"no model called {model!r} is served here; GET /v1/models lists those that are"
    return error_response(404, said, "invalid_request_error", param="model", code="model_not_found")
