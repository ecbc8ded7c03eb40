"""Drivers that are killed half way, as a power cut does it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from tests.forks.client import Forked

LIB = Path(__file__).resolve().parents[1] / "lib"
Process = subprocess.Popen[bytes] | Forked


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, each another."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    return free_ports(1)[0]


def processes(word: str) -> list[psutil.Process]:
    """Processes that this one has started, and they, with the word in their command lines."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if word in " ".join(one.cmdline()):
                found.append(one)
    return found


def start(
    words: Sequence[str], environment: Mapping[str, str], output: int, before: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Run Python with these words, in a session of its own, and let it print to this file. `before` stands first in the
    command."""
    line = [*before, sys.executable, *words]
    return subprocess.Popen(line, env=environment, stdout=output, stderr=output, start_new_session=True)


def start_quickly(words: Sequence[str], environment: Mapping[str, str], output: int) -> Process:
    """Run a Python script with its words in the same way: by a fork where there is a server of forks."""
    try:
        return Forked(words, environment, output)
    except (KeyError, OSError):
        return start(words, environment, output)


def wait_for_all(processes: Sequence[Process], timeout_s: float) -> bool:
    """Whether all of them end well in time; else none is left."""
    deadline = time.monotonic() + timeout_s
    while True:
        statuses = [process.poll() for process in processes]
        if all(status == 0 for status in statuses):
            return True
        if any(statuses) or time.monotonic() > deadline:
            for process, status in zip(processes, statuses, strict=True):
                if status is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            return False
        time.sleep(0.02)


def run_and_kill(
    folder: Path, words: list[str], reached: Callable[[], bool], timeout_s: float = 240, command: str = "run"
) -> None:
    """Start `squadron run`, or another command, with these words in a process of its own, and kill it and its workers
    once `reached` says so. Fails, with what it printed, if it ends before or does not get that far in time."""
    line = [str(Path(__file__).with_name("forks") / "driver.py"), command, *words, "--run", str(folder)]
    with tempfile.TemporaryFile() as out:
        driver = start_quickly(line, {**os.environ, "PYTHONPATH": str(LIB)}, out.fileno())
        try:
            deadline = time.monotonic() + timeout_s
            while not reached():
                assert driver.poll() is None, f"the run ended before it was killed: {_text(out)}"
                assert time.monotonic() < deadline, f"the run did not get that far in time: {_text(out)}"
                time.sleep(0.02)
        finally:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()


def _text(out: object) -> str:
    assert hasattr(out, "seek") and hasattr(out, "read")
    out.seek(0)
    return str(out.read().decode(errors="replace"))
