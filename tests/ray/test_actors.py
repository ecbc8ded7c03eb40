"""What a pool of workers promises: every task has an outcome, in time, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from squadron.core.actors import ActorPool
from squadron.core.cluster import Node, check_shared, connect
from squadron.core.errors import ResourceError, WorkerError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources


def make_worker() -> Any:
    class Worker:
        def __init__(self) -> None:
            self.calls = 0

        def square(self, number: int) -> int:
            self.calls += 1
            return number * number

        def threads(self) -> str:
            return os.environ["OMP_NUM_THREADS"]

        def fail(self, number: int) -> int:
            raise ValueError(f"number {number} is not welcome")

        def die_if_first(self, marker: str, number: int) -> int:
            if not Path(marker).exists():
                Path(marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        def die(self) -> None:
            print("these were my last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        def sleep(self, seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        def wait_for(self, marker: str) -> None:
            while not Path(marker).exists():
                time.sleep(0.02)

        def touch(self, marker: str) -> None:
            Path(marker).touch()

    return Worker()


@pytest.fixture(scope="module")
def pool(ray_cluster: object) -> Iterator[ActorPool]:
    with ActorPool(make_worker, 2, WorkerResources(cpus=1), max_retries=1) as pool:
        yield pool


def test_every_task_has_its_own_outcome(pool: ActorPool) -> None:
    outcomes = {outcome.key: outcome.value for outcome in pool.map("square", [(n,) for n in range(20)], timeout_s=120)}
    assert outcomes == {n: n * n for n in range(20)}


def test_outcomes_come_as_completed(pool: ActorPool, tmp_path: Path) -> None:
    pool.submit("first", "wait_for", str(tmp_path / "marker"), timeout_s=120)
    pool.submit("second", "touch", str(tmp_path / "other"), timeout_s=120)
    assert getattr(pool.poll(120), "key", None) == "second", "the first one still waits"
    pool.submit("third", "touch", str(tmp_path / "marker"), timeout_s=120)
    assert {getattr(pool.poll(120), "key", None) for _ in range(2)} == {"first", "third"}


def test_threads_follow_the_reserved_cpus(pool: ActorPool) -> None:
    (outcome,) = pool.map("threads", [()], timeout_s=120)
    assert outcome.value == "1"


def test_a_task_that_raises_is_told_and_its_worker_lives_on(pool: ActorPool) -> None:
    before = sorted(pool.pids)
    (outcome,) = pool.map("fail", [(7,)], timeout_s=120)
    assert outcome.failure is not None and outcome.failure.cause == "raised"
    assert "ValueError: number 7 is not welcome" in outcome.failure.message
    assert "Traceback" in outcome.failure.detail
    assert sorted(pool.pids) == before


def test_a_lost_worker_is_replaced_and_its_task_done_again(pool: ActorPool, tmp_path: Path) -> None:
    marker = str(tmp_path / "died")
    outcomes = {o.key: o.value for o in pool.map("die_if_first", [(marker, n) for n in range(6)], timeout_s=120)}
    assert os.path.exists(marker)
    assert outcomes == {n: n for n in range(6)}


def test_a_task_that_keeps_killing_workers_is_given_up_with_its_last_words(pool: ActorPool) -> None:
    (outcome,) = pool.map("die", [()], timeout_s=120)
    assert outcome.failure is not None and outcome.failure.cause == "died"
    assert outcome.failure.pid > 0 and outcome.failure.node
    assert "these were my last words" in outcome.failure.log_lines
    assert "next:" in str(outcome.failure)
    test_every_task_has_its_own_outcome(pool)


def test_a_task_past_its_deadline_costs_its_worker_and_nothing_else(pool: ActorPool) -> None:
    started = time.monotonic()
    outcomes = {o.key: o for o in pool.map("sleep", [(600.0,), (0.0,), (0.0,)], timeout_s=4)}
    assert time.monotonic() - started < 300
    assert outcomes[0].failure is not None and outcomes[0].failure.cause == "timeout"
    assert outcomes[1].value == outcomes[2].value == 0.0


def test_what_is_given_up_is_reported_and_the_pool_goes_on(pool: ActorPool) -> None:
    for number in range(4):
        pool.submit(number, "sleep", 600.0, timeout_s=700)
    assert sorted(outcome.key for outcome in pool.abandon()) == [0, 1, 2, 3]
    assert pool.outstanding == 0
    test_every_task_has_its_own_outcome(pool)


def test_polling_keeps_to_its_time(pool: ActorPool, tmp_path: Path) -> None:
    test_every_task_has_its_own_outcome(pool)  # all workers are up again
    pool.submit("slow", "wait_for", str(tmp_path / "marker"), timeout_s=120)
    assert pool.poll(0.1) is None
    (tmp_path / "marker").touch()
    outcome = pool.poll(120)
    assert outcome is not None and outcome.key == "slow"
    assert pool.poll(120) is None  # nothing is outstanding: no wait


def test_too_many_workers_are_refused_at_once(ray_cluster: object) -> None:
    started = time.monotonic()
    with pytest.raises(ResourceError, match=r"search asks for 3 workers of 1 CPU each; there is room for 2") as error:
        ActorPool(make_worker, 3, WorkerResources(cpus=1), purpose="tree search")
    assert time.monotonic() - started < 60
    assert "max_workers" in error.value.fix and "2 CPUs" in error.value.where


def test_a_busy_cluster_is_told_after_the_deadline(pool: ActorPool) -> None:
    with pytest.raises(WorkerError, match="had not started after 1 s") as error:
        ActorPool(make_worker, 1, WorkerResources(cpus=1), start_timeout_s=1)
    assert "max_workers" in error.value.fix
    assert "free now: 0 CPUs" in str(error.value)


def test_connecting_again_is_the_same_cluster(ray_cluster: object) -> None:
    assert connect().cpus == 2 and [node.cpus for node in connect().nodes] == [2]


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        (WorkerResources(cpus=3), 5),
        (WorkerResources(cpus=1, gpus=1), 2),
        (WorkerResources(cpus=1, gpus=0.3), 6),  # three on each card, never one across two
        (WorkerResources(cpus=1, gpus=0.1), 16),
        (WorkerResources(cpus=1, memory_gb=10), 6),
    ],
)
def test_a_node_holds_what_fits(resources: WorkerResources, count: int) -> None:
    assert Node("a", "10.0.0.1", cpus=16, gpus=2, memory_gb=64).fit(resources) == count


def test_one_node_needs_no_shared_folder(ray_cluster: object, tmp_path: Path) -> None:
    check_shared(Folder(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_closed_pool_frees_its_cpus(pool: ActorPool) -> None:
    pool.close()
    wait_until(lambda: ray.available_resources().get("CPU", 0) == 2)


def test_a_factory_that_fails_is_told_with_its_error(ray_cluster: object) -> None:
    with pytest.raises(WorkerError, match="no such model"):
        ActorPool(_no_model, 1, WorkerResources(cpus=1))


def _no_model() -> Any:
    raise OSError("no such model")


def wait_until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
