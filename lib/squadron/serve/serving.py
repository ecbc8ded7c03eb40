"""Services behind Ray Serve: a gateway that takes requests, and replicas that hold what was trained."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from squadron.core import console, ending
from squadron.core.cluster import connect
from squadron.core.errors import ConfigError, InputError, ResourceError
from squadron.core.masking import mask_logs
from squadron.core.placement import Wanted
from squadron.core.profile import WorkerResources
from squadron.serve.auth_limits import Key, read_key
from squadron.serve.edge import EdgeSettings, close_edges, keep_edges, resolve_proxy
from squadron.serve.front import parallel
from squadron.serve.gateway import make_app
from squadron.serve.replicas import Replica, Replicas
from squadron.serve.service import Service, pages, paths
from squadron.serve.spec import KEYS, ServeSpec

APPLICATION = "squadron"
_FAREWELL_S, _LOOK_EVERY_S, _LOADS = 10.0, 0.2, 2


def serve_until_ended(services: Sequence[Service], spec: ServeSpec, address: str | None = None) -> None:
    """Serve until a signal asks this process to end; then finish what was begun, for `timeout_s` at most, and return.
    A second signal ends the process at once.

    Raises ConfigError if anybody on the network could send requests without a key, InputError if the port is taken,
    ResourceError if the cluster has no room.
    """
    try:
        start(services, spec, address)
        _say_routes(services, f"http://{spec.host}:{spec.port}")
        threading.Event().wait()
    except KeyboardInterrupt:
        ending.take_time(spec.timeout_s + 2 * _FAREWELL_S)
    console.say("[dim]finishing what was begun[/dim]")
    last = threading.Thread(target=stop, daemon=True)  # a cluster that is gone too would never answer
    last.start()
    last.join(spec.timeout_s + _FAREWELL_S)


def _say_routes(services: Sequence[Service], url: str) -> None:
    for path, several in paths(services).items():
        models = ", ".join(model for service, _ in several for model in service.models)
        console.say(f"POST {url}{path}  {several[0][1].summary}{f'  [dim]({models})[/dim]' if models else ''}")
    for path, page in pages(services).items():
        console.say(f"GET {url}{path}  {page.summary}")
    console.say(f"[dim]{url} is a page to try them; Ctrl-C ends[/dim]")


def start(services: Sequence[Service], spec: ServeSpec, address: str | None = None) -> ServeSpec:
    """Start the server, and return when it answers: its settings, with what they left open decided.

    Raises ResourceError if a replica cannot load what it serves, or HAProxy does not start.
    """
    from ray import serve

    known = keys(spec)
    cluster = connect(address)
    count = spec.autoscaling.min_replicas if spec.autoscaling else spec.replicas
    cluster.require_together([Wanted(f"serving {one.name}", count, _share(one, spec)) for one in services])
    _refuse_taken(spec)
    spec = resolve_proxy(spec)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options=http_options(spec), logging_config={"enable_access_log": False})
    try:
        serve.run(application(services, spec, known), name=APPLICATION)
    except RuntimeError as error:
        raise _not_started(error) from None
    return spec


def http_options(spec: ServeSpec) -> dict[str, Any]:
    """Where Ray Serve listens: behind HAProxy on loopback, without it where clients ask."""
    behind = spec.proxy != "none"
    return {"host": "127.0.0.1" if behind else spec.host, "port": spec.inner_port if behind else spec.port}


def _not_started(error: RuntimeError) -> ResourceError:
    """What a replica said when it could not load what it is to serve; the server is ended."""
    from ray import serve

    deployments = serve.status().applications[APPLICATION].deployments
    said = {name: one.message for name, one in deployments.items() if "Error" in one.message}
    stop()
    name, text = next(iter(said.items()), ("the server", str(error)))
    named = re.findall(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Unavailable)): (.+)$", text, re.MULTILINE)
    what = named[-1][1] if named else text.strip().splitlines()[-1]
    return ResourceError(f"{name} cannot be served: {what}", fix="fix the cause, and start the server again")


def application(services: Sequence[Service], spec: ServeSpec, known: Sequence[Key]) -> Any:
    """Gateway and services as Ray Serve runs them, by settings in which `resolve_proxy` has decided what was open. One
    that is run in the place of another takes over without a lost request."""
    from ray import serve

    replicas = {
        service.name: by_vllm(spec, _has_gpus()) if (by_vllm := vllm_for(service, spec)) else deployment(service, spec)
        for service in services
    }
    gateway = serve.deployment(
        name="gateway",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=10_000,
        graceful_shutdown_timeout_s=spec.drain_s,
        graceful_shutdown_wait_loop_s=_LOOK_EVERY_S,
    )(serve.ingress()(Gateway))
    return gateway.bind(tuple(services), spec, tuple(known), replicas)


def stop() -> None:
    """End the server, if it has begun: requests at work are finished first."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        return
    serve.delete(APPLICATION)
    close_edges()
    serve.shutdown()


class Gateway:
    """Takes requests on every network that it should, and brings them to replicas."""

    def __init__(
        self, services: Sequence[Service], spec: ServeSpec, known: Sequence[Key], replicas: dict[str, Any]
    ) -> None:
        self._services, self._spec, self._keys = services, spec, known
        self._replicas = replicas
        if spec.proxy != "none":
            keep_edges(EdgeSettings(spec, keyed=bool(known)))

    def __serve_build_asgi_app__(self) -> Any:
        _log_requests()
        return make_app(self._services, Replicas(self._replicas), self._spec, self._keys)


def _log_requests() -> None:
    """Write a line for each request where Ray keeps what this process prints."""
    mask_logs()
    log = logging.getLogger("squadron.serve.requests")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.propagate = False


def deployment(service: Service, spec: ServeSpec) -> Any:
    """A service as Ray Serve deploys it."""
    from ray import serve

    share = _share(service, spec)
    auto: Any = spec.autoscaling and spec.autoscaling.for_ray()
    return serve.deployment(
        name=service.name,
        num_replicas=None if auto else spec.replicas,
        autoscaling_config=auto,
        max_ongoing_requests=parallel(service, spec),
        max_queued_requests=-1,  # the gateway counts who waits, fairly (`admission.py`)
        max_constructor_retry_count=_LOADS,
        graceful_shutdown_timeout_s=spec.drain_s,
        graceful_shutdown_wait_loop_s=_LOOK_EVERY_S,
        ray_actor_options={"num_cpus": share.cpus, "num_gpus": share.gpus},
    )(Replica).bind(service.build, share.cpus, spec.timeout_s)


def vllm_for(service: Service, spec: ServeSpec) -> Callable[[ServeSpec, bool], Any] | None:
    """What deploys this language model by vLLM, if that is to serve it. Raises ConfigError if it is not installed."""
    if service.by_vllm is None or spec.engine == "own":
        return None
    installed = importlib.util.find_spec("vllm") is not None
    if spec.engine == "vllm" and not installed:
        fix = "pip install 'squadron[gpu]' -c constraints/gpu.txt, or leave engine out"
        raise ConfigError("vLLM is not installed", where="engine", fix=fix)
    return service.by_vllm if spec.engine == "vllm" or (installed and _has_gpus()) else None


def _share(service: Service, spec: ServeSpec) -> WorkerResources:
    """What of a node one replica takes."""
    share = service.resources
    if vllm_for(service, spec):
        return share.model_copy(update={"gpus": float(spec.vllm.gpus if _has_gpus() else 0)})
    return share.model_copy(update={"gpus": max(share.gpus, spec.gpus)})


def _has_gpus() -> bool:
    import ray

    return ray.cluster_resources().get("GPU", 0) >= 1


def keys(spec: ServeSpec) -> list[Key]:
    """The keys in the environment, by their names and digests: keys themselves go nowhere.

    Raises ConfigError if anybody on the network could send requests without one, or limits name none.
    """
    texts = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    if not texts and not spec.without_keys and not spec.local:
        raise ConfigError(
            f"anybody who reaches {spec.host} could send requests",
            where="host",
            fix=f"put keys into the environment, {KEYS}=…, or say without_keys=true",
        )
    found = [read_key(text) for text in texts]
    if unknown := sorted(set(spec.keys) - {key.name for key in found}):
        fix = f"name the key in the environment, {KEYS}={unknown[0]}:…"
        raise ConfigError(f"there is no key called {unknown[0]}", where=f"keys.{unknown[0]}", fix=fix)
    return found


def _refuse_taken(spec: ServeSpec) -> None:
    with socket.socket(socket.AF_INET6 if ":" in spec.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((spec.host, spec.port))
        except OSError as error:
            raise InputError(
                f"cannot listen on {spec.host}:{spec.port}: {error.strerror}", where="port", fix="give another port=…"
            ) from None
