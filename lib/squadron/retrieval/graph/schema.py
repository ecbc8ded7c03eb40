"""Which types of nodes there are, and by which relations they are connected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Relation(NamedTuple):
    """Edges of one name from nodes of one type to nodes of another, in the direction in which they are stored."""

    source: str
    name: str
    target: str


@dataclass(frozen=True)
class Schema:
    """The types of nodes and the relations between them."""

    types: tuple[str, ...]
    relations: tuple[Relation, ...]

    def between(self, first: str, second: str) -> tuple[str, ...]:
        """The names of the relations between two types, in whichever direction their edges are stored."""
        return self._names.get((first, second), ())

    @cached_property
    def _names(self) -> dict[tuple[str, str], tuple[str, ...]]:
        found: dict[tuple[str, str], list[str]] = {}
        for one in self.relations:
            for pair in ((one.source, one.target), (one.target, one.source)):
                names = found.setdefault(pair, [])
                if one.name not in names:
                    names.append(one.name)
        return {pair: tuple(names) for pair, names in found.items()}

    def describe(self) -> list[str]:
        """A line for each relation, as a planner is told of them: `paper -cites-> paper`."""
        return [f"{one.source} -{one.name}-> {one.target}" for one in self.relations]


def ordered(names: Sequence[str]) -> tuple[str, ...]:
    """Names in the order of their first occurrence."""
    return tuple(dict.fromkeys(names))
