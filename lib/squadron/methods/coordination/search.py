"""From proposals to a good plan: drive them on paper, grant following where it counts, and look around the best.

Letters: S samples, R robots, N nodes, E edges, C components, F flips.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from squadron.core.work import take_turns
from squadron.methods.coordination.algorithm import (
    COSTS,
    Plans,
    choose_following,
    completion_times,
    entry_times,
    from_ranks,
)
from squadron.methods.coordination.config import CostName
from squadron.methods.coordination.graph import TICK_M, Graph

_LEAST_STEP = 1e-6
_GRANTS = 0.25
"""Of the changes to a plan: those that grant following, where an edge is not of that type."""
_CELLS_AT_ONCE = 2_000_000
"""Samples times edges that are driven at once."""
_GRANTS_ASKED = 10_000
"""Edges that following is asked for where it is granted anew afterwards: of very many, few hold anybody up."""
_NEAR_THE_END = 0.1
"""Of the time from first arrival to last: so much further from either, a robot counts for less by a factor e."""


class Proposals(NamedTuple):
    """Ranks (S, N) that do not fall along a route, and confidences (S, E) in the following type."""

    rank_SN: np.ndarray
    confidence_SE: np.ndarray


class Driven(NamedTuple):
    """Plans, the ranks (S, N) that they came from, and when robots enter each interval under them (S, N)."""

    rank_SN: np.ndarray
    plans: Plans
    enter_SN: np.ndarray


def drive(graph: Graph, proposals: Proposals, regrants: int = 0) -> Driven:
    """The plans of proposals and their times; and so often the same orders with following granted anew, to the edges on
    which most time would be lost without it (`lost`), behind those of infinite confidence. A few samples at a time, so
    that memory holds what there is of each edge."""
    batch_size = max(1, _CELLS_AT_ONCE // max(1, graph.edges))
    starts = range(0, len(proposals.rank_SN), batch_size)
    return stack([_drive(graph, Proposals(*(one[i : i + batch_size] for one in proposals)), regrants) for i in starts])


def _drive(graph: Graph, proposals: Proposals, regrants: int) -> Driven:
    take_turns()
    at_most = _GRANTS_ASKED if regrants else None
    plans, order_SN = from_ranks(graph, *proposals, at_most)
    driven = [Driven(proposals.rank_SN, plans, entry_times(graph, plans, order_SN))]
    for _ in range(regrants):
        take_turns()
        confidence_SE = np.where(np.isposinf(proposals.confidence_SE), np.inf, lost(graph, driven[-1]))
        plans = Plans(plans.first_SE, choose_following(graph, confidence_SE, at_most))
        driven.append(Driven(proposals.rank_SN, plans, entry_times(graph, plans, order_SN)))
    return stack(driven)


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


def step(graph: Graph, cost: CostName, now: Driven, near: Driven, by_parts: bool) -> Driven:
    """The plan (S = 1) to go on from: the one near the present one (S = 1) that strains least, but is not as good as
    the same. It may be worse; who only ever goes down is soon where nothing close by is better."""
    part_R = parts(graph) if by_parts else np.zeros(graph.robots, np.int64)
    driven = stack([now, near])
    value_SC = np.zeros((len(driven.enter_SN), int(part_R.max()) + 1))
    np.add.at(value_SC.T, part_R[graph.robot_N], strain(graph, cost, driven.enter_SN).T)
    same_SC = np.isclose(value_SC, value_SC[0], rtol=1e-9, atol=0)
    choice_C = np.where(same_SC, np.inf, value_SC).argmin(0)  # the first, the present one, where all are the same
    choice_N = choice_C[part_R[graph.robot_N]]
    return _take(driven, choice_N, choice_N[graph.edge_E2[:, 0]])


def around(
    graph: Graph, cost: CostName, best: Driven, samples: int, flips: int, draw: np.random.Generator
) -> Proposals:
    """Proposals near a plan (S = 1): each changes some of the edges that the cost hangs on, up to `flips`. An edge is
    turned (`_turn`) or, one time in four where the other does not follow, given following before all others. Every
    second proposal keeps the following that the plan makes use of, the others grant it as `lost` says."""
    one_E, other_E, _ = _waits(graph, best)
    lost_E, following_E = lost(graph, best)[0], best.plans.following_SE[0]
    confidence_SE = np.repeat(lost_E[None], samples, axis=0)
    confidence_SE[::2, following_E & (lost_E > 0)] += lost_E.max(initial=0.0)
    blame_E, pressure_N = blame(graph, cost, best)
    chance_E = np.sqrt(blame_E.clip(min=0)) + np.sqrt((-pressure_N[one_E]).clip(min=0)) / _degrees(graph)[one_E]
    if not chance_E.any():
        return Proposals(np.repeat(best.rank_SN, samples, axis=0), confidence_SE)
    turned_SF = draw.choice(graph.edges, size=(samples, flips), p=chance_E / chance_E.sum())
    sample_SF = np.broadcast_to(np.arange(samples)[:, None], turned_SF.shape)
    used_SF = np.arange(flips) <= np.linspace(0, flips, samples, endpoint=False)[:, None]
    granted_SF = used_SF & (draw.random(turned_SF.shape) < _GRANTS) & (~following_E & (blame_E > 0))[turned_SF]
    confidence_SE[sample_SF[granted_SF], turned_SF[granted_SF]] = np.inf

    stretch_SF = (used_SF & ~granted_SF) * (1 + 0.1 * np.abs(draw.normal(size=turned_SF.shape)))
    later_SF = draw.random(turned_SF.shape) < 0.5
    rank_SN = np.repeat(best.rank_SN, samples, axis=0)
    for turned_S, later_S, stretch_S in zip(turned_SF.T, later_SF.T, stretch_SF.T, strict=True):
        rank_SN = _turn(graph, rank_SN, one_E[turned_S], other_E[turned_S], later_S, stretch_S)
    return Proposals(rank_SN, confidence_SE)


def _turn(
    graph: Graph,
    rank_SN: np.ndarray,
    one_S: np.ndarray,
    other_S: np.ndarray,
    later_S: np.ndarray,
    stretch_S: np.ndarray,
) -> np.ndarray:
    """Ranks under which one goes behind the other: it and the rest of its route are ranked higher, or, where not
    `later`, the other and the rest of its own lower, and what is before it no higher than it. Both by what lies between
    the two, stretched."""
    take_turns()
    samples = np.arange(len(rank_SN))
    step_S = np.maximum(rank_SN[samples, other_S] - rank_SN[samples, one_S] + _LEAST_STEP, 0) * stretch_S
    moved_S = np.where(later_S, one_S, other_S)
    own_SN = graph.robot_N == graph.robot_N[moved_S][:, None]
    rest_SN = own_SN & (np.arange(graph.nodes) >= moved_S[:, None])
    rank_SN = rank_SN + rest_SN * np.where(later_S, step_S, -step_S)[:, None]
    return np.minimum(rank_SN, np.where(own_SN & ~rest_SN, rank_SN[samples, moved_S][:, None], np.inf))


def blame(graph: Graph, cost: CostName, best: Driven) -> tuple[np.ndarray, np.ndarray]:
    """How much of the strain (`strain`) hangs on each edge's wait (E): by how much it would fall if that wait alone
    were a second shorter, shared among waits that end together; and by how much it would rise if robots entered each
    interval (N) a second later. Negative where later is better, as for who arrives first and the spread of arrivals."""
    enter_N = best.enter_SN[0]
    one_E, other_E, wait_E = _waits(graph, best)
    holds_E = enter_N[one_E] + wait_E > enter_N[other_E] - 1e-6
    holding: dict[int, list[int]] = {}
    for edge in np.flatnonzero(holds_E).tolist():
        holding.setdefault(int(other_E[edge]), []).append(edge)
    start_N = np.where(graph.before_N < 0, 0.0, enter_N[graph.before_N])
    waits_N = enter_N > start_N + graph.travel_N + 1e-6
    pressure_N, blame_E = _slope(graph, cost, best.enter_SN), np.zeros(graph.edges)
    for node in np.argsort(-best.rank_SN[0], kind="stable").tolist():
        take_turns()
        if not pressure_N[node]:
            continue
        if not waits_N[node]:
            if graph.before_N[node] >= 0:
                pressure_N[graph.before_N[node]] += pressure_N[node]
            continue
        edges = holding.get(node, [])
        for edge in edges:
            blame_E[edge] = pressure_N[node] / len(edges)
            pressure_N[one_E[edge]] += blame_E[edge]
    return blame_E, pressure_N


def strain(graph: Graph, cost: CostName, enter_SN: np.ndarray) -> np.ndarray:
    """What each interval (S, N) adds to a smooth stand-in for the cost, in units of its own. Sums are their own; in
    place of the last arrival and the first stand exponentials, as they are under the first sample, so that who is
    nearly last, or nearly first, counts nearly as much."""
    if cost == "average_delay":
        return enter_SN
    strain_SN, last_M = np.zeros(enter_SN.shape), graph.last_R[graph.last_R >= 0]
    done_SR = completion_times(graph, enter_SN)
    done_SM = done_SR[:, graph.last_R >= 0]
    if cost == "average_completion":
        strain_SN[:, last_M] = done_SM
        return strain_SN
    late_SM, early_SM, within_s = _extremes(done_SM, done_SR[0])
    strain_SN[:, last_M] = within_s * (late_SM + early_SM * (cost == "synchronous_completion"))
    return strain_SN


def _slope(graph: Graph, cost: CostName, enter_1N: np.ndarray) -> np.ndarray:
    """How much a second later into each interval adds to the strain by itself (N)."""
    if cost == "average_delay":
        return np.ones(graph.nodes)
    slope_N, last_M = np.zeros(graph.nodes), graph.last_R[graph.last_R >= 0]
    done_R = completion_times(graph, enter_1N)[0]
    late_M, early_M, _ = _extremes(done_R[graph.last_R >= 0], done_R)
    extremes = {"maximum_completion": late_M, "synchronous_completion": late_M - early_M}
    slope_N[last_M] = extremes.get(cost, np.ones(len(last_M)))
    return slope_N


def _extremes(done: np.ndarray, reference_R: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """How close arrivals are to the last of the reference, and to its first: 1 at them, falling by a factor e in so
    many seconds."""
    within_s = max(_NEAR_THE_END * float(np.ptp(reference_R)), TICK_M)
    late = np.exp(((done - reference_R.max()) / within_s).clip(max=50))
    early = np.exp(((reference_R.min() - done) / within_s).clip(max=50))
    return late, early, within_s


def _degrees(graph: Graph) -> np.ndarray:
    """How many edges each interval has (N)."""
    return np.bincount(graph.edge_E2.ravel(), minlength=graph.nodes)


def _waits(graph: Graph, best: Driven) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each edge under a plan (S = 1) the interval that is entered first, the other, and the seconds between (E)."""
    first_E, following_E = best.plans.first_SE[0], best.plans.following_SE[0]
    one_E, other_E = np.where(first_E, graph.edge_E2.T, graph.edge_E2.T[::-1])
    wait_E2 = np.where(following_E[:, None], graph.following_E2, graph.exclusive_E2)
    return one_E, other_E, np.where(first_E, wait_E2[:, 0], wait_E2[:, 1])


def stack(some: Sequence[Driven]) -> Driven:
    """Several lots of driven plans as one."""
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
