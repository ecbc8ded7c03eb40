"""The programme for HiGHS: real times, and a big number that switches implications off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import highspy
import numpy as np

from squadron.methods.coordination.config import CostName
from squadron.methods.coordination.density_limits import crowds
from squadron.methods.coordination.graph import Graph
from squadron.methods.coordination.solvers.programme import Found, horizon


class Highs:
    """HiGHS over one graph and cost."""

    def __init__(self, graph: Graph, cost: CostName, threads: int, seed: int) -> None:
        self.graph, self.cost = graph, cost
        self.model = model = highspy.Highs()
        for name, value in {"output_flag": False, "threads": threads, "random_seed": seed, "mip_rel_gap": 0.0}.items():
            model.setOptionValue(name, value)
        self.end = horizon(graph)
        self.first = [model.addBinary() for _ in range(graph.edges)]
        self.following = [model.addBinary() for _ in range(graph.edges)]
        self.enter = [model.addVariable(lb=float(enter), ub=self.end) for enter in graph.enter_N]
        self.tight: list[list[Any]] = [[] for _ in range(graph.nodes)]
        self._travel()
        self._precede()
        for edges in crowds(graph):
            model.addConstr(model.qsum([self.following[e] for e in edges]) <= float(len(edges) - 1))
        self.objective = self._objective()

    def minimise(self, time_limit_s: float) -> Found | None:
        """The best plan found within the time, if any."""
        model = self.model
        model.setOptionValue("time_limit", model.getRunTime() + time_limit_s)
        model.minimize(self.objective)
        info = model.getInfo()
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return None
        return Found(
            np.array([model.val(one) > 0.5 for one in self.first], bool),
            np.array([model.val(one) > 0.5 for one in self.following], bool),
            info.objective_function_value,
            info.mip_dual_bound if self.graph.edges else info.objective_function_value,
            model.getModelStatus() == highspy.HighsModelStatus.kOptimal,
        )

    def forbid(self, first: Mapping[int, bool], following: Mapping[int, bool]) -> None:
        """No plan may have all of these values, by edge."""
        others = [_other(self.first[e], value) for e, value in first.items()]
        others += [_other(self.following[e], value) for e, value in following.items()]
        self.model.addConstr(self.model.qsum(others) >= 1)

    def _travel(self) -> None:
        for n, before in enumerate(self.graph.before_N):
            if before >= 0:
                self.model.addConstr(self.enter[n] >= self.enter[before] + float(self.graph.travel_N[n]))

    def _precede(self) -> None:
        """Who goes second enters late enough behind the first: a longer wait if it may not follow."""
        model, graph = self.model, self.graph
        for e, (u, v) in enumerate(graph.edge_E2):
            follow = self.following[e]
            for side, (one, other) in enumerate(((u, v), (v, u))):
                goes_second = _other(self.first[e], side == 0)
                exclusive, following = float(graph.exclusive_E2[e, side]), float(graph.following_E2[e, side])
                off = self.end + exclusive
                model.addConstr(self.enter[other] >= self.enter[one] + following - off * goes_second)
                model.addConstr(self.enter[other] >= self.enter[one] + exclusive - off * goes_second - off * follow)
                if self.cost == "synchronous_completion":
                    self._may_be_tight(one, other, exclusive, [goes_second, 1 * follow])
                    self._may_be_tight(one, other, following, [goes_second, _other(follow, True)])

    def _may_be_tight(self, one: int, other: int, wait: float, unless: list[Any]) -> None:
        tight = self.model.addBinary()
        for reason in unless:
            self.model.addConstr(tight <= 1 - reason)
        self.model.addConstr(self.enter[other] <= self.enter[one] + wait + 2 * self.end * (1 - tight))
        self.tight[other].append(tight)

    def _objective(self) -> Any:
        model, graph = self.model, self.graph
        if self.cost == "average_delay":
            share = 1 / max(1, graph.nodes)
            return model.qsum([share * enter for enter in self.enter]) - float(graph.enter_N.sum()) * share
        done: list[Any] = [
            self.enter[last] + float(length - graph.enter_N[last]) if last >= 0 else float(length)
            for last, length in zip(graph.last_R, graph.length_R, strict=True)
        ]
        if self.cost == "average_completion":
            return model.qsum([one * (1 / graph.robots) for one in done])
        latest = model.addVariable(lb=0, ub=2 * self.end)
        for one in done:
            model.addConstr(latest >= one)
        if self.cost == "maximum_completion":
            return 1 * latest
        self._as_early_as_can_be()
        earliest = model.addVariable(lb=0, ub=2 * self.end)
        for one in done:
            model.addConstr(earliest <= one)
        return latest - earliest

    def _as_early_as_can_be(self) -> None:
        """Robots do not dawdle so as to arrive together: each enters as soon as one of those before it lets it."""
        model, graph = self.model, self.graph
        for n, before in enumerate(graph.before_N):
            driven = model.addBinary()
            earliest = self.enter[before] + float(graph.travel_N[n]) if before >= 0 else float(graph.enter_N[n])
            model.addConstr(self.enter[n] <= earliest + 2 * self.end * (1 - driven))
            model.addConstr(model.qsum([driven, *self.tight[n]]) == 1)


def _other(binary: Any, value: bool) -> Any:
    """An expression that is 0 where the binary has this value, else 1."""
    return 1 - binary if value else 1 * binary
