"""A strategy taken apart into JSON and arrays, and put back exactly, in another process too. Nothing is pickled.

Every value is of one of the kinds of `memory_kinds`, `memory_arrays` and `memory_torch`, each of which says how it is
written and how it is read; anything else is refused with its place. What is held in two places is kept once, and what
holds itself stays one. The memory of a strategy is its attributes, those of the objects that it holds, the variables
that its functions close over, and what its own code can reach besides: attributes of its classes and globals of its
modules.

No code runs to make an object: those that a new strategy has are filled where they are, others are made empty, of a
class that is imported by then, and filled.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from squadron.core.errors import ConfigError
from squadron.federated.memory_arrays import ARRAYS
from squadron.federated.memory_kinds import FIRST, LAST
from squadron.federated.memory_walk import Kind, Putting, Taking
from squadron.federated.records import BufferTable


@dataclass(frozen=True)
class Memory:
    """A strategy taken apart: `tree` is JSON, `born` what a new one has to have, `constants` what its code reaches and
    never assigns."""

    tree: dict[str, Any]
    born: dict[str, str]
    constants: dict[str, Any]

    def settings(self) -> Any:
        """What it was made with, to compare with what a saved one was made with: neither the state of random numbers,
        nor what its own code may have changed before."""
        made: dict[str, Any] = _without_state(self.tree["strategy"])
        return made | ({"constants": self.constants} if self.constants else {})


def take_apart(strategy: Any, buffers: BufferTable, born: Mapping[str, str] | None = None) -> Memory:
    """Take a strategy apart, its arrays into `buffers`. Raises ConfigError, naming the place, for what cannot be kept
    or, where `born` is known, put back."""
    return _take_all(strategy, Taking(buffers, _kinds(), born))


def put_back(strategy: Any, tree: Mapping[str, Any], arrays: Mapping[str, bytes], grid: Any = None) -> None:
    """Give a new strategy the memory of one that was taken apart. Raises ConfigError if it is made otherwise, and for
    functions and classes that it neither holds nor uses."""
    there = Taking(BufferTable(), _kinds())
    _take_all(strategy, there)
    walk = Putting(arrays, {kind.name: kind for kind in _kinds()}, there, grid)
    for name, node in tree.items():
        if name == "strategy":
            walk.put(strategy, node)
        elif (root := there.reach.roots.get(name)) is not None:
            setattr(root.holder, root.attribute, walk.put(root.value, node))
        else:
            raise ConfigError(f"the saved strategy used {name}, and the new one does not", fix="begin in a new folder")


def _take_all(strategy: Any, walk: Taking) -> Memory:
    tree = {"strategy": walk.take(strategy, "strategy")}
    done: set[str] = set()
    while left := walk.reach.roots.keys() - done:  # what is reached may reach more
        for name in sorted(left):
            root = walk.reach.roots[name]
            if not walk.reach.is_constant(root):
                tree[name] = walk.take(root.value, name)
        done |= left
    for name in sorted(done - tree.keys()):
        if not walk.reach.is_constant(walk.reach.roots[name]):
            tree[name] = walk.take(walk.reach.roots[name].value, name)
    constants = {name: repr(walk.reach.roots[name].value) for name in sorted(done - tree.keys())}
    return Memory(tree, walk.found, constants)


def _kinds() -> list[Kind]:
    if "torch" not in sys.modules:
        return [*ARRAYS, *FIRST, *LAST]
    from squadron.federated.memory_torch import TORCH

    return [*ARRAYS, *FIRST, *TORCH, *LAST]


def _without_state(node: Any) -> Any:
    """JSON without what differs between two strategies that are made alike."""
    if isinstance(node, dict):
        left_out = ("is", "n", "state") if "is" in node else ()
        return {key: _without_state(item) for key, item in node.items() if key not in left_out}
    return [_without_state(item) for item in node] if isinstance(node, list) else node
