"""What the network is measured against: dispatching rules, an evolution strategy, and back-tracking search.

Exact solvers are in `exact`. Letters: S samples, N nodes, E edges.
"""

from __future__ import annotations

import heapq
import time

import numpy as np

from squadron.methods.coordination.algorithm import COSTS, Plans, entry_times, from_ranks, ranks
from squadron.methods.coordination.config import CostName, SamplingConfig
from squadron.methods.coordination.density_limits import Crowding, limited
from squadron.methods.coordination.graph import Graph
from squadron.methods.coordination.schedule import Schedule
from squadron.methods.coordination.search import Proposals


def first_come_first_served(graph: Graph) -> Schedule:
    """Whoever arrives first goes first: intervals are given out in the order in which robots, delayed by what was given
    out before, come to them. The next one follows wherever the limits still allow it."""
    incident = _edges_of_nodes(graph)
    first_E, following_E = np.zeros(graph.edges, bool), np.zeros(graph.edges, bool)
    grant = Crowding(graph)
    enter_N = np.full(graph.nodes, -np.inf)
    arrivals = [(float(graph.enter_N[node]), int(node)) for node in np.flatnonzero(graph.before_N < 0)]
    heapq.heapify(arrivals)
    after = {int(before): node for node, before in enumerate(graph.before_N) if before >= 0}
    while arrivals:
        arrival, node = heapq.heappop(arrivals)
        earliest = arrival
        for edge, other, side in incident[node]:
            if enter_N[other] > -np.inf:
                first_E[edge] = side == 0
                following_E[edge] = grant.ask(edge)
                wait = (graph.following_E2 if following_E[edge] else graph.exclusive_E2)[edge, side]
                earliest = max(earliest, enter_N[other] + wait)
        enter_N[node] = earliest
        if node in after:
            later = after[node]
            heapq.heappush(arrivals, (earliest + float(graph.travel_N[later]), later))
    return Schedule(graph, first_E, following_E, enter_N)


def propose_priorities(graph: Graph, sampling: SamplingConfig, draw: np.random.Generator) -> Proposals:
    """Robots in random order: one that comes earlier in it goes first wherever it meets another."""
    priority_SR = draw.permuted(np.tile(np.arange(graph.robots, dtype=np.float64), (sampling.samples, 1)), axis=1)
    return Proposals(priority_SR[:, graph.robot_N], draw.normal(size=(sampling.samples, graph.edges)))


def evolve(graph: Graph, cost: CostName, time_limit_s: float, seed: int = 0) -> Schedule:
    """CMA-ES (Hansen; `cma`) over the logarithms of bids and the confidences of edges that a limit concerns, decoded as
    the network's are. Above 200 numbers its covariance is diagonal, which the library advises for many dimensions."""
    import cma

    start = time.monotonic()
    concerned = np.flatnonzero(limited(graph))
    size = graph.nodes + len(concerned)
    if size < 2:
        return first_come_first_served(graph)
    best: Schedule | None = None

    def schedules(points: np.ndarray) -> tuple[Plans, np.ndarray]:
        confidence_SE = np.zeros((len(points), graph.edges))
        confidence_SE[:, concerned] = points[:, graph.nodes :]
        plans, order_SN = from_ranks(graph, ranks(graph, np.exp(points[:, : graph.nodes].clip(-20, 20))), confidence_SE)
        return plans, entry_times(graph, plans, order_SN)

    options = {"seed": seed + 1, "verbose": -9, "CMA_diagonal": size > 200, "maxiter": np.inf}
    strategy = cma.CMAEvolutionStrategy(np.zeros(size), 1.0, options)
    least = np.inf
    while best is None or time.monotonic() - start < time_limit_s:
        points = np.array(strategy.ask())
        plans, enter_SN = schedules(points)
        values_S = COSTS[cost](graph, enter_SN)
        strategy.tell(list(points), values_S.tolist())
        lowest = int(values_S.argmin())
        if values_S[lowest] < least:
            least = float(values_S[lowest])
            best = Schedule(graph, plans.first_SE[lowest], plans.following_SE[lowest], enter_SN[lowest])
        if strategy.stop():
            strategy = cma.CMAEvolutionStrategy(np.zeros(size), 1.0, {**options, "seed": int(least * 1e6) % 2**31 + 2})
    return best


def back_track(graph: Graph, cost: CostName, time_limit_s: float) -> Schedule | None:
    """Depth-first search over the edges in the order in which robots come to them: each may point either way, the other
    following where limits allow. A branch whose waits already cost as much as the best plan is given up, where the cost
    cannot fall by more waits; the spread of arrivals can. None if the time runs out before the first plan."""
    deadline = time.monotonic() + time_limit_s
    order = np.argsort(graph.enter_N[graph.edge_E2].min(1), kind="stable")
    search = _Search(graph, cost, order.tolist(), deadline)
    search.descend(0)
    if search.best is None:
        return None
    first_E, following_E, enter_N = search.best
    return Schedule(graph, first_E, following_E, enter_N)


class _Search:
    """State of the back-tracking search: edges decided so far, and entry times under them alone."""

    def __init__(self, graph: Graph, cost: CostName, order: list[int], deadline: float) -> None:
        self.graph, self.cost, self.order, self.deadline = graph, cost, order, deadline
        self.first_E, self.following_E = np.zeros(graph.edges, bool), np.zeros(graph.edges, bool)
        self.enter_N = graph.enter_N.copy()
        self.after: list[list[tuple[int, float]]] = [[] for _ in range(graph.nodes)]
        for node, before in enumerate(graph.before_N):
            if before >= 0:
                self.after[before].append((node, float(graph.travel_N[node])))
        self.grant = Crowding(graph)
        self.least = np.inf
        self.best: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def descend(self, depth: int) -> None:
        """Decide the edges from `depth` on. An explicit stack would be faster and harder to read; Python's limit is
        raised for as many edges as there are."""
        import sys

        sys.setrecursionlimit(max(sys.getrecursionlimit(), 4 * len(self.order) + 1000))
        self._descend(depth)

    def _descend(self, depth: int) -> None:
        value = float(COSTS[self.cost](self.graph, self.enter_N[None])[0])
        if self.cost != "synchronous_completion" and value >= self.least - 1e-9:
            return
        if depth == len(self.order):
            if value < self.least - 1e-9:
                self.least = value
                self.best = self.first_E.copy(), self.following_E.copy(), self.enter_N.copy()
            return
        edge = self.order[depth]
        u, v = (int(node) for node in self.graph.edge_E2[edge])
        first_u = self.enter_N[u] + self.graph.following_E2[edge, 0] - self.enter_N[v]
        first_v = self.enter_N[v] + self.graph.following_E2[edge, 1] - self.enter_N[u]
        for side in (0, 1) if first_u <= first_v else (1, 0):
            one, other = (u, v) if side == 0 else (v, u)
            if self._reaches(other, one):
                continue
            for follows in (True, False):
                if time.monotonic() > self.deadline and self.best is not None:
                    return
                if follows and not self.grant.ask(edge):
                    continue
                wait = (self.graph.following_E2 if follows else self.graph.exclusive_E2)[edge, side]
                before = self.enter_N.copy()
                self.after[one].append((other, float(wait)))
                self._delay(one)
                self.first_E[edge], self.following_E[edge] = side == 0, follows
                self._descend(depth + 1)
                self.after[one].pop()
                self.enter_N = before
                if follows:
                    self.grant.give_back(edge)

    def _reaches(self, start: int, goal: int) -> bool:
        seen, stack = {start}, [start]
        while stack:
            node = stack.pop()
            if node == goal:
                return True
            for later, _ in self.after[node]:
                if later not in seen:
                    seen.add(later)
                    stack.append(later)
        return False

    def _delay(self, start: int) -> None:
        """Let a new wait behind `start` take effect on all that come later."""
        stack = [start]
        while stack:
            node = stack.pop()
            for later, wait in self.after[node]:
                if self.enter_N[node] + wait > self.enter_N[later] + 1e-12:
                    self.enter_N[later] = self.enter_N[node] + wait
                    stack.append(later)


def _edges_of_nodes(graph: Graph) -> list[list[tuple[int, int, int]]]:
    """For each node its edges: the edge, the node at its other end, and which end that is."""
    incident: list[list[tuple[int, int, int]]] = [[] for _ in range(graph.nodes)]
    for edge, (u, v) in enumerate(graph.edge_E2.tolist()):
        incident[u].append((edge, v, 1))
        incident[v].append((edge, u, 0))
    return incident
