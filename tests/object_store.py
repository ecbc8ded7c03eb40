"""An S3-compatible server on loopback in a process of its own, and before it a proxy that loses some requests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.drivers import free_ports

BUCKET = "runs"


@dataclass(frozen=True)
class ObjectStore:
    """A server with a bucket. `environment` is what a process needs to reach it through the proxy; `direct` past it."""

    environment: dict[str, str]
    direct: dict[str, str]
    losses: Path

    def lost(self) -> list[str]:
        """How requests were lost, and which: a line each."""
        return self.losses.read_text().splitlines() if self.losses.exists() else []


@contextlib.contextmanager
def object_store(place: Path, share: float = 0.0, seed: int = 0) -> Iterator[ObjectStore]:
    """Start both; the proxy loses this share of the requests. Files of theirs are in `place`."""
    server_port, port = free_ports(2)
    losses = place / "losses.txt"
    losses.unlink(missing_ok=True)
    quiet = {**os.environ, "TMPDIR": str(place)}
    moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server_port)]
    proxy = [sys.executable, str(Path(__file__).with_name("lossy_proxy.py")), str(port), str(server_port)]
    with (place / "store.log").open("wb") as log:
        processes = [
            subprocess.Popen(words, env=quiet, stdout=log, stderr=log)
            for words in (moto, [*proxy, str(share), str(seed), str(losses)])
        ]
    try:
        for each in (server_port, port):
            _await_port(each)
        direct = _environment(server_port)
        _make_bucket(direct)
        yield ObjectStore(_environment(port), direct, losses)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _environment(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _make_bucket(environment: dict[str, str]) -> None:
    import urllib.request

    request = urllib.request.Request(f"{environment['AWS_ENDPOINT_URL']}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request, timeout=30).close()


def _await_port(port: int, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline, f"nobody listens on {port}"
        time.sleep(0.1)
