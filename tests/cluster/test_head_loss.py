"""A head that is lost and started again, with its state in a Redis, costs a running job nothing but time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.nodes import ON_NODE, Nodes, Redis, wait_for

JOB = str(Path(__file__).resolve().parents[1] / "squares.py")
COUNT, ROW_S = 16, 0.5


def test_a_job_outlives_the_head(tmp_path: Path) -> None:
    notes, run = tmp_path / "notes", tmp_path / "run"
    words = ["run", JOB, f"notes={notes}", f"count={COUNT}", f"row_s={ROW_S}", "--run", str(run)]
    with Redis() as redis, Nodes(2, more=redis.environment | {"RAY_gcs_rpc_server_reconnect_timeout_s": "60"}) as nodes:
        with (tmp_path / "said").open("wb") as said:
            driver = subprocess.Popen(
                [sys.executable, ON_NODE, nodes.address, nodes.ip(1), *words],
                env=nodes.environment,
                stdout=said,
                stderr=said,
            )
        try:
            wait_for(driver, lambda: notes.exists() and len(notes.read_text().splitlines()) >= 2, tmp_path / "said")
            nodes.kill(0)
            answered = len(notes.read_text().splitlines())
            nodes.start(0)
            assert driver.wait(120) == 0, (tmp_path / "said").read_text()
        finally:
            driver.kill()
            driver.wait()
    (done,) = run.glob("stages/*/done.json")
    assert json.loads(done.read_text())["output"] == {"total": sum(n * n for n in range(COUNT))}
    ids = [line.split()[0] for line in notes.read_text().splitlines()]
    assert answered < COUNT and set(ids) == set(map(str, range(COUNT)))
    assert len(ids) <= COUNT + 2, "a node at work lost at most the row that it had in hand"
