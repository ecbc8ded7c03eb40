"""Runs and servers on Ray end when they are asked to, and leave no process behind.

Each driver starts a Ray of its own. `SQUADRON_SIGNALS=20 pytest tests/ray/test_endings.py` also asks a server, and a
run at so many moments of Ray's start.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.drivers import LIB, free_port, start

MOMENTS = int(os.environ.get("SQUADRON_SIGNALS", "0"))
LATEST_S = 30
"""A busy machine is no failure: a quiet one takes 4 s, and some 12 where all that can hang does."""
JOB = '''"""Waiting: a job that waits for workers."""
import time
from pathlib import Path
from squadron.core.config import Config
from squadron.core.job import job
from squadron.core.rows import map_rows

class Waiting(Config):
    mark: str

class Count(Config):
    rows: int

def nap(row, mark):
    if row["id"]:
        Path(mark).touch()
        time.sleep(100)
    return {"n": 1}

def wait(stage, mark: str) -> Count:
    """Wait for rows."""
    Path(f"{mark}-starting").touch()
    return Count(rows=len(map_rows(stage, [{"id": number} for number in range(8)], nap, mark=mark)))

@job(Waiting)
def waiting(run, config):
    run.stage(wait, config.mark)
'''
SERVER = """
import sys
from pydantic import BaseModel
from squadron.core import ending
from squadron.serve.service import Route, Service
from squadron.serve.serving import serve_until_ended
from squadron.serve.spec import ServeSpec

class Text(BaseModel):
    text: str

class Echo:
    def say(self, request):
        return request

ending.heed_signals()
service = Service("echo", Echo, (Route("/v1/echo", "say", Text, Text, "says it again"),))
serve_until_ended([service], ServeSpec(port=int(sys.argv[1]), timeout_s=5))
"""


def end(words: list[str], reached: Callable[[str], bool], number: int, *, group: bool) -> tuple[int, str, float]:
    """Start a driver, signal it or its group once `reached` says so of what it has printed, and return its status, what
    it printed and how long it took. Fails if anything of its session is left."""
    with tempfile.TemporaryFile() as out:
        driver = start(words, {**os.environ, "PYTHONPATH": str(LIB)}, out.fileno())
        try:
            deadline = time.monotonic() + 120
            while not reached(_text(out)):
                assert driver.poll() is None and time.monotonic() < deadline, _text(out)
                time.sleep(0.05)
            began = time.monotonic()
            (os.killpg if group else os.kill)(driver.pid, number)
            status = driver.wait(60)
            took = time.monotonic() - began
            while left := _session(driver.pid):
                assert time.monotonic() - began < took + 10, left
                time.sleep(0.1)
        finally:
            for process in _session(driver.pid):
                process.kill()
        said = _text(out)
    assert "Traceback" not in said and "***" not in said, said
    return status, said, took


def _text(out: object) -> str:
    descriptor = out.fileno()  # type: ignore[attr-defined]
    return os.pread(descriptor, 10**6, 0).decode(errors="replace")


def _session(leader: int) -> list[psutil.Process]:
    """What lives of the session that this process leads."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):  # it has ended meanwhile
            continue
    return found


def words_of(place: Path) -> list[str]:
    (place / "waiting.py").write_text(JOB)
    words = ["run", str(place / "waiting.py"), f"mark={place}/mark", "--run", str(place / "run"), "--workers", "1"]
    return ["-m", "squadron.core.cli", *words]


def test_a_run_that_waits_for_workers_ends_with_all_of_them(tmp_path: Path) -> None:
    """As Slurm and Kubernetes ask: the whole group at once, Ray's own processes among it."""
    mark = tmp_path / "mark"
    status, said, took = end(words_of(tmp_path), lambda _: mark.exists(), signal.SIGTERM, group=True)
    assert status == 143 and took < LATEST_S, said
    assert "Finished work is kept: the same command goes on from here." in " ".join(said.split())
    assert list(tmp_path.glob("run/stages/*/rows/*.jsonl"))


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_run_ends_while_ray_starts(tmp_path: Path, moment: int) -> None:
    starting = tmp_path / "mark-starting"
    delay = 6.0 * moment / MOMENTS
    began: list[float] = []

    def reached(_: str) -> bool:
        if starting.exists():
            began.append(time.monotonic())
        return bool(began) and time.monotonic() - began[0] >= delay

    status, said, took = end(words_of(tmp_path), reached, signal.SIGTERM, group=False)
    assert status == 143 and took < LATEST_S, said
    assert "Finished work is kept" in said


@pytest.mark.skipif(not MOMENTS, reason="takes long: give SQUADRON_SIGNALS=1")
def test_a_server_that_is_asked_to_end_finishes_and_ends_well() -> None:
    status, said, took = end(["-c", SERVER, str(free_port())], lambda said: "ends" in said, signal.SIGTERM, group=False)
    assert status == 0 and took < LATEST_S, said
    assert "finishing what was begun" in said
