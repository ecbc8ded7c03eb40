"""An examiner on each node of a cluster: it tells its node's facts, and tries what lies between nodes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from squadron.cluster.doctor.collectives import Backend, Rank, all_reduce
from squadron.cluster.doctor.facts import Facts, find_facts
from squadron.cluster.doctor.finding import Finding, failed, ok
from squadron.cluster.doctor.memory import Counted
from squadron.cluster.doctor.network import Target, listen, reach
from squadron.cluster.doctor.storage import Storage, measure_storage, see

_ASKS, _ASK_S = 5, 5.0
_MOST_SKEW_S = 1.0


class Examiner:
    """What runs on a node."""

    def facts(self) -> Facts:
        return find_facts()

    def clock(self) -> float:
        return time.time()

    def listen(self) -> int:
        """A port on which this process takes connections, as any worker of Ray does."""
        self._server = listen()
        return int(self._server.getsockname()[1])

    def free_port(self) -> int:
        """A port of this node that nobody listens on."""
        with listen() as server:
            return int(server.getsockname()[1])

    def reach(self, targets: Sequence[Target]) -> list[Target]:
        return reach(targets)

    def measure(self, url: str) -> Storage:
        return measure_storage(url)

    def see(self, url: str, token: str, own: str) -> str:
        return see(url, token, own)

    def all_reduce(self, backend: Backend, store: str, rank: int, world: int, node: str, timeout_s: float) -> Rank:
        return all_reduce(backend, store, rank, world, node, timeout_s)


@dataclass(frozen=True)
class Place:
    """A live node: its name in findings, where it is, and what Ray takes it to have."""

    name: str
    id: str
    address: str
    ports: Mapping[str, int]
    counted: Counted
    gpus: float

    def examiner(self, gpus: float = 0) -> Any:
        """An actor on it. It starts when there is room."""
        there = NodeAffinitySchedulingStrategy(self.id, soft=False)
        return ray.remote(Examiner).options(num_cpus=0, num_gpus=gpus, scheduling_strategy=there).remote()


def find_places() -> list[Place]:
    """Live nodes of the cluster that this process is connected to, sorted by name. Nodes that share an address are told
    apart by their ids."""
    entries = [entry for entry in ray.nodes() if entry["Alive"]]
    times = Counter(entry["NodeManagerAddress"] for entry in entries)
    return sorted(
        (_place(entry, times[entry["NodeManagerAddress"]] > 1) for entry in entries), key=lambda one: one.name
    )


def ask(refs: Mapping[str, ray.ObjectRef], timeout_s: float) -> tuple[dict[str, Any], list[Finding]]:
    """What the nodes answer in time, and a finding for each that does not."""
    done, _ = ray.wait(list(refs.values()), num_returns=len(refs), timeout=timeout_s) if refs else ([], [])
    answers, silent, came = {}, [], set(done)
    for name, ref in refs.items():
        if ref not in came:
            fix = f"look at it: `ray list nodes`, `ray logs cluster --node-ip {name.split()[0]}`; start it again"
            silent.append(failed("answer", f"none within {timeout_s:g} s", fix).on(name))
            continue
        try:
            answers[name] = ray.get(ref)
        except Exception as error:  # whatever a node's Python raises
            fix = "install on it what the driver has: `pip install -c constraints/cpu.txt squadron-*.whl`"
            silent.append(failed("answer", _last_line(error), fix).on(name))
    return answers, silent


def measure_skew(ask_clock: Callable[[], float]) -> tuple[float, float]:
    """How far another clock is ahead of this one, in seconds, and by how much that may be wrong: half of the shortest
    way there and back."""
    best = (0.0, float("inf"))
    for _ in range(_ASKS):
        before = time.time()
        there = ask_clock()
        after = time.time()
        if (after - before) / 2 < best[1]:
            best = (there - (before + after) / 2, (after - before) / 2)
    return best


def find_skews(examiners: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Skew and its uncertainty of each node that answers, asked one after the other."""
    skews = {}
    for name, examiner in examiners.items():

        def ask_clock(examiner: Any = examiner) -> float:
            return float(ray.get(examiner.clock.remote(), timeout=_ASK_S))

        with suppress(ray.exceptions.RayError):
            skews[name] = measure_skew(ask_clock)
    return skews


def check_clocks(skews: Mapping[str, tuple[float, float]]) -> list[Finding]:
    """A finding for each node whose clock is off by more than a second, or one for all. Tokens, logs, and the order of
    files of a store go by the clock."""
    wrong = [
        failed("clock", f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the driver's",
               "on it: `chronyc makestep`, or `timedatectl set-ntp true`").on(name)
        for name, (skew, unsure) in skews.items()
        if abs(skew) - unsure > _MOST_SKEW_S
    ]  # fmt: skip
    if wrong or not skews:
        return wrong
    largest = max(abs(skew) for skew, _ in skews.values())
    return [ok("clock", f"{1000 * largest:.1f} ms apart at most, give or take the way there")]


def _place(entry: Mapping[str, Any], shared: bool) -> Place:
    resources, address = entry["Resources"], entry["NodeManagerAddress"]
    name = f"{address} ({entry['NodeID'][:8]})" if shared else address
    ports = {"raylet": entry["NodeManagerPort"], "object manager": entry["ObjectManagerPort"]}
    gb = 2**30
    counted = Counted(
        resources.get("CPU", 0.0), resources.get("memory", 0.0) / gb, resources.get("object_store_memory", 0.0) / gb
    )
    return Place(name, entry["NodeID"], address, ports, counted, resources.get("GPU", 0.0))


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
