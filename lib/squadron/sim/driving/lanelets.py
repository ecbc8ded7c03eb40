"""Routes on maps of lanelets: short stretches of lane, each with a centre line and the lanelets that continue it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import shapely

from squadron.core.errors import InputError
from squadron.sim.routes import Route, make_route

_ON_LANE_M, _SAME_WAY_RAD, _LOOK_M = 0.1, np.deg2rad(60), 0.25


@dataclass(frozen=True, eq=False)
class Lanelet:
    """A stretch of lane: its centre line, its outline, and the numbers of the lanelets before and behind it."""

    centre: Route
    outline: shapely.Polygon
    before: tuple[int, ...]
    after: tuple[int, ...]


def way_to_goal(
    lanelets: Mapping[int, Lanelet], place_2: np.ndarray, heading: float, region: shapely.Geometry, goals: set[int]
) -> tuple[Route, float, float]:
    """The way along centre lines from a place to a region on the lanelets `goals`, over the fewest lanelets; and how
    far along it, in metres, the place is and the region begins. The way begins on the lanelet before the place's, where
    there is one, and continues behind the region to the end of the map, on `goals` where it can and else straight on:
    a car in front there is in front of a car at its goal.

    Raises InputError if no lane at the place leads the way that it heads, or the region is not on the lanes ahead. The
    way does not change lanes.
    """
    starts = [number for number, lanelet in lanelets.items() if _leads_on(lanelet, place_2, heading)]
    if not starts:
        raise InputError(
            f"no lane at {place_2.tolist()} leads the way that the automated car heads",
            fix="take a scenario whose planning problem starts on a lane",
        )
    ways, seen = deque([start] for start in starts), set(starts)
    while ways:
        way = ways.popleft()
        if way[-1] in goals:
            line = _line(lanelets, way, goals)
            start = float(shapely.LineString(line.points_P2).project(shapely.Point(place_2)))
            arcs = np.arange(start, line.length, _LOOK_M)
            inside = shapely.intersects(region, shapely.points(line.at(arcs)))
            if inside.any():
                return line, start, float(arcs[inside.argmax()])
        for number in lanelets[way[-1]].after:
            if number not in seen:
                seen.add(number)
                ways.append([*way, number])
    raise InputError(
        "no route to the goal: it is not on the lanes ahead of the automated car, which does not change lanes",
        fix="take a scenario whose goal is straight ahead or behind a turn",
    )


def _leads_on(lanelet: Lanelet, place_2: np.ndarray, heading: float) -> bool:
    """Whether a place is on a lanelet, and its centre line heads the same way there."""
    if lanelet.outline.distance(shapely.Point(place_2)) > _ON_LANE_M:
        return False
    arc = shapely.LineString(lanelet.centre.points_P2).project(shapely.Point(place_2))
    back_2, ahead_2 = lanelet.centre.at(np.array([arc - 0.5, arc + 0.5]))
    off = np.arctan2(*(ahead_2 - back_2)[::-1]) - heading
    return bool(np.cos(off) > np.cos(_SAME_WAY_RAD))


def _line(lanelets: Mapping[int, Lanelet], way: list[int], goals: set[int]) -> Route:
    """The centre line from the lanelet before a way to the end of the map behind it."""
    numbers = [*lanelets[way[0]].before[:1], *way]
    while further := [number for number in lanelets[numbers[-1]].after if number not in numbers]:
        last_2 = _ways(lanelets[numbers[-1]].centre)[1]
        turns = {number: -float(last_2 @ _ways(lanelets[number].centre)[1]) for number in further}
        numbers.append(min(further, key=lambda number: (number not in goals, turns[number])))
    return make_route(np.concatenate([lanelets[number].centre.points_P2 for number in numbers]))


def _ways(line: Route) -> np.ndarray:
    """Unit vectors (2, 2) of the way that a line leads at its start and at its end."""
    ways_22 = np.diff(line.points_P2, axis=0)[[0, -1]]
    unit_22: np.ndarray = ways_22 / np.linalg.norm(ways_22, axis=1, keepdims=True)
    return unit_22
