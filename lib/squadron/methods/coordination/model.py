"""The graph variational autoencoder: plans to a latent vector, and a latent vector to bids and confidences.

Letters: B graphs, N nodes of all of them, E joint-action edges, M messages, H hidden size, Z latent size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch_geometric.nn import GATv2Conv
from torch_geometric.nn.pool import global_max_pool

from squadron.methods.coordination.config import ModelConfig
from squadron.methods.coordination.features import MESSAGE_FEATURES, NODE_FEATURES, PLAN_FEATURES

_LEAST_BID = 1e-3
_ACTIVATIONS = {"elu": nn.ELU, "relu": nn.ReLU}


class Decoded(NamedTuple):
    """Positive bids of nodes (N) and confidences of edges in the following type (E), as logits."""

    bid_N: torch.Tensor
    confidence_E: torch.Tensor


class GraphVae(nn.Module):
    """Encoder over graphs with their plans, decoder over graphs without."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden, latent = config.hidden, config.latent
        if latent:
            self.encoder = GraphNetwork(NODE_FEATURES, MESSAGE_FEATURES + PLAN_FEATURES, config)
            self.to_latent = nn.Linear(hidden, 2 * latent)
        self.decoder = GraphNetwork(NODE_FEATURES + latent, MESSAGE_FEATURES, config)
        self.to_bid = _perceptron(hidden, config)
        self.to_confidence = _perceptron(2 * hidden, config)

    def encode(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the spread (B, Z) of the latent vectors of graphs with plans.

        `batch` holds what `features.join` gives, and `first` and `following` (E) as 0 and 1.
        """
        plan_M4 = _plan_messages(batch["first"], batch["following"], len(batch["messages"]))
        messages = torch.cat([batch["messages"], plan_M4], dim=1)
        hidden_NH = self.encoder(batch["nodes"], batch["message"], messages)
        mean_BZ, log_spread_BZ = self.to_latent(global_max_pool(hidden_NH, batch["graph"])).chunk(2, dim=1)
        return mean_BZ, log_spread_BZ.clamp(-6, 3)

    def decode(self, batch: dict[str, torch.Tensor], latent_BZ: torch.Tensor) -> Decoded:
        """Bids and confidences of graphs under a latent vector each."""
        nodes = torch.cat([batch["nodes"], latent_BZ[batch["graph"]]], dim=1)
        hidden_NH = self.decoder(nodes, batch["message"], batch["messages"])
        u_EH, v_EH = hidden_NH[batch["edges"][0]], hidden_NH[batch["edges"][1]]
        confidence_E = self.to_confidence(torch.cat([u_EH + v_EH, (u_EH - v_EH).abs()], dim=1)).squeeze(1)
        return Decoded(functional.softplus(self.to_bid(hidden_NH).squeeze(1)) + _LEAST_BID, confidence_E)


class GraphNetwork(nn.Module):
    """GATv2 layers (Brody et al. 2022) with residual connections, over nodes and messages with features."""

    def __init__(self, nodes: int, messages: int, config: ModelConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]()
        self.inlet = nn.Linear(nodes, config.hidden)
        width = config.hidden // config.heads
        self.layers = nn.ModuleList(
            GATv2Conv(config.hidden, width, config.heads, edge_dim=messages, add_self_loops=False)
            for _ in range(config.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden) for _ in range(config.layers))

    def forward(self, nodes: torch.Tensor, message: torch.Tensor, messages: torch.Tensor) -> torch.Tensor:
        hidden_NH = self.inlet(nodes)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            hidden_NH = hidden_NH + self.activation(layer(norm(hidden_NH), message, messages))
        return hidden_NH


def route_ranks(bid_N: torch.Tensor, robot_N: torch.Tensor) -> torch.Tensor:
    """Sums of bids along each route (N); `robot_N` numbers the robots of all graphs, in order."""
    total_N = bid_N.cumsum(0)
    first_N = torch.ones_like(robot_N, dtype=torch.bool)
    first_N[1:] = robot_N[1:] != robot_N[:-1]
    earlier = (total_N - bid_N)[first_N]
    return total_N - earlier[first_N.cumsum(0) - 1]


def _perceptron(inputs: int, config: ModelConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, config.hidden), _ACTIVATIONS[config.activation](), nn.Linear(config.hidden, 1)
    )


def _plan_messages(first_E: torch.Tensor, following_E: torch.Tensor, messages: int) -> torch.Tensor:
    """For each message (M, 4): sender first and exclusive, sender first and followed, sender second alike; zeros along
    routes."""
    first = torch.cat([first_E, 1 - first_E])
    following = torch.cat([following_E, following_E])
    joint = torch.stack(
        [first * (1 - following), first * following, (1 - first) * (1 - following), (1 - first) * following], dim=1
    )
    return functional.pad(joint, (0, 0, 0, messages - len(joint)))
