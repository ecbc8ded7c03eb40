"""The server under attack: a language model, an embedder, a planner and a robot's policy behind one address."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from squadron.core.profile import WorkerResources
from squadron.llm.embed import PackagedEmbedder
from squadron.methods.coordination.endpoint import services as coordination_services
from squadron.methods.flame.endpoint import services as flame_services
from squadron.serve.chat import chat_service
from squadron.serve.embedding import embedding_service
from squadron.serve.service import Service
from squadron.serve.serving import start, stop
from squadron.serve.spec import KEYS, Edge, KeyLimits, ServeSpec
from tests.attacks import attack as a
from tests.attacks.robots import CROSSING, GOOD, robot
from tests.attacks.wire import Place, as_json, request
from tests.drivers import free_port, processes
from tests.finished import store_coordination_run, store_flame_run
from tests.llm.tiny import store_tiny_chat

IMAGE, CONTEXT, TIMEOUT_S, PER_MINUTE = 16, 512, 8.0, 30
_SHARE = WorkerResources(cpus=0.4)
_EDGE = Edge(header_timeout_s=5, body_timeout_s=8, stalled_timeout_s=5)
"""Shorter than a server's own, and than attackers are patient: who waits for an attack to be ended waits less."""


def make_services(place: Path) -> list[Service]:
    """The four, with weights that have learned nothing, in `place`."""
    words = [f"say {number} words, twice or {number * 7} times" for number in range(60)]
    model = store_tiny_chat(place / "chat", words, context=CONTEXT)
    (planner,) = coordination_services(store_coordination_run(place / "coordination")).services
    policy, films = flame_services(store_flame_run(place / "flame", IMAGE)).services
    return [
        chat_service(a.MODEL, model, _SHARE, max_rows=16),
        embedding_service(a.EMBEDDER, PackagedEmbedder(), _SHARE),
        replace(planner, resources=_SHARE),
        replace(policy, resources=_SHARE),
        films,
    ]


@contextmanager
def attacked(place: Path, keyed: bool = True, **settings: Any) -> Iterator[Place]:
    """The server, for as long as the block runs."""
    port = free_port()
    known = {"neighbour": a.NEIGHBOUR, "attacker": a.ATTACKER, "limited": a.LIMITED} if keyed else {}
    keys = {"limited": KeyLimits(requests_per_minute=PER_MINUTE)} if keyed else {}
    spec = ServeSpec(port=port, timeout_s=TIMEOUT_S, keys=keys, edge=_EDGE, **settings)
    with patch.dict(os.environ, {KEYS: ",".join(f"{name}:{key}" for name, key in known.items())}):
        start(make_services(place), spec)
    try:
        yield Place("127.0.0.1", port)
    finally:
        stop()


def neighbours_requests(port: int) -> dict[str, bytes]:
    """What the neighbour asks of each service."""
    bodies = {
        a.CHAT: a.chat(),
        a.EMBED: a.embedding("a short text"),
        a.PLAN: {"routes": CROSSING, "seed": 3},
        a.ACT: {"robots": [robot(GOOD)]},
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {a.NEIGHBOUR}", "Connection": "close"}
    host = f"127.0.0.1:{port}"
    return {path: request("POST", path, headers, as_json(body), host) for path, body in bodies.items()}


def replicas() -> dict[str, psutil.Process]:
    """The processes that hold services and the gateway, by name."""
    return {one.cmdline()[0].rpartition(":")[2].split(".")[0]: one for one in processes("ray::ServeReplica")}
