"""Scenes: reference lines that cars keep to, and where two of them conflict.

Right-hand traffic, metres, x to the east and y to the north. Letters: L lines, P samples of a line.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from squadron.core.errors import InputError
from squadron.sim.driving.spec import SceneName
from squadron.sim.routes import Route, make_route

SAMPLE_M = 0.25
_LANE_M, _BOX_M, _WAY_IN_M, _WAY_OUT_M = 3.5, 10.0, 80.0, 60.0
_CIRCLE_M, _CIRCLE_WAY_IN_M = 16.0, 75.0
_CLEAR_M = 2.5
_CURVE = np.linspace(0, 1, 25)[1:-1, None]


@dataclass(frozen=True, eq=False)
class Conflicts:
    """Where lines conflict, in metres along the first (L, L), as `Scene` says of its lines; NaN where they do not."""

    conflict_LL: np.ndarray
    near_LL: np.ndarray
    shared_LL: np.ndarray


@dataclass(frozen=True, eq=False)
class Scene:
    """Lines with their names and the entrances that they begin at. The automated car comes from entrance 0, or from the
    one that the scene calls its own. Lines that were drawn conflict where they meet; for others, as those of recorded
    cars, which never meet exactly, `known` says where."""

    lines: tuple[Route, ...]
    names: tuple[str, ...]
    entrance_L: np.ndarray
    own_entrance: int
    known: Conflicts | None = None

    @cached_property
    def conflict_LL(self) -> np.ndarray:
        """How far along the first line the second first meets it, in metres (L, L); NaN where they never do, or begin
        at the same entrance."""
        if self.known:
            return self.known.conflict_LL
        shapes = [shapely.LineString(line.points_P2) for line in self.lines]
        count = len(shapes)
        arc_LL = np.full((count, count), np.nan)
        for one in range(count):
            for other in range(one + 1, count):
                shared = shapes[one].intersection(shapes[other])
                if self.entrance_L[one] != self.entrance_L[other] and not shared.is_empty:
                    points = shapely.points(shapely.get_coordinates(shared))
                    first = np.argmin(shapely.line_locate_point(shapes[one], points))
                    arc_LL[one, other] = shapes[one].project(points[first])
                    arc_LL[other, one] = shapes[other].project(points[first])
        return arc_LL

    @cached_property
    def shared_LL(self) -> np.ndarray:
        """For how many metres behind their conflict two lines are one lane (L, L): 0 where they cross."""
        if self.known:
            return self.known.shared_LL
        length_LL = np.zeros(self.conflict_LL.shape)
        for one, other in np.argwhere(np.isfinite(self.conflict_LL)):
            start, other_start = self.conflict_LL[one, other], self.conflict_LL[other, one]
            most = min(self.lines[one].length - start, self.lines[other].length - other_start)
            along = np.arange(0, most, SAMPLE_M)
            apart = np.linalg.norm(
                self.lines[one].at(start + along) - self.lines[other].at(other_start + along), axis=1
            )
            length_LL[one, other] = along[np.flatnonzero(np.append(apart > 0.5, True))[0] - 1] if len(along) else 0
        return np.where(length_LL > 5 * SAMPLE_M, length_LL, 0.0)

    @cached_property
    def near_LL(self) -> np.ndarray:
        """How far along the first line a car there would begin to be in the way of cars on the second (L, L): where
        the lines come within `_CLEAR_M` of each other before their conflict; NaN where there is none."""
        if self.known:
            return self.known.near_LL
        arc_LL = np.full(self.conflict_LL.shape, np.nan)
        shapes = [shapely.LineString(line.points_P2) for line in self.lines]
        for one, other in np.argwhere(np.isfinite(self.conflict_LL)):
            back = np.arange(self.conflict_LL[one, other], 0, -SAMPLE_M)
            apart = shapely.distance(shapely.points(self.lines[one].at(back)), shapes[other])
            arc_LL[one, other] = back[np.flatnonzero(apart <= _CLEAR_M)[-1]]
        return arc_LL

    @cached_property
    def pairs(self) -> np.ndarray:
        """Lines of the automated car and of another that conflict (…, 2). Raises InputError if none do."""
        own = self.entrance_L == self.own_entrance
        found = np.argwhere(np.isfinite(self.conflict_LL) & own[:, None])
        if not len(found):
            raise InputError("no two lines of this scene conflict: there is nothing to decide")
        return found

    @cached_property
    def samples_LP3(self) -> np.ndarray:
        """x, y and heading every `SAMPLE_M` along each line, its last repeated up to the longest."""
        longest = max(line.length for line in self.lines)
        arcs = np.arange(0, longest + 2 * SAMPLE_M, SAMPLE_M)
        samples = []
        for line in self.lines:
            ahead_P2 = line.at(np.minimum(arcs + 0.5, line.length)) - line.at(np.minimum(arcs, line.length - 0.5))
            samples.append(np.column_stack([line.at(arcs), np.unwrap(np.arctan2(ahead_P2[:, 1], ahead_P2[:, 0]))]))
        return np.array(samples)

    def at(self, line: np.ndarray, arc: np.ndarray) -> np.ndarray:
        """Positions and headings (…, 3) on lines at arc lengths, between samples by straight lines."""
        place = np.clip(arc / SAMPLE_M, 0, self.samples_LP3.shape[1] - 1.001)
        before = place.astype(np.int64)
        share = (place - before)[..., None]
        samples = self.samples_LP3
        found: np.ndarray = samples[line, before] * (1 - share) + samples[line, before + 1] * share
        return found


@functools.cache
def make_scene(name: SceneName) -> Scene:
    """One of the three scenes."""
    return {"intersection": _intersection, "roundabout": _roundabout, "merge": _merge}[name]()


def _intersection() -> Scene:
    """Four arms with two lanes each way: eight entrances, from each of which one can go left, straight on or right."""
    lines, names, entrances = [], [], []
    for arm, side in enumerate(("south", "east", "north", "west")):
        for lane in range(2):
            x = _LANE_M * (lane + 0.5)
            way_in = [(x, -_BOX_M - _WAY_IN_M), (x, -_BOX_M)]
            turns = {
                "left": [*_bend((x, -_BOX_M), (x, x), (-_BOX_M, x)), (-_BOX_M - _WAY_OUT_M, x)],
                "straight on": [(x, _BOX_M), (x, _BOX_M + _WAY_OUT_M)],
                "right": [*_bend((x, -_BOX_M), (x, -x), (_BOX_M, -x)), (_BOX_M + _WAY_OUT_M, -x)],
            }
            for turn, way_out in turns.items():
                lines.append(make_route(_turned(way_in + way_out, arm)))
                names.append(f"from the {side}, lane {lane + 1}, {turn}")
                entrances.append(2 * arm + lane)
    return Scene(tuple(lines), tuple(names), np.array(entrances), 0)


def _roundabout() -> Scene:
    """A circle with four arms of one lane each way; cars on it go first by custom, not by force."""
    lines, names, entrances = [], [], []
    sides = ("south", "east", "north", "west")
    for arm, side in enumerate(sides):
        for further in (1, 2, 3):
            x, far = _LANE_M / 2, _CIRCLE_M + 10
            joins, leaves = -60, -120 + 90 * further
            way_in = [(x, -far - _CIRCLE_WAY_IN_M), (x, -far)]
            points = way_in + _bend((x, -far), _meets_tangent(x, joins), _on_circle(joins))
            points += [_on_circle(angle) for angle in range(joins + 1, leaves + 1)]
            lines.append(make_route(_turned(points, arm) + _turned(_way_off(), arm + further)))
            names.append(f"from the {side} to the {sides[(arm + further) % 4]}")
            entrances.append(arm)
    return Scene(tuple(lines), tuple(names), np.array(entrances), 0)


def _merge() -> Scene:
    """A ramp that joins a road; the automated car comes down the ramp."""
    road = make_route([(-100.0, 0.0), (100.0, 0.0)])
    ramp = [(-95.0, -26.0), (-45.0, -8.0)]
    joins = _bend((-45.0, -8.0), (-20.0, 0.0), (0.0, 0.0))
    return Scene((make_route([*ramp, *joins, (100.0, 0.0)]), road), ("ramp", "road"), np.array([0, 1]), 0)


def _bend(
    start: tuple[float, float], corner: tuple[float, float], end: tuple[float, float]
) -> list[tuple[float, float]]:
    """A quadratic curve from behind its start to its end, which keeps to the directions of both."""
    a, b, c = (np.array(point) for point in (start, corner, end))
    inner = (1 - _CURVE) ** 2 * a + 2 * _CURVE * (1 - _CURVE) * b + _CURVE**2 * c
    return [(float(x), float(y)) for x, y in inner] + [end]


def _turned(points: list[tuple[float, float]], quarters: int) -> list[tuple[float, float]]:
    """Turned to the left by quarters of a circle, without rounding: shared stretches stay equal to the bit."""
    for _ in range(quarters % 4):
        points = [(-y, x) for x, y in points]
    return points


def _on_circle(degrees: int) -> tuple[float, float]:
    """By the first quarter and exact turns, so that all lines have the same points."""
    quarters, rest = divmod(degrees, 90)
    angle = np.deg2rad(rest)
    ((x, y),) = _turned([(float(_CIRCLE_M * np.cos(angle)), float(_CIRCLE_M * np.sin(angle)))], quarters)
    return x, y


def _meets_tangent(x: float, degrees: int) -> tuple[float, float]:
    """Where the tangent of the circle at an angle has this x."""
    px, py = _on_circle(degrees)
    return x, py + (x - px) * (-px / py)


def _way_off() -> list[tuple[float, float]]:
    """From the circle out along the southern arm."""
    x, far = -_LANE_M / 2, _CIRCLE_M + 10
    return [*_bend(_on_circle(-120), _meets_tangent(x, -120), (x, -far)), (x, -far - _WAY_OUT_M)]
