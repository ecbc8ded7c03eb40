"""What a federated run promises: killed anywhere and started again, it ends with the very same weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg, Strategy

from squadron.core.errors import ConfigError, InputError, WorkerError
from squadron.core.folder import Folder
from squadron.federated import FederatedResult, RayGrid, RoundRecord, federate, load_best, make_strategy

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # workers inherit it
from federated_apps import big, model, unruly, values  # noqa: E402

CLIENTS = 6


@pytest.fixture(scope="module")
def grid(ray_cluster: object) -> Iterator[RayGrid]:
    with RayGrid(unruly, CLIENTS, max_workers=2, client_timeout_s=120, max_retries=1) as grid:
        yield grid


def adam(**settings: Any) -> Strategy:
    return make_strategy("FedAdam", **{"fraction_train": 0.5, "fraction_evaluate": 0.0, "eta": 0.1, **settings})


def run(grid: RayGrid, folder: Path, rounds: int, strategy: Strategy | None = None, **options: Any) -> FederatedResult:
    config = ConfigRecord(options.pop("config", {}))
    strategy = strategy or adam()
    return federate(grid, strategy, model(), rounds, Folder(folder), seed=5, train_config=config, **options)


def same(one: ArrayRecord, other: ArrayRecord) -> bool:
    first, second = values(one), values(other)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_resumed_run_ends_with_the_very_same_weights(grid: RayGrid, tmp_path: Path) -> None:
    whole = run(grid, tmp_path / "whole", 6)
    seen: list[int] = []
    resumed: list[list[int]] = []
    for rounds in (2, 3, 6):
        parts = run(
            grid,
            tmp_path / "parts",
            rounds,
            on_round=lambda number, record, arrays: seen.append(number),
            on_resume=lambda records: resumed.append([record.round for record in records]),
        )
    assert same(whole.arrays, parts.arrays)
    assert seen == list(range(7)) and resumed == [[], [0, 1, 2], [0, 1, 2, 3]]
    assert [r.train for r in whole.history] == [r.train for r in parts.history]
    assert whole.history[-1].train["visits"] > 1  # clients did remember


def test_another_seed_gives_other_weights(grid: RayGrid, tmp_path: Path) -> None:
    first = run(grid, tmp_path / "a", 2)
    second = federate(grid, adam(), model(), 2, Folder(tmp_path / "b"), seed=6)
    assert not same(first.arrays, second.arrays)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("FedAvgM", {"server_momentum": 0.9}),
        ("FedYogi", {}),
        ("FedAdagrad", {}),
        ("QFedAvg", {"client_learning_rate": 0.1, "train_loss_key": "visits"}),
    ],
)
def test_every_kind_of_memory_survives(grid: RayGrid, tmp_path: Path, name: str, settings: Any) -> None:
    def strategy() -> Strategy:
        return make_strategy(name, fraction_train=0.5, fraction_evaluate=0.0, **settings)

    whole = run(grid, tmp_path / "whole", 4, strategy())
    run(grid, tmp_path / "parts", 2, strategy())
    assert same(whole.arrays, run(grid, tmp_path / "parts", 4, strategy()).arrays)


def test_a_wrapped_strategy_survives_with_its_clipping_norm(grid: RayGrid, tmp_path: Path) -> None:
    def strategy() -> Strategy:
        return make_strategy(
            "DifferentialPrivacyServerSideAdaptiveClipping",
            strategy=make_strategy("FedAvgM", server_momentum=0.5, fraction_train=0.5, fraction_evaluate=0.0),
            noise_multiplier=0.2,
            num_sampled_clients=3,
        )

    whole = run(grid, tmp_path / "whole", 4, first := strategy())
    run(grid, tmp_path / "parts", 2, strategy())
    assert same(whole.arrays, run(grid, tmp_path / "parts", 4, last := strategy()).arrays)
    assert last.clipping_norm == first.clipping_norm != 0.1  # type: ignore[attr-defined]


class Wanders(FedAvg):
    """Adds to each model what it drew and learned in all rounds before."""

    def __init__(self) -> None:
        super().__init__(fraction_train=0.5, fraction_evaluate=0.0)
        self.random, self.last, self.seen = random.Random(1), deque([0.0], maxlen=3), Counter[int]()
        self.by_client: defaultdict[int, list[float]] = defaultdict(lambda: [0.5])
        self.step, self.network = torch.zeros(3), torch.nn.Linear(3, 1, bias=False)
        torch.nn.init.ones_(self.network.weight)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 0.1)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        arrays, metrics = super().aggregate_train(server_round, replies)
        for reply in replies:
            self.seen[reply.metadata.src_node_id] += 1
            self.by_client[reply.metadata.src_node_id].append(self.random.gauss())
        self.optimizer.zero_grad()
        self.network(self.step + torch.randn(3)).square().sum().backward()
        self.optimizer.step()
        self.step = self.step + self.network.weight.detach()[0] + self.last[0]
        self.last.append(sum(map(sum, self.by_client.values())) + sum(self.seen.values()))
        return ArrayRecord({**arrays, "bias": Array(arrays["bias"].numpy() + self.step.numpy())}), metrics


def test_a_strategy_that_keeps_random_numbers_networks_and_counters_resumes_exactly(
    grid: RayGrid, tmp_path: Path
) -> None:
    whole = run(grid, tmp_path / "whole", 4, Wanders())
    run(grid, tmp_path / "parts", 2, Wanders())
    assert same(whole.arrays, run(grid, tmp_path / "parts", 4, Wanders()).arrays)


def test_replies_without_examples_stop_the_round_by_name(grid: RayGrid, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"round 1 \(train\)[^$]*num-examples is 0 for all of client"):
        run(grid, tmp_path, 2, config={"examples": 0})
    assert (tmp_path / "round-00000.npz").exists()


_DRIVER = """
import sys
sys.path[:0] = {paths!r}
from federated_apps import model, unruly
from flwr.app import ConfigRecord
from squadron.core.cluster import connect
from squadron.core.folder import Folder
from squadron.federated import RayGrid, federate, make_strategy
connect({address!r})
with RayGrid(unruly, {clients}, max_workers=2) as grid:
    strategy = make_strategy("FedAdam", fraction_train=0.5, fraction_evaluate=0.0, eta=0.1)
    federate(grid, strategy, model(), 6, Folder({folder!r}), seed=5,
             train_config=ConfigRecord({{"delays": [0.3] * {clients}, "visits": {visits!r}}}))
"""


def test_a_driver_killed_in_a_round_ends_with_the_very_same_weights(grid: RayGrid, tmp_path: Path) -> None:
    visits = tmp_path / "visits"
    visits.mkdir()
    config = {"delays": [0.3] * CLIENTS, "visits": str(visits)}
    whole = run(grid, tmp_path / "whole", 6, config=config)
    grid.close()
    script = _DRIVER.format(
        paths=[str(HERE), *sys.path],
        address=ray.get_runtime_context().gcs_address,
        clients=CLIENTS,
        folder=str(tmp_path / "killed"),
        visits=str(visits),
    )
    for visit in visits.iterdir():
        visit.unlink()
    driver = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 240
    while not (any(visits.glob("round-4-*")) and (tmp_path / "killed" / "round-00003.npz").exists()):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait(30) == -signal.SIGKILL
    seen: list[int] = []
    with RayGrid(unruly, CLIENTS, max_workers=2) as fresh:
        resumed = run(fresh, tmp_path / "killed", 6, config=config, on_round=lambda n, *_: seen.append(n))
    assert seen == [4, 5, 6]
    assert same(whole.arrays, resumed.arrays)
    assert [r.train for r in whole.history] == [r.train for r in resumed.history]


@pytest.fixture(scope="module")
def grid_again(grid: RayGrid) -> Iterator[RayGrid]:
    """For the tests after the one that had to close the first grid."""
    with RayGrid(unruly, CLIENTS, max_workers=2, client_timeout_s=120, max_retries=1) as again:
        yield again


def test_a_worker_killed_in_a_round_changes_nothing(grid_again: RayGrid, tmp_path: Path) -> None:
    calm = run(grid_again, tmp_path / "calm", 3, adam(fraction_train=1.0))
    config = {"die-once": [2], "marker": str(tmp_path / "died")}
    shaken = run(grid_again, tmp_path / "shaken", 3, adam(fraction_train=1.0), config=config)
    assert (tmp_path / "died").exists()
    assert same(calm.arrays, shaken.arrays) and not any(record.failures for record in shaken.history)


def test_failures_are_kept_in_the_history_and_on_disk(grid_again: RayGrid, tmp_path: Path) -> None:
    everyone = FedAvg(fraction_evaluate=0.0)
    result = run(grid_again, tmp_path, 2, everyone, config={"raise": [1], "spoil": [4]})
    for record in result.history[1:]:
        assert [(f.client, f.cause) for f in record.failures] == [(1, "raised"), (4, "non-finite")]
        assert record.clients == CLIENTS and record.aggregated
    saved = [RoundRecord.model_validate(entry) for entry in Folder(tmp_path).read_json("history.json")["history"]]
    assert saved == result.history
    assert "RuntimeError: client 1 has no data" in saved[1].failures[0].detail


def test_a_round_in_which_all_fail_stops_with_the_causes(grid_again: RayGrid, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"all 3 clients of round 3 failed") as error:
        run(grid_again, tmp_path, 4, config={"all-fail-in": 3})
    assert "has no data" in str(error.value) and "round 3" in error.value.where
    assert "round-00002.npz" in os.listdir(tmp_path)


def test_the_server_evaluates_and_the_best_model_is_kept(grid_again: RayGrid, tmp_path: Path) -> None:
    losses = {0: 9.0, 1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan")}
    models: dict[int, ArrayRecord] = {}
    result = run(
        grid_again,
        tmp_path,
        4,
        evaluate_fn=lambda number, arrays: MetricRecord({"loss": losses[number]}),
        on_round=lambda number, record, arrays: models.update({number: arrays}),
        best_metric="loss",
    )
    best = load_best(Folder(tmp_path))
    assert result.best_round == 2 and best is not None
    assert best[1] == {"round": 2, "loss": 1.0} and same(best[0], models[2])
    assert [record.server["loss"] for record in result.history[:4]] == [9.0, 3.0, 1.0, 2.0]


def test_only_the_last_states_are_kept(grid_again: RayGrid, tmp_path: Path) -> None:
    run(grid_again, tmp_path, 6, keep=2)
    assert [name for name in sorted(os.listdir(tmp_path)) if name.startswith("round")] == [
        "round-00005.npz",
        "round-00006.npz",
    ]
    clients = [name.split("-")[0] for name in os.listdir(tmp_path / "clients")]
    assert all(clients.count(client) <= 3 for client in clients)


def test_a_damaged_last_state_is_passed_over(
    grid_again: RayGrid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(grid_again, tmp_path, 4)
    last = tmp_path / "round-00004.npz"
    content = last.read_bytes()
    for damaged in (content[:-200], content[:400] + bytes([content[400] ^ 1]) + content[401:]):
        last.write_bytes(damaged)
        assert same(whole.arrays, run(grid_again, tmp_path, 4).arrays)
        assert "round-00004.npz" in "".join(capsys.readouterr().out.split())
    for name in ("round-00003.npz", "round-00004.npz"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        run(grid_again, tmp_path, 4)


def test_saved_states_are_read_without_pickle(grid_again: RayGrid, tmp_path: Path) -> None:
    run(grid_again, tmp_path, 1)
    with np.load(tmp_path / "round-00001.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "fiu" for name in archive.files if name != "about.json")


def test_a_run_with_other_settings_is_refused(grid_again: RayGrid, tmp_path: Path) -> None:
    run(grid_again, tmp_path, 1)
    with pytest.raises(ConfigError, match=r"eta: saved 0\.1, now 0\.2"):
        run(grid_again, tmp_path, 2, adam(eta=0.2))
    with pytest.raises(ConfigError, match=r"FedAdam.*FedAvg"):
        run(grid_again, tmp_path, 2, FedAvg(fraction_train=0.5, fraction_evaluate=0.0))
    with pytest.raises(ConfigError, match=r"train_config: saved .*, now \"{'lr': 0.1}\""):
        run(grid_again, tmp_path, 2, config={"lr": 0.1})
    other = ArrayRecord({**model(), "weight": Array(np.zeros((5, 3), np.float32))})
    with pytest.raises(ConfigError, match=r"model\.weight: saved 'float32\[4, 3\]', now 'float32\[5, 3\]'"):
        federate(grid_again, adam(), other, 2, Folder(tmp_path), seed=5)


def test_a_strategy_that_wants_more_clients_is_refused_at_once(grid_again: RayGrid, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="min_train_nodes = 7, and there are 6 clients"):
        run(grid_again, tmp_path, 1, FedAvg(min_train_nodes=7))


def test_a_strategy_that_cannot_be_saved_is_refused_at_once(grid_again: RayGrid, tmp_path: Path) -> None:
    strategy = FedAvg()
    strategy.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"strategy\.lock is a .*lock"):
        run(grid_again, tmp_path, 1, strategy)


def test_the_callers_random_numbers_are_left_alone(grid_again: RayGrid, tmp_path: Path) -> None:
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    run(grid_again, tmp_path, 2)
    assert np.random.rand() == expected


def test_the_drivers_memory_does_not_grow(grid_again: RayGrid, tmp_path: Path) -> None:
    grid_again.close()
    arrays = ArrayRecord({f"layer{i}": Array(np.zeros((512, 1220), np.float32)) for i in range(4)})  # 10 MB
    grown: list[float] = []

    def note(number: int, record: RoundRecord, _: ArrayRecord) -> None:
        grown.append(private_mb())

    strategy = FedAvg(fraction_train=0.05, fraction_evaluate=0.0)
    with RayGrid(big, 400, max_workers=2) as wide:
        result = federate(wide, strategy, arrays, 20, Folder(tmp_path), on_round=note)
    assert np.allclose(result.arrays["layer0"].numpy(), 20)
    assert max(grown[6:]) - grown[5] < 50


def private_mb() -> float:
    """This process's memory, without the object store that all processes share."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile"))) / 1024
