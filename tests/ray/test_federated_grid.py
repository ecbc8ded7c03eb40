"""What a grid on Ray promises: a reply or an error from every client, in order, and shared arrays stored once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from squadron.core.errors import ConfigError, ResourceError, WorkerError
from squadron.core.profile import WorkerResources
from squadron.federated import RayGrid

sys.path.append(str(Path(__file__).parent))  # workers inherit it
from federated_apps import model, unruly, values

CLIENTS = 6


@pytest.fixture(scope="module")
def grid(ray_cluster: object) -> Iterator[RayGrid]:
    extra = [{"shard": f"part-{i}"} for i in range(CLIENTS)]
    with RayGrid(unruly, extra, max_workers=2, run_config={"lr": 0.5}, client_timeout_s=120, max_retries=1) as grid:
        yield grid


@pytest.fixture(autouse=True)
def forget(grid: RayGrid) -> None:
    grid.client_states = {}
    grid.take_failures()


def messages(grid: RayGrid, kind: str = "train", arrays: ArrayRecord | None = None, **config: Any) -> list[Message]:
    content = RecordDict({"arrays": arrays or model(1.0), "config": ConfigRecord(config)})
    return [Message(content, node_id, kind) for node_id in grid.get_node_ids()]


def by_client(grid: RayGrid, replies: list[Message]) -> dict[int, Message]:
    first = grid.get_node_ids()[0]
    return {reply.metadata.src_node_id - first: reply for reply in replies}


def test_nodes_are_configured_as_flower_does_it_and_as_the_user_asks(grid: RayGrid) -> None:
    replies = grid.send_and_receive(messages(grid, "query"), timeout=120)
    about = [dict(reply.content["about"]) for reply in replies]
    assert [(a["partition-id"], a["num-partitions"], a["shard"], a["lr"]) for a in about] == [
        (i, CLIENTS, f"part-{i}", 0.5) for i in range(CLIENTS)
    ]
    assert {a["pid"] for a in about} <= set(grid.worker_pids) and len(grid.worker_pids) == 2


def test_replies_come_in_the_order_of_nodes_whoever_is_fastest(grid: RayGrid) -> None:
    replies = grid.send_and_receive(messages(grid, delays=[0.5, 0.4, 0.0, 0.1, 0.0, 0.0]), timeout=120)
    assert [reply.metadata.src_node_id for reply in replies] == grid.get_node_ids()
    assert not any(reply.has_error() for reply in replies)


def test_states_stay_with_their_clients(grid: RayGrid) -> None:
    for visit in (1, 2, 3):
        replies = grid.send_and_receive(messages(grid)[:4], timeout=120)
        assert [reply.content["m"]["visits"] for reply in replies] == [visit] * 4
    assert sorted(grid.client_states) == grid.get_node_ids()[:4]


def test_two_messages_to_one_client_are_two_visits_one_after_the_other(grid: RayGrid) -> None:
    node_id = grid.get_node_ids()[0]
    twice = [messages(grid, delays=[0.2] * CLIENTS)[0] for _ in range(2)]
    replies = grid.send_and_receive(twice, timeout=120)
    assert [reply.content["m"]["visits"] for reply in replies] == [1, 2]
    assert {reply.metadata.src_node_id for reply in replies} == {node_id}


def test_seeded_visits_draw_the_same_numbers_on_any_worker(grid: RayGrid) -> None:
    grid.seed_visits(7, 1)
    runs = []
    for delays in ([0.3, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.3]):
        grid.client_states = {}
        replies = grid.send_and_receive(messages(grid, delays=delays), timeout=120)
        runs.append([values(reply.content["arrays"]) for reply in replies])
    for first, second in zip(*runs, strict=True):
        assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(runs[0][0]["weight"], runs[0][1]["weight"])


def test_failures_become_error_replies_and_the_others_go_on(grid: RayGrid) -> None:
    asked = messages(grid, **{"raise": [1], "spoil": [2], "die": [4]})
    replies = by_client(grid, grid.send_and_receive(asked, timeout=120))
    assert [client for client in replies if replies[client].has_error()] == [1, 2, 4]
    assert "RuntimeError: client 1 has no data" in str(replies[1].error.reason)
    assert "array 'bias' holds 1 NaN and 1 infinite values" in str(replies[2].error.reason)
    failures = grid.take_failures()
    assert [(f.client, f.cause) for f in failures] == [(1, "raised"), (2, "non-finite"), (4, "died")]
    assert "client 4 is about to die" in failures[2].log_lines
    assert 1002 not in grid.client_states and 1000 in grid.client_states  # a failed visit leaves no trace


def test_a_client_whose_worker_is_killed_once_answers_all_the_same(grid: RayGrid, tmp_path: Path) -> None:
    grid.seed_visits(3, 1)
    calm = grid.send_and_receive(messages(grid), timeout=120)
    grid.client_states = {}
    config = {"die-once": [3], "marker": str(tmp_path / "died")}
    shaken = grid.send_and_receive(messages(grid, **config), timeout=120)
    assert (tmp_path / "died").exists() and not any(reply.has_error() for reply in shaken)
    for one, other in zip(calm, shaken, strict=True):
        first, second = values(one.content["arrays"]), values(other.content["arrays"])
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_round_ends_with_its_timeout(grid: RayGrid) -> None:
    started = time.monotonic()
    replies = by_client(grid, grid.send_and_receive(messages(grid, hang=[0]), timeout=8))
    assert time.monotonic() - started < 300
    assert replies[0].has_error() and "within the 8 s" in str(replies[0].error.reason)
    assert [f.cause for f in grid.take_failures()] == ["timeout"]
    assert not any(reply.has_error() for reply in grid.send_and_receive(messages(grid), timeout=120))


def test_messages_can_be_pushed_and_pulled(grid: RayGrid) -> None:
    ids = grid.push_messages(messages(grid, delays=[0.2] * CLIENTS))
    pulled: list[Message] = []
    deadline = time.monotonic() + 120
    while len(pulled) < CLIENTS and time.monotonic() < deadline:
        pulled += grid.pull_messages(ids)
        time.sleep(0.02)
    assert sorted(reply.metadata.reply_to_message_id for reply in pulled) == sorted(ids)
    assert grid.pull_messages(ids) == []


def test_an_unknown_node_is_an_error_reply(grid: RayGrid) -> None:
    (reply,) = grid.send_and_receive([Message(RecordDict(), 5, "train")], timeout=5)
    assert "no node 5" in str(reply.error.reason)


def test_a_model_is_stored_once_however_many_messages_carry_it(grid: RayGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    puts, put = [], ray.put
    monkeypatch.setattr(ray, "put", lambda value: puts.append(1) or put(value))
    arrays = model(3.0)
    grid.send_and_receive(messages(grid, arrays=arrays), timeout=120)
    assert len(puts) == 1
    copies = [
        Message(RecordDict({"arrays": ArrayRecord({k: Array(a.numpy()) for k, a in arrays.items()})}), node_id, "query")
        for node_id in grid.get_node_ids()
    ]
    grid.send_and_receive(copies, timeout=120)  # the same content in other objects, and in the next phase
    assert len(puts) == 1
    distinct = [Message(RecordDict({"arrays": model(float(n))}), n, "query") for n in grid.get_node_ids()]
    grid.send_and_receive(distinct, timeout=120)
    assert len(puts) == 1 + CLIENTS


def test_clients_get_arrays_of_their_own(grid: RayGrid) -> None:
    arrays = model(1.0)
    replies = grid.send_and_receive(messages(grid, arrays=arrays), timeout=120)
    first = replies[0].content["arrays"]["weight"].numpy()
    first += 1  # strategies write into what they decode
    assert not np.array_equal(first, replies[0].content["arrays"]["weight"].numpy())
    assert np.array_equal(arrays["weight"].numpy(), np.ones((4, 3), np.float32))


def test_a_grid_that_cannot_start_is_refused_at_once(grid: RayGrid) -> None:
    started = time.monotonic()
    with pytest.raises(ResourceError, match="federated learning asks for 1 worker of 64 CPUs"):
        RayGrid(unruly, 4, WorkerResources(cpus=64))
    assert time.monotonic() - started < 60


def test_an_app_by_reference_and_a_wrong_reference(grid: RayGrid) -> None:
    grid.close()
    with RayGrid("federated_apps:unruly", 2) as other:
        assert len(other.send_and_receive(messages(other, "query"), timeout=120)) == 2
    with pytest.raises(WorkerError, match=r"did you mean unruly\?"):
        RayGrid("federated_apps:unrully", 2)
    with pytest.raises(ConfigError, match="at least one client"):
        RayGrid(unruly, 0)
