"""FLAME's federation: the policy visits the homes by a Flower strategy, and some rounds' policies are kept."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from squadron.core.errors import ConfigError
from squadron.core.progress import progress
from squadron.core.run import Stage
from squadron.federated import (
    ClientFailure,
    FederatedResult,
    RayGrid,
    RoundRecord,
    federate,
    make_strategy,
    strategy_names,
)
from squadron.federated.state import newest_round
from squadron.methods.flame.algorithm import BCPolicy
from squadron.methods.flame.baselines import save_policy
from squadron.methods.flame.client import make_client_app
from squadron.methods.flame.config import FederationConfig, StrategyConfig, TrainingConfig
from squadron.methods.flame.demos import check_shards
from squadron.methods.flame.records import Policy, Shard


def run_rounds(
    stage: Stage,
    shards: Sequence[Shard],
    image_size: int,
    training: TrainingConfig,
    strategy: StrategyConfig,
    config: FederationConfig,
) -> FederatedResult:
    """All rounds, from the last saved one on. Shards are checked before the first visit.

    Raises InputError for a missing, corrupt or empty shard, ConfigError for an unknown strategy or setting.
    """
    chosen = build_strategy(strategy.name, strategy.settings, config, len(shards))
    check_shards(stage.run.folder, shards)
    app = make_client_app(stage.run.folder, shards, image_size, training, config.seed)
    workers = stage.claim_workers("federated clients", min(len(shards), config.clients_per_round))
    rounds = stage.folder / "rounds"
    with (
        RayGrid(
            app,
            len(shards),
            stage.run.profile.worker,
            workers,
            client_timeout_s=config.timeout_s,
            purpose="federated clients",
        ) as grid,
        progress(config.rounds, "federate", "round", done=newest_round(stage.folder / "server")) as bar,
    ):

        def on_resume(saved: Sequence[RoundRecord]) -> None:
            stage.restore_metrics(metrics(saved))
            bar.advance(max(0, len(saved) - 1) - bar.done)  # less, where the newest state is damaged

        def on_round(number: int, record: RoundRecord, arrays: ArrayRecord) -> None:
            stage.log(number, **_metrics(record))
            if number > 0:
                bar.advance()

        def keep_candidate(number: int, arrays: ArrayRecord) -> None:
            if number > 0 and (number % config.candidate_every == 0 or number == config.rounds):
                policy = BCPolicy(image_size)
                policy.load_state_dict(arrays.to_torch_state_dict())
                save_policy(rounds, _candidate_file(number), policy)

        return federate(
            grid, chosen, initial_arrays(image_size, config.seed), config.rounds, stage.folder / "server",
            seed=config.seed, train_config=ConfigRecord(), evaluate_fn=keep_candidate, on_round=on_round,
            on_resume=on_resume, timeout_s=config.timeout_s * max(1, -(-config.clients_per_round // workers)),
        )  # fmt: skip


_DEFAULTS: dict[str, dict[str, Any]] = {"fedavgm": {"server_learning_rate": 1.0, "server_momentum": 0.9}}
"""Where Flower's defaults are not what the name says: its FedAvgM without momentum is FedAvg."""


def build_strategy(name: str, settings: Mapping[str, Any], config: FederationConfig, clients: int) -> Strategy:
    """A Flower strategy that samples `clients_per_round` of the clients.

    FedAvgM has a momentum of 0.9 unless the settings say otherwise (Hsu et al. 2019). A strategy that wraps another, as
    those of differential privacy do, takes the inner one as its setting `strategy`, a mapping of `name` and `settings`.
    """
    settings = _DEFAULTS.get(_plain(name), {}) | dict(settings)
    inner = settings.get("strategy")
    if isinstance(inner, Mapping):
        settings["strategy"] = build_strategy(str(inner.get("name", "")), inner.get("settings", {}), config, clients)
    sampling = {
        "fraction_train": config.clients_per_round / clients,
        "fraction_evaluate": config.clients_per_evaluation / clients,
        "min_train_nodes": config.clients_per_round,
        "min_evaluate_nodes": config.clients_per_evaluation,
        "min_available_nodes": min(clients, config.clients_per_round),
    }
    clash = sorted(set(settings) & set(sampling))
    if clash:
        fix = "use federation.clients_per_round and federation.clients_per_evaluation"
        raise ConfigError(f"strategy.settings cannot set {', '.join(clash)}", where=f"strategy {name}", fix=fix)
    accepted = _parameters(name)
    return make_strategy(name, **{key: value for key, value in sampling.items() if key in accepted}, **settings)


def initial_arrays(image_size: int, seed: int) -> ArrayRecord:
    """The policy before any training; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ArrayRecord(BCPolicy(image_size).state_dict())


def candidates(stage: Stage, image_size: int) -> tuple[Policy, ...]:
    """The policies kept from the rounds, in order of rounds."""
    rounds, kept = stage.folder / "rounds", []
    for name in rounds.ls():
        number = int(name.removeprefix("round-").removesuffix(".safetensors"))
        kept.append(
            Policy.made(stage, f"rounds/{name}", name=f"round-{number:04d}", image_size=image_size, round=number)
        )
    return tuple(sorted(kept, key=lambda policy: policy.round or 0))


def failures(result: FederatedResult) -> list[tuple[int, ClientFailure]]:
    """Every failed visit with its round."""
    return [(record.round, failure) for record in result.history for failure in record.failures]


def metrics(history: Sequence[RoundRecord]) -> list[dict[str, float]]:
    """The metrics of each round, as they are logged."""
    return [{"step": record.round, **_metrics(record)} for record in history]


def _metrics(record: RoundRecord) -> dict[str, float]:
    values = {**record.train, **record.evaluate, **record.server}
    return {key: float(value) for key, value in values.items()} | {
        "seconds": record.seconds,
        "clients": record.clients,
        "failures": len(record.failures),
    }


def _candidate_file(number: int) -> str:
    return f"round-{number:04d}.safetensors"


def _parameters(name: str) -> set[str]:
    """Names of the settings of a strategy's constructor; none for an unknown strategy."""
    plain = _plain(name)
    kind = next((getattr(flower, known) for known in strategy_names() if known.lower() == plain), None)
    return set(inspect.signature(kind).parameters) if kind is not None else set()


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
