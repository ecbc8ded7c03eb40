"""Every method on the same unseen problems: what it costs, how long it takes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from squadron.core.folder import Folder
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.methods.coordination import baselines
from squadron.methods.coordination.algorithm import COSTS, Plans
from squadron.methods.coordination.config import (
    CostName,
    EvaluationConfig,
    FloorLimits,
    SamplingConfig,
    published_sampling,
)
from squadron.methods.coordination.exact import solve
from squadron.methods.coordination.graph import Graph, build_graph
from squadron.methods.coordination.planner import Propose, learned, plan_graph, propose_at_random
from squadron.methods.coordination.problems import unseen_problem
from squadron.methods.coordination.records import Planner
from squadron.methods.coordination.schedule import Schedule

REFERENCE = "exact solver"
"""CP-SAT, started from the best that the other methods found."""

EVOLUTION = "CMA-ES"
"""An evolution strategy with several times the network's time."""

PUBLISHED = "published sampling"
"""The same network, a plan for each latent vector, and one of them for all robots as it is."""

UNTAUGHT = "search without network"
"""Random bids, then the same search around the best: what is left if the network is taken away."""


def compete(
    stage: Stage,
    planners: Sequence[Planner],
    limits: FloorLimits,
    sampling: SamplingConfig,
    config: EvaluationConfig,
) -> list[dict[str, Any]]:
    """Each problem's results, as `Contest` gives them. Problems that fail are failed rows of the stage."""
    rows = [
        {"id": f"{robots} robots, {number}", "robots": robots, "number": number}
        for robots in sorted(config.robots)
        for number in range(config.problems)
    ]
    return map_rows(
        stage,
        rows,
        _plan_one,
        unit="problem",
        timeout_s=config.timeout_s,
        contest=Contest(stage.run.folder, tuple(planners), limits, sampling, config),
    )


def _plan_one(row: dict[str, Any], contest: Contest) -> dict[str, Any]:
    """Runs on a worker, which keeps its networks for the next problem."""
    return contest(row)


_network = functools.lru_cache(maxsize=8)(learned)


@dataclass(frozen=True)
class Contest:
    """Lets every method plan one problem."""

    run_folder: Folder
    planners: tuple[Planner, ...]
    limits: FloorLimits
    sampling: SamplingConfig
    config: EvaluationConfig

    @property
    def cost(self) -> CostName:
        return self.planners[0].cost

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Cost and seconds of each method; None where it found no plan."""
        routes, grid = unseen_problem(self.config, self.limits, row["robots"], row["number"])
        started = time.perf_counter()
        graph = build_graph(routes, self.limits)
        results: dict[str, Any] = {}
        built_s = time.perf_counter() - started
        schedules = [self._try(graph, name, method, results) for name, method in self._methods(graph).items()]
        allowed_s = self.config.evolution_times * results[self.planners[0].name]["seconds"]
        schedules.append(self._try(graph, EVOLUTION, lambda: baselines.evolve(graph, self.cost, allowed_s), results))
        best = min((one for one in schedules if one is not None), key=self._value)
        proven = self._refer(graph, best, results)
        sizes = {"nodes": graph.nodes, "edges": graph.edges}
        alone = float(COSTS[self.cost](graph, graph.enter_N[None])[0])
        world = "open floor" if grid is None else "map"
        return {
            **row,
            **sizes,
            "world": world,
            "graph_s": built_s,
            "results": results,
            "proven": proven,
            "undisturbed": alone,
        }

    def _methods(self, graph: Graph) -> dict[str, Callable[[], Schedule | None]]:
        cost, samples = self.cost, self.sampling.samples
        published = published_sampling(self.sampling)

        def best_of(propose: Propose, sampling: SamplingConfig) -> Callable[[], Schedule]:
            return lambda: plan_graph(graph, cost, propose, sampling)

        networks = {one.name: _network(self.run_folder / one.path) for one in self.planners}
        return {
            **{name: best_of(network, self.sampling) for name, network in networks.items()},
            PUBLISHED: best_of(networks[self.planners[0].name], published),
            UNTAUGHT: best_of(propose_at_random, self.sampling),
            f"{samples} random": best_of(propose_at_random, published),
            f"{samples} priorities": best_of(baselines.propose_priorities, published),
            "first come": lambda: baselines.first_come_first_served(graph),
            "back-tracking": lambda: baselines.back_track(graph, cost, self.config.back_tracking_s),
        }

    def _try(
        self, graph: Graph, name: str, method: Callable[[], Schedule | None], results: dict[str, Any]
    ) -> Schedule | None:
        started = time.perf_counter()
        schedule = method()
        seconds = time.perf_counter() - started
        results[name] = {"cost": None if schedule is None else self._value(schedule), "seconds": seconds}
        return schedule

    def _refer(self, graph: Graph, best: Schedule, results: dict[str, Any]) -> bool:
        hint = Plans(best.first_E[None], best.following_E[None])
        started = time.perf_counter()
        found = solve(graph, self.cost, time_limit_s=self.config.reference_s, hint=hint)
        value = None if found is None else found.cost
        results[REFERENCE] = {"cost": value, "seconds": time.perf_counter() - started}
        return found is not None and found.optimal

    def _value(self, schedule: Schedule) -> float:
        return float(COSTS[self.cost](schedule.graph, schedule.enter_N[None])[0])
