"""Jobs submitted with their code to a cluster of three nodes that has none of ours: what runs, and who may."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from squadron.core.cli import main
from squadron.core.manifest import describe_environment
from tests.cluster.proxy import CuttingProxy
from tests.kills import differences
from tests.local_cluster import NODES, BareCluster

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")
SMALL = ["smoke", "baselines.centralised=false", "evaluation.film_homes=0"]
OWN = str(Path(__file__).with_name("wandering.py"))
SECRET = secrets.token_hex(16)


@pytest.fixture(scope="module")
def cluster() -> Iterator[BareCluster]:
    """Three nodes with one CPU each, whose Python has the dependencies and no Squadron."""
    started = BareCluster.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def here(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that is submitted, run on this machine."""
    folder = tmp_path_factory.mktemp("flame") / "here"
    assert main(["run", "flame", *SMALL, "--run", str(folder)]) == 0
    return folder


def test_a_submitted_run_ends_as_on_this_machine_though_connections_break(
    cluster: BareCluster, here: Path, tmp_path: Path
) -> None:
    there, sent = tmp_path / "there", describe_environment()["commit"]
    with CuttingProxy(_port(cluster), cut_after_s=2) as proxy:
        line = cluster.line(
            "submit", "flame", *SMALL, "--run", str(there), "--address", f"http://127.0.0.1:{proxy.port}"
        )
        done = subprocess.run(line, env=cluster.authorised(), capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert proxy.cuts
    assert json.loads((there / "run.json").read_text())["commit"] == sent != ""
    assert differences(here, there) == []
    _, _, shown = done.stdout.partition(f"127.0.0.1:{proxy.port}\n")
    assert shown == _log(cluster, _submitted(done.stdout))


def test_a_job_submitted_by_ray_itself_runs_on_all_nodes(cluster: BareCluster, tmp_path: Path) -> None:
    words = [f"notes={tmp_path / 'notes'}", "row_s=0.1", "count=12", "--run", str(tmp_path / "run"), "--workers", "3"]
    submit = [
        RAY, "job", "submit", "--address", f"http://127.0.0.1:{_port(cluster)}",
        "--runtime-env", "cluster/runtime_env.yaml", "--working-dir", ".",
        "--", "python", "-m", "squadron.core.cli", "run", "tests/squares.py", *words,
    ]  # fmt: skip
    done = subprocess.run(submit, cwd=ROOT, env=cluster.authorised(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{NODES} nodes" in done.stdout
    (answered,) = (tmp_path / "run").glob("stages/square_all-*/done.json")
    assert json.loads(answered.read_text())["output"]["total"] == sum(n * n for n in range(12))


def test_a_job_of_ones_own_is_left_followed_and_stopped(cluster: BareCluster, tmp_path: Path) -> None:
    """What it needs goes along and nothing else; the name of a variable can be read on the dashboard, its value not."""
    gate, run = tmp_path / "gate", tmp_path / "runs" / "wandering"
    (tmp_path / "rows.jsonl").write_text("the rows")
    words = [
        OWN, f"rows={tmp_path / 'rows.jsonl'}", f"gate={gate}", "variable=PLAIN_WORD", "fails=true",
        "--run", str(run), "--env", "PLAIN_WORD",
    ]  # fmt: skip
    environment = cluster.environment | {"PLAIN_WORD": SECRET}
    follower = _start(cluster.line("submit", *words), environment)
    _wait_until(lambda: bool(list(run.glob("stages/wait_at_gate-*"))), follower)
    (seen,) = run.glob("stages/look_around-*/done.json")
    found = json.loads(seen.read_text())["output"]
    assert len(found["packages"]) == NODES
    assert all("working_dir_files/_ray_pkg_" in path for path in found["packages"])
    assert set(found["rows"]) == {"the rows"}
    assert set(found["sums"]) == {hashlib.sha256(SECRET.encode()).hexdigest()}

    again = cluster.squadron("submit", *words[:-2])
    assert again.returncode == 2 and "is at work in this run folder" in " ".join(again.stderr.split())
    held = cluster.squadron("run", *words[:-2])
    assert held.returncode == 2 and "another process is running in this folder" in " ".join(held.stderr.split())
    assert "running: wait_at_gate" in " ".join(cluster.squadron("runs", str(run.parent)).stdout.split())

    said = _read_until(follower, "waiting 1\n")
    follower.send_signal(signal.SIGINT)
    said += follower.communicate(timeout=60)[0]
    name = _submitted(said)
    assert follower.returncode == 130 and f"squadron submit --follow {name}" in said
    gate.write_text("open")
    followed = cluster.squadron("submit", "--follow", name)
    assert followed.returncode == 2, "it ends as the job does"
    assert "the gate is of no use" in followed.stdout
    waited = int(re.findall(r"^waited (\d+)$", followed.stdout, re.M)[0])
    assert re.findall(r"^waiting (\d+)$", followed.stdout, re.M) == [str(number + 1) for number in range(waited)]
    assert SECRET not in followed.stdout + said + json.dumps(_ask(cluster, "/api/jobs/"))
    assert not _holding(cluster.place, SECRET.encode()) - {"shipped-environment.json"}

    gate.unlink()
    begun = subprocess.run(
        cluster.line("submit", *words, "--no-wait"), env=environment, capture_output=True, text=True, timeout=60
    )
    assert begun.returncode == 0, begun.stderr
    _wait_until(lambda: "waiting" in _log(cluster, _submitted(begun.stdout)))
    assert cluster.squadron("submit", "--stop", _submitted(begun.stdout)).returncode == 0
    assert cluster.squadron("submit", "--follow", _submitted(begun.stdout)).returncode == 143
    assert "stopped in wait_at_gate" in " ".join(cluster.squadron("runs", str(run.parent)).stdout.split())


def test_nobody_without_the_token_gets_in_and_nobody_from_another_machine(cluster: BareCluster) -> None:
    stranger = {key: value for key, value in cluster.authorised().items() if not key.startswith("RAY_AUTH")}
    address = f"http://127.0.0.1:{_port(cluster)}"
    for headers, status in (({}, 401), ({"Authorization": "Bearer 0123456789abcdef"}, 403)):
        for path in ("/api/jobs/", "/nodes?view=summary", "/api/v0/nodes"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(address + path, headers=headers), timeout=20)
            assert refused.value.code == status
    with CuttingProxy(_port(cluster), cut_after_s=60) as proxy:  # an address that no token is noted for
        line = cluster.line("submit", "--follow", "x", "--address", f"http://127.0.0.1:{proxy.port}")
        said = subprocess.run(line, env=stranger, capture_output=True, text=True, timeout=60)
        assert said.returncode == 2 and "refuses this client's token" in " ".join(said.stderr.split())
    connect = [sys.executable, "-c", f"import ray; ray.init(address={cluster.note()['address']!r}); print('connected')"]
    connected = subprocess.run(connect, env=stranger, capture_output=True, text=True, timeout=120)
    assert connected.returncode != 0 and "connected" not in connected.stdout
    assert {address for process in _processes(cluster) for address in _listening(process)} == {"127.0.0.1"}
    assert Path(cluster.note()["token_path"]).stat().st_mode & 0o777 == 0o600


def test_a_node_that_dies_is_shown_and_down_ends_all(cluster: BareCluster) -> None:
    """The last one: nothing is left of the cluster."""
    again = cluster.squadron("cluster", "up", "--nodes", "2")
    assert again.returncode == 0 and "up already" in again.stdout and again.stdout.count("lives") == NODES
    (raylet,) = [
        one for one in _processes(cluster) if one.name() == "raylet" and "--node-name=worker-2" in one.cmdline()
    ]
    raylet.kill()
    _wait_until(lambda: cluster.squadron("cluster", "status").stdout.count("dead") == 1)
    left = _processes(cluster)
    assert left
    assert cluster.squadron("cluster", "down").returncode == 0
    assert not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    gone = cluster.squadron("cluster", "status")
    assert gone.returncode == 2 and "no cluster is up" in gone.stderr


def _port(cluster: BareCluster) -> int:
    return int(cluster.note()["dashboard"].rpartition(":")[2])


def _processes(cluster: BareCluster) -> list[psutil.Process]:
    holder = psutil.Process(cluster.note()["pid"])
    return [holder, *holder.children(recursive=True)]


def _listening(process: psutil.Process) -> set[str]:
    """Addresses that a process listens on; none of one that has ended meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        found = process.net_connections("inet")
        return {one.laddr.ip.removeprefix("::ffff:") for one in found if one.status == psutil.CONN_LISTEN}
    return set()


def _ask(cluster: BareCluster, path: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{_port(cluster)}{path}")
    request.add_header("Authorization", f"Bearer {Path(cluster.note()['token_path']).read_text()}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _log(cluster: BareCluster, name: str) -> str:
    return str(_ask(cluster, f"/api/jobs/{name}/logs")["logs"])


def _submitted(said: str) -> str:
    """The name of the job that was submitted."""
    return re.findall(r"^Submitted (\S+) to", said, re.M)[0]


def _read_until(process: subprocess.Popen[str], last: str) -> str:
    """What a process prints, up to and with this line."""
    assert process.stdout is not None
    said = ""
    for line in iter(process.stdout.readline, ""):
        said += line
        if line == last:
            return said
    raise AssertionError(f"it ended without {last!r}: {said}")


def _start(line: Any, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        line,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background has not
    )


def _wait_until(reached: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _holding(place: Path, word: bytes) -> set[str]:
    """Names of the files below a folder that hold a word."""
    found = set()
    for path in place.rglob("*"):
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            if path.is_file() and not path.is_symlink() and "venv" not in path.parts and word in path.read_bytes():
                found.add(path.name)
    return found
