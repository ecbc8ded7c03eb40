"""The graph of a coordination problem: intervals of routes as nodes, shared stretches as edges.

Letters: R robots, N nodes, E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from squadron.core.errors import InputError
from squadron.core.work import take_turns
from squadron.methods.coordination.config import FloorLimits
from squadron.methods.coordination.interference import MOST_PAIRS, Zones, find_zones
from squadron.sim.routes import Route

TICK_M = 1e-3
"""Bounds of intervals are whole multiples of it, so that solvers on integers and on reals solve the same problem."""


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes are intervals of routes on which other robots can be in the way; those of a robot follow each other, in the
    order of its route. Edges join intervals of two robots that share a stretch. Lengths are metres of arc length, and,
    since robots drive at one metre a second, also seconds. Of intervals that all meet each other, at most as many may
    have a robot inside as the least of their densities (`crowding`).
    """

    length_R: np.ndarray
    robot_N: np.ndarray
    enter_N: np.ndarray
    leave_N: np.ndarray
    density_N: np.ndarray
    edge_E2: np.ndarray
    zone_start_E2: np.ndarray
    zone_end_E2: np.ndarray

    @property
    def robots(self) -> int:
        return len(self.length_R)

    @property
    def nodes(self) -> int:
        return len(self.robot_N)

    @property
    def edges(self) -> int:
        return len(self.edge_E2)

    @cached_property
    def before_N(self) -> np.ndarray:
        """The interval before on the same route; -1 for the first."""
        before = np.arange(self.nodes) - 1
        before[np.concatenate(([True], self.robot_N[1:] != self.robot_N[:-1]))[: self.nodes]] = -1
        return before

    @cached_property
    def last_R(self) -> np.ndarray:
        """The last interval of each route; -1 for a robot that nobody is in the way of."""
        last = np.full(self.robots, -1)
        last[self.robot_N] = np.arange(self.nodes)
        return last

    @cached_property
    def travel_N(self) -> np.ndarray:
        """Seconds from the entry of the interval before to the entry of this one, from the start for the first."""
        earlier = np.where(self.before_N < 0, 0.0, self.enter_N[self.before_N])
        return self.enter_N - earlier

    @cached_property
    def exclusive_E2(self) -> np.ndarray:
        """Seconds from the entry of the one that goes first to the entry of the other, exclusive type: the first has
        left its whole interval. Column 0 where the edge's first node goes first."""
        return (self.leave_N - self.enter_N)[self.edge_E2]

    @cached_property
    def following_E2(self) -> np.ndarray:
        """The same for the following type: the second reaches the shared stretch when the first has left it."""
        leaves = self.zone_end_E2 - self.enter_N[self.edge_E2]
        reaches = self.zone_start_E2 - self.enter_N[self.edge_E2]
        return leaves - reaches[:, ::-1]


def build_graph(routes: Sequence[Route], limits: FloorLimits, most_pairs: int = MOST_PAIRS) -> Graph:
    """The graph of these routes. Raises InputError if starts overlap, or the graph would not fit memory, which is for
    `most_pairs` as in `find_zones`."""
    if not routes:
        raise InputError("there is no route", fix="give at least one robot a path")
    zones = find_zones(routes, limits.radius_m, most_pairs)
    start_Z2 = np.floor(zones.start_Z2 / TICK_M + 1e-6)
    end_Z2 = np.ceil(zones.end_Z2 / TICK_M - 1e-6)
    robot_N, enter_N, leave_N, node_Z2 = _merge(zones, start_Z2, end_Z2)
    take_turns()
    edge_E2, zone_start_E2, zone_end_E2 = _edges(node_Z2, start_Z2, end_Z2)
    density_N = _densities(routes, limits, robot_N, enter_N * TICK_M, leave_N * TICK_M)
    return Graph(
        length_R=np.ceil(np.array([route.length for route in routes]) / TICK_M - 1e-6) * TICK_M,
        robot_N=robot_N,
        enter_N=enter_N * TICK_M,
        leave_N=leave_N * TICK_M,
        density_N=density_N,
        edge_E2=edge_E2,
        zone_start_E2=zone_start_E2 * TICK_M,
        zone_end_E2=zone_end_E2 * TICK_M,
    )


def _merge(
    zones: Zones, start_Z2: np.ndarray, end_Z2: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Robot, start and end of each interval, and the intervals that a zone lies in: zones of a robot that overlap or
    touch, whoever they are shared with, are one interval."""
    robot_S, start_S, end_S = zones.robots_Z2.T.ravel(), start_Z2.T.ravel(), end_Z2.T.ravel()
    order = np.lexsort((start_S, robot_S))
    robot, start, end = robot_S[order], start_S[order], end_S[order]
    new = np.ones(len(order), bool)
    reach = -np.inf
    for place in range(len(order)):
        take_turns()
        if place and robot[place] == robot[place - 1] and start[place] <= reach:
            new[place] = False
            reach = max(reach, end[place])
        else:
            reach = end[place]
    node = np.cumsum(new) - 1
    node_S = np.empty(len(order), np.int64)
    node_S[order] = node
    leave_N = np.full(int(new.sum()), -np.inf)
    np.maximum.at(leave_N, node, end)
    return robot[new], start[new], leave_N, node_S.reshape(2, -1).T


def _edges(node_Z2: np.ndarray, start_Z2: np.ndarray, end_Z2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An edge for each pair of intervals; several zones between the same two are taken as one."""
    edge_E2, edge_Z = np.unique(node_Z2, axis=0, return_inverse=True)
    edge_Z = edge_Z.reshape(-1)
    low_E2, high_E2 = np.full(edge_E2.shape, np.inf), np.full(edge_E2.shape, -np.inf)
    np.minimum.at(low_E2, edge_Z, start_Z2)
    np.maximum.at(high_E2, edge_Z, end_Z2)
    return edge_E2, low_E2, high_E2


def _densities(
    routes: Sequence[Route], limits: FloorLimits, robot_N: np.ndarray, enter_N: np.ndarray, leave_N: np.ndarray
) -> np.ndarray:
    """The least density of the areas that an interval touches."""
    density_N = np.full(len(robot_N), limits.density)
    if not limits.areas:
        return density_N
    stretches = zip(robot_N, enter_N, leave_N, strict=True)
    lines_N = np.array([shapely.LineString(routes[robot].between(enter, leave)) for robot, enter, leave in stretches])
    for area in limits.areas:
        touches_N = shapely.intersects(lines_N, shapely.box(area.x_m[0], area.y_m[0], area.x_m[1], area.y_m[1]))
        density_N[touches_N] = np.minimum(density_N[touches_N], area.density)
    return density_N
