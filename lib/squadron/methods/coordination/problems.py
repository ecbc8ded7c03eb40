"""Problems, each a function of its settings and its number alone."""

from __future__ import annotations

import math

import numpy as np

from squadron.core.errors import ConfigError
from squadron.methods.coordination.config import EvaluationConfig, FloorLimits, ProblemsConfig
from squadron.methods.coordination.graph import Graph, build_graph
from squadron.sim.fleet.maps import GridMap, shortest_routes
from squadron.sim.fleet.worlds import random_map, random_routes, random_visits
from squadron.sim.routes import Route

_ATTEMPTS = 200
_TRAINING, _UNSEEN = 0, 1


def training_problem(config: ProblemsConfig, limits: FloorLimits, number: int) -> Graph:
    """Problem `number` to learn from. Raises ConfigError if no draw has few enough intervals, and something to
    decide."""
    draw = np.random.default_rng([config.seed, _TRAINING, number])
    for _ in range(_ATTEMPTS):
        robots = int(draw.integers(config.robots[0], config.robots[1] + 1))
        graph = build_graph(random_routes(config.floor, robots, limits.radius_m, draw), limits)
        if graph.edges and graph.nodes <= config.max_intervals:
            return graph
    raise ConfigError(
        f"of {_ATTEMPTS} draws none has an encounter and at most {config.max_intervals} intervals",
        where="problems",
        fix="give other robots, max_intervals or floor.area_per_robot_m2",
    )


def has_map(config: EvaluationConfig, number: int) -> bool:
    """Whether unseen problem `number` of a size is on a map: the first ones are, in the share that is asked for."""
    return number < round(config.maps * config.problems)


def unseen_problem(
    config: EvaluationConfig, limits: FloorLimits, robots: int, number: int
) -> tuple[list[Route], GridMap | None]:
    """Routes of unseen problem `number` of a size, and the map that they are on, if it is one of those with a map."""
    draw = np.random.default_rng([config.seed, _UNSEEN, robots, number])
    if not has_map(config, number):
        return random_routes(config.floor, robots, limits.radius_m, draw), None
    side = max(4, math.ceil(math.sqrt(robots * config.map_cells_per_robot / (1 - config.blocked))))
    grid = random_map(side, side, config.blocked, draw)
    return shortest_routes(grid, random_visits(grid, robots, draw), int(draw.integers(2**31))), grid
