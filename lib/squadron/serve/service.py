"""What a method offers to a server: what to load, and which requests it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from squadron.core.profile import WorkerResources


@dataclass(frozen=True)
class Route:
    """Requests to `path` go to `method` of what the service has loaded, which takes and returns these records."""

    path: str
    method: str
    request: type[BaseModel]
    response: type[BaseModel]
    summary: str


@dataclass(frozen=True)
class Service:
    """`build` loads what answers, on a replica; it and all that it needs must be picklable."""

    name: str
    build: Callable[[], Any]
    routes: tuple[Route, ...]
    resources: WorkerResources = field(default_factory=WorkerResources)


@dataclass(frozen=True)
class Services:
    """What one run offers, behind one address."""

    services: tuple[Service, ...]

    def serve(self, settings: Sequence[str], address: str | None) -> None:
        """Answer requests by these `key=value` settings of `ServeSpec` until interrupted or terminated."""
        from squadron.core.config import load_config
        from squadron.serve.serving import serve_until_ended
        from squadron.serve.spec import ServeSpec

        serve_until_ended(self.services, load_config(ServeSpec, overrides=settings), address)
