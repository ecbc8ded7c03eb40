"""Only what is proven to be dead is removed; what stays over is named."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from squadron.core import ray_sessions
from squadron.core.ray_sessions import find_dead_sessions, remove_dead_sessions

NOBODY = 2**22 + 1
"""No process has this number: it is above Linux's largest."""


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A made-up temporary folder, short enough for sockets."""
    root = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("RAY_TMPDIR", str(root))
    (root / "ray").mkdir()
    yield root / "ray"


def make_session(root: Path, number: int, process: int = NOBODY, age_s: float = 7200) -> Path:
    """A session as a killed driver leaves it: with logs, and a socket that nobody listens on."""
    session = root / f"session_2026-01-01_00-00-00_{number:06d}_{process}"
    (session / "sockets").mkdir(parents=True)
    (session / "logs").mkdir()
    (session / "logs" / "raylet.out").write_text("log\n" * 1000)
    with contextlib.chdir(session / "sockets"), socket.socket(socket.AF_UNIX) as left:  # a path has 107 bytes at most
        left.bind("raylet")
    for place in (*session.rglob("*"), session):
        os.utime(place, (time.time() - age_s + number,) * 2)
    return session


def test_dead_sessions_go_but_for_the_last_whose_logs_may_be_read(root: Path) -> None:
    made = [make_session(root, number) for number in range(5)]
    (root / "session_latest").symlink_to(made[-1])
    assert [one.path for one in find_dead_sessions()] == made
    remove_dead_sessions()
    assert [path.exists() for path in made] == [False, False, True, True, True]


def test_whatever_speaks_for_the_life_of_a_session_saves_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_sessions, "_KEPT", 0)
    fresh = make_session(root, 1, age_s=60)
    begun = make_session(root, 2, process=os.getpid())
    named, worked_in, held, heard = (make_session(root, number) for number in (3, 4, 5, 6))
    linked = root / f"session_2026-01-01_00-00-00_000007_{NOBODY}"
    linked.symlink_to(root.parent)
    other = root / "prom_metrics_service_discovery.json"
    other.write_text("{}")
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    log = open(held / "logs" / "raylet.out")  # noqa: SIM115 - closed below
    (heard / "sockets" / "raylet").unlink()
    with socket.socket(socket.AF_UNIX) as living:
        with contextlib.chdir(heard / "sockets"):
            living.bind("raylet")
        living.listen()
        for place in (heard / "sockets" / "raylet", heard / "sockets"):
            os.utime(place, (time.time() - 7200,) * 2)
        processes = [subprocess.Popen([*sleep, f"--session-dir={named}"]), subprocess.Popen(sleep, cwd=worked_in)]
        try:
            assert find_dead_sessions() == []
            remove_dead_sessions()
        finally:
            log.close()
            for process in processes:
                process.kill()
                process.wait()
    assert all(path.exists() for path in (fresh, begun, named, worked_in, held, heard, linked, other))
    assert {one.path for one in find_dead_sessions()} >= {named, worked_in, held}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another's folder")
def test_another_users_session_is_left_alone(root: Path) -> None:
    os.chown(make_session(root, 1), 12345, -1)
    assert find_dead_sessions() == []
