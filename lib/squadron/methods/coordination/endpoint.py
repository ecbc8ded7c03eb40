"""Plans over HTTP: `POST /v1/plan` with routes, answered with who goes first and when each robot may pass."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.run_reader import outputs, settings
from squadron.methods.coordination.config import CoordinationConfig, CostName, FloorLimits, SamplingConfig
from squadron.methods.coordination.records import Planners
from squadron.serve.service import Route, Service, Services

if TYPE_CHECKING:
    from squadron.methods.coordination.graph import Graph
    from squadron.methods.coordination.planner import Propose


_MOST_ROBOTS, _MOST_CORNERS = 1_000, 4_000
_MOST_PAIRS, _MOST_CELLS = 200_000, 10_000_000  # 60 MB of close pieces of routes, 80 MB of samples


class PlanRequest(Config):
    """Robots to plan for. What is left out is as the run was trained."""

    routes: tuple[tuple[tuple[float, float], ...], ...] = Field(
        min_length=1,
        max_length=_MOST_ROBOTS,
        description=f"corners of each robot's way, in metres; robots drive at one metre a second; {_MOST_CORNERS:,} "
        "corners at most",
    )
    limits: FloorLimits | None = None
    cost: CostName | None = None
    samples: int | None = Field(None, ge=1, le=1000)
    rounds: int | None = Field(None, ge=0, le=100)
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _corners_fit(self) -> PlanRequest:
        if (corners := _corners(self)) > _MOST_CORNERS:
            raise ValueError(f"the routes have {corners:,} corners; {_MOST_CORNERS:,} are planned at most")
        return self


def _corners(request: PlanRequest) -> int:
    return sum(map(len, request.routes))


EXAMPLE = {"routes": [[[0, 0], [10, 0]], [[5, -5], [5, 5]], [[3, 8], [3, -8]]]}


class Pause(Config):
    """Where a robot may have to wait, in metres of its route, and until when, in seconds."""

    at_m: float
    until_s: float


class RobotPlan(Config):
    """When a robot arrives, in seconds, and where it may have to wait before."""

    arrives_s: float
    waits: tuple[Pause, ...]


class Encounter(Config):
    """Two robots that share a stretch: who goes first, and whether the other may be right behind."""

    first: int
    second: int
    may_follow: bool


class PlanAnswer(Config):
    """A plan that nobody waits in a circle under, and no limit is passed."""

    cost_name: CostName
    cost: float = Field(description="of the plan, in seconds")
    undisturbed: float = Field(description="the same if each robot were alone")
    seconds: float = Field(description="that planning took")
    robots: tuple[RobotPlan, ...]
    encounters: tuple[Encounter, ...]


def services(folder: Folder) -> Services:
    """The planner of each cost that a run has trained, behind one address. Raises InputError for a run that has trained
    none, or whose networks are gone."""
    try:
        found = outputs(folder, "adopt_planners", Planners)
    except InputError:
        found = outputs(folder, "train_planners", Planners)
    trained = [record.planners[0] for record in found]
    networks = {one.cost: Folder(one.locate(folder)) for one in trained}
    config = settings(folder, CoordinationConfig)
    load = Load(networks, config.limits, config.sampling)
    summary = "who goes first wherever robots meet, and when"
    route = Route("/v1/plan", "plan", PlanRequest, PlanAnswer, summary, example=EXAMPLE, work=_corners)
    return Services((Service("coordination", load, (route,), capacity=2 * _MOST_CORNERS, unit="corners"),))


@dataclass(frozen=True)
class Load:
    """Loads the networks on a replica."""

    networks: Mapping[CostName, Folder]
    limits: FloorLimits
    sampling: SamplingConfig

    def __call__(self) -> Planning:
        from squadron.methods.coordination.planner import learned

        proposers = {cost: learned(folder) for cost, folder in self.networks.items()}
        return Planning(proposers, self.limits, self.sampling)


class Planning:
    """Answers requests with the networks that it holds."""

    def __init__(self, networks: Mapping[CostName, Propose], limits: FloorLimits, sampling: SamplingConfig) -> None:
        self._networks, self._limits, self._sampling = networks, limits, sampling

    def plan(self, request: PlanRequest) -> PlanAnswer:
        """The plan for a request. Raises InputError for robots that cannot be planned, and for a cost that no network
        was trained for."""
        from squadron.methods.coordination.algorithm import COSTS
        from squadron.methods.coordination.fleet import describe
        from squadron.methods.coordination.graph import build_graph
        from squadron.methods.coordination.planner import plan_graph
        from squadron.sim.routes import make_route

        cost = request.cost if request.cost is not None else next(iter(self._networks))
        if cost not in self._networks:
            known = ", ".join(self._networks)
            raise InputError(f"no network was trained for {cost}", fix=f"ask for {known}")
        started = time.perf_counter()
        routes = [make_route(points, f"the route of robot {robot}") for robot, points in enumerate(request.routes)]
        graph = build_graph(routes, request.limits or self._limits, _MOST_PAIRS)
        asked = {"samples": request.samples, "rounds": request.rounds, "seed": request.seed}
        sampling = self._sampling.model_copy(update={name: value for name, value in asked.items() if value is not None})
        _check_size(graph, sampling.samples)
        schedule = plan_graph(graph, cost, self._networks[cost], sampling)
        described: dict[str, Any] = describe(schedule)
        return PlanAnswer(
            cost_name=cost,
            cost=float(COSTS[cost](graph, schedule.enter_N[None])[0]),
            undisturbed=float(COSTS[cost](graph, graph.enter_N[None])[0]),
            seconds=time.perf_counter() - started,
            **described,
        )


def _check_size(graph: Graph, samples: int) -> None:
    """Raise InputError for a graph whose plans would not fit into memory."""
    size, degree = graph.nodes + graph.edges, int(np.bincount(graph.edge_E2.ravel()).max(initial=0))
    if graph.nodes * degree > _MOST_CELLS:
        raise InputError(
            "too many robots meet at one place", where="routes", fix="plan parts of the floor by themselves"
        )
    if samples * size > _MOST_CELLS:
        what = f"samples: {samples:,} plans of {size:,} intervals and encounters are too many"
        raise InputError(what, where="samples", fix=f"ask for {max(1, _MOST_CELLS // size):,} at most")
