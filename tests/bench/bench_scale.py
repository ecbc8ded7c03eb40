"""Processor time of the driver for each finished task, against the number of nodes and of workers. Bar: it grows by 10%
at most from one node to eight.

    python tests/bench/bench_scale.py rows      # 10,000 queued rows, each a batch of its own, on 1, 2, 4 and 8 nodes
    python tests/bench/bench_scale.py visits    # 400 federated clients, each round all of them, on 1, 2, 4 and 8 nodes
    python tests/bench/bench_scale.py workers   # the same clients on one node with 4, 16 and 48 workers
    python tests/bench/bench_scale.py waiting   # driver, worker and head while a single slow row or visit is waited for

The nodes are raylets of this machine, each with one made-up CPU. Workers are forks of a process that has imported what
is large. The time is that of all threads of the driver's process, Ray's own among them, and of no other process.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.forks.client import let_ray_fork, start_server, stop_server  # noqa: E402

NODES, ROWS, MEASURED, CLIENTS, ROUNDS = (1, 2, 4, 8), 10_000, 400, 400, 5
BAR = 1.1


@contextmanager
def machines(cpus: int = 1) -> Iterator[Any]:
    """A cluster of one node, to which more can be added, that this process is connected to."""
    with tempfile.TemporaryDirectory() as scratch:
        start_server(Path(scratch))
        let_ray_fork()
        os.environ.setdefault("RAY_worker_niceness", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
        import ray
        from ray.cluster_utils import Cluster

        from squadron.core.cluster import connect

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
        try:
            connect(cluster.address)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            stop_server()


def answer(row: dict[str, Any]) -> dict[str, Any]:
    """The rows that are measured are answered; at the first that is not, the stage ends."""
    from squadron.core.errors import ResourceError

    if row["n"] >= MEASURED:
        raise ResourceError("enough is measured")
    return {"n": row["n"] + 1}


def slow(row: dict[str, Any]) -> dict[str, Any]:
    time.sleep(row["n"])
    return row


def answer_rows(function: Callable[..., Any], rows: list[dict[str, Any]], folder: str) -> None:
    """All of them through the row engine, each a batch of its own."""
    from squadron.core.config import Config
    from squadron.core.folder import Folder
    from squadron.core.profile import Profile
    from squadron.core.rows import map_rows
    from squadron.core.run import Run, Stage

    run = Run("bench", Config(), Folder(folder), Profile(name="auto"), track=())
    stage = Stage(run, "answer", "", {}, run.folder / "stages" / "answer-0")
    stage.begin()
    map_rows(stage, rows, function, batch_size=1)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of this process's threads, and of the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - clock


def rows() -> bool:
    """Rows of the row engine, of which the first are measured while the others are queued."""
    costs = []
    queued = [{"id": str(number), "n": number} for number in range(ROWS)]
    with machines() as cluster:
        for count in NODES:
            grow(cluster, count)
            cost, rate = cost_of_rows(queued)
            costs.append(cost)
            print(f"rows    {count:4} nodes{cost:9.3f} ms/row of the driver{rate:9.0f} rows/s", flush=True)
    return judge("nodes", NODES, costs)


def cost_of_rows(queued: list[dict[str, Any]]) -> tuple[float, float]:
    """Milliseconds of the driver for a row, and rows a second, between a tenth and all of those that are measured."""
    from squadron.core.errors import ResourceError

    samples: list[tuple[int, float, float]] = []
    over = threading.Event()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, "stages", "answer-0", "rows")

        def sample() -> None:
            while not over.wait(0.2):
                done = len(os.listdir(place)) if place.exists() else 0
                samples.append((done, time.process_time(), time.perf_counter()))

        threading.Thread(target=sample, daemon=True).start()
        try:
            answer_rows(answer, queued, scratch)
        except ResourceError:
            over.set()
    first, last = (next(one for one in samples if one[0] >= share * MEASURED) for share in (0.1, 0.95))
    done = last[0] - first[0]
    return 1000 * (last[1] - first[1]) / done, done / (last[2] - first[2])


def grow(cluster: Any, nodes: int) -> None:
    """Let a cluster have so many nodes."""
    while len(cluster.list_all_nodes()) < nodes:
        cluster.add_node(num_cpus=1)


def judge(unit: str, counts: tuple[int, ...], costs: list[float]) -> bool:
    """Print how the cost has grown; whether it stays within the bar."""
    growth = costs[-1] / costs[0]
    print(f"{counts[-1]} {unit}: {growth:.2f} of {counts[0]}; bar {BAR}: {'met' if growth <= BAR else 'missed'}")
    return growth <= BAR


def visit_all(workers: int | None, rounds: int = ROUNDS) -> Callable[[], tuple[float, float]]:
    """A measure of rounds in which every client is visited, by so many workers: started, and warm."""

    def measure() -> tuple[float, float]:
        from tiny_client import app, content

        from squadron.core.profile import WorkerResources
        from squadron.federated import RayGrid

        share = WorkerResources(cpus=1 if workers is None else 0.01)
        with RayGrid("tiny_client:app", CLIENTS, share, max_workers=workers) as grid:
            assert app

            def play(count: int) -> None:
                for _ in range(count):
                    letters = [grid.create_message(content(), "train", node, "1") for node in grid.get_node_ids()]
                    assert not any(reply.has_error() for reply in grid.send_and_receive(letters))

            play(1)
            return timed(lambda: play(rounds))

    return measure


def visits() -> bool:
    """Visits to federated clients."""
    return report_visits("nodes", NODES, None)


def workers() -> bool:
    """The same on one node, by more and more workers."""
    return report_visits("workers", (4, 16, 48), 48)


def report_visits(unit: str, counts: tuple[int, ...], cpus: int | None) -> bool:
    os.environ["PYTHONPATH"] = f"{ROOT / 'lib'}{os.pathsep}{Path(__file__).parent}"
    costs = []
    with machines(cpus or 1) as cluster:
        for count in counts:
            grow(cluster, count if cpus is None else 1)
            cpu, clock = visit_all(None if cpus is None else count)()
            costs.append(1000 * cpu / (CLIENTS * ROUNDS))
            rate = CLIENTS * ROUNDS / clock
            print(f"visits  {count:4} {unit}{costs[-1]:9.3f} ms/visit of the driver{rate:9.0f} visits/s", flush=True)
    return judge(unit, counts, costs)


def waiting(seconds: float = 15.0) -> bool:
    """Share of a core that each process takes while a slow row is waited for. Bar: 5% for the driver and a worker."""
    with machines(cpus=2), tempfile.TemporaryDirectory() as scratch:
        before = spent()
        cpu, clock = timed(lambda: answer_rows(slow, [{"id": "slow", "n": seconds}], scratch))
        used = {name: value - before.get(name, 0.0) for name, value in spent().items()}
        print(f"driver {100 * cpu / clock:.1f}% of a core over {clock:.1f} s, its start included")
        for name, value in sorted(used.items(), key=lambda one: -one[1])[:8]:
            print(f"  {name:40}{100 * value / clock:6.1f}%")
    return cpu / clock < 0.05


def spent() -> dict[str, float]:
    """Seconds of the processes that this one has started, by what they are called."""
    found: dict[str, float] = {}
    for one in psutil.Process().children(recursive=True):
        try:
            times, name = one.cpu_times(), " ".join(one.cmdline()[:2])[-40:]
        except psutil.Error:
            continue
        found[name] = found.get(name, 0.0) + times.user + times.system
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"rows": rows, "visits": visits, "workers": workers, "waiting": waiting}
    parser.add_argument("part", nargs="*", choices=[*parts, []], help="which to measure (default: all)")
    chosen = parser.parse_args().part or list(parts)
    sys.exit(not all([parts[name]() for name in chosen]))


if __name__ == "__main__":
    main()
