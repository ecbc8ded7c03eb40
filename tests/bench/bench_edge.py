"""A server of a small planner, attacked from its own address: how long a neighbour with a key waits meanwhile.

The neighbour asks four times a second for a plan of three robots. Each attack goes on for six seconds. The bar is three
times the neighbour's time when nobody else is there. `none` shows the same without HAProxy: attacks there are not
ended, so that the first ones that stall the server stall the rest.

python tests/bench/bench_edge.py [haproxy|none]
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from squadron.core.folder import Folder
from squadron.methods.coordination.config import CoordinationConfig, ModelConfig
from squadron.methods.coordination.endpoint import Load, PlanAnswer, PlanRequest
from squadron.methods.coordination.training import Build, save_planner
from squadron.serve.service import Route, Service
from squadron.serve.serving import start, stop
from squadron.serve.spec import KEYS, ServeSpec

SECONDS, REST_S, BAR = 6.0, 2.0, 3.0
ROUTES = [[[0, 0], [10, 0]], [[5, -5], [5, 5]], [[3, 8], [3, -8]]]
HEAD = b"POST /v1/plan HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer attacker\r\nContent-Type: application/json\r\n"
HALF = HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 50_000
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = HEAD + b"Content-Length: 104857600\r\n\r\n"


def planner(folder: Folder) -> Service:
    """A network that has learned nothing, and plans at once."""
    config, settings = ModelConfig(hidden=8, layers=1, heads=2, latent=2), CoordinationConfig()
    save_planner(folder, config, Build(config, 0)().state_dict())
    load = Load({"average_delay": folder}, settings.limits, settings.sampling)
    return Service("coordination", load, (Route("/v1/plan", "plan", PlanRequest, PlanAnswer, "plan"),))


class Neighbour:
    """Somebody with a key, who wants one answer after the other."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": "Bearer neighbour"}, timeout=120)

    def ask(self, seconds: float) -> list[float]:
        """Milliseconds until each answer, in order of length."""
        taken, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.perf_counter()
            assert self._client.post("/v1/plan", json={"routes": ROUTES, "seed": 1, "samples": 20}).status_code == 200
            taken.append(1000 * (time.perf_counter() - started))
            time.sleep(0.25)
        return sorted(taken)


def hold(port: int, begun: bytes, more: bytes, count: int) -> None:
    """Begin many requests, and go on with each by a byte a second."""
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for connection in held:
        connection.sendall(begun)
    for _ in range(int(SECONDS)):
        for connection in held:
            with contextlib.suppress(OSError):
                connection.sendall(more)
        time.sleep(1)
    for connection in held:
        connection.close()


def pour(port: int, head: bytes, part: bytes, parts: int) -> None:
    """Send large requests, one after the other."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection, contextlib.suppress(OSError):
            connection.sendall(head)
            for _ in range(parts):
                connection.sendall(part)
            connection.recv(100)
        time.sleep(0.1)


def flood(url: str, path: str, keys: bool) -> None:
    """Send requests without a key, or each with another wrong one, from four threads, up to 800 a second."""
    statuses: Counter[int] = Counter()

    def go_on(thread: int) -> None:
        end = time.monotonic() + SECONDS
        with httpx.Client(base_url=url, timeout=120) as client:
            while time.monotonic() < end:
                headers = {"Authorization": f"Bearer {thread}-{time.monotonic()}"} if keys else {}
                statuses[client.get(path, headers=headers).status_code] += 1
                time.sleep(0.005)

    threads = [threading.Thread(target=go_on, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"    {dict(statuses)}", flush=True)


def attacks(url: str, port: int) -> dict[str, Callable[[], Any]]:
    """What is done, by name."""
    return {
        "1,000 idle connections": lambda: hold(port, b"", b"", 1000),
        "200 slow headers": lambda: hold(port, HEAD, b"X", 200),
        "200 slow bodies": lambda: hold(port, HALF, b" ", 200),
        "chunks of one byte": lambda: pour(port, CHUNKED, b"1\r\n \r\n" * 100_000, 4),
        "bodies of 100 MB": lambda: pour(port, LARGE, b" " * 2**20, 100),
        "wrong keys": lambda: flood(url, "/v1/models", keys=True),
        "/ready": lambda: flood(url, "/ready", keys=False),
        "headers of 64 MB": lambda: pour(port, HEAD + b"X: ", b"a" * 2**20, 64),
    }


def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    os.environ[KEYS] = "neighbour,attacker"
    url, missed = f"http://127.0.0.1:{port}", []
    with tempfile.TemporaryDirectory() as place:
        proxy: Any = sys.argv[1] if len(sys.argv) > 1 else "haproxy"
        start([planner(Folder(place) / "planner")], ServeSpec(port=port, proxy=proxy))
        neighbour = Neighbour(url)
        neighbour.ask(REST_S)
        quiet = statistics.median(neighbour.ask(SECONDS))
        print(f"  {'quiet':<26} {quiet:6.0f} ms", flush=True)
        for name, attack in attacks(url, port).items():
            thread = threading.Thread(target=attack)
            thread.start()
            taken = neighbour.ask(SECONDS - 1)
            thread.join()
            holds = statistics.median(taken) <= BAR * quiet
            missed += [] if holds else [name]
            print(
                f"  {name:<26} {statistics.median(taken):6.0f} ms, at most {taken[-1]:.0f}{'' if holds else '  MISSED'}"
            )
            time.sleep(REST_S)
        stop()
    sys.exit(f"missed: {'; '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
