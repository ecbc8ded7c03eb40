"""Plans that are valid by construction, when each robot is where under them, and what they cost.

A plan says for each edge who goes first and whether the other may follow. Decoding turns bids and confidences, whoever
made them, into plans: ranks grow along every route and edges point from low rank to high, so that no cycle can arise;
following is granted by falling confidence as long as that makes no crowd, so that no limit can be passed.

Letters: S samples, R robots, N nodes, E edges, L edges that some limit concerns.
"""

from __future__ import annotations

from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import numpy as np

from squadron.core.errors import InputError
from squadron.core.work import take_turns
from squadron.methods.coordination.config import CostName
from squadron.methods.coordination.density_limits import Crowding, limited
from squadron.methods.coordination.graph import Graph


class Plans(NamedTuple):
    """Plans for one graph: `first_SE` where the edge's first node goes first, `following_SE` where the other follows
    it, rather than wait until it has left its whole interval."""

    first_SE: np.ndarray
    following_SE: np.ndarray


def decode(graph: Graph, bids_SN: np.ndarray, confidence_SE: np.ndarray) -> tuple[Plans, np.ndarray]:
    """Plans from positive bids and confidences in the following type, and an order of nodes (S, N) in which no plan
    looks ahead. Raises ValueError for a bid that is not positive."""
    return from_ranks(graph, ranks(graph, bids_SN), confidence_SE)


def from_ranks(
    graph: Graph, rank_SN: np.ndarray, confidence_SE: np.ndarray, at_most: int | None = None
) -> tuple[Plans, np.ndarray]:
    """The same from ranks, which must not fall along a route. Of equal ranks the lower index goes first. `at_most` as
    for `choose_following`."""
    u_E, v_E = graph.edge_E2.T
    first_SE = rank_SN[:, u_E] <= rank_SN[:, v_E]
    following_SE = choose_following(graph, confidence_SE, at_most)
    return Plans(first_SE, following_SE), np.argsort(rank_SN, axis=1, kind="stable")


def ranks(graph: Graph, bids_SN: np.ndarray) -> np.ndarray:
    """The sum of a robot's bids up to and with each node: ranks never fall along a route, also where a bid is lost in
    rounding, since sums and differences round alike. Raises ValueError for a bid that is not positive."""
    if not (bids_SN > 0).all():
        raise ValueError("bids must be positive")
    total_SN = np.cumsum(bids_SN.astype(np.float64), axis=1)
    start_N = np.flatnonzero(graph.before_N < 0)
    offset_SR = np.concatenate([np.zeros((len(bids_SN), 1)), total_SN], axis=1)[:, start_N]
    return total_SN - np.repeat(offset_SR, np.diff(np.append(start_N, graph.nodes)), axis=1)


def choose_following(graph: Graph, confidence_SE: np.ndarray, at_most: int | None = None) -> np.ndarray:
    """Which edges are of the following type: all that no limit concerns, and of the others, by falling confidence,
    those that make no crowd with the ones before. Of equally confident ones the lower index comes first. Of very many,
    only the `at_most` most confident are looked at; the rest are exclusive, which is always valid."""
    limited_L = np.flatnonzero(limited(graph))
    following_SE = np.ones(confidence_SE.shape, bool)
    following_SE[:, limited_L] = False
    doubt_SL = -confidence_SE[:, limited_L]
    if at_most is not None and at_most < len(limited_L):
        some_SL = np.sort(np.argpartition(doubt_SL, at_most, axis=1)[:, :at_most], axis=1)
        doubt_SL = np.take_along_axis(doubt_SL, some_SL, axis=1)
        limited_SL = limited_L[some_SL]
    else:
        limited_SL = np.broadcast_to(limited_L, doubt_SL.shape)
    order_SL = np.take_along_axis(limited_SL, np.argsort(doubt_SL, axis=1, kind="stable"), axis=1)
    crowding = Crowding(graph)
    for following_E, order_L in zip(following_SE, order_SL, strict=True):
        take_turns()
        crowding.clear()
        following_E[crowding.ask_in_order(order_L.tolist())] = True
    return following_SE


def entry_times(graph: Graph, plans: Plans, order_SN: np.ndarray | None = None) -> np.ndarray:
    """The earliest time (S, N) in seconds at which each robot can enter each interval: the longest path to it.

    `order_SN` lists nodes so that each comes behind those it waits for, as `decode` gives it; it is worked out if
    missing. Raises InputError for a plan in which robots wait for each other in a circle.
    """
    if order_SN is None:
        order_SN = np.array([topological_order(graph, first_E) for first_E in plans.first_SE])
    wait_S2E = np.where(plans.following_SE[:, None], graph.following_E2.T, graph.exclusive_E2.T)
    neighbour_ND, edge_ND, side_ND = _incident(graph)
    samples, count = np.arange(len(order_SN)), graph.nodes
    # A node that is still to come has no time yet: -inf loses every maximum.
    enter_SN = np.full((len(order_SN), count + 1), -np.inf)
    travel_N, before_N = graph.travel_N, np.where(graph.before_N < 0, count, graph.before_N)
    floor_N = np.where(graph.before_N < 0, graph.enter_N, -np.inf)
    for node_S in order_SN.T:
        take_turns()
        waits_SD = wait_S2E[samples[:, None], side_ND[node_S], edge_ND[node_S]]
        waits_SD = waits_SD + enter_SN[samples[:, None], neighbour_ND[node_S]]
        driven_S = np.maximum(enter_SN[samples, before_N[node_S]] + travel_N[node_S], floor_N[node_S])
        enter_SN[samples, node_S] = np.maximum(driven_S, waits_SD.max(1, initial=-np.inf))
    return enter_SN[:, :count]


def topological_order(graph: Graph, first_E: np.ndarray) -> np.ndarray:
    """Nodes (N) so that each comes behind those it waits for. Raises InputError, with the robots, at a circle."""
    try:
        return np.array(list(TopologicalSorter(waits_for(graph, first_E)).static_order()), np.int64)
    except CycleError as error:
        robots = " → ".join(str(graph.robot_N[node]) for node in error.args[1])
        raise InputError(f"the plan never ends: robots wait for each other in a circle, {robots}") from None


def waits_for(graph: Graph, first_E: np.ndarray) -> dict[int, list[int]]:
    """For each node those that are entered before it: the one before on its route, and those that go first."""
    waits: dict[int, list[int]] = {node: [before] if before >= 0 else [] for node, before in enumerate(graph.before_N)}
    for (u, v), first in zip(graph.edge_E2.tolist(), first_E.tolist(), strict=True):
        waits[v if first else u].append(u if first else v)
    return waits


def completion_times(graph: Graph, enter_SN: np.ndarray) -> np.ndarray:
    """Seconds (S, R) at which each robot is at its goal."""
    last_R = graph.last_R
    meets = last_R >= 0
    done_SR = np.tile(graph.length_R, (len(enter_SN), 1))
    rest = graph.length_R[meets] - graph.enter_N[last_R[meets]]
    done_SR[:, meets] = enter_SN[:, last_R[meets]] + rest
    return done_SR


def average_completion(graph: Graph, enter_SN: np.ndarray) -> np.ndarray:
    """Mean over robots of the time at which they arrive (S), in seconds."""
    return completion_times(graph, enter_SN).mean(1)


def maximum_completion(graph: Graph, enter_SN: np.ndarray) -> np.ndarray:
    """The time at which the last robot arrives (S), in seconds."""
    return completion_times(graph, enter_SN).max(1)


def synchronous_completion(graph: Graph, enter_SN: np.ndarray) -> np.ndarray:
    """Seconds from the first arrival to the last (S), robots driving as early as the plan lets them."""
    return np.ptp(completion_times(graph, enter_SN), axis=1)


def average_delay(graph: Graph, enter_SN: np.ndarray) -> np.ndarray:
    """Mean over intervals of how much later they are entered than without other robots (S), in seconds."""
    return (enter_SN - graph.enter_N).mean(1) if graph.nodes else np.zeros(len(enter_SN))


COSTS: dict[CostName, Callable[[Graph, np.ndarray], np.ndarray]] = {
    "average_completion": average_completion,
    "maximum_completion": maximum_completion,
    "synchronous_completion": synchronous_completion,
    "average_delay": average_delay,
}


def _incident(graph: Graph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each node, padded to the most (N, D): the other nodes of its edges, the edges, and which side the other is.
    The padding names a node that is never entered."""
    u_E, v_E = graph.edge_E2.T
    node = np.concatenate([u_E, v_E])
    other = np.concatenate([v_E, u_E])
    side = np.repeat([1, 0], graph.edges)
    known, slot_LD = _padded(node, np.arange(len(node)), len(node))
    slot_ND = np.full((graph.nodes, slot_LD.shape[1]), len(node))
    slot_ND[known] = slot_LD
    edge = np.tile(np.arange(graph.edges), 2)
    return np.append(other, graph.nodes)[slot_ND], np.append(edge, 0)[slot_ND], np.append(side, 0)[slot_ND]


def _padded(key: np.ndarray, value: np.ndarray, filler: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys (L), and the values of each in a row, filled up to the longest."""
    order = np.argsort(key, kind="stable")
    distinct, start, count = np.unique(key[order], return_index=True, return_counts=True)
    row = np.repeat(np.arange(len(distinct)), count)
    table = np.full((len(distinct), int(count.max(initial=0))), filler)
    table[row, np.arange(len(key)) - start[row]] = value[order]
    return distinct, table
