"""The doctor visits every node of a cluster, and names those that do not answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from squadron.core.cli import EXIT_USER_ERROR, main

LIB = Path(__file__).resolve().parents[2] / "lib"
ON_EACH_NODE = {"packages", "memory", "CPUs", "GPUs", "open files", "temporary folder", "listening", "run folder"}
BETWEEN_NODES = {"Ray", "token", "versions", "clock", "ports", "shared folder", "gloo all-reduce"}

_CLUSTER = """
import json, os, signal, sys
from ray.cluster_utils import Cluster
from squadron.cluster.doctor.examine import examine_cluster
from squadron.core.cli import main

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
second = cluster.add_node(num_cpus=2)
print("status", main(["doctor", "--address", cluster.address, "--run", sys.argv[1], "--json"]), flush=True)
for process in second.live_processes():
    if process[0] == "raylet":
        os.kill(process[1].pid, signal.SIGSTOP)
print("frozen", json.dumps([one.as_data() for one in examine_cluster(cluster.address, None, timeout_s=15)]), flush=True)
for process in second.live_processes():
    if process[0] == "raylet":
        os.kill(process[1].pid, signal.SIGCONT)
cluster.shutdown()
"""


@pytest.mark.slow
def test_every_node_is_examined_and_a_frozen_one_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(LIB)}
    words = [sys.executable, "-c", _CLUSTER, str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert "status" in done.stdout, done.stderr[-3000:]
    told, rest = done.stdout.split("status ")
    findings = json.loads(told[told.index("{") :])["findings"]
    by_check = {check: [one for one in findings if one["check"] == check] for check in ON_EACH_NODE | BETWEEN_NODES}
    assert all(len({one["node"] for one in by_check[check]}) == 2 for check in ON_EACH_NODE), by_check
    assert all(len(by_check[check]) == 1 for check in BETWEEN_NODES), by_check
    wrong = {one["check"] for one in findings if one["outcome"] == "failed"}
    assert wrong <= {"token", "listening", "temporary folder", "open files"}, findings  # the last two are the machine's
    assert ("2 processes on" in by_check["gloo all-reduce"][0]["text"]) and os.listdir(tmp_path) == []
    assert int(rest.split()[0]) == (EXIT_USER_ERROR if wrong else 0)
    frozen = json.loads(rest[rest.index("[") :].splitlines()[0])
    silent = [one for one in frozen if one["check"] == "answer"]
    assert len(silent) == 1 and silent[0]["node"] and silent[0]["outcome"] == "failed", frozen
    assert {one["node"] for one in frozen if one["check"] == "memory"} & {silent[0]["node"]} == set()


def test_this_machine_is_examined(ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json", "--run", str(tmp_path)])
    told = json.loads(capsys.readouterr().out)
    checks = [one["check"] for one in told["findings"]]
    assert {"Ray", "jobs", "run folders", "run folder", *(ON_EACH_NODE)} <= set(checks)
    assert told["ok"] + told["warning"] + told["failed"] == len(checks)
    assert next(one for one in told["findings"] if one["check"] == "jobs")["text"].count(",") >= 6


def test_a_check_that_fails_ends_with_status_2(ray_cluster: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--run", "/proc/nowhere"]) == EXIT_USER_ERROR
    told = capsys.readouterr()
    assert "✗ run folder: /proc/nowhere cannot be used" in told.out and "fix: give another folder" in told.out
    assert "checks failed: " in told.err
