"""The programme for CP-SAT of OR-tools, in whole ticks of time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ortools.sat.python import cp_model

from squadron.methods.coordination.algorithm import Plans
from squadron.methods.coordination.config import CostName
from squadron.methods.coordination.density_limits import crowds
from squadron.methods.coordination.graph import TICK_M, Graph
from squadron.methods.coordination.solvers.programme import Found, horizon


class CpSat:
    """CP-SAT over one graph and cost."""

    def __init__(self, graph: Graph, cost: CostName, threads: int, seed: int, hint: Plans | None) -> None:
        self.graph, self.cost = graph, cost
        self.solver = cp_model.CpSolver()
        self.solver.parameters.num_workers = threads
        self.solver.parameters.random_seed = seed
        self.model = model = cp_model.CpModel()
        self.end = _ticks(horizon(graph))
        self.first = [model.new_bool_var(f"first {e}") for e in range(graph.edges)]
        self.following = [model.new_bool_var(f"following {e}") for e in range(graph.edges)]
        self.enter = [model.new_int_var(_ticks(graph.enter_N[n]), self.end, f"enter {n}") for n in range(graph.nodes)]
        self.waits: list[list[cp_model.IntVar]] = [[] for _ in range(graph.nodes)]
        self._travel()
        self._precede()
        for edges in crowds(graph):
            model.add_bool_or([self.following[e].negated() for e in edges])
        self.share = self._minimise_cost()
        if hint is not None:
            for e in range(graph.edges):
                model.add_hint(self.first[e], bool(hint.first_SE[0, e]))
                model.add_hint(self.following[e], bool(hint.following_SE[0, e]))

    def minimise(self, time_limit_s: float) -> Found | None:
        """The best plan found within the time, if any."""
        self.solver.parameters.max_time_in_seconds = time_limit_s
        status = self.solver.solve(self.model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        return Found(
            np.array([self.solver.boolean_value(one) for one in self.first], bool),
            np.array([self.solver.boolean_value(one) for one in self.following], bool),
            self.solver.objective_value * self.share,
            self.solver.best_objective_bound * self.share,
            status == cp_model.OPTIMAL,
        )

    def forbid(self, first: Mapping[int, bool], following: Mapping[int, bool]) -> None:
        """No plan may have all of these values, by edge."""
        others = [self.first[e].negated() if value else self.first[e] for e, value in first.items()]
        others += [self.following[e].negated() if value else self.following[e] for e, value in following.items()]
        self.model.add_bool_or(others)

    def _travel(self) -> None:
        for n, before in enumerate(self.graph.before_N):
            if before >= 0:
                self.model.add(self.enter[n] >= self.enter[before] + _ticks(self.graph.travel_N[n]))

    def _precede(self) -> None:
        """Who goes second enters late enough behind the first: a longer wait if it may not follow."""
        model, graph = self.model, self.graph
        for e, (u, v) in enumerate(graph.edge_E2):
            follow = self.following[e]
            for side, (one, other) in enumerate(((u, v), (v, u))):
                goes_first = self.first[e] if side == 0 else self.first[e].negated()
                exclusive = self.enter[one] + _ticks(graph.exclusive_E2[e, side])
                following = self.enter[one] + _ticks(graph.following_E2[e, side])
                model.add(self.enter[other] >= following).only_enforce_if(goes_first)
                model.add(self.enter[other] >= exclusive).only_enforce_if(goes_first, follow.negated())
                if self.cost == "synchronous_completion":
                    wait = model.new_int_var(-self.end, self.end, f"wait {e} {side}")
                    model.add(wait == following).only_enforce_if(goes_first, follow)
                    model.add(wait == exclusive).only_enforce_if(goes_first, follow.negated())
                    model.add(wait == 0).only_enforce_if(goes_first.negated())
                    self.waits[other].append(wait)

    def _minimise_cost(self) -> float:
        """Sets the objective, in ticks; returns what one tick of it is in seconds of cost."""
        model, graph = self.model, self.graph
        if self.cost == "average_delay":
            model.minimize(sum(self.enter) - sum(_ticks(enter) for enter in graph.enter_N))
            return TICK_M / max(1, graph.nodes)
        done = [
            self.enter[last] + _ticks(length - graph.enter_N[last]) if last >= 0 else _ticks(length)
            for last, length in zip(graph.last_R, graph.length_R, strict=True)
        ]
        if self.cost == "average_completion":
            model.minimize(sum(done))
            return TICK_M / graph.robots
        latest = model.new_int_var(0, 2 * self.end, "latest")
        model.add_max_equality(latest, done)
        if self.cost == "maximum_completion":
            model.minimize(latest)
            return TICK_M
        self._as_early_as_can_be()
        earliest = model.new_int_var(0, 2 * self.end, "earliest")
        model.add_min_equality(earliest, done)
        model.minimize(latest - earliest)
        return TICK_M

    def _as_early_as_can_be(self) -> None:
        """Robots do not dawdle so as to arrive together: each enters as soon as those before it let it."""
        graph = self.graph
        for n, before in enumerate(graph.before_N):
            driven = self.enter[before] + _ticks(graph.travel_N[n]) if before >= 0 else _ticks(graph.enter_N[n])
            self.model.add_max_equality(self.enter[n], [driven, *self.waits[n]])


def _ticks(seconds: float) -> int:
    return round(float(seconds) / TICK_M)
