"""Routes: polylines that robots drive along, measured by arc length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from squadron.core.errors import InputError

_FARTHEST_M, _LEAST_M = 1e8, 1e-6
"""So far from the origin, which is farther than coordinates of maps are, a double still tells micrometres apart."""


@dataclass(frozen=True, eq=False)
class Route:
    """A polyline on the floor. `points_P2` are its corners in metres, each different from the one before."""

    points_P2: np.ndarray

    @cached_property
    def arc_P(self) -> np.ndarray:
        """Arc length from the start to each corner, in metres."""
        return np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(self.points_P2, axis=0), axis=1))))

    @property
    def length(self) -> float:
        """Metres from start to goal."""
        return float(self.arc_P[-1])

    def at(self, arc: np.ndarray | float) -> np.ndarray:
        """Positions (…, 2) at these arc lengths; before the start and past the goal, the start and the goal."""
        return np.stack([np.interp(arc, self.arc_P, self.points_P2[:, axis]) for axis in (0, 1)], axis=-1)

    def between(self, start: float, end: float) -> np.ndarray:
        """The polyline (P, 2) from one arc length to another: where they are, and the corners between them."""
        corners = (self.arc_P > start) & (self.arc_P < end)
        return self.at(np.concatenate(([start], self.arc_P[corners], [end])))


def make_route(points: Sequence[Sequence[float]] | np.ndarray, name: str = "the route") -> Route:
    """A route through these points: neighbours within a micrometre are one, and points on the way straight on are left
    out.

    Raises InputError, by `name`, if they are not pairs of finite numbers, lie more than 100,000 km from the
    origin, or fewer than two of them differ.
    """
    try:
        points_P2 = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} is not a list of points", fix="give [x, y] pairs in metres") from None
    if points_P2.size == 0:
        raise InputError(f"{name} is empty: a robot needs a path", fix="give at least its start and its goal")
    if points_P2.ndim != 2 or points_P2.shape[1] != 2 or not np.isfinite(points_P2).all():
        raise InputError(f"{name} is not a list of points", fix="give [x, y] pairs of finite numbers, in metres")
    if np.abs(points_P2).max() > _FARTHEST_M:
        fix = f"give positions from {-_FARTHEST_M:,.0f} to {_FARTHEST_M:,.0f} m"
        raise InputError(f"{name} leaves the floor", fix=fix)
    moved = np.concatenate(([True], (np.abs(np.diff(points_P2, axis=0)) > _LEAST_M).any(1)))
    if moved.sum() < 2:
        raise InputError(f"{name} does not leave its start", fix="leave out robots that have nowhere to go")
    return Route(_corners(points_P2[moved]))


def _corners(points_P2: np.ndarray) -> np.ndarray:
    """Without the points in the middle of a straight line, as cells of a map are."""
    step_2 = np.diff(points_P2, axis=0)
    before, after = step_2[:-1], step_2[1:]
    turned = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    turned |= (before * after).sum(1) < 0
    return points_P2[np.concatenate(([True], turned, [True]))]
