"""How many robots may be inside at a time: which edges can be of the following type together.

Robots that are inside intervals that all meet are of the following type pairwise. A *crowd* is a group of intervals
that all meet, one more than the least of their densities; where of every crowd at least one edge is exclusive, there
are never more robots inside than the limit, and nothing else is forbidden.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from squadron.core.errors import InputError
from squadron.core.work import take_turns
from squadron.methods.coordination.graph import Graph

_MOST_CROWDS = 5_000_000


class Crowding:
    """The edges that are of the following type so far. Neighbours of an interval are the bits of a number."""

    def __init__(self, graph: Graph) -> None:
        self._density = graph.density_N.tolist()
        self._ends = list(zip(*graph.edge_E2.T.tolist(), strict=True))
        self._limit = graph.density_N[graph.edge_E2].min(1).tolist()
        self._with = [0] * graph.nodes
        self._bit = [1 << node for node in range(graph.nodes)]

    def clear(self) -> None:
        """All edges are exclusive again."""
        self._with = [0] * len(self._with)

    def ask_in_order(self, edges: Sequence[int]) -> list[int]:
        """Those of these edges that are granted if one is asked for after the other: each that fits beside those that
        were granted before. Most of the time of planning is spent here, so that `fits` and `grant` are spelled out."""
        ends, limit, neighbours, bit = self._ends, self._limit, self._with, self._bit
        granted = []
        for edge in edges:
            u, v = ends[edge]
            of_u, of_v = neighbours[u], neighbours[v]
            common = of_u & of_v
            if (limit[edge] > 2 and not self._outgrows(common, 2, limit[edge])) if common else limit[edge] > 1:
                neighbours[u], neighbours[v] = of_u | bit[v], of_v | bit[u]
                granted.append(edge)
        return granted

    def ask(self, edge: int) -> bool:
        """Whether an edge may be of the following type beside those that are; if so, it is from now on."""
        return bool(self.ask_in_order([edge]))

    def fits(self, edge: int) -> bool:
        """Whether an edge and those that are of the following type are all there is of no crowd."""
        u, v = self._ends[edge]
        common = self._with[u] & self._with[v]
        limit: int = self._limit[edge]
        return limit > 1 if not common else limit > 2 and not self._outgrows(common, 2, limit)

    def grant(self, edge: int) -> None:
        """An edge is of the following type from now on, whatever that makes of it."""
        u, v = self._ends[edge]
        self._with[u] |= 1 << v
        self._with[v] |= 1 << u

    def give_back(self, edge: int) -> None:
        """An edge that was granted is exclusive again."""
        u, v = self._ends[edge]
        self._with[u] ^= 1 << v
        self._with[v] ^= 1 << u

    def _outgrows(self, common: int, inside: int, limit: int) -> bool:
        """Whether so many intervals, whose common neighbours these are, are part of a group above the limit."""
        take_turns()
        if inside > limit:
            return True
        for node in _bits(common):
            common ^= 1 << node
            if self._outgrows(common & self._with[node], inside + 1, min(limit, self._density[node])):
                return True
        return False


@functools.lru_cache(maxsize=4)
def limited(graph: Graph) -> np.ndarray:
    """Which edges (E) are of a group above its limit, all of a crowd among them; the others may always be of the
    following type. Kept for the last graphs, since every round of planning asks; not to be written to."""
    everything = Crowding(graph)
    for edge in range(graph.edges):
        everything.grant(edge)
    limited_E = np.zeros(graph.edges, bool)
    for edge in range(graph.edges):
        take_turns()
        limited_E[edge] = not everything.fits(edge)
    return limited_E


def over_limit(graph: Graph, following_E: np.ndarray) -> list[int]:
    """Edges of the following type that are of a crowd of which every edge is: none in a valid plan."""
    chosen = Crowding(graph)
    edges = np.flatnonzero(following_E).tolist()
    for edge in edges:
        chosen.grant(edge)
    return [edge for edge in edges if not chosen.fits(edge)]


def crowds(graph: Graph) -> list[np.ndarray]:
    """The edges of each crowd, for solvers. Raises InputError if there are more than memory holds."""
    number = {(u, v): edge for edge, (u, v) in enumerate(graph.edge_E2.tolist())}
    found = []
    for nodes in _groups(graph):
        found.append(np.array([number[pair] for pair in combinations(nodes, 2)]))
        if len(found) > _MOST_CROWDS:
            raise InputError(
                f"more than {_MOST_CROWDS:,} groups of intervals can be crowded, too many for a solver",
                fix="give fewer robots, more floor, or plan with the network, which does not list them",
            )
    return found


def _groups(graph: Graph) -> Iterator[tuple[int, ...]]:
    density = graph.density_N.tolist()
    later = [0] * graph.nodes
    for u, v in graph.edge_E2.tolist():
        later[min(u, v)] |= 1 << max(u, v)

    def grow(group: tuple[int, ...], common: int, limit: int) -> Iterator[tuple[int, ...]]:
        if len(group) > limit:  # where it is above by more than one, a smaller group is a crowd too
            if len(group) == limit + 1:
                yield group
            return
        for node in _bits(common):
            yield from grow((*group, node), common & later[node], min(limit, density[node]))

    for node in range(graph.nodes):
        yield from grow((node,), later[node], density[node])


def _bits(number: int) -> Iterator[int]:
    """Which bits are set, the lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
