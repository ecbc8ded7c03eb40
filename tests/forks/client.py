"""Processes that a server of forks starts: without its imports they take tenths of a second, with them many."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOCKET, PATH = "SQUADRON_FORKS", "SQUADRON_FORKS_PATH"
_server: subprocess.Popen[bytes] | None = None


def start_server(folder: Path) -> None:
    """Start the server; it ends with this process. Until it is ready, workers of Ray start as ever.

    There is none on a machine with a GPU, which a process that has looked for one cannot share with its forks, and
    elsewhere than on Linux. SQUADRON_TEST_FORKS=0 has none either.
    """
    global _server
    if sys.platform != "linux" or os.path.exists("/dev/nvidia0") or os.environ.get("SQUADRON_TEST_FORKS") == "0":
        return
    os.environ[SOCKET] = str(folder / "forks")
    os.environ[PATH] = os.environ.get("PYTHONPATH", "")
    words = [sys.executable, str(HERE / "server.py"), os.environ[SOCKET], str(os.getpid())]
    nowhere = subprocess.DEVNULL
    _server = subprocess.Popen(words, stdin=nowhere, stdout=nowhere, stderr=nowhere)


def stop_server() -> None:
    """End the server. What it has become goes on; workers end with their Ray."""
    if _server is not None:
        _server.kill()
        _server.wait()
        del os.environ[SOCKET]


def let_ray_fork() -> None:
    """From now on the Ray that this process starts has workers by fork."""
    if SOCKET not in os.environ:
        return
    from ray._private.parameter import RayParams

    prepare = RayParams.__init__

    def prepare_own(parameters: Any, *words: Any, **settings: Any) -> None:
        prepare(parameters, *words, **settings)
        parameters.setup_worker_path = str(HERE / "worker.py")  # by its own name Ray would leave it out

    RayParams.__init__ = prepare_own


class Forked:
    """A process that the server becomes, as `subprocess.Popen` would start it in a session of its own."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], output: int) -> None:
        """Run a script with its words; it prints to this file. Raises KeyError or OSError if there is no server."""
        while not os.path.exists(os.environ[SOCKET]) and _server and _server.poll() is None:
            time.sleep(0.05)  # it is still importing what this process would have to import
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(os.environ[SOCKET])
        body = json.dumps({"words": list(words), "environment": dict(environment), "folder": os.getcwd()}).encode()
        with open(os.devnull) as nothing:
            socket.send_fds(self._link, [len(body).to_bytes(8, "big")], [nothing.fileno(), output, output])
        self._link.sendall(body)
        self.pid = int(self._link.recv(8))
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        if self._status is None:
            self._link.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                self._hear()
        return self._status

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        if self._status is None:
            self._link.setblocking(True)
            self._hear()
        assert self._status is not None
        return self._status

    def _hear(self) -> None:
        told = self._link.recv(1)
        self._status = told[0] if told else -signal.SIGKILL
        self._link.close()
