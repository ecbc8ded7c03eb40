"""The same job, submitted with its code to a cluster of two nodes, ends with the same weights."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from squadron.core.cli import main
from tests.drivers import free_ports

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")
SMALL = ["smoke", "baselines.centralised=false", "evaluation.film_homes=0"]


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[tuple[str, dict[str, str]]]:
    """A head and a worker node, one CPU each, started with `ray start`; yields where to submit jobs, and as whom."""
    port, dashboard, *agents = free_ports(6)
    scratch = Path(tempfile.mkdtemp(prefix="sq"))
    environment = _own_environment(scratch)
    quiet = ["--num-cpus=1", "--disable-usage-stats", "--block", "--object-store-memory=200000000"]
    head = [
        "--head", f"--port={port}", "--include-dashboard=true", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agents[0]}", f"--temp-dir={scratch / 'ray'}",
    ]  # fmt: skip
    worker = [f"--address=127.0.0.1:{port}", f"--dashboard-agent-listen-port={agents[1]}"]
    nodes = [
        subprocess.Popen(
            [RAY, "start", *head, *quiet], env=environment, stdout=subprocess.DEVNULL, start_new_session=True
        )
    ]
    try:
        _wait_for_nodes(f"127.0.0.1:{port}", 1, environment)
        nodes.append(
            subprocess.Popen(
                [RAY, "start", *worker, *quiet],
                env=environment,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        _wait_for_nodes(f"127.0.0.1:{port}", 2, environment)
        yield f"http://127.0.0.1:{dashboard}", environment
    finally:
        for node in reversed(nodes):
            os.killpg(node.pid, signal.SIGKILL)  # an orderly end waits half a minute for work that is not there
            node.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def _own_environment(scratch: Path) -> dict[str, str]:
    """Nothing of this process's Ray, and a token of the cluster's own, which Ray asks for by default."""
    token = scratch / "token"
    token.write_text(secrets.token_hex(32))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_") and key != "PYTHONPATH"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PATH": path}


def _wait_for_nodes(address: str, count: int, environment: dict[str, str]) -> None:
    """Wait until `ray status` reports so many live nodes."""
    probe = (
        "import ray, sys, time, logging\n"
        f"ray.init('{address}', logging_level=logging.ERROR)\n"
        "deadline = time.monotonic() + 60\n"
        f"while sum(node['Alive'] for node in ray.nodes()) < {count}:\n"
        "    assert time.monotonic() < deadline\n"
        "    time.sleep(0.2)\n"
    )
    for _ in range(6):
        done = subprocess.run(
            [sys.executable, "-c", probe], env=environment, capture_output=True, text=True, timeout=120
        )
        if done.returncode == 0:
            return
    pytest.fail(f"the cluster of {count} nodes did not come up: {done.stderr[-2000:]}")


def test_a_submitted_job_on_two_nodes_ends_with_the_same_weights(
    two_nodes: tuple[str, dict[str, str]], ray_cluster: object, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert main(["run", "flame", *SMALL, "--run", str(here)]) == 0

    address, environment = two_nodes
    submit = [
        RAY, "job", "submit", "--address", address, "--runtime-env", "cluster/runtime_env.yaml", "--working-dir", ".",
        "--", "python", "jobs/flame.py", *SMALL, "--run", str(there), "--workers", "2",
    ]  # fmt: skip
    done = subprocess.run(submit, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "2 nodes" in done.stdout
    assert _final_weights(here) == _final_weights(there)


def _final_weights(folder: Path) -> bytes:
    (rounds,) = folder.glob("stages/federate-*/rounds")
    return max(rounds.iterdir()).read_bytes()
