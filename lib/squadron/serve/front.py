"""What all requests share: who answers them, what may be at work, what has been used."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from squadron.serve.admission import Admission
from squadron.serve.auth_limits import Allowance
from squadron.serve.metrics import Meter
from squadron.serve.service import Context, Event, Service, pages, paths
from squadron.serve.spec import ServeSpec

_State = TypeVar("_State")


class Asker(Protocol):
    """Brings requests to services."""

    async def ask(self, service: str, method: str, request: BaseModel, client: str) -> BaseModel:
        """The answer. Raises Busy, and SquadronError for a request that cannot be answered."""

    def stream(self, service: str, method: str, request: BaseModel, context: Context) -> AsyncIterator[list[Event]]:
        """The answer in parts. Raises as `ask` does."""

    async def ready(self) -> list[str]:
        """Services that do not answer."""


class Front:
    """What all routes of the application share."""

    def __init__(self, services: Sequence[Service], asker: Asker, spec: ServeSpec, several: bool) -> None:
        self.services, self.asker, self.spec = services, asker, spec
        self.admissions = {service.name: _admission(service, spec, several) for service in services}
        self.tokens = Allowance(partial(spec.limit, "tokens_per_minute"))
        self.meter = Meter(
            [*paths(services), *pages(services), "/v1/models", "/health", "/ready", "/metrics", "/stats", "/"]
        )

    def charge(self, scope: Any, prompt: int, completion: int) -> None:
        """Note what an answer took."""
        self.tokens.use(scope.get("key", ""), prompt + completion)
        self.meter.count_tokens(prompt, completion)
        scope["told"] |= {"prompt_tokens": prompt, "completion_tokens": completion}

    def log(self, scope: Any, request: BaseModel, answer: BaseModel | None = None) -> None:
        """Keep what was asked and answered for the log, if it is to be there."""
        if self.spec.log_prompts:
            scope["told"]["request"] = request.model_dump(mode="json", exclude_unset=True)
            if answer is not None:
                scope["told"]["answer"] = answer.model_dump(mode="json")


def refreshed(look: Callable[[], Awaitable[_State]], every_s: float = 1.0) -> Callable[[], Awaitable[_State]]:
    """What `look` finds, looked at again at most once in so many seconds, however many ask."""
    lock, found, at = asyncio.Lock(), None, -math.inf

    async def state() -> _State:
        nonlocal found, at
        async with lock:
            if found is None or time.monotonic() - at >= every_s:
                found, at = await look(), time.monotonic()
        return found

    return state


def _admission(service: Service, spec: ServeSpec, several: bool) -> Admission:
    """How much of this service is let in, of `several` clients, by the replicas that there may be."""
    replicas = spec.autoscaling.max_replicas if spec.autoscaling else spec.replicas
    most = parallel(service, spec)
    return Admission(most * replicas, (service.capacity or most) * replicas, spec.queue, several)


def parallel(service: Service, spec: ServeSpec) -> int:
    """How many requests one replica of a service works on."""
    by_vllm = service.by_vllm is not None and spec.engine != "own" and importlib.util.find_spec("vllm") is not None
    return spec.max_parallel or (spec.vllm.max_parallel if by_vllm else service.max_parallel)
