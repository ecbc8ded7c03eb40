"""A job whose run folder is on an S3-compatible server that loses requests, whose driver is killed and given again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from squadron.core.folder import Folder
from tests.drivers import LIB
from tests.nodes import wait_for
from tests.object_store import BUCKET, object_store

JOB = str(Path(__file__).resolve().parents[1] / "squares.py")
COUNT = 14


def test_a_killed_run_on_a_store_goes_on_and_ends_with_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, said, url = tmp_path / "notes", tmp_path / "said", f"s3://{BUCKET}/squares"
    with object_store(tmp_path, share=0.05, seed=1) as store:
        environment = {**os.environ, "PYTHONPATH": str(LIB), **store.environment}
        words = ["run", JOB, f"notes={notes}", f"count={COUNT}", "row_s=0.3", "--run", url]
        with said.open("wb") as out:

            def start() -> subprocess.Popen[bytes]:
                line = [sys.executable, "-m", "squadron.core.cli", *words]
                return subprocess.Popen(line, env=environment, stdout=out, stderr=out, start_new_session=True)

            first = start()
            try:
                wait_for(first, lambda: notes.exists() and len(notes.read_text().splitlines()) >= 5, said)
            finally:
                os.killpg(first.pid, signal.SIGKILL)
                first.wait()
            second = start()
            try:
                assert second.wait(120) == 0, said.read_text()
            finally:
                second.kill()
                second.wait()
        for name, value in store.direct.items():
            monkeypatch.setenv(name, value)
        stages = Folder(url) / "stages"
        (stage,) = stages.ls()
        assert (stages / stage).read_json("done.json")["output"] == {"total": sum(n * n for n in range(COUNT))}
        assert Folder(url).exists("report.html")
        assert store.lost(), "some requests were lost"
    ids = [line.split()[0] for line in notes.read_text().splitlines()]
    assert set(ids) == set(map(str, range(COUNT)))
    assert len(ids) <= COUNT + (os.cpu_count() or 1), "each worker does again what it had in hand"
