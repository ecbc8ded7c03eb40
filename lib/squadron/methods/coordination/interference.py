"""Where robots can be in each other's way: intervals of their routes, exact up to `resolution_m` on the safe side.

Letters: M pairs of samples that are close, Z zones, one for each stretch that two robots share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import KDTree

from squadron.core.errors import InputError
from squadron.sim.fleet.routes import Route

_MOST_PAIRS = 60_000_000
_PAIR_BYTES = 100


class Zones(NamedTuple):
    """Stretches on which two robots come close: between `start` and `end` of both routes, in metres of arc length."""

    robots_Z2: np.ndarray
    start_Z2: np.ndarray
    end_Z2: np.ndarray


def find_zones(routes: Sequence[Route], radius_m: float, resolution_m: float) -> Zones:
    """All zones between discs of `radius_m`, in order of robots and of the first one's route.

    Routes are cut into pieces of at most `resolution_m`. Two pieces are close if their middles are within
    `2 radius_m + resolution_m`, so that no touch is overlooked: a middle is at most half a piece away from any point of
    its piece. A zone is a connected component of close pairs, as a person would draw it in the plane of both arc
    lengths.

    Raises InputError if two robots overlap at their starts, or so much of the routes is close that memory would not
    do.
    """
    _refuse_overlapping_starts(routes, radius_m)
    counts = np.array([max(1, int(np.ceil(route.length / resolution_m))) for route in routes])
    steps = np.array([route.length for route in routes]) / counts
    robot = np.repeat(np.arange(len(routes)), counts)
    piece = np.concatenate([np.arange(count) for count in counts])
    middles = np.concatenate(
        [route.at((np.arange(count) + 0.5) * step) for route, count, step in zip(routes, counts, steps, strict=True)]
    )
    close_M2 = _close_pairs(middles, 2 * radius_m + resolution_m)
    close_M2 = close_M2[robot[close_M2[:, 0]] != robot[close_M2[:, 1]]]  # samples are in order of robots
    robots_M2, pieces_M2 = robot[close_M2], piece[close_M2]
    zone_M = _components(robots_M2, pieces_M2)
    zones = int(zone_M.max()) + 1 if len(zone_M) else 0
    first_M = np.zeros(zones, np.int64)
    first_M[zone_M[::-1]] = np.arange(len(zone_M))[::-1]
    low_Z2 = np.full((zones, 2), np.iinfo(np.int64).max)
    high_Z2 = np.full((zones, 2), -1)
    np.minimum.at(low_Z2, zone_M, pieces_M2)
    np.maximum.at(high_Z2, zone_M, pieces_M2)
    robots_Z2 = robots_M2[first_M]
    order = np.lexsort((low_Z2[:, 0], robots_Z2[:, 1], robots_Z2[:, 0]))
    step_Z2 = steps[robots_Z2]
    return Zones(robots_Z2[order], (low_Z2 * step_Z2)[order], ((high_Z2 + 1) * step_Z2)[order])


def _refuse_overlapping_starts(routes: Sequence[Route], radius_m: float) -> None:
    starts = np.array([route.points_P2[0] for route in routes])
    pairs = sorted(KDTree(starts).query_pairs(2 * radius_m * (1 - 1e-9)))
    if pairs:
        one, other = pairs[0]
        more = f", and so do {len(pairs) - 1} other pairs" if len(pairs) > 1 else ""
        raise InputError(
            f"robots {one} and {other} overlap at their starts, {starts[one]} and {starts[other]}{more}",
            fix=f"starts must be {2 * radius_m} m apart, twice the radius",
        )


def _close_pairs(places: np.ndarray, distance: float) -> np.ndarray:
    _, counts = np.unique(np.floor(places / distance), axis=0, return_counts=True)
    expected = float(np.pi / 2 * (counts.astype(np.float64) ** 2).sum())
    if expected > _MOST_PAIRS:
        raise InputError(
            f"about {expected:.2g} pairs of places are close to each other: {expected * _PAIR_BYTES / 1e9:.0f} GB",
            fix="give fewer robots, a coarser resolution_m, or plan parts of the floor by themselves",
        )
    return np.sort(KDTree(places).query_pairs(distance, output_type="ndarray"), axis=1)


def _components(robots_M2: np.ndarray, pieces_M2: np.ndarray) -> np.ndarray:
    """The zone of each pair: pairs of the same robots whose pieces are neighbours, also diagonally, are of one zone."""
    if not len(robots_M2):
        return np.zeros(0, np.int64)
    width = np.int64(pieces_M2.max() + 3)
    pair_M = robots_M2[:, 0] * np.int64(robots_M2.max() + 1) + robots_M2[:, 1]
    _, pair_M = np.unique(pair_M, return_inverse=True)
    key_M = (pair_M * width + pieces_M2[:, 0] + 1) * width + pieces_M2[:, 1] + 1
    order = np.argsort(key_M)
    ranked = key_M[order]
    joined: list[np.ndarray] = []
    for down, across in ((0, 1), (1, -1), (1, 0), (1, 1)):
        wanted = ranked + down * width + across
        place = np.minimum(np.searchsorted(ranked, wanted), len(ranked) - 1)
        found = np.flatnonzero(ranked[place] == wanted)
        joined.append(np.stack([order[found], order[place[found]]]))
    one, other = np.concatenate(joined, axis=1)
    links = sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(len(key_M), len(key_M)))
    zone_M: np.ndarray = csgraph.connected_components(links, directed=False)[1]
    return zone_M
