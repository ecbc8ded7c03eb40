"""A process that is asked to end does so: whatever it does, with the status that its callers know, and at once when it
is asked again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.drivers import LIB

JOB = '''"""Tried: a job that works until it is asked to end."""
import time
from pathlib import Path
from squadron.core.config import Config
from squadron.core.job import job

class Tried(Config):
    mark: str
    lines: int = 10**9

class Count(Config):
    lines: int

def count(stage, mark: str, lines: int) -> Count:
    """Log numbers."""
    for line in range(lines):
        stage.log(line, loss=1.0)
        if line == 3:
            Path(mark).touch()
        time.sleep(0 if lines < 10**6 else 0.01)
    return Count(lines=lines)

@job(Tried)
def tried(run, config):
    run.stage(count, config.mark, config.lines)
'''
HEEDING = """
import os, signal, sys, time, threading
from squadron.core import ending
ending.GRACE_S = 0.3
ending.heed_signals()
ending.on_late_end("It goes on from here.")
def ready():
    os.write(1, b"ready")
"""


class Asked:
    """A process, which is asked to end once it is ready."""

    def __init__(self, words: list[str], ready: str = "ready", **options: object) -> None:
        environment = {**os.environ, "PYTHONPATH": str(LIB)}
        self.process = subprocess.Popen(
            [sys.executable, *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **{"preexec_fn": _heed_all, **options},  # type: ignore[call-overload]
        )
        assert self.process.stdout is not None
        said = self.process.stdout.read(len(ready))
        assert said.decode() == ready, self.process.communicate()
        time.sleep(0.3)  # until it does what it is ready for

    def status(self, *signals: int) -> int:
        """The exit status after these signals."""
        for number in signals:
            self.process.send_signal(number)
        self.out, self.err = (text.decode() for text in self.process.communicate(timeout=60))
        assert "Traceback" not in self.err, self.err
        return self.process.returncode


def _heed_all() -> None:
    """Signals by default: whatever runs these tests may ignore some, as `nohup` and a shell's `&` do."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def heeding(code: str) -> list[str]:
    return ["-c", HEEDING + code]


@pytest.mark.parametrize(
    "code",
    [
        "try: ready(); time.sleep(9)\nexcept BaseException: pass\n"
        "while True:\n    try: time.sleep(9)\n    except BaseException: pass\n",
        "import hashlib\ntry: ready(); hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)\n"
        "except BaseException: time.sleep(9)\n",
        "class Late:\n    def __del__(self): ready(); time.sleep(9)\nlate = Late(); del late; time.sleep(60)\n",
        "thread = threading.Thread(target=time.sleep, args=[60]); thread.start()\n"
        "try: ready(); time.sleep(60)\nexcept KeyboardInterrupt: pass\n",
    ],
    ids=["swallowed", "in C", "in a finalizer", "a thread at exit"],
)
def test_an_end_that_nobody_hears_comes_all_the_same(code: str) -> None:
    asked = Asked(heeding(code))
    assert asked.status(signal.SIGTERM) == 143
    assert asked.err == "It goes on from here.\n"


def test_a_second_signal_ends_at_once_and_two_in_one_are_one() -> None:
    code = (
        "ending.GRACE_S = 30\ntry: ready(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    try: time.sleep(1); print('saved', flush=True)\n    finally: time.sleep(20)\n"
    )
    asked = Asked(heeding(code))
    asked.process.send_signal(signal.SIGTERM)  # as `timeout` signals a child, and the group of the child
    time.sleep(0.05)
    asked.process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    started = time.monotonic()
    assert asked.status(signal.SIGINT) == 130
    assert time.monotonic() - started < 5
    assert asked.out == "saved\n" and not asked.err


def test_what_was_started_ends_too(tmp_path: Path) -> None:
    code = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid)); ready()\n"
        "while True:\n    try: child.wait()\n    except BaseException: pass\n"
    )
    assert Asked(heeding(code)).status(signal.SIGTERM) == 143
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_processes_that_are_forked_end_alone_and_what_is_ignored_stays_so() -> None:
    code = (
        "child = os.fork()\nif not child: time.sleep(60)\n"
        "time.sleep(0.2); os.kill(child, signal.SIGTERM)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM\n"
        "ready(); time.sleep(1.5); print('done', flush=True)\n"
    )
    asked = Asked(heeding(code), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # as nohup does
    assert asked.status(signal.SIGHUP) == 0
    assert asked.out == "done\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_each_signal_has_its_status(number: int) -> None:
    code = "try: ready(); time.sleep(60)\nexcept KeyboardInterrupt as error: sys.exit(ending.status(error))\n"
    asked = Asked(heeding(code))
    assert asked.status(number) == 128 + number and not asked.err


def test_a_run_that_is_asked_to_end_keeps_what_it_has_and_says_so(tmp_path: Path) -> None:
    job = tmp_path / "tried.py"
    job.write_text(JOB)
    words = ["-m", "squadron.core.cli", "run", str(job), f"mark={tmp_path}/reached", "--run", str(tmp_path / "run")]
    asked = Asked(words, "tried in")
    while not (tmp_path / "reached").exists():
        assert asked.process.poll() is None
        time.sleep(0.02)
    assert asked.status(signal.SIGHUP) == 129
    said = " ".join(asked.err.split())
    assert said == "Interrupted. Finished work is kept: the same command goes on from here."
    (metrics,) = tmp_path.glob("run/stages/*/metrics.jsonl")
    assert len(metrics.read_text().splitlines()) >= 4
    assert list(tmp_path.glob("run/stages/*/tensorboard/events*"))
