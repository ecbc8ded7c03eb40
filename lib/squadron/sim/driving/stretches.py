"""Where a line that a car really drove is in the way of a route. Such a line wanders, so the two never meet exactly.

Letters: P samples of a line, L lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import shapely

from squadron.sim.driving.scenes import SAMPLE_M, Conflicts
from squadron.sim.routes import Route

_SAME_WAY_RAD, _LEAST_SHARED_M, _NEAR_M = np.deg2rad(45), 1.25, 0.5


class Stretch(NamedTuple):
    """A stretch of a line within reach of a route, in metres along them: where they conflict, where each begins to be
    near the other before that, for how long they share a lane (0 if they cross), and where the stretch ends."""

    on_route: float
    on_line: float
    near_route: float
    near_line: float
    shared: float
    end: float


def stretches(route: Route, line: Route, reach_m: float) -> list[Stretch]:
    """The stretches of a line within reach of a route, in order.

    Where both lead the same way they share a lane, and conflict where the line comes onto it. Otherwise they cross,
    and conflict where they are closest.
    """
    along, arc_P = shapely.LineString(route.points_P2), np.arange(0, line.length, SAMPLE_M)
    points = shapely.points(line.at(arc_P))
    apart_P = shapely.distance(points, along)
    on_route_P = shapely.line_locate_point(along, points)
    ahead_P2, way_P2 = _direction(line, arc_P), _direction(route, on_route_P)
    same_way_P = (ahead_P2 * way_P2).sum(1) > np.cos(_SAME_WAY_RAD)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], apart_P <= reach_m, [False]]).astype(int)))
    found = []
    for first, behind in edges.reshape(-1, 2):
        shares = first + np.flatnonzero(same_way_P[first:behind])
        shared = len(shares) * SAMPLE_M > _LEAST_SHARED_M
        at = shares[0] if shared else first + apart_P[first:behind].argmin()
        back_P = np.arange(on_route_P[at], 0, -SAMPLE_M)
        from_line_P = shapely.distance(shapely.points(route.at(back_P)), shapely.LineString(line.points_P2))
        found.append(
            Stretch(
                float(on_route_P[at]),
                float(arc_P[at]),
                float(back_P[_until(from_line_P > reach_m + _NEAR_M)]) if len(back_P) else 0.0,
                float(arc_P[at - _until(apart_P[at::-1] > reach_m + _NEAR_M)]),
                float(arc_P[behind - 1] - arc_P[at]) if shared else 0.0,
                float(arc_P[behind - 1]),
            )
        )
    return found


def conflicts_with(count: int, found: Iterable[tuple[int, Stretch]]) -> Conflicts:
    """Conflicts of `count` lines: line 0 has these stretches with others, and there are no further conflicts."""
    conflict_LL, near_LL = np.full((2, count, count), np.nan)
    shared_LL = np.zeros((count, count))
    for line, one in found:
        conflict_LL[0, line], conflict_LL[line, 0] = one.on_route, one.on_line
        near_LL[0, line], near_LL[line, 0] = one.near_route, one.near_line
        shared_LL[0, line] = shared_LL[line, 0] = one.shared
    return Conflicts(conflict_LL, near_LL, shared_LL)


def _direction(line: Route, arc_P: np.ndarray) -> np.ndarray:
    ahead_P2 = line.at(arc_P + 0.5) - line.at(arc_P - 0.5)
    unit_P2: np.ndarray = ahead_P2 / np.linalg.norm(ahead_P2, axis=1, keepdims=True)
    return unit_P2


def _until(over_P: np.ndarray) -> int:
    """The last index before the first True, or the last of all; 0 if the first is True."""
    return max(int(np.append(over_P, True).argmax()) - 1, 0)
