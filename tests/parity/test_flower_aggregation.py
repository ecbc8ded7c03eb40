"""Flower's strategies on the Ray grid against Flower alone: the same weights, whoever answers first."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squadron.core.folder import Folder
from squadron.federated import RayGrid, federate, make_strategy, strategy_names

sys.path.append(str(Path(__file__).parents[1] / "ray"))  # workers inherit it
from federated_apps import (
    PlainGrid,
    adaptive_clipping,
    boosted,
    fixed_clipping,
    model,
    steady,
    step,
    unruly,
    values,
)

CLIENTS, ROUNDS = 8, 3
COMMON = {"fraction_train": 0.9, "fraction_evaluate": 0.5}  # 7 of 8 train
PLAIN: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "FedProx": {"proximal_mu": 0.1},
    "FedAvgM": {"server_momentum": 0.9, "server_learning_rate": 0.5},
    "FedAdam": {},
    "FedAdagrad": {},
    "FedYogi": {},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": 0.2},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "Bulyan": {"num_malicious_nodes": 1},
    "QFedAvg": {"client_learning_rate": 0.1},
}
FIXED = {"noise_multiplier": 0.1, "clipping_norm": 0.5, "num_sampled_clients": 7}
ADAPTIVE = {"noise_multiplier": 0.1, "num_sampled_clients": 7}
PRIVATE: dict[str, tuple[ClientApp, dict[str, Any]]] = {
    "DifferentialPrivacyServerSideFixedClipping": (steady, FIXED),
    "DifferentialPrivacyClientSideFixedClipping": (fixed_clipping, FIXED),
    "DifferentialPrivacyServerSideAdaptiveClipping": (steady, ADAPTIVE),
    "DifferentialPrivacyClientSideAdaptiveClipping": (adaptive_clipping, ADAPTIVE),
}
BOOSTING = ["FedXgbBagging", "FedXgbCyclic"]


@pytest.fixture(scope="module")
def grid(ray_cluster: object) -> Iterator[Callable[[ClientApp], RayGrid]]:
    """A grid for an app; the one before makes room."""
    open_grids: dict[int, RayGrid] = {}

    def get(app: ClientApp) -> RayGrid:
        if id(app) not in open_grids:
            close()
            open_grids[id(app)] = RayGrid(app, CLIENTS, max_workers=2)
        open_grids[id(app)].client_states = {}
        return open_grids[id(app)]

    def close() -> None:
        for old in open_grids.values():
            old.close()
        open_grids.clear()

    yield get
    close()


def start(strategy: Strategy, grid: Any, arrays: ArrayRecord) -> Any:
    """Flower's own round loop."""
    random.seed(0)
    np.random.seed(0)
    return strategy.start(grid, arrays, num_rounds=ROUNDS)


def compare(make: Callable[[], Strategy], app: ClientApp, grid: RayGrid, arrays: ArrayRecord) -> None:
    expected = start(make(), PlainGrid(app, grid.get_node_ids()), arrays)
    found = start(make(), grid, arrays)
    first, second = values(expected.arrays), values(found.arrays)
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
    assert not all(np.array_equal(first[name], array.numpy()) for name, array in arrays.items())  # it did train
    assert expected.train_metrics_clientapp == found.train_metrics_clientapp
    assert expected.evaluate_metrics_clientapp == found.evaluate_metrics_clientapp


@pytest.mark.parametrize("name", PLAIN)
def test_a_strategy_gives_what_it_gives_in_flower_alone(grid: Any, name: str) -> None:
    compare(lambda: make_strategy(name, **COMMON, **PLAIN[name]), steady, grid(steady), model(0.5))


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_strategy_gives_what_it_gives_in_flower_alone(grid: Any, name: str) -> None:
    app, options = PRIVATE[name]
    compare(lambda: make_strategy(name, strategy=FedAvg(**COMMON), **options), app, grid(app), model(0.5))


@pytest.mark.parametrize("name", BOOSTING)
def test_a_boosting_strategy_gives_what_it_gives_in_flower_alone(grid: Any, name: str) -> None:
    empty = ArrayRecord([np.frombuffer(b"", np.uint8)])
    compare(lambda: make_strategy(name, fraction_train=1.0), boosted, grid(boosted), empty)


def test_the_saving_round_loop_gives_what_flowers_gives(grid: Any, tmp_path: Path) -> None:
    """With all clients in every round there is nothing to sample, so the loops must agree to the bit."""
    everyone = {"fraction_train": 1.0, "fraction_evaluate": 1.0}
    expected = start(make_strategy("FedAdam", **everyone), PlainGrid(steady, grid(steady).get_node_ids()), model(0.5))
    found = federate(grid(steady), make_strategy("FedAdam", **everyone), model(0.5), ROUNDS, Folder(tmp_path))
    first, second = values(expected.arrays), values(found.arrays)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    for record in found.history[1:]:
        assert record.train == dict(expected.train_metrics_clientapp[record.round])
        assert record.evaluate == dict(expected.evaluate_metrics_clientapp[record.round])


@pytest.mark.parametrize("slowest", [0, 3, 7])
def test_the_order_of_arrival_changes_nothing(grid: Any, slowest: int) -> None:
    delays = [0.3 if client == slowest else 0.02 * (client % 3) for client in range(CLIENTS)]
    results = []
    for late in (delays, [0.0] * CLIENTS):
        ray_grid = grid(unruly)
        ray_grid.seed_visits(1, 1)
        content = RecordDict({"arrays": model(0.5), "config": ConfigRecord({"delays": late})})
        replies = ray_grid.send_and_receive([Message(content, n, "train") for n in ray_grid.get_node_ids()], timeout=60)
        results.append(values(aggregate_arrayrecords([reply.content for reply in replies], "num-examples")))
        weights = [float(reply.content["m"]["num-examples"]) for reply in replies]
        for name in results[-1]:  # and it is the weighted mean
            stacked = np.stack([reply.content["arrays"][name].numpy() for reply in replies])
            assert np.allclose(results[-1][name], np.average(stacked, axis=0, weights=weights), rtol=1e-6, atol=1e-6)
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(5)), start_value=st.floats(-100, 100, width=32))
def test_the_mean_is_right_in_any_order(grid: Any, order: list[int], start_value: float) -> None:
    ray_grid = grid(steady)
    content = RecordDict({"arrays": model(start_value), "config": ConfigRecord()})
    nodes = ray_grid.get_node_ids()
    replies = ray_grid.send_and_receive([Message(content, nodes[i], "train") for i in order], timeout=60)
    assert [reply.metadata.src_node_id for reply in replies] == nodes[:5]
    mean = values(aggregate_arrayrecords([replies[i].content for i in order], "num-examples"))
    for name, (total, parts) in _by_hand(start_value).items():
        assert np.allclose(mean[name], parts / total, rtol=1e-6, atol=1e-5)


def _by_hand(start_value: float) -> dict[str, tuple[float, np.ndarray[Any, Any]]]:
    steps = [values(step(model(start_value), client)) for client in range(5)]
    total = sum(client + 1 for client in range(5))
    return {
        name: (total, sum((client + 1) * moved[name].astype(np.float64) for client, moved in enumerate(steps)))
        for name in steps[0]
    }


def test_no_strategy_of_flower_is_left_out() -> None:
    bases = {"FedOpt"}  # FedAdam, FedAdagrad and FedYogi share it; alone it is FedAvg
    assert set(strategy_names()) - bases == {*PLAIN, *PRIVATE, *BOOSTING}
