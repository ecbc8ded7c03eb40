"""A cluster of two nodes, in a process of its own: sizes, shared folders, and the loss of a node."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from squadron.core.cluster import forget_gone_cluster

_TWO_NODES = """
import os, sys, time
import ray
from ray.cluster_utils import Cluster as Machines
from squadron.core.actors import ActorPool
from squadron.core.cluster import check_shared, connect
from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources

machines = Machines(initialize_head=True, head_node_args={"num_cpus": 2})
second = machines.add_node(num_cpus=3)
cluster = connect(machines.address)
assert sorted(node.cpus for node in cluster.nodes) == [2, 3]
two = WorkerResources(cpus=2)
assert cluster.fit(two) == 2, "five CPUs, but only one worker of two CPUs on each node"
try:
    ActorPool(dict, 3, two)
except ResourceError as error:
    assert error.where.count("CPUs") == 2, error.where
else:
    raise AssertionError("three workers were let in")

check_shared(Folder(sys.argv[1]))
assert os.listdir(sys.argv[1]) == []
try:
    check_shared(Folder("memory://runs"))
except InputError as error:
    assert "cannot see the run folder memory://runs" in str(error) and "share" in error.fix
else:
    raise AssertionError("a folder in one process's memory passed for shared")

def make():
    class Worker:
        def where(self, number):
            import ray
            time.sleep(0.5)
            return ray.get_runtime_context().get_node_id()
    return Worker()

with ActorPool(make, 2, two, start_timeout_s=120) as pool:
    for number in range(6):
        pool.submit(number, "where", number, timeout_s=60)
    first = pool.poll(60)
    machines.remove_node(second, allow_graceful=False)
    outcomes = [first, *(pool.poll(60) for _ in range(5))]
    assert sorted(outcome.key for outcome in outcomes) == list(range(6))
    assert not any(outcome.failure for outcome in outcomes), [str(o.failure) for o in outcomes]
    assert outcomes[-1].value == ray.get_runtime_context().get_node_id()
ray.shutdown()
machines.shutdown()  # which takes its note of itself with it
print("all held")
"""


@pytest.mark.slow
def test_two_nodes_and_the_loss_of_one(tmp_path: Path) -> None:
    held = run(_TWO_NODES, str(tmp_path))
    assert "all held" in held.stdout.splitlines(), held.stderr[-3000:]


def test_a_submitted_job_finds_its_cluster_by_its_environment(ray_cluster: object) -> None:
    script = "from squadron.core.cluster import connect; c = connect(); print([(n.id, n.cpus) for n in c.nodes])"
    found = run(script, RAY_ADDRESS=ray.get_runtime_context().gcs_address)
    assert found.stdout.strip() == str([(ray.nodes()[0]["NodeID"], 2.0)]), found.stderr[-3000:]


def test_a_cluster_that_does_not_answer_is_named() -> None:
    script = """
from squadron.core.cluster import connect
from squadron.core.errors import ResourceError
try:
    connect()
except ResourceError as error:
    print(error)
"""
    told = run(script, RAY_ADDRESS="127.0.0.1:9")
    assert "no Ray cluster answers" in told.stdout and "127.0.0.1:9" in told.stdout, told.stderr[-3000:]
    assert "RAY_ADDRESS" in told.stdout


def test_the_note_of_a_cluster_is_removed_where_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    note = tmp_path / "ray" / "ray_current_cluster"
    forget_gone_cluster()  # there is none
    note.parent.mkdir()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        note.write_text(f"127.0.0.1:{listening.getsockname()[1]}")
        forget_gone_cluster()
        assert note.exists()
    forget_gone_cluster()
    assert not note.exists()


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )
