"""What a method offers to a server: what to load, and which requests it answers."""

from __future__ import annotations

from collections.abc import Callable
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
