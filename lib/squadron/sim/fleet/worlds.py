"""Random worlds: how many robots, how much floor for each, how far they go."""

from __future__ import annotations

import math

import numpy as np

from squadron.core.errors import ConfigError
from squadron.sim.fleet.maps import GridMap
from squadron.sim.fleet.spec import FloorConfig
from squadron.sim.routes import Route, make_route

_ATTEMPTS = 1000
_ROOM = 1.25


def random_routes(floor: FloorConfig, robots: int, radius_m: float, draw: np.random.Generator) -> list[Route]:
    """Routes for `robots` discs of `radius_m`. Their starts do not touch each other, and neither do their goals.

    The side of the square grows with the root of the number of robots, and is never so short that the shortest trip
    does not fit well; trips are no longer than the side.
    Raises ConfigError if the floor is too crowded for that many starts.
    """
    side = max(math.sqrt(robots * floor.area_per_robot_m2), _ROOM * floor.trip_m[0])
    starts: list[np.ndarray] = []
    goals: list[np.ndarray] = []
    routes = []
    for _ in range(robots):
        for _ in range(_ATTEMPTS):
            start, goal = _trip(floor, side, draw)
            if _apart(start, starts, 2 * radius_m) and _apart(goal, goals, 2 * radius_m):
                break
        else:
            raise ConfigError(
                f"{robots} robots of radius {radius_m} m do not fit a floor of {side:.1f} m by {side:.1f} m",
                fix="give each more area_per_robot_m2, or shorter trips",
            )
        starts.append(start)
        goals.append(goal)
        routes.append(make_route(np.array([start, _between(start, goal, floor.detour_m, side, draw), goal])))
    return routes


def random_map(height: int, width: int, blocked: float, draw: np.random.Generator) -> GridMap:
    """A map with a share of its cells blocked at random, of which the largest connected part is free.

    Raises ConfigError if too few free cells are left.
    """
    from scipy import ndimage

    labels_HW, count = ndimage.label(draw.random((height, width)) >= blocked)
    sizes = np.bincount(labels_HW.ravel(), minlength=count + 1)
    sizes[0] = 0
    free_HW = labels_HW == sizes.argmax()
    if sizes.max() < 2:
        raise ConfigError(f"with {blocked:.0%} of its cells blocked, a map has no room to drive")
    return GridMap(free_HW)


def random_visits(grid: GridMap, robots: int, draw: np.random.Generator) -> list[list[int]]:
    """A start and a goal for each robot, all starts and all goals distinct. Raises ConfigError if cells are too few."""
    cells = grid.free_cells
    if robots > len(cells) // 2:
        raise ConfigError(f"{robots} robots on {len(cells)} free cells", fix="a robot needs two: give a larger map")
    starts = draw.permutation(cells)[:robots]
    goals = draw.permutation(np.setdiff1d(cells, starts))[:robots]
    return [[int(start), int(goal)] for start, goal in zip(starts, goals, strict=True)]


def _trip(floor: FloorConfig, side: float, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A start and a goal on the floor, a trip apart."""
    start = draw.uniform(0, side, 2)
    for _ in range(_ATTEMPTS):
        angle, distance = draw.uniform(0, 2 * math.pi), draw.uniform(floor.trip_m[0], min(floor.trip_m[1], side))
        goal = start + distance * np.array([math.cos(angle), math.sin(angle)])
        if (goal >= 0).all() and (goal <= side).all():
            return start, goal
        start = draw.uniform(0, side, 2)
    raise ConfigError(f"trips of {floor.trip_m} m do not fit a floor of {side:.1f} m", fix="make trip_m shorter")


def _between(start: np.ndarray, goal: np.ndarray, detour: float, side: float, draw: np.random.Generator) -> np.ndarray:
    along = goal - start
    normal = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    middle = start + draw.uniform(0.3, 0.7) * along + draw.uniform(-detour, detour) * normal
    return np.clip(middle, 0, side)


def _apart(point: np.ndarray, others: list[np.ndarray], distance: float) -> bool:
    return not others or float(np.linalg.norm(np.array(others) - point, axis=1).min()) > distance
