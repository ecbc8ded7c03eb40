"""Plans for robots at hand: propose many, drive each on paper, keep the best, and look around it.

    schedule = plan(routes, FloorLimits(density=2), "average_completion", learned("runs/mine/model"))

Letters: S samples, L latent vectors, R robots, N nodes, E edges, C components.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from squadron.core.folder import Folder
from squadron.methods.coordination.algorithm import (
    COSTS,
    Plans,
    choose_following,
    completion_times,
    entry_times,
    from_ranks,
    ranks,
)
from squadron.methods.coordination.config import CostName, FloorLimits, SamplingConfig
from squadron.methods.coordination.features import features, join
from squadron.methods.coordination.graph import TICK_M, Graph, build_graph
from squadron.methods.coordination.schedule import Schedule
from squadron.sim.fleet.routes import Route

if TYPE_CHECKING:
    from squadron.methods.coordination.model import GraphVae

_NODES_AT_ONCE = 2048
"""Of all samples in one pass of the network: what a core's cache holds. All hundred at once took 2.6 times as long."""


_LEAST_BID = 1e-6


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
    """The cheapest of many proposals for a graph, and of `sampling.rounds` more around what was the cheapest so far;
    `sampling.by_parts` takes the cheapest for each of its parts, which know nothing of each other."""
    if not graph.edges:
        return Schedule(graph, np.zeros(0, bool), np.zeros(0, bool), graph.enter_N)
    draw = np.random.default_rng(sampling.seed)
    best = choose(graph, cost, drive(graph, propose(graph, sampling, draw), sampling.regrants), sampling.by_parts)
    for _ in range(sampling.rounds):
        near = drive(graph, around(graph, best, sampling, draw), sampling.regrants)
        best = choose(graph, cost, _stack([best, near]), sampling.by_parts)
    return Schedule(graph, best.plans.first_SE[0], best.plans.following_SE[0], best.enter_SN[0])


class Driven(NamedTuple):
    """Plans, the ranks (S, N) that they came from, and when robots enter each interval under them (S, N)."""

    rank_SN: np.ndarray
    plans: Plans
    enter_SN: np.ndarray


def drive(graph: Graph, proposals: Proposals, regrants: int = 0) -> Driven:
    """The plans of proposals and their times; and so often the same orders with following granted anew, to the edges on
    which most time would be lost without it (`lost`)."""
    plans, order_SN = from_ranks(graph, *proposals)
    driven = [Driven(proposals.rank_SN, plans, entry_times(graph, plans, order_SN))]
    for _ in range(regrants):
        plans = Plans(plans.first_SE, choose_following(graph, lost(graph, driven[-1])))
        driven.append(Driven(proposals.rank_SN, plans, entry_times(graph, plans, order_SN)))
    return _stack(driven)


def lost(graph: Graph, driven: Driven) -> np.ndarray:
    """For each edge (S, E) the seconds that the robot that goes second would lose, at most, if it did not follow:
    negative, by how much it comes later anyway, where following is of no use at these times."""
    first_SE, following_SE = driven.plans
    u_E, v_E = graph.edge_E2.T
    one_SE, other_SE = np.where(first_SE, u_E, v_E), np.where(first_SE, v_E, u_E)
    exclusive_SE = np.where(first_SE, *graph.exclusive_E2.T)
    most_SE = exclusive_SE - np.where(first_SE, *graph.following_E2.T)
    enter = functools.partial(np.take_along_axis, driven.enter_SN, axis=1)
    late_SE = enter(one_SE) + exclusive_SE - enter(other_SE)
    waits_SE = ~following_SE & (late_SE > -TICK_M)
    return np.minimum(np.where(waits_SE, most_SE, late_SE), most_SE)


def choose(graph: Graph, cost: CostName, driven: Driven, by_parts: bool) -> Driven:
    """The cheapest (S = 1) of these plans, for the whole graph or for each of its parts.

    Robots of different parts never meet, so that any choice by parts is a valid plan. Of costs that are sums or maxima
    over robots or intervals the cheapest choice is the cheapest in each part; for the spread of arrivals, parts are
    changed one after the other as long as that helps.
    """
    if not by_parts:
        best = int(COSTS[cost](graph, driven.enter_SN).argmin())
        return _take(driven, np.full(graph.nodes, best), np.full(graph.edges, best))
    part_R = parts(graph)
    choice_C = _choose(graph, cost, part_R, driven.enter_SN)
    choice_N = choice_C[part_R[graph.robot_N]]
    return _take(driven, choice_N, choice_N[graph.edge_E2[:, 0]])


def around(graph: Graph, best: Driven, sampling: SamplingConfig, draw: np.random.Generator) -> Proposals:
    """Proposals near a plan (S = 1): a share of its bids, which grows from sample to sample to `sampling.around`, is
    multiplied by log-normal noise of spread one."""
    rank_1N = best.rank_SN
    before_1N = np.where(graph.before_N < 0, 0.0, rank_1N[:, graph.before_N])
    bids_1N = np.maximum(rank_1N - before_1N, _LEAST_BID)
    shape = (sampling.samples, graph.nodes)
    changed_SN = (
        draw.random(shape) < np.linspace(min(0.02, sampling.around), sampling.around, sampling.samples)[:, None]
    )
    bids_SN = bids_1N * np.exp(changed_SN * draw.normal(size=shape))
    return Proposals(ranks(graph, bids_SN), np.repeat(lost(graph, best), sampling.samples, axis=0))


def _stack(some: Sequence[Driven]) -> Driven:
    ranks, plans, enter = zip(*some, strict=True)
    first, following = zip(*plans, strict=True)
    return Driven(np.concatenate(ranks), Plans(np.concatenate(first), np.concatenate(following)), np.concatenate(enter))


def _take(driven: Driven, choice_N: np.ndarray, choice_E: np.ndarray) -> Driven:
    """One plan (S = 1) of what samples say on each node and each edge."""
    nodes, edges = np.arange(len(choice_N)), np.arange(len(choice_E))
    first_SE, following_SE = driven.plans
    return Driven(
        driven.rank_SN[choice_N, nodes][None],
        Plans(first_SE[choice_E, edges][None], following_SE[choice_E, edges][None]),
        driven.enter_SN[choice_N, nodes][None],
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
