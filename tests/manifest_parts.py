"""What tests of manifests share: where they are, KubeRay's definitions, and paths into nested values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from squadron.cluster.validation.definitions import Schema, read_definitions

ROOT = Path(__file__).resolve().parents[1]
SPECS = sorted((ROOT / "cluster" / "specs").glob("*.yaml"))
RENDERED = ROOT / "cluster" / "rendered"
DEFINITIONS = ROOT.parent / "shared" / "data" / "kuberay"
PathKey = tuple[str | int, ...]


@cache
def schemas() -> dict[str, Schema]:
    """KubeRay's definitions; the test is skipped where they are not."""
    if not DEFINITIONS.exists():
        pytest.skip("KubeRay's definitions are not here")
    return read_definitions(DEFINITIONS)


def paths(value: Any, path: PathKey = ()) -> Iterator[PathKey]:
    """The paths of everything in a nested value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def at(value: Any, path: PathKey) -> Any:
    """What stands at a path."""
    for key in path:
        value = value[key]
    return value


def changed(value: Any, path: PathKey, change: Callable[[Any, Any], None]) -> Any:
    """A copy in which `change` was called with what holds the path's end, and that end."""
    made = copy.deepcopy(value)
    change(at(made, path[:-1]), path[-1])
    return made


def put(new: Any) -> Callable[[Any, Any], None]:
    """The change that puts a value there."""

    def change(holder: Any, key: Any) -> None:
        holder[key] = new

    return change


def remove(holder: Any, key: Any) -> None:
    """The change that leaves it out."""
    del holder[key]


def misspell(holder: Any, key: Any) -> None:
    """The change that writes its name with one letter too many."""
    holder[f"{key}x"] = holder.pop(key)
