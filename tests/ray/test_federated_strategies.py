"""Strategies by name."""

from __future__ import annotations

import pytest
from flwr.serverapp.strategy import FedAdam, Krum

from squadron.core.errors import ConfigError
from squadron.federated import make_strategy, strategy_names


@pytest.mark.parametrize("name", ["FedAdam", "fedadam", "FEDADAM", "fed-adam", "fed_adam"])
def test_a_strategy_is_found_in_any_spelling(name: str) -> None:
    strategy = make_strategy(name, eta=0.25, fraction_train=0.5)
    assert type(strategy) is FedAdam and strategy.eta == 0.25 and strategy.fraction_train == 0.5


def test_all_of_flowers_strategies_are_known() -> None:
    assert {"FedAvg", "FedProx", "FedAvgM", "FedAdam", "FedAdagrad", "FedYogi", "FedMedian", "FedTrimmedAvg"} | {
        "Krum",
        "MultiKrum",
        "Bulyan",
        "QFedAvg",
        "FedXgbBagging",
        "FedXgbCyclic",
        "DifferentialPrivacyServerSideFixedClipping",
        "DifferentialPrivacyClientSideAdaptiveClipping",
    } <= set(strategy_names())
    assert type(make_strategy("krum")) is Krum


def test_a_misspelt_strategy_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no strategy called 'FedAdm'") as error:
        make_strategy("FedAdm")
    assert "FedAdam" in error.value.fix


def test_a_misspelt_setting_is_told_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"FedAvgM has no setting 'server_momentun'.*server_learning_rate") as error:
        make_strategy("FedAvgM", server_momentun=0.9)
    assert "server_momentum" in error.value.fix


def test_a_missing_or_refused_setting_is_told() -> None:
    with pytest.raises(ConfigError, match=r"QFedAvg.*client_learning_rate"):
        make_strategy("QFedAvg")
    with pytest.raises(ConfigError, match=r"FedTrimmedAvg.*beta"):
        make_strategy("FedTrimmedAvg", beta=0.7)
