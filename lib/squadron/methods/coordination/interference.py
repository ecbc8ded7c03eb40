"""Where robots can be in each other's way: the stretches that two routes share, exactly.

Letters: R robots, L straight pieces of all routes, M pairs of pieces of different robots that come close, Z zones, one
for each stretch that two robots share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import KDTree

from squadron.core.errors import InputError
from squadron.core.work import take_turns
from squadron.sim.routes import Route

MOST_PAIRS = 20_000_000
"""Of straight pieces of two routes that are close to each other."""
_PAIR_BYTES = 300
_PIECES_AT_ONCE = 100
_TOUCH = 1 - 1e-9
"""Robots that only touch are not in each other's way."""


class Zones(NamedTuple):
    """Stretches on which two robots come close: between `start` and `end` of both routes, in metres of arc length."""

    robots_Z2: np.ndarray
    start_Z2: np.ndarray
    end_Z2: np.ndarray


class _Pieces(NamedTuple):
    """Straight pieces of routes, in order: whose, from which arc length on, for how long, from where to where."""

    robot_L: np.ndarray
    arc_L: np.ndarray
    length_L: np.ndarray
    start_L2: np.ndarray
    end_L2: np.ndarray


def find_zones(routes: Sequence[Route], radius_m: float, most_pairs: int = MOST_PAIRS) -> Zones:
    """All zones between discs of `radius_m`, in order of robots and of the first one's route.

    In the plane of two robots' arc lengths, the places where their discs overlap fall into connected regions; a zone is
    the box around one of them. Above a piece of either route a region is convex, since the distance between points on
    two straight lines is a convex function; so it reaches over from piece to piece exactly where a corner of the one
    route is close to the other piece, and its sides follow from where a line enters and leaves a capsule.

    Raises InputError if two robots overlap at their starts, or more than `most_pairs` straight pieces of two routes are
    close to each other: memory would not do.
    """
    _refuse_overlapping_starts(routes, radius_m)
    distance = 2 * radius_m * _TOUCH
    pieces = _cut(routes)
    one_M, other_M = _close_pairs(pieces, distance, most_pairs)
    low_M2, high_M2 = np.stack(
        [_inside(pieces, one_M, other_M, distance), _inside(pieces, other_M, one_M, distance)], axis=-1
    )
    take_turns()
    real_M = (low_M2 <= high_M2).all(1)  # the rest touch in a point, to rounding
    one_M, other_M, low_M2, high_M2 = one_M[real_M], other_M[real_M], low_M2[real_M], high_M2[real_M]
    zone_M = _components(pieces, one_M, other_M, distance)
    take_turns()
    robots_M2 = pieces.robot_L[np.stack([one_M, other_M], axis=1)]
    arc_M2 = pieces.arc_L[np.stack([one_M, other_M], axis=1)]
    zones = int(zone_M.max(initial=-1)) + 1
    robots_Z2 = np.zeros((zones, 2), np.int64)
    robots_Z2[zone_M] = robots_M2
    start_Z2, end_Z2 = np.full((zones, 2), np.inf), np.full((zones, 2), -np.inf)
    np.minimum.at(start_Z2, zone_M, arc_M2 + low_M2)
    np.maximum.at(end_Z2, zone_M, arc_M2 + high_M2)
    order = np.lexsort((start_Z2[:, 0], robots_Z2[:, 1], robots_Z2[:, 0]))
    return Zones(robots_Z2[order], start_Z2[order], end_Z2[order])


def _refuse_overlapping_starts(routes: Sequence[Route], radius_m: float) -> None:
    starts = np.array([route.points_P2[0] for route in routes])
    pairs = sorted(KDTree(starts).query_pairs(2 * radius_m * _TOUCH))
    if pairs:
        one, other = pairs[0]
        more = f", and so do {len(pairs) - 1} other pairs" if len(pairs) > 1 else ""
        raise InputError(
            f"robots {one} and {other} overlap at their starts, {starts[one]} and {starts[other]}{more}",
            fix=f"starts must be {2 * radius_m} m apart, twice the radius",
        )


def _cut(routes: Sequence[Route]) -> _Pieces:
    return _Pieces(
        robot_L=np.repeat(np.arange(len(routes)), [len(route.arc_P) - 1 for route in routes]),
        arc_L=np.concatenate([route.arc_P[:-1] for route in routes]),
        length_L=np.concatenate([np.diff(route.arc_P) for route in routes]),
        start_L2=np.concatenate([route.points_P2[:-1] for route in routes]),
        end_L2=np.concatenate([route.points_P2[1:] for route in routes]),
    )


def _close_pairs(pieces: _Pieces, distance: float, most_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of two robots that are within a distance (M, M), each pair once, in order."""
    lines = shapely.linestrings(np.stack([pieces.start_L2, pieces.end_L2], axis=1))
    tree = shapely.STRtree(lines)

    def close_to(some: np.ndarray) -> np.ndarray:
        take_turns()
        one, other = tree.query(lines[some], predicate="dwithin", distance=distance)
        pairs = np.stack([some[one], other])
        return pairs[:, pieces.robot_L[pairs[0]] < pieces.robot_L[pairs[1]]]

    every = np.arange(len(lines))
    probe = every[:: -(-len(lines) // _PIECES_AT_ONCE)]
    expected = close_to(probe).shape[1] * len(lines) / len(probe)
    if expected > most_pairs:
        raise InputError(
            f"about {expected:.2g} pairs of pieces of routes are close to each other: "
            f"{expected * _PAIR_BYTES / 1e9:.0f} GB",
            fix="give fewer robots, or plan parts of the floor by themselves",
        )
    parts = [close_to(every[first : first + _PIECES_AT_ONCE]) for first in range(0, len(lines), _PIECES_AT_ONCE)]
    pairs = np.concatenate(parts, axis=1)
    one_M, other_M = pairs[:, np.lexsort((pairs[1], pairs[0]))]
    return one_M, other_M


def _inside(pieces: _Pieces, line_M: np.ndarray, core_M: np.ndarray, distance: float) -> np.ndarray:
    """From where to where (2, M), in metres from its start, a piece lies within a distance of another: in a capsule,
    which is a rectangle and two discs. Low is above high where it does not."""
    take_turns()
    along_L2 = (pieces.end_L2 - pieces.start_L2) / pieces.length_L[:, None]
    u_M2, w_M2 = along_L2[line_M], along_L2[core_M]
    offset_M2 = pieces.start_L2[line_M] - pieces.start_L2[core_M]
    lengthwise = _slab(_dot(offset_M2, w_M2), _dot(u_M2, w_M2), 0.0, pieces.length_L[core_M])
    crosswise = _slab(_cross(w_M2, offset_M2), _cross(w_M2, u_M2), -distance, distance)
    stretches = [_both(lengthwise, crosswise)]
    for centre_L2 in (pieces.start_L2, pieces.end_L2):
        reach_M2 = centre_L2[core_M] - pieces.start_L2[line_M]
        square_M = distance**2 - _cross(u_M2, reach_M2) ** 2
        foot_M, half_M = _dot(reach_M2, u_M2), np.sqrt(np.maximum(square_M, 0))
        stretches.append(np.where(square_M >= 0, [foot_M - half_M, foot_M + half_M], [[np.inf], [-np.inf]]))
    low_M, high_M = np.min([low for low, _ in stretches], axis=0), np.max([high for _, high in stretches], axis=0)
    return _both(np.stack([low_M, high_M]), np.stack([np.zeros(len(line_M)), pieces.length_L[line_M]]))


def _slab(at_M: np.ndarray, slope_M: np.ndarray, low: float, high: np.ndarray | float) -> np.ndarray:
    """For which s `at + slope s` is from low to high, as (2, M)."""
    level_M = np.abs(slope_M) < 1e-12
    divisor_M = np.where(level_M, 1.0, slope_M)
    ends_2M = np.sort(np.stack([(low - at_M) / divisor_M, (high - at_M) / divisor_M]), axis=0)
    everywhere_M = (low <= at_M) & (at_M <= high)
    flat_2M = np.where(everywhere_M, [[-np.inf], [np.inf]], [[np.inf], [-np.inf]])
    return np.where(level_M, flat_2M, ends_2M)


def _both(one_2M: np.ndarray, other_2M: np.ndarray) -> np.ndarray:
    """What two stretches share; if nothing, one that no other widens."""
    shared_2M = np.stack([np.maximum(one_2M[0], other_2M[0]), np.minimum(one_2M[1], other_2M[1])])
    return np.where(shared_2M[0] <= shared_2M[1], shared_2M, [[np.inf], [-np.inf]])


def _components(pieces: _Pieces, one_M: np.ndarray, other_M: np.ndarray, distance: float) -> np.ndarray:
    """The zone of each pair. Pairs are sorted; the next piece of a route is the next in number."""
    if not len(one_M):
        return np.zeros(0, np.int64)
    width = len(pieces.robot_L)
    key_M = one_M * width + other_M
    joined = []
    for corner_M, core_M, step in ((one_M, other_M, width), (other_M, one_M, 1)):
        reach_M = _distance_to_piece(pieces, pieces.end_L2[corner_M], core_M)
        goes_on_M = np.append(pieces.robot_L[1:] == pieces.robot_L[:-1], False)[corner_M]
        place_M = np.minimum(np.searchsorted(key_M, key_M + step), len(key_M) - 1)
        found = np.flatnonzero((reach_M <= distance) & goes_on_M & (key_M[place_M] == key_M + step))
        joined.append(np.stack([found, place_M[found]]))
    one, other = np.concatenate(joined, axis=1)
    links = sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(len(key_M), len(key_M)))
    zone_M: np.ndarray = csgraph.connected_components(links, directed=False)[1]
    return zone_M


def _distance_to_piece(pieces: _Pieces, point_M2: np.ndarray, core_M: np.ndarray) -> np.ndarray:
    """How far points are from a piece each (M)."""
    start_M2 = pieces.start_L2[core_M]
    way_M2 = pieces.end_L2[core_M] - start_M2
    share_M = np.clip(_dot(point_M2 - start_M2, way_M2) / _dot(way_M2, way_M2), 0, 1)
    return np.linalg.norm(point_M2 - start_M2 - share_M[:, None] * way_M2, axis=1)


def _dot(one_M2: np.ndarray, other_M2: np.ndarray) -> np.ndarray:
    return (one_M2 * other_M2).sum(1)


def _cross(one_M2: np.ndarray, other_M2: np.ndarray) -> np.ndarray:
    return one_M2[:, 0] * other_M2[:, 1] - one_M2[:, 1] * other_M2[:, 0]
