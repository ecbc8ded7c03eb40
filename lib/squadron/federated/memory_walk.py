"""The two walks over what a strategy keeps, one that takes it apart and one that puts it back, and what a kind is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from squadron.core.errors import ConfigError
from squadron.federated.reach import Reach, find, name_of
from squadron.federated.records import BufferTable

_FIX = (
    "keep numbers, texts, arrays, tensors and containers of them; make it anew where it is used; or hold it in an"
    " object of a class of yours that has state_dict() and load_state_dict(state)"
)
Node = dict[str, Any]
"""What a value is written as, besides plain JSON: `is` its kind, `n` its number."""


@dataclass(frozen=True)
class Kind:
    """Values of one kind. `numbered` ones can change, so that it matters whether two places hold the same one. A kind
    that is `early` may hold itself: it is numbered before what it holds is taken, and puts itself into
    `Putting.objects` before it puts what it holds."""

    name: str
    holds: Callable[[Any], bool]
    take: Callable[[Taking, Any, str], Node]
    put: Callable[[Putting, Any, Node], Any]
    numbered: bool = False
    early: bool = False


@dataclass
class Taking:
    """A walk over a strategy. `born`: what it had at its beginning, by place. A thing that can only be filled where it
    is must be among them, since a new strategy has to have it. None: this walk is at the beginning."""

    buffers: BufferTable
    kinds: Iterable[Kind]
    born: Mapping[str, str] | None = None
    found: dict[str, str] = field(default_factory=dict)
    reach: Reach = field(default_factory=Reach)
    _numbers: dict[int, int] = field(default_factory=dict)
    _alive: list[Any] = field(default_factory=list)  # an id is another object's once its own is gone
    _under_way: set[int] = field(default_factory=set)
    _owners: dict[int, str] = field(default_factory=dict)

    def take(self, value: Any, where: str) -> Any:
        """A value as JSON. Raises ConfigError, naming its place, for one that cannot be kept."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) in self._numbers:
            return {"is": "same", "n": self._numbers[id(value)]}
        if id(value) in self._under_way:
            raise ConfigError(f"{where} holds itself, through a tuple or a method", fix="hold it in a list instead")
        kind = next((kind for kind in self.kinds if kind.holds(value)), None)
        if kind is None:
            raise ConfigError(f"{where} is a {name_of(type(value))}, which cannot be saved with the run", fix=_FIX)
        self._alive.append(value)
        node: Node = {"is": kind.name}
        if kind.numbered:
            node["n"] = len(self._numbers)
            # Nothing refers to one that is not early before it is taken whole.
            self._numbers[id(value) if kind.early else -len(self._alive)] = node["n"]
        self._under_way.add(id(value))
        node |= kind.take(self, value, where)
        self._under_way.discard(id(value))
        if kind.numbered:
            self._numbers[id(value)] = node["n"]
        return node

    def items(self, values: Iterable[Any], where: str) -> list[Any]:
        return [self.take(value, f"{where}[{place}]") for place, value in enumerate(values)]

    def pairs(self, items: Mapping[Any, Any], where: str) -> list[Any]:
        return [[self.take(k, f"a key of {where}"), self.take(v, f"{where}[{k!r}]"[:200])] for k, v in items.items()]

    def named(self, items: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {name: self.take(value, f"{where}.{name}") for name, value in items.items()}

    def needs(self, where: str, name: str) -> None:
        """Note that a new strategy has to have something called `name` at `where`."""
        self.found[where] = name
        if self.born is not None and self.born.get(where) != name:
            what = f"{where} is a {name}, made in a round: a new strategy has none, into which its state could be put"
            raise ConfigError(what, fix="make it in __init__ and change it in the rounds, or hold plain values instead")

    def owns(self, owner: int, where: str) -> None:
        """Note in which memory an array at `where` lies. Raises ConfigError if another lies there too."""
        if (other := self._owners.setdefault(owner, where)) != where:
            fix = "copy one of them, or hold the whole and take the part where it is used"
            raise ConfigError(f"{where} shares its memory with {other}, and would not when it is put back", fix=fix)

    def lookup(self, thing: Any, where: str, name: str = "") -> str:
        """The name of a class or function, by which it can be found again, or else has to be there already."""
        name = name or name_of(thing)
        if find(name) is not thing or not (self.born is None or name in self.born or self.reach.mentions(name)):
            self.needs(where, name)
        elif self.born is None:
            self.found[name] = name
        return name


@dataclass
class Putting:
    """A walk that puts a strategy back. `arrays`: the buffers by name; `there`: the walk over the new one, which knows
    what it holds and what its code says; `grid`: what stands for any grid."""

    arrays: Mapping[str, bytes]
    kinds: Mapping[str, Kind]
    there: Taking
    grid: Any = None
    objects: dict[int, Any] = field(default_factory=dict)
    _claimed: set[int] = field(default_factory=set)

    def put(self, current: Any, saved: Any) -> Any:
        """The value that was taken apart. `current`: what the new strategy has in its place, None if nothing."""
        if not isinstance(saved, dict):
            return saved
        if saved["is"] == "same":
            return self.objects[saved["n"]]
        value = self.kinds[saved["is"]].put(self, current, saved)
        if "n" in saved:
            self.objects[saved["n"]] = value
        return value

    def items(self, current: Any, saved: list[Any]) -> list[Any]:
        there = (
            list(current) if isinstance(current, list | tuple) and len(current) == len(saved) else [None] * len(saved)
        )
        return [self.put(one, node) for one, node in zip(there, saved, strict=True)]

    def pairs(self, current: Any, saved: list[Any]) -> Iterable[tuple[Any, Any]]:
        for key_node, node in saved:
            key = self.put(None, key_node)
            yield key, self.put(current.get(key) if isinstance(current, dict) else None, node)

    def find(self, name: str) -> Any:
        """The module, class or function of this name.

        Raises ConfigError unless the new strategy holds it or its code says it: a file could otherwise have any
        function of any library run.
        """
        found = find(name) if name in self.there.found or self.there.reach.mentions(name) else None
        if found is None:
            what = f"the saved strategy holds {name}, which the new one neither holds nor uses, or which is not there"
            raise ConfigError(what, fix="run the code that saved it, with the same imports, or begin in a new folder")
        return found

    def claim(self, current: Any, name: str) -> bool:
        """Whether what is there is called `name`, and nothing was put into it so far."""
        if id(current) in self._claimed or name_of(current) != name:
            return False
        self._claimed.add(id(current))
        return True


def exactly(*kinds: type) -> Callable[[Any], bool]:
    """Holds for values of these types, not of subclasses."""
    return lambda value: type(value) in kinds


def instance(*kinds: type) -> Callable[[Any], bool]:
    """Holds for values of these types and of subclasses."""
    return lambda value: isinstance(value, kinds)
