"""Services behind Ray Serve: a gateway that takes requests, and replicas that hold what was trained."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from squadron.core import console
from squadron.core.cluster import connect
from squadron.core.errors import ConfigError, InputError, SquadronError
from squadron.core.host import use_threads
from squadron.serve.gateway import Busy, digest, make_app
from squadron.serve.service import Service
from squadron.serve.spec import KEYS, ServeSpec

APPLICATION = "squadron"
_ATTEMPTS, _FAREWELL_S = 3, 10.0


def serve_until_ended(services: Sequence[Service], spec: ServeSpec, address: str | None = None) -> None:
    """Serve until this process is interrupted or terminated.

    Raises ConfigError if anybody on the network could send requests without a key, InputError if the port is taken,
    ResourceError if the cluster has no room.
    """
    ended = threading.Event()
    start(services, spec, address)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    url = f"http://{spec.host}:{spec.port}"
    for service in services:
        for route in service.routes:
            console.say(f"POST {url}{route.path}  {route.summary}")
    console.say(f"[dim]{url}/docs describes them; Ctrl-C ends[/dim]")
    ended.wait()
    console.say("[dim]finishing what was begun[/dim]")
    last = threading.Thread(target=stop, daemon=True)  # a cluster that is gone too would never answer
    last.start()
    last.join(spec.timeout_s + _FAREWELL_S)


def start(services: Sequence[Service], spec: ServeSpec, address: str | None = None) -> None:
    """Start the server and return when it answers."""
    from ray import serve

    digests = _keys(spec)
    cluster = connect(address)
    for service in services:
        cluster.require(spec.replicas, service.resources, f"serving {service.name}")
    _refuse_taken(spec)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": spec.host, "port": spec.port}, logging_config={"enable_access_log": False})
    replicas = {service.name: _replicas(service, spec) for service in services}
    gateway = serve.deployment(name="gateway", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=10_000)(
        serve.ingress()(Gateway)
    )
    serve.run(gateway.bind(tuple(services), spec, digests, replicas), name=APPLICATION)


def stop() -> None:
    """End the server: requests at work are finished first."""
    from ray import serve

    serve.delete(APPLICATION)
    serve.shutdown()


class Gateway:
    """Takes requests on every network that it should, and brings them to replicas."""

    def __init__(
        self, services: Sequence[Service], spec: ServeSpec, digests: Sequence[bytes], replicas: dict[str, Any]
    ) -> None:
        self._services, self._spec, self._digests, self._replicas = services, spec, digests, replicas

    def __serve_build_asgi_app__(self) -> Any:
        return make_app(self._services, self._ask, self._spec, self._digests)

    async def _ask(self, service: str, method: str, request: BaseModel) -> BaseModel:
        """What a replica answers. One that dies meanwhile is replaced, and another is asked: answering changes nothing,
        so that asking again is safe."""
        from ray.exceptions import RayActorError

        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(RayActorError):
                return await self._ask_once(service, method, request)
        return await self._ask_once(service, method, request)

    async def _ask_once(self, service: str, method: str, request: BaseModel) -> BaseModel:
        from ray.serve.exceptions import BackPressureError

        try:
            answer: BaseModel | SquadronError = await self._replicas[service].answer.remote(method, request)
        except BackPressureError:
            raise Busy from None
        if isinstance(answer, SquadronError):
            raise answer
        return answer


class Replica:
    """Holds what a service has loaded."""

    def __init__(self, build: Callable[[], Any], cpus: float) -> None:
        use_threads(max(1, int(cpus)))
        self._loaded = build()

    def answer(self, method: str, request: BaseModel) -> BaseModel | SquadronError:
        """The answer, or what was wrong with the request."""
        try:
            answer: BaseModel = getattr(self._loaded, method)(request)
        except SquadronError as error:
            return error
        return answer


def _replicas(service: Service, spec: ServeSpec) -> Any:
    from ray import serve

    share = {"num_cpus": service.resources.cpus, "num_gpus": service.resources.gpus}
    deployment = serve.deployment(
        name=service.name,
        num_replicas=spec.replicas,
        max_ongoing_requests=spec.at_once,
        max_queued_requests=spec.queue,
        ray_actor_options=share,
    )(Replica)
    return deployment.bind(service.build, service.resources.cpus)


def _keys(spec: ServeSpec) -> list[bytes]:
    """Digests of the keys in the environment: keys themselves go nowhere."""
    keys = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    if not keys and not spec.without_keys and spec.host not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(
            f"anybody who reaches {spec.host} could send requests",
            where="host",
            fix=f"put keys into the environment, {KEYS}=…, or say without_keys=true",
        )
    return [digest(key) for key in keys]


def _refuse_taken(spec: ServeSpec) -> None:
    with socket.socket(socket.AF_INET6 if ":" in spec.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((spec.host, spec.port))
        except OSError as error:
            raise InputError(
                f"cannot listen on {spec.host}:{spec.port}: {error.strerror}", where="port", fix="give another port=…"
            ) from None
