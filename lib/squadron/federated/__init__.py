"""Federated learning: unmodified Flower apps and strategies on Ray actors, with a run that survives a kill.

    from flwr.app import ArrayRecord
    from squadron.core.folder import Folder
    from squadron.core.profile import WorkerResources
    from squadron.federated import RayGrid, federate, make_strategy

    strategy = make_strategy("FedAdam", eta=0.01, fraction_train=0.05, fraction_evaluate=0.0)
    clients = [{"shard": path} for path in shards]      # added to each client's context.node_config
    with RayGrid("package.module:app", clients, WorkerResources(cpus=1), client_timeout_s=600) as grid:
        result = federate(grid, strategy, ArrayRecord(model.state_dict()), num_rounds=30, folder=Folder("run/federate"),
                          seed=1, evaluate_fn=evaluate, best_metric="loss", on_round=show)
    model.load_state_dict(result.arrays.to_torch_state_dict())
    for record in result.history: print(record.round, record.train, record.server, record.failures)

A strategy may keep what it likes between rounds: arrays, tensors, networks and their optimizers, random numbers,
containers, objects, closures, class attributes, module globals. All of it is saved with each round and put back
exactly, or refused with its place: before the first round, if it is there by then. A function or class that a round
puts there is kept where the strategy's own code says its name. Its `start` is never called.

`on_round(round, record, arrays)` follows each round; the same call again resumes after the last saved round. Clients
see their round in the message's config record as "server-round"; random, numpy and torch are seeded for every visit, so
import torch at the top of the app's module.
"""

from squadron.federated.grid import ClientFailure, RayGrid
from squadron.federated.server import FederatedResult, RoundRecord, federate
from squadron.federated.state import load_best
from squadron.federated.strategies import make_strategy, strategy_names

__all__ = [
    "ClientFailure",
    "FederatedResult",
    "RayGrid",
    "RoundRecord",
    "federate",
    "load_best",
    "make_strategy",
    "strategy_names",
]
