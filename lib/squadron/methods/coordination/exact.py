"""Optimal plans by mixed-integer programming: HiGHS and CP-SAT on the same problem.

Binaries say for each edge who goes first and whether the other follows; the times of entry obey the four implications
that this leaves, and of every crowd one edge at least is exclusive. Plans in which robots wait in a circle, which a few
problems admit since a follower may enter before the one it follows, are forbidden as they turn up.
"""

from __future__ import annotations

import time
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from squadron.methods.coordination.algorithm import COSTS, Plans, entry_times, waits_for
from squadron.methods.coordination.config import CostName, Distinct, SolverName
from squadron.methods.coordination.graph import Graph
from squadron.methods.coordination.solvers.programme import Programme


class Solution(NamedTuple):
    """A plan with its cost in seconds, evaluated; `bound` is below the cost of every plan that was not excluded, and
    `optimal` says that none is better."""

    first_E: np.ndarray
    following_E: np.ndarray
    cost: float
    bound: float
    optimal: bool
    seconds: float

    @property
    def gap(self) -> float:
        """How much cheaper another plan may be, as a share of this one's cost."""
        return 0.0 if self.optimal or self.cost <= 0 else max(0.0, 1 - self.bound / self.cost)


def make_programme(
    graph: Graph, cost: CostName, solver: SolverName, threads: int = 1, seed: int = 0, hint: Plans | None = None
) -> Programme:
    """The programme of a graph and a cost for one of the solvers. `hint` is a plan (S = 1) to start from, which HiGHS
    does without."""
    if solver == "cpsat":
        from squadron.methods.coordination.solvers.cpsat import CpSat

        return CpSat(graph, cost, threads, seed, hint)
    from squadron.methods.coordination.solvers.highs import Highs

    return Highs(graph, cost, threads, seed)


def solve(
    graph: Graph,
    cost: CostName,
    solver: SolverName = "cpsat",
    time_limit_s: float = 60.0,
    threads: int = 1,
    seed: int = 0,
    hint: Plans | None = None,
) -> Solution | None:
    """The best plan that a solver finds within the time; None if it finds none."""
    found = solve_best(graph, cost, 1, solver, time_limit_s, threads, seed, hint)
    return found[0] if found else None


def solve_best(
    graph: Graph,
    cost: CostName,
    count: int,
    solver: SolverName = "cpsat",
    time_limit_s: float = 60.0,
    threads: int = 1,
    seed: int = 0,
    hint: Plans | None = None,
    *,
    distinct: Distinct = "plan",
    within: float = np.inf,
) -> list[Solution]:
    """The best `count` plans, the best first, each within the time: after each it and only it is excluded, or, with
    `distinct` orders, all plans of its order. Fewer if there are no more that cost at most (1 + `within`) times the
    best, or the time ran out before one was found."""
    programme = make_programme(graph, cost, solver, threads, seed, hint)
    solutions: list[Solution] = []
    while len(solutions) < count:
        solution = _next(programme, graph, cost, time_limit_s)
        if solution is None or (solutions and solution.cost > (1 + within) * solutions[0].cost + 1e-6):
            break
        solutions.append(solution)
        types = dict(enumerate(solution.following_E)) if distinct == "plan" else {}
        programme.forbid(dict(enumerate(solution.first_E)), types)
        if not graph.edges:
            break
    return sorted(solutions, key=lambda solution: solution.cost)


def _next(programme: Programme, graph: Graph, cost: CostName, time_limit_s: float) -> Solution | None:
    start = time.monotonic()
    while (left := time_limit_s - (time.monotonic() - start)) > 0:
        found = programme.minimise(left)
        if found is None:
            return None
        circle = find_circle(graph, found.first_E)
        if not circle:
            plans = Plans(found.first_E[None], found.following_E[None])
            value = float(COSTS[cost](graph, entry_times(graph, plans))[0])
            seconds = time.monotonic() - start
            return Solution(found.first_E, found.following_E, value, found.bound, found.optimal, seconds)
        programme.forbid({edge: bool(found.first_E[edge]) for edge in circle}, {})
    return None


def find_circle(graph: Graph, first_E: np.ndarray) -> list[int]:
    """Edges of a circle of robots that wait for each other; empty for a plan without one."""
    try:
        TopologicalSorter(waits_for(graph, first_E)).prepare()
    except CycleError as error:
        number = {(int(u), int(v)): edge for edge, (u, v) in enumerate(graph.edge_E2)}
        pairs = [tuple(sorted(pair)) for pair in pairwise(error.args[1])]
        return [number[pair] for pair in pairs if pair in number]
    return []
