"""Each check of the doctor has two outcomes, and what is wrong comes with the command that repairs it."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.cluster.doctor import disk as disks
from squadron.cluster.doctor.collectives import Rank, all_reduce, check_group
from squadron.cluster.doctor.command import group
from squadron.cluster.doctor.disk import Disk, check_caches, check_sessions, check_temporary, find_disk
from squadron.cluster.doctor.facts import Facts, check_facts, find_facts
from squadron.cluster.doctor.finding import Finding, failed, ok, warning
from squadron.cluster.doctor.gpus import Gpus, check_gpus, find_gpus, parse_gpus
from squadron.cluster.doctor.installation import Installation, check_packages, check_same_versions
from squadron.cluster.doctor.limits import (
    Limits,
    check_file_size,
    check_locked_memory,
    check_open_files,
    check_processes,
    find_limits,
)
from squadron.cluster.doctor.memory import (
    Counted,
    Memory,
    check_cpus,
    check_memory,
    check_overcommit,
    check_shared_memory,
    check_swap,
    find_memory,
)
from squadron.cluster.doctor.network import (
    Listener,
    Target,
    check_listeners,
    check_reach,
    check_token,
    find_listeners,
    listen,
    partners,
    reach,
)
from squadron.cluster.doctor.nodes import check_clocks, measure_skew
from squadron.cluster.doctor.storage import (
    Storage,
    check_shared,
    check_storage,
    count_torn,
    measure_storage,
    see,
)
from squadron.core.folder import Folder
from squadron.core.masking import remember_secret
from tests.drivers import free_port

MEMORY = Memory(total_gb=64, limit_gb=None, swap_used_gb=0, overcommit=0, shared_gb=32, cpus=16, quota=None)
COUNTED = Counted(cpus=16, memory_gb=40, object_store_gb=20)
LIMITS = Limits(open_files=65536, file_mb=None, processes=None, locked_mb=None, infiniband=True)
INSTALLED = Installation("3.11.7", {"squadron": "1", "ray": "2.60.0", "numpy": "2.4.6", "vllm": None})
DISK = Disk("/tmp", "", 100.0, 0.9, (), 0.0, {"/cache": 1.0})
STORAGE = Storage(write_mb_s=300, read_mb_s=900, file_s=0.005, fsync_s=0.004, rename_s=1e-4, list_s=0.001, free_gb=90)
CARDS = """0, NVIDIA H100 80GB HBM3, 570.86, 81559, 0, 0, No, No, 40
1, NVIDIA H100 80GB HBM3, 570.86, 81559, 5, 0, No, No, 41
"""


def outcomes(*findings: Finding) -> list[str]:
    """Of these; all that is not well says what to do."""
    assert all(bool(one.fix) == (one.outcome != "ok") and one.text for one in findings)
    return [one.outcome for one in findings]


def test_memory_that_ray_counts_on_must_be_there() -> None:
    assert outcomes(check_memory(MEMORY, COUNTED), check_memory(MEMORY, None)) == ["ok", "ok"]
    told = check_memory(replace(MEMORY, limit_gb=32), COUNTED)
    assert outcomes(told) == ["warning"] and "32 GiB, by a limit, of 64 GiB" in told.text and "60 GiB" in told.text
    asked = [
        int(word.rpartition("=")[2]) for word in told.fix.replace("`", " ").replace(",", " ").split() if "=" in word
    ]
    assert len(asked) == 2 and sum(asked) <= 32 * 2**30, "the command must lead to a node that is well"


def test_processors_that_ray_hands_out_must_be_there() -> None:
    assert outcomes(check_cpus(MEMORY, COUNTED), check_cpus(MEMORY, None)) == ["ok", "ok"]
    told = check_cpus(replace(MEMORY, quota=2.5), COUNTED)
    assert outcomes(told) == ["warning"] and "2.5 CPUs, by a quota, of 16" in told.text and "--num-cpus=2" in told.fix


def test_objects_must_find_room_in_shared_memory() -> None:
    assert outcomes(check_shared_memory(MEMORY, COUNTED)) == ["ok"]
    assert outcomes(check_shared_memory(replace(MEMORY, shared_gb=None), COUNTED)) == ["ok"]
    docker = replace(MEMORY, shared_gb=64 / 1024)  # what a container gets unless told otherwise
    told = check_shared_memory(docker, COUNTED)
    assert outcomes(told) == ["warning"] and "--shm-size=22g" in told.fix
    assert outcomes(check_shared_memory(docker, None)) == ["warning"], "by what Ray would take"


def test_swap_in_use_and_a_kernel_that_promises_nothing_are_told() -> None:
    assert outcomes(check_swap(MEMORY), check_overcommit(MEMORY)) == ["ok", "ok"]
    assert outcomes(check_swap(replace(MEMORY, swap_used_gb=10))) == ["warning"]
    told = check_overcommit(replace(MEMORY, overcommit=2))
    assert outcomes(told) == ["warning"] and told.fix == "sysctl vm.overcommit_memory=0"


def test_limits_of_a_process() -> None:
    checks = (check_open_files, check_file_size, check_processes, check_locked_memory)
    assert outcomes(*(check(LIMITS) for check in checks)) == ["ok"] * 4
    assert outcomes(check_open_files(replace(LIMITS, open_files=None))) == ["ok"]
    assert outcomes(*(check_open_files(replace(LIMITS, open_files=n)) for n in (256, 1024))) == ["failed", "warning"]
    assert outcomes(check_file_size(replace(LIMITS, file_mb=1024))) == ["failed"]
    assert outcomes(check_processes(replace(LIMITS, processes=512))) == ["warning"]
    assert outcomes(check_locked_memory(replace(LIMITS, locked_mb=8))) == ["warning"]
    assert outcomes(check_locked_memory(replace(LIMITS, locked_mb=8, infiniband=False))) == ["ok"]


def test_limits_are_those_of_this_process() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, before[1]))
        assert find_limits().file_mb == 1024
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert find_limits().open_files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    found = find_memory()
    assert 0 < found.usable_cpus <= (os.cpu_count() or 1) and 0 < found.usable_gb <= found.total_gb


def test_packages_are_there_and_the_same_everywhere() -> None:
    assert outcomes(check_packages(INSTALLED)) == ["ok"]
    bare = replace(INSTALLED, packages={**INSTALLED.packages, "numpy": None})
    told = check_packages(bare)
    assert outcomes(told) == ["failed"] and told.fix == "pip install numpy"
    with_vllm = replace(INSTALLED, packages={**INSTALLED.packages, "vllm": "0.33", "flwr": None})
    assert outcomes(check_packages(with_vllm)) == ["ok"]

    assert outcomes(*check_same_versions(INSTALLED, {"a": INSTALLED, "b": INSTALLED})) == ["ok"]
    older = replace(INSTALLED, packages={**INSTALLED.packages, "numpy": "2.3.0", "vllm": "0.33"})
    python = replace(INSTALLED, python="3.12.1")
    told, other = check_same_versions(INSTALLED, {"a": INSTALLED, "b": older, "c": python})
    assert (told.node, other.node) == ("b", "c") and outcomes(told, other) == ["failed", "failed"]
    assert "numpy 2.3.0, here 2.4.6" in told.text and "pip install numpy==2.4.6" in told.fix
    assert "pip uninstall vllm" in told.fix and "3.12.1, here 3.11.7" in other.text


def test_cards_are_well() -> None:
    cards = parse_gpus(CARDS)
    assert [(card.index, card.memory_mb, card.driver) for card in cards] == [(0, 81559, "570.86"), (1, 81559, "570.86")]
    well = Gpus(cards, seen_by_torch=2)
    assert outcomes(check_gpus(Gpus()), check_gpus(well), check_gpus(well, 2)) == ["ok"] * 3
    assert "2 × NVIDIA H100 80GB HBM3 of 80 GiB" in check_gpus(well).text
    for wrong in ({"uncorrected": 3}, {"remap_pending": 1}, {"remap_failed": 1}):
        told = check_gpus(Gpus((cards[0], replace(cards[1], **wrong))))
        assert outcomes(told) == ["failed"] and "card 1" in told.text and "1" in told.fix
    assert outcomes(check_gpus(Gpus(error="nvidia-smi failed"))) == ["failed"]
    assert outcomes(check_gpus(Gpus(cards, seen_by_torch=0)), check_gpus(Gpus(), 4)) == ["failed", "failed"]
    assert outcomes(check_gpus(well, 1)) == ["warning"]
    assert outcomes(check_gpus(Gpus((replace(cards[0], temperature=95),)))) == ["warning"]


def test_a_card_that_counts_no_errors_has_none() -> None:
    (card,) = parse_gpus("0, NVIDIA GeForce RTX 4090, 560.35, 24564, 300, [N/A], [N/A], [N/A], 35\n")
    assert (card.uncorrected, card.remap_pending, card.remap_failed) == (0, 0, 0)
    assert outcomes(check_gpus(Gpus((card,)))) == ["ok"]


@pytest.mark.parametrize(
    ("script", "outcome"), [(f"cat <<'X'\n{CARDS}X", "2 ×"), ("echo 'No devices' >&2; exit 9", "No devices")]
)
def test_cards_are_asked_by_nvidia_smi(
    script: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as Ray hides cards from an actor that asks for none
    told = find_gpus()
    assert told.seen_by_torch is None and outcome in check_gpus(told).text


def test_room_on_disk() -> None:
    checks = (check_temporary, check_sessions, check_caches)
    assert outcomes(*(check(DISK) for check in checks)) == ["ok"] * 3
    for wrong in ({"error": "Read-only file system"}, {"free_gb": 1.0}, {"free_names": 0.001}):
        assert outcomes(check_temporary(replace(DISK, **wrong))) == ["failed"]  # type: ignore[arg-type]
    left = replace(DISK, sessions=("/tmp/ray/session_1",), sessions_mb=10)
    assert check_sessions(left).text.startswith("1 that are over") and outcomes(check_sessions(left)) == ["ok"]
    told = check_sessions(replace(left, sessions_mb=5000))
    assert outcomes(told) == ["warning"] and told.fix == "rm -r /tmp/ray/session_1"
    told = check_caches(replace(DISK, caches={"/cache": 1.0, "/hub": 80.0}))
    assert outcomes(told) == ["warning"] and told.fix.startswith("rm -r /hub")


def test_the_temporary_folder_is_rays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "model").write_bytes(bytes(2**20))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("SQUADRON_CACHE", str(cache))
    found = find_disk()
    assert found.root == str(tmp_path) and found.free_gb > 0 and not found.error
    assert found.caches[str(cache)] == pytest.approx(1 / 1024)
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    told = check_temporary(find_disk())
    assert outcomes(told) == ["failed"] and "/proc/nowhere cannot be written" in told.text and "TMPDIR" in told.fix
    monkeypatch.setattr(disks, "_COUNTING_S", -1.0)
    assert find_disk().caches[str(cache)] > 0, "of many files the first are counted"


@pytest.fixture
def raylets() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that pass for Ray's by their command line: one wants a token, one is on loopback alone."""
    script = "import socket, sys, time; s = socket.create_server((sys.argv[1], 0)); print(flush=True); time.sleep(60)"
    plain = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    begun = []
    for address, mode in (("", {}), ("", {"RAY_AUTH_MODE": "token"}), ("127.0.0.1", {})):
        words = [sys.executable, "-c", script, address, "raylet"]
        begun.append(subprocess.Popen(words, env={**plain, **mode}, stdout=subprocess.PIPE, text=True))
    for one in begun:
        assert one.stdout is not None and one.stdout.readline()
    yield begun
    for one in begun:
        one.kill()
        one.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens")
def test_who_listens_without_a_token_is_found(raylets: list[subprocess.Popen[str]]) -> None:
    found = [find_listeners([one.pid]) for one in raylets]
    assert [[(one.process, one.token) for one in some] for some in found] == [
        [("raylet", False)], [("raylet", True)], [("raylet", False)],
    ]  # fmt: skip
    told = [check_listeners(some, strict=True) for some in found]
    assert outcomes(*told) == ["failed", "ok", "ok"] and "all networks" in told[0].text
    assert outcomes(check_listeners(found[0], strict=False), check_listeners([], True)) == ["warning", "ok"]
    assert find_listeners([os.getpid()]) == (), "a process that is not Ray's is nobody's business"


def test_a_listener_whose_environment_is_hidden_counts_as_one_without_a_token() -> None:
    assert outcomes(check_listeners([Listener("raylet", "10.0.0.1", 6379, None)], strict=True)) == ["failed"]


def test_a_cluster_beyond_loopback_wants_a_token() -> None:
    assert outcomes(check_token(True, ["10.0.0.1"]), check_token(False, ["127.0.0.1", "::1"])) == ["ok", "ok"]
    told = check_token(False, ["127.0.0.1", "10.0.0.1"])
    assert outcomes(told) == ["failed"] and "10.0.0.1" in told.text and "RAY_AUTH_MODE" in told.fix


def test_ports_that_are_not_reached_are_named() -> None:
    with listen() as server:
        there = Target("127.0.0.1", "a worker", server.getsockname()[1])
        gone = Target("127.0.0.1", "raylet", free_port())
        assert reach([there, gone]) == [gone] and reach([]) == []
    assert outcomes(*check_reach({"a": [], "b": []}, 4)) == ["ok"]
    (told,) = check_reach({"a": [gone], "b": []}, 4)
    assert told.node == "a" and outcomes(told) == ["failed"] and f"raylet of 127.0.0.1:{gone.port}" in told.text


@given(st.integers(1, 1200))
def test_of_many_nodes_each_asks_few_and_no_wall_stays_hidden(count: int) -> None:
    asked = [partners(count, place) for place in range(count)]
    assert all(place not in some and len(set(some)) == len(some) for place, some in enumerate(asked))
    assert all(place in asked[other] for place, some in enumerate(asked) for other in some), "in both directions"
    assert max(map(len, asked)) <= max(15, 2 * math.ceil(math.log2(count + 1)))
    reached, waiting = {0}, [0]
    while waiting:
        new = set(asked[waiting.pop()]) - reached
        reached |= new
        waiting += new
    assert len(reached) == count


@pytest.mark.parametrize("ahead", [0.0, 7.5, -3.0])
def test_a_clock_that_is_off_is_found(ahead: float) -> None:
    skew, unsure = measure_skew(lambda: time.time() + ahead)
    assert skew == pytest.approx(ahead, abs=unsure + 1e-3)
    (told,) = check_clocks({"a": (0.0, 0.001), "b": (skew, 0.001)})
    assert (told.outcome, told.node) == (("failed", "b") if ahead else ("ok", ""))
    if ahead:
        assert ("ahead of" if ahead > 0 else "behind") in told.text and "chronyc makestep" in told.fix


def test_a_slow_way_there_is_no_skew() -> None:
    assert outcomes(*check_clocks({"a": (1.8, 2.0)})) == ["ok"]


def test_a_run_folder_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    found = measure_storage(str(tmp_path / "runs"))
    assert not found.error and found.torn == 0 and min(found.write_mb_s, found.read_mb_s, found.file_s) > 0
    assert found.fsync_s is not None and found.free_gb is not None and list((tmp_path / "runs").iterdir()) == []
    remote = measure_storage("memory://doctor")
    assert not remote.error and remote.fsync_s is None and remote.free_gb is None
    (tmp_path / "file").write_text("")
    told = check_storage(measure_storage(str(tmp_path / "file")), "runs")
    assert outcomes(told) == ["failed"] and "cannot be used" in told.text
    assert "cannot be used" in check_storage(measure_storage("nowhere://x"), "x").text


def test_a_run_folder_that_slows_or_tears_is_told() -> None:
    assert (
        outcomes(check_storage(STORAGE, "runs"), check_storage(replace(STORAGE, free_gb=None), "s3://b")) == ["ok"] * 2
    )
    for wrong in ({"file_s": 0.5}, {"list_s": 3.0}, {"write_mb_s": 5.0}, {"read_mb_s": 5.0}):
        assert outcomes(check_storage(replace(STORAGE, **wrong), "runs")) == ["warning"]
    assert outcomes(check_storage(replace(STORAGE, torn=1), "runs")) == ["failed"]
    assert outcomes(check_storage(replace(STORAGE, free_gb=0.5), "runs")) == ["failed"]


class InPlace(Folder):
    """A folder of a disk that does not replace files in one step."""

    def write_bytes(self, name: str, data: bytes) -> None:
        with open(f"{self.path}/{name}", "wb") as stream:
            stream.write(data[: len(data) // 2])
            stream.flush()
            time.sleep(0.01)
            stream.write(data[len(data) // 2 :])


def test_half_a_file_is_noticed(tmp_path: Path) -> None:
    assert count_torn(Folder(tmp_path)) == 0
    assert count_torn(InPlace(tmp_path)) > 0


def test_a_folder_that_a_node_does_not_see_is_told(tmp_path: Path) -> None:
    shared = Folder(tmp_path)
    shared.write_bytes("token", b"abc")
    assert see(str(tmp_path), "abc", "by-0") == "" and shared.exists("by-0")
    assert see(str(tmp_path / "other"), "abc", "by-0") and see(str(tmp_path), "xyz", "by-0")
    assert outcomes(*check_shared({"a": "", "b": ""}, "runs")) == ["ok"]
    (told,) = check_shared({"a": "", "b": "it does not show it"}, "runs")
    assert told.node == "b" and outcomes(told) == ["failed"]


def test_a_group_of_one_sums_and_one_that_misses_a_member_ends_in_time() -> None:
    # In a process of its own, as the doctor has it: one has one group, and other tests may have made this one's.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:

        def join(world: int, timeout_s: float) -> Rank:
            store = f"127.0.0.1:{free_port()}"
            return apart.submit(all_reduce, "gloo", store, 0, world, "127.0.0.1", timeout_s).result(120)

        alone, missed = join(1, 30), join(2, 1)
    assert not alone.error and alone.latency_s > 0
    assert outcomes(check_group("gloo", [alone], [])) == ["ok"]
    assert missed.error
    told = check_group("gloo", [missed], [])
    assert outcomes(told) == ["failed"] and "127.0.0.1" in told.text and "GLOO_SOCKET_IFNAME" in told.fix


def test_what_a_group_measures_is_judged() -> None:
    ranks = [Rank("a", latency_s=1e-4, mb_s=900), Rank("b", latency_s=2e-4, mb_s=800)]
    told = check_group("gloo", ranks, [])
    assert outcomes(told) == ["ok"] and "2 processes on 2 nodes" in told.text and "800 MiB/s" in told.text
    assert outcomes(check_group("gloo", [*ranks, Rank("c", mb_s=5)], [])) == ["warning"]
    told = check_group("nccl", ranks, ["c"])
    assert outcomes(told) == ["failed"] and "c" in told.text and "NCCL_DEBUG=INFO" in told.fix


def test_all_that_a_machine_tells_is_checked() -> None:
    facts = find_facts()
    findings = check_facts(facts, None, None, strict=False)
    assert len({one.check for one in findings}) == len(findings) == 15
    wrong = Facts(
        replace(INSTALLED, packages={"ray": None}), replace(MEMORY, limit_gb=8, quota=1, overcommit=2, swap_used_gb=60),
        Limits(10, 1.0, 10, 1.0, True), Gpus(error="no answer"),
        replace(DISK, free_gb=0.0, sessions_mb=5e4, sessions=("x",), caches={"c": 99.0}),
        (Listener("raylet", "0.0.0.0", 1, False),),
    )  # fmt: skip
    findings = check_facts(wrong, Counted(16, 60, 40), 4, strict=True)
    assert "ok" not in outcomes(*findings)


def test_findings_of_many_nodes_are_told_together() -> None:
    nodes = [f"10.0.0.{number}" for number in range(100)]
    findings = [ok("CPUs", "16 CPUs").on(node) for node in nodes]
    findings += [failed("clock", "9 s behind", "chronyc makestep").on(node) for node in nodes[:7]]
    findings += [warning("swap", "1 GiB lie in [swap]", "swapoff -a").on(nodes[3]), ok("token", "wanted")]
    lines = group(findings)
    assert len(lines) == 4
    assert "10.0.0.0, and 99 others are well" in lines[0]
    assert "10.0.0.4 and 2 more" in lines[1] and "chronyc makestep" in lines[1] and "10.0.0.5" not in lines[1]
    assert "\\[swap]" in lines[2], "what a node says is no markup"


def test_secrets_are_in_no_finding() -> None:
    remember_secret("hunter2-hunter2")
    told = failed("run folder", "s3://me:hunter2-hunter2@host is closed", "use hunter2-hunter2").on("a")
    assert "hunter2" not in json.dumps(told.as_data())


def test_a_port_is_one_that_others_reach() -> None:
    with listen() as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            assert server.accept()[1] == client.getsockname()
