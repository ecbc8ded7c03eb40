"""FLAME takes any of Flower's strategies by name, and samples as many clients as it is told."""

from __future__ import annotations

from typing import Any, cast

import pytest

from squadron.core.errors import ConfigError
from squadron.federated import strategy_names
from squadron.methods.flame.config import FederationConfig
from squadron.methods.flame.federation import build_strategy, initial_arrays

CONFIG = FederationConfig(clients_per_round=10, clients_per_evaluation=2)
OWN: dict[str, dict[str, Any]] = {
    "FedProx": {"proximal_mu": 0.1},
    "FedAvgM": {"server_learning_rate": 1.0, "server_momentum": 0.9},
    "FedAdam": {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-9},
    "Krum": {"num_malicious_nodes": 0},
    "QFedAvg": {"client_learning_rate": 1e-3},
}
PRIVATE = {
    "noise_multiplier": 0.1,
    "num_sampled_clients": 10,
    "strategy": {"name": "fedavgm", "settings": {"server_momentum": 0.5}},
}


@pytest.mark.parametrize("name", [n for n in strategy_names() if "Xgb" not in n and "Privacy" not in n])
def test_every_strategy_samples_as_told(name: str) -> None:
    strategy: Any = build_strategy(name.lower(), OWN.get(name, {}), CONFIG, clients=64)
    assert round(strategy.fraction_train * 64) == strategy.min_train_nodes == 10
    assert round(strategy.fraction_evaluate * 64) == strategy.min_evaluate_nodes == 2


@pytest.mark.parametrize("name", ["fedavgm", "FedAvg-M"])
def test_momentum_is_what_its_name_says_unless_set(name: str) -> None:
    """Flower's own default is 0, at which it is FedAvg."""
    strategy: Any = build_strategy(name, {}, CONFIG, clients=64)
    assert (strategy.server_momentum, strategy.server_learning_rate) == (0.9, 1.0)
    assert cast(Any, build_strategy(name, {"server_momentum": 0.5}, CONFIG, clients=64)).server_momentum == 0.5


@pytest.mark.parametrize("name", [n for n in strategy_names() if "FixedClipping" in n])
def test_a_private_strategy_wraps_another(name: str) -> None:
    strategy: Any = build_strategy(name, {**PRIVATE, "clipping_norm": 1.0}, CONFIG, clients=64)
    assert type(strategy.strategy).__name__ == "FedAvgM" and strategy.strategy.server_momentum == 0.5
    assert strategy.strategy.min_train_nodes == 10


def test_sampling_is_set_in_one_place_only() -> None:
    with pytest.raises(ConfigError, match=r"cannot set fraction_train"):
        build_strategy("fedavg", {"fraction_train": 1.0}, CONFIG, clients=64)


def test_the_first_policy_depends_on_the_seed_alone() -> None:
    import torch

    torch.manual_seed(1)
    first = initial_arrays(64, seed=0)
    torch.manual_seed(2)
    again, other = initial_arrays(64, seed=0), initial_arrays(64, seed=1)
    assert all(first[key].data == again[key].data for key in first)
    assert any(first[key].data != other[key].data for key in first)
