"""Every method on the same unseen problems: what it costs, how long it takes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.evaluate.benchmark import Cell, run_benchmark
from squadron.evaluate.scores import Metrics, Problem, Scores
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
from squadron.methods.coordination.problems import has_map, unseen_problem
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
) -> Scores:
    """Cost, seconds and ratio to the least known cost of every method on every problem; problems are grouped by their
    world and size. Problems that fail are failed rows of the stage."""
    contest = Contest(stage.run.folder, tuple(planners), limits, sampling, config)
    problems = [
        Problem(
            f"{robots} robots, {number}",
            group=("map" if has_map(config, number) else "open floor", robots),
            data={"robots": robots, "number": number},
        )
        for robots in sorted(config.robots)
        for number in range(config.problems)
    ]
    scores = run_benchmark(
        stage,
        [*contest.methods(), EVOLUTION, REFERENCE],
        problems,
        _plan_one,
        methods_together=True,
        unit="problem",
        timeout_s=config.timeout_s,
        contest=contest,
    )
    return scores.with_metric("ratio", ratio_to_best(scores.values["cost"]))


def ratio_to_best(cost_MPST: np.ndarray) -> np.ndarray:
    """The least cost that any method reached over each one's; NaN where it found no plan, 1 where a plan costs
    nothing."""
    best_PST = np.maximum(0.0, np.fmin.reduce(cost_MPST, axis=0))
    free_MPST = cost_MPST <= 1e-9
    return np.where(free_MPST, 1.0, best_PST / np.where(free_MPST, 1.0, cost_MPST))


def _plan_one(cell: Cell, contest: Contest) -> list[Metrics]:
    """Runs on a worker, which keeps its networks for the next problem."""
    (problem,) = cell.problems
    return contest(**problem.data)


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

    def __call__(self, robots: int, number: int) -> list[Metrics]:
        """Cost, None where it found no plan, and seconds of each method."""
        routes, _ = unseen_problem(self.config, self.limits, robots, number)
        graph = build_graph(routes, self.limits)
        for planner in self.planners:
            _network(self.run_folder / planner.path)  # before time is taken
        tried = [self._try(functools.partial(method, graph)) for method in self.methods().values()]
        allowed_s = self.config.evolution_times * tried[0][1]["seconds"]  # of the method itself
        tried.append(self._try(lambda: baselines.evolve(graph, self.cost, allowed_s)))
        best = min((one for one, _ in tried if one is not None), key=self._value)
        return [*(metrics for _, metrics in tried), self._refer(graph, best)]

    def methods(self) -> dict[str, Callable[[Graph], Schedule | None]]:
        """All that need not know what another one found; the first is the method itself."""
        cost, samples = self.cost, self.sampling.samples
        published = published_sampling(self.sampling)

        def by_network(planner: Planner, sampling: SamplingConfig) -> Callable[[Graph], Schedule]:
            return lambda graph: plan_graph(graph, cost, _network(self.run_folder / planner.path), sampling)

        def best_of(propose: Propose, sampling: SamplingConfig) -> Callable[[Graph], Schedule]:
            return lambda graph: plan_graph(graph, cost, propose, sampling)

        return {
            **{planner.name: by_network(planner, self.sampling) for planner in self.planners},
            PUBLISHED: by_network(self.planners[0], published),
            UNTAUGHT: best_of(propose_at_random, self.sampling),
            f"{samples} random": best_of(propose_at_random, published),
            f"{samples} priorities": best_of(baselines.propose_priorities, published),
            "first come": baselines.first_come_first_served,
            "back-tracking": lambda graph: baselines.back_track(graph, cost, self.config.back_tracking_s),
        }

    def _try(self, method: Callable[[], Schedule | None]) -> tuple[Schedule | None, Metrics]:
        started = time.perf_counter()
        schedule = method()
        seconds = time.perf_counter() - started
        return schedule, {"cost": None if schedule is None else self._value(schedule), "seconds": seconds}

    def _refer(self, graph: Graph, best: Schedule) -> Metrics:
        hint = Plans(best.first_E[None], best.following_E[None])
        started = time.perf_counter()
        found = solve(graph, self.cost, time_limit_s=self.config.reference_s, hint=hint)
        return {"cost": None if found is None else found.cost, "seconds": time.perf_counter() - started}

    def _value(self, schedule: Schedule) -> float:
        return float(COSTS[self.cost](schedule.graph, schedule.enter_N[None])[0])
