"""HAProxy on every node that takes requests.

Ray Serve listens on loopback alone there, and an actor keeps HAProxy before it. The gateway keeps the actors: it makes
one for each node on which Ray Serve listens, brings new settings to those that are there, and is missed if it is gone:
then they end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from squadron.core.errors import ConfigError
from squadron.serve.haproxy import HAProxy, find_haproxy
from squadron.serve.spec import ServeSpec

_NAMESPACE = "squadron-edge"
_EVERY_S, _MISSED_AFTER_S, _START_S, _END_S = 5.0, 60.0, 60.0, 10.0
_log = logging.getLogger("squadron.serve")


@dataclass(frozen=True)
class EdgeSettings:
    """What HAProxy is to do: by `spec`, before Ray Serve's port of it, for clients with keys or all. Later ones
    replace earlier ones."""

    spec: ServeSpec
    keyed: bool
    made: float = field(default_factory=time.time)


def resolve_proxy(spec: ServeSpec) -> ServeSpec:
    """The settings with `proxy` decided and `inner_port` chosen.

    Raises ConfigError if HAProxy is to be there and is not, which is so for `auto` where others than this machine may
    send requests.
    """
    if spec.proxy == "none":
        return spec
    if find_haproxy() is None:
        if spec.proxy == "auto" and spec.local:
            return spec.model_copy(update={"proxy": "none"})
        fix = "install it (Linux: part of ray[serve]; macOS: brew install haproxy), or set proxy=none"
        raise ConfigError(
            "there is no HAProxy, and slow or huge requests would stop the server", where="proxy", fix=fix
        )
    return spec.model_copy(update={"proxy": "haproxy", "inner_port": spec.inner_port or _free_port()})


def keep_edges(settings: EdgeSettings) -> threading.Thread:
    """Start HAProxy where Ray Serve listens, and keep it there. Raises ResourceError if one cannot start."""
    _keep_all(settings)

    def keep() -> None:
        while True:
            time.sleep(_EVERY_S)
            try:
                _keep_all(settings)
            except Exception as error:  # a node that is lost or new: the next round finds it so
                _log.warning("HAProxy is not kept: %s", error)

    thread = threading.Thread(target=keep, daemon=True, name="edges")
    thread.start()
    return thread


def close_edges() -> None:
    """End HAProxy on all nodes."""
    edges = [
        ray.get_actor(one["name"], namespace=_NAMESPACE)
        for one in ray.util.list_named_actors(all_namespaces=True)
        if one["namespace"] == _NAMESPACE
    ]
    with contextlib.suppress(RayError):
        ray.get([edge.close.remote() for edge in edges], timeout=_END_S)
    for edge in edges:
        ray.kill(edge)


def _keep_all(settings: EdgeSettings) -> None:
    from ray import serve

    edges = [_edge(node_id) for node_id in serve.status().proxies]
    try:
        ray.get([edge.keep.remote(settings) for edge in edges], timeout=_START_S)
    except RayTaskError as error:
        raise error.cause from None


def _edge(node_id: str) -> Any:
    """The actor of a node."""
    return (
        ray.remote(EdgeProxy)
        .options(
            name=node_id,
            namespace=_NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        .remote()
    )


def _end_process() -> None:
    os._exit(0)


class EdgeProxy:
    """Keeps HAProxy on its node, for as long as somebody asks it to. Once nobody has for `missed_after_s`, it ends
    HAProxy and calls `leave`, which ends the actor's process."""

    def __init__(self, missed_after_s: float = _MISSED_AFTER_S, leave: Callable[[], None] = _end_process) -> None:
        self._missed_after_s, self._leave = missed_after_s, leave
        self._haproxy, self._settings = HAProxy(), EdgeSettings(ServeSpec(), True, 0.0)
        self._kept_at = time.monotonic()
        threading.Thread(target=self._end_when_missed, daemon=True).start()

    def keep(self, settings: EdgeSettings) -> None:
        """Let it run with these settings, or newer ones that it has. Raises ResourceError if it does not start."""
        self._kept_at = time.monotonic()
        newer = settings.made > self._settings.made
        if newer or not self._haproxy.running():
            self._settings = settings if newer else self._settings
            spec = self._settings.spec
            assert spec.inner_port is not None
            self._haproxy.run(spec, spec.inner_port, self._settings.keyed)

    def close(self) -> None:
        """End it."""
        self._haproxy.close()

    def _end_when_missed(self) -> None:
        while (left_s := self._missed_after_s - (time.monotonic() - self._kept_at)) > 0:
            time.sleep(left_s)
        self._haproxy.close()
        self._leave()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
