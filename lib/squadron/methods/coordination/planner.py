"""Plans for robots at hand: propose many, drive each on paper, keep the best.

    schedule = plan(routes, FloorLimits(density=2), "average_completion", learned("runs/mine/model"))

Letters: S samples, L latent vectors, R robots, N nodes, E edges, C components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from squadron.core.folder import Folder
from squadron.methods.coordination.algorithm import COSTS, Plans, completion_times, entry_times, from_ranks, ranks
from squadron.methods.coordination.config import CostName, FloorLimits, SamplingConfig
from squadron.methods.coordination.features import features, join
from squadron.methods.coordination.graph import Graph, build_graph
from squadron.methods.coordination.schedule import Schedule
from squadron.sim.fleet.routes import Route

if TYPE_CHECKING:
    from squadron.methods.coordination.model import GraphVae

_NODES_AT_ONCE = 2048
"""Of all samples in one pass of the network: what a core's cache holds. All hundred at once took 2.6 times as long."""


class Proposals(NamedTuple):
    """Ranks (S, N) that do not fall along a route, and confidences (S, E) in the following type."""

    rank_SN: np.ndarray
    confidence_SE: np.ndarray


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
    """The cheapest of many proposals for a graph; `sampling.by_parts` takes the cheapest for each of its parts, which
    know nothing of each other."""
    if not graph.edges:
        return Schedule(graph, np.zeros(0, bool), np.zeros(0, bool), graph.enter_N)
    proposals = propose(graph, sampling, np.random.default_rng(sampling.seed))
    plans, order_SN = from_ranks(graph, *proposals)
    enter_SN = entry_times(graph, plans, order_SN)
    if sampling.by_parts:
        return assemble(graph, cost, plans, enter_SN)
    best = int(COSTS[cost](graph, enter_SN).argmin())
    return Schedule(graph, plans.first_SE[best], plans.following_SE[best], enter_SN[best])


def assemble(graph: Graph, cost: CostName, plans: Plans, enter_SN: np.ndarray) -> Schedule:
    """A plan that takes for each part of the graph what the cheapest of these plans says.

    Robots of different parts never meet, so that any choice by parts is a valid plan. Of costs that are sums or maxima
    over robots or intervals the cheapest choice is the cheapest in each part; for the spread of arrivals, parts are
    changed one after the other as long as that helps.
    """
    part_R = parts(graph)
    choice_C = _choose(graph, cost, part_R, enter_SN)
    part_N = part_R[graph.robot_N]
    part_E = part_N[graph.edge_E2[:, 0]]
    nodes, edges = np.arange(graph.nodes), np.arange(graph.edges)
    return Schedule(
        graph,
        plans.first_SE[choice_C[part_E], edges],
        plans.following_SE[choice_C[part_E], edges],
        enter_SN[choice_C[part_N], nodes],
    )


def parts(graph: Graph) -> np.ndarray:
    """The part of the graph that each robot (R) is in: robots that meet, or meet others that do, are in one."""
    one, other = graph.robot_N[graph.edge_E2].T
    links = sparse.coo_array((np.ones(graph.edges, bool), (one, other)), shape=(graph.robots, graph.robots))
    part_R: np.ndarray = csgraph.connected_components(links, directed=False)[1]
    return part_R


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
    at_once = min(count, max(1, _NODES_AT_ONCE // graph.nodes))
    copies = join([features(graph)] * at_once)
    batch = {name: torch.as_tensor(values) for name, values in copies.items()}
    latents = torch.as_tensor(latent_LZ, dtype=torch.float32)
    bids, confidences = [], []
    with torch.inference_mode():
        for first in range(0, count, at_once):
            some = latents[first : first + at_once]
            decoded = model.decode(batch, functional.pad(some, (0, 0, 0, at_once - len(some))))
            bids.append(decoded.bid_N.reshape(at_once, graph.nodes)[: len(some)])
            confidences.append(decoded.confidence_E.reshape(at_once, graph.edges)[: len(some)])
    return torch.cat(bids).double().numpy(), torch.cat(confidences).double().numpy()


def propose_at_random(graph: Graph, sampling: SamplingConfig, draw: np.random.Generator) -> Proposals:
    """Bids from an exponential distribution, confidences from a normal one: what a network must beat."""
    bids_SN = draw.exponential(size=(sampling.samples, graph.nodes)) + 1e-9
    return Proposals(ranks(graph, bids_SN), draw.normal(size=(sampling.samples, graph.edges)))


def _choose(graph: Graph, cost: CostName, part_R: np.ndarray, enter_SN: np.ndarray) -> np.ndarray:
    """The sample to take for each part (C)."""
    samples = len(enter_SN)
    count = int(part_R.max()) + 1
    if cost == "average_delay":
        value_SC = np.zeros((samples, count))
        np.add.at(value_SC.T, part_R[graph.robot_N], enter_SN.T)
        return value_SC.argmin(0)
    done_SR = completion_times(graph, enter_SN)
    if cost == "average_completion":
        value_SC = np.zeros((samples, count))
        np.add.at(value_SC.T, part_R, done_SR.T)
        return value_SC.argmin(0)
    latest_SC, earliest_SC = np.full((samples, count), -np.inf), np.full((samples, count), np.inf)
    np.maximum.at(latest_SC.T, part_R, done_SR.T)
    np.minimum.at(earliest_SC.T, part_R, done_SR.T)
    if cost == "maximum_completion":
        return latest_SC.argmin(0)
    return _least_spread(latest_SC, earliest_SC)


def _least_spread(latest_SC: np.ndarray, earliest_SC: np.ndarray) -> np.ndarray:
    """From the best sample for all parts, change one part at a time to what makes the spread of all the smallest."""
    count = latest_SC.shape[1]
    choice_C = np.full(count, int((latest_SC.max(1) - earliest_SC.min(1)).argmin()))
    spread, better = np.inf, True
    while better:
        better = False
        for part in range(count):
            others = np.arange(count) != part
            chosen = choice_C[others], np.flatnonzero(others)
            latest, earliest = latest_SC[chosen].max(initial=-np.inf), earliest_SC[chosen].min(initial=np.inf)
            spread_S = np.maximum(latest_SC[:, part], latest) - np.minimum(earliest_SC[:, part], earliest)
            if spread_S.min() < spread - 1e-9:
                spread, better = float(spread_S.min()), True
                choice_C[part] = int(spread_S.argmin())
    return choice_C
