"""The ClientApp and the settings that bench_federated.py runs on both sides.

FLAME's policy at 64x64 (2.66 M parameters), 64 clients of which 10 train in a round, two workers of one CPU each.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from squadron.methods.flame.algorithm import BCPolicy

CLIENTS, PER_ROUND, BATCH = 64, 10, 32
app = ClientApp()


@cache
def policy_64() -> BCPolicy:
    return BCPolicy(image_size=64)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Some steps of behaviour cloning on a made-up batch, with a new Adam as FLAME's public code has it."""
    policy = policy_64()
    policy.load_state_dict(message.content["arrays"].to_torch_state_dict())
    random = np.random.default_rng(int(context.node_config["partition-id"]))
    images = torch.from_numpy(random.integers(0, 256, (BATCH, 64, 64, 3), np.uint8))
    states, actions = (torch.from_numpy(random.standard_normal((BATCH, 8), np.float32)) for _ in range(2))
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-3, weight_decay=1e-5)
    for _ in range(int(message.content["config"]["local-steps"])):
        loss = torch.nn.functional.mse_loss(policy(images, states), actions)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    metrics = MetricRecord({"num-examples": BATCH, "loss": loss.item()})
    return Message(RecordDict({"arrays": ArrayRecord(policy.state_dict()), "metrics": metrics}), reply_to=message)


def arguments(local_steps: int) -> dict[str, Any]:
    """What both round loops are given."""
    torch.manual_seed(0)
    return {
        "initial_arrays": ArrayRecord(policy_64().state_dict()),
        "train_config": ConfigRecord({"local-steps": local_steps}),
    }


def strategy() -> FedAvg:
    """Flower's FedAvg, unmodified."""
    return FedAvg(fraction_train=PER_ROUND / CLIENTS, min_train_nodes=PER_ROUND, fraction_evaluate=0.0)
