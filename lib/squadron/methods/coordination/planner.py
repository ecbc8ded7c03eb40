"""Plans for robots at hand: propose many, drive each on paper, keep the best, and look around it.

    schedule = plan(routes, FloorLimits(density=2), "average_completion", learned("runs/mine/model"))

Letters: S samples, L latent vectors, N nodes, E edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from squadron.core.folder import Folder
from squadron.core.work import take_turns
from squadron.methods.coordination.algorithm import COSTS, ranks
from squadron.methods.coordination.config import CostName, FloorLimits, SamplingConfig
from squadron.methods.coordination.features import features, join
from squadron.methods.coordination.graph import Graph, build_graph
from squadron.methods.coordination.schedule import Schedule
from squadron.methods.coordination.search import Driven, Proposals, around, choose, drive, stack, step
from squadron.sim.routes import Route

if TYPE_CHECKING:
    from squadron.methods.coordination.model import GraphVae

_NODES_AT_ONCE = 2048
"""Of all samples in one pass of the network: what a core's cache holds. All hundred at once took 2.6 times as long."""
_FULL_SIZE, _MOST_TIMES = 1_000, 5
"""Intervals and encounters of a graph from which on it is given `rounds`; a smaller one gets as many more as it is
smaller, up to so many times."""

Propose = Callable[[Graph, SamplingConfig, np.random.Generator], Proposals]
"""Makes `samples` proposals for a graph."""


def plan(
    routes: Sequence[Route],
    limits: FloorLimits,
    cost: CostName,
    propose: Propose,
    sampling: SamplingConfig = SamplingConfig(),  # noqa: B008 - frozen
) -> Schedule:
    """The cheapest of many proposals for these routes. Raises InputError for routes that cannot be planned."""
    return plan_graph(build_graph(routes, limits), cost, propose, sampling)


def plan_graph(
    graph: Graph,
    cost: CostName,
    propose: Propose,
    sampling: SamplingConfig = SamplingConfig(),  # noqa: B008 - frozen
) -> Schedule:
    """The cheapest of many proposals for a graph, and of `sampling.rounds` more: around the cheapest so far or, where
    the last round found nothing cheaper, around the best of that round. `sampling.by_parts` takes the cheapest for each
    of its parts, which know nothing of each other."""
    if not graph.edges:
        return Schedule(graph, np.zeros(0, bool), np.zeros(0, bool), graph.enter_N)
    draw = np.random.default_rng(sampling.seed)
    best = choose(graph, cost, drive(graph, propose(graph, sampling, draw), sampling.regrants), sampling.by_parts)
    now, value = best, _value(graph, cost, best)
    for _ in range(_rounds(graph, sampling)):
        take_turns()
        near = drive(graph, around(graph, cost, now, sampling.samples, sampling.flips, draw), sampling.regrants)
        better = choose(graph, cost, stack([best, near]), sampling.by_parts)
        if (cheaper := _value(graph, cost, better)) < value - 1e-9:
            now, best, value = better, better, cheaper
        else:
            now = step(graph, cost, now, near, sampling.by_parts)
    return Schedule(graph, best.plans.first_SE[0], best.plans.following_SE[0], best.enter_SN[0])


def _rounds(graph: Graph, sampling: SamplingConfig) -> int:
    """More rounds for smaller graphs, which cost less."""
    return round(sampling.rounds * min(_MOST_TIMES, max(1.0, _FULL_SIZE / (graph.nodes + graph.edges))))


def _value(graph: Graph, cost: CostName, one: Driven) -> float:
    """The cost of a plan (S = 1)."""
    return float(COSTS[cost](graph, one.enter_SN)[0])


def learned(folder: Folder) -> Propose:
    """Proposals of the network in a folder (`training.save_planner`): each latent vector is decoded to bids and
    confidences, from which several plans are made with more and more noise. Raises InputError if the folder holds no
    network that can be loaded."""
    from squadron.methods.coordination.training import load_planner

    model = load_planner(folder)

    def propose(graph: Graph, sampling: SamplingConfig, draw: np.random.Generator) -> Proposals:
        latents = -(-sampling.samples // sampling.variations) if model.config.latent else 1
        bids_LN, confidence_LE = _decode(model, graph, draw.normal(size=(latents, model.config.latent)))
        vector_S = np.arange(sampling.samples) % latents
        return vary(graph, bids_LN[vector_S], confidence_LE[vector_S], sampling.spread, draw)

    return propose


def vary(
    graph: Graph, bids_SN: np.ndarray, confidence_SE: np.ndarray, spread: float, draw: np.random.Generator
) -> Proposals:
    """Ranks of bids that are multiplied by log-normal noise, and confidences with normal noise of twice the spread; it
    grows from none for the first sample to `spread` for the last."""
    spread_S1 = np.linspace(0, spread, len(bids_SN))[:, None]
    noisy_SN = bids_SN * np.exp(spread_S1 * draw.normal(size=bids_SN.shape))
    noisy_SE = confidence_SE + 2 * spread_S1 * draw.normal(size=confidence_SE.shape)
    return Proposals(ranks(graph, noisy_SN), noisy_SE)


def _decode(model: GraphVae, graph: Graph, latent_LZ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bids (L, N) and confidences (L, E) of each latent vector."""
    import torch
    from torch.nn import functional

    count = len(latent_LZ)
    batch_size = min(count, max(1, _NODES_AT_ONCE // graph.nodes))
    copies = join([features(graph)] * batch_size)
    batch = {name: torch.as_tensor(values) for name, values in copies.items()}
    latents = torch.as_tensor(latent_LZ, dtype=torch.float32)
    bids, confidences = [], []
    with torch.inference_mode():
        for first in range(0, count, batch_size):
            take_turns()
            some = latents[first : first + batch_size]
            decoded = model.decode(batch, functional.pad(some, (0, 0, 0, batch_size - len(some))))
            bids.append(decoded.bid_N.reshape(batch_size, graph.nodes)[: len(some)])
            confidences.append(decoded.confidence_E.reshape(batch_size, graph.edges)[: len(some)])
    return torch.cat(bids).double().numpy(), torch.cat(confidences).double().numpy()


def propose_at_random(graph: Graph, sampling: SamplingConfig, draw: np.random.Generator) -> Proposals:
    """Bids from an exponential distribution, confidences from a normal one: what a network must beat."""
    bids_SN = draw.exponential(size=(sampling.samples, graph.nodes)) + 1e-9
    return Proposals(ranks(graph, bids_SN), draw.normal(size=(sampling.samples, graph.edges)))
