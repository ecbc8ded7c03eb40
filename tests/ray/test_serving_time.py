"""Time is enforced: what nobody waits for any more ends, down to the step, and the worker is idle again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import pytest

from squadron.core.config import Config
from squadron.core.profile import WorkerResources
from squadron.core.work import in_thread, take_turns
from squadron.serve.service import Context, Event, Route, Service
from squadron.serve.serving import start, stop
from squadron.serve.spec import ServeSpec
from tests.drivers import free_port

pytestmark = pytest.mark.usefixtures("ray_cluster")
TIMEOUT_S, IDLE_S = 3.0, 2.0


class Long(Config):
    """Work without an end."""

    stream: bool = False


class Counted(Config):
    """How many pieces of work are being done, and how many were begun."""

    working: int
    begun: int


class Worker:
    """Works on without an end, in steps: in a thread, from a coroutine, and in parts."""

    def __init__(self) -> None:
        self.working, self.begun = 0, 0

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.working, self.begun = self.working + 1, self.begun + 1
        try:
            yield
        finally:
            self.working -= 1

    def compute(self, request: Long) -> Counted:
        with self._counted():
            while True:
                take_turns()
                time.sleep(0.05)

    async def call(self, request: Long) -> Counted:
        return await in_thread(self.compute, request)

    async def parts(self, request: Long, context: Context) -> AsyncIterator[list[Event]]:
        with self._counted():
            while True:
                yield [Event(1, "{}", 0, 1)]
                await asyncio.sleep(0.05)

    async def count(self, request: Long) -> Counted:
        return Counted(working=self.working, begun=self.begun)


@pytest.fixture(scope="module")
def url(ray_cluster: object) -> Iterator[str]:
    port = free_port()
    routes = tuple(
        Route(f"/v1/{name}", name, Long, Counted, name, stream="parts") for name in ("compute", "call", "count")
    )
    start([Service("worker", Worker, routes, WorkerResources(cpus=0.5))], ServeSpec(port=port, timeout_s=TIMEOUT_S))
    yield f"http://127.0.0.1:{port}"
    stop()


@pytest.mark.parametrize("end", ["time-out", "disconnect"])
@pytest.mark.parametrize("kind", ["compute", "call", "stream"])
def test_a_worker_is_idle_again_after_a_time_out_and_when_a_client_goes(url: str, kind: str, end: str) -> None:
    path, content = ("compute", '{"stream": true}') if kind == "stream" else (kind, "{}")
    before, address = _count(url).begun, urlsplit(url)
    client = HTTPConnection(address.hostname or "", address.port, timeout=60)
    client.request("POST", f"/v1/{path}", content, {"Content-Type": "application/json"})
    if end == "time-out":
        answer = client.getresponse()
        assert answer.status == (200 if kind == "stream" else 504)
        assert "no answer within 3 s" in answer.read().decode()
    else:
        while _count(url).begun == before:
            time.sleep(0.02)
    client.close()
    ended = time.monotonic()
    while _count(url).working:
        assert time.monotonic() < ended + IDLE_S
        time.sleep(0.05)


def _count(url: str) -> Counted:
    return Counted.model_validate(httpx.post(f"{url}/v1/count", json={}).json())
