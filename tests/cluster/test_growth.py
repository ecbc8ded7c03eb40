"""A cluster whose autoscaler adds nodes is asked to, and says at once what it can never hold; one that is busy has a
deadline."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers import free_ports

HEAD = "f" * 51 + "00000"
"""What Ray's provider of local nodes calls the head."""

_JOB = """
import sys, time
import ray
from squadron.core.cluster import connect
from squadron.core.errors import ResourceError
from squadron.core.gang import grows
from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.profile import Profile, WorkerResources
from squadron.core.rows import map_rows
from squadron.core.run import Run, Stage

cluster, two = connect(sys.argv[1]), WorkerResources(cpus=2)
assert grows() and [node.cpus for node in cluster.nodes] == [1], cluster.nodes

def refused(call):
    try:
        call()
    except ResourceError as error:
        return error
    raise AssertionError("let in")

error = refused(lambda: cluster.require(9, two, "training", 60))
assert "wants 9 workers of 2 CPUs each; there is room for 0, the autoscaler has no machines" in str(error), error

class Counter:
    def __call__(self, row):
        deadline = time.monotonic() + 60
        while len(ray.nodes()) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        return {"nodes": len(ray.nodes())}

machines = Profile(name="machines", worker=two, nodes=2, cpus=2, memory_gb=1)
run = Run("test", Config(), Folder(sys.argv[2]), machines, sys.argv[1], ())
run.open()
stage = Stage(run, "count", "", {}, run.folder / "stages" / "count")
# One worker begins when the first node is there, and the second one asks for the other.
assert [row["nodes"] for row in map_rows(stage, [{"id": "a"}, {"id": "b"}], Counter)] == [3, 3]
run.close()
assert sorted(node.cpus for node in cluster.nodes) == [1, 2, 2], cluster.nodes

cluster.gather(2, two, "training", 60)  # the workers of the rows are gone
busy = ray.remote(num_cpus=2)(lambda: time.sleep(600)).remote()
while ray.available_resources().get("CPU", 0) > 3:
    time.sleep(0.1)
error = refused(lambda: cluster.gather(2, two, "training", 2))
assert "there is room for 1, after 2 s" in str(error), error
assert error.where.count("0 fit") == 2 and "1 fit, free are 2 CPUs" in error.where, error.where
ray.cancel(busy, force=True)
cluster.gather(2, two, "training", 60)
print("all held")
"""


@pytest.fixture
def growing() -> Iterator[str]:
    """The address of a head with one CPU, whose autoscaler may add two nodes of two."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    scratch = Path(tempfile.mkdtemp(prefix="sq"))
    settings = scratch / "autoscaling.json"
    settings.write_text(json.dumps(_autoscaling(address)))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    ray = Path(sys.executable).with_name("ray")
    words = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
    words += ["--object-store-memory=100000000", "--disable-usage-stats", "--block", f"--temp-dir={scratch / 'ray'}"]
    head = subprocess.Popen(
        [ray, "start", *words, f"--autoscaling-config={settings}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(port)
        yield address
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    pytest.fail("the head did not come up")


def _autoscaling(address: str) -> dict[str, object]:
    module = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "growing",
        "max_workers": 2,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "external",
            "module": module,
            "head_node_id": HEAD,
            "gcs_address": address,
            "launch_multiple": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 2, "object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{f"{name}_commands": [] for name in lists},
    }


def test_a_cluster_that_can_grow_is_asked_to(growing: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", _JOB, growing, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines()[-1:] == ["all held"], done.stderr[-3000:]
