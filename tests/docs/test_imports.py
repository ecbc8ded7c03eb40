"""Imports run one way and never in a circle. Those inside functions and for type checkers count too.

Nothing of the package is imported to find out: the sources are read.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from enum import IntEnum
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

LIB = Path(__file__).resolve().parents[2] / "lib"
CLI = "squadron.core.cli"


class When(IntEnum):
    """When an import happens: with the module, in a function, or only for type checkers."""

    LOADED = 0
    LAZY = 1
    TYPING = 2


class Import(NamedTuple):
    """What a statement imports, as `package.module` or `package.module.name`."""

    name: str
    when: When = When.LOADED


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(LIB.rglob("*.py")):
        parts = path.relative_to(LIB).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()
"""All modules of ours by their names, and packages by theirs."""


def read_imports(node: ast.AST, when: When = When.LOADED) -> Iterator[Import]:
    """All imports in this code. A string that is the name of a module counts as one, as by `importlib`."""
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, when) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.module and not node.level, "imports are written in full"
        yield from (Import(f"{node.module}.{alias.name}", when) for alias in node.names)
    elif isinstance(node, ast.Constant) and node.value in MODULES:
        yield Import(str(node.value), max(when, When.LAZY))
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        yield from (found for child in node.body for found in read_imports(child, When.TYPING))
        yield from (found for child in node.orelse for found in read_imports(child, when))
        return
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from read_imports(child, max(when, When.LAZY) if inside else when)


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What a module of ours imports."""
    return tuple(read_imports(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def names(module: str, when: When) -> set[str]:
    """The same by name, up to those of this kind."""
    return {one.name for one in imports(module) if one.when <= when}


def dependencies(module: str, when: When) -> set[str]:
    """The modules of ours that a module imports, and the packages that are loaded on the way to them."""
    found = {target for name in names(module, when) if (target := _module_of(name))}
    own = {module, *_packages(module)}
    packages = {package for other in found for package in _packages(other) if package in MODULES and imports(package)}
    return found - {module} | packages - own


def reachable(module: str, when: When) -> set[str]:
    """A module and all of ours that it imports, directly or through others."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += dependencies(one, when)
    return found


def find_circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules each of which is imported by the next, the first and the last being the same; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _module_of(name: str) -> str | None:
    """The module of ours that `package.module` or `package.module.name` stands for."""
    return next((known for known in (name, name.rpartition(".")[0]) if known in MODULES), None)


def _packages(module: str) -> list[str]:
    """The packages that hold a module, the outermost first."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _room(module: str) -> str:
    """`core`, a capability, or `methods.<name>`."""
    parts = module.split(".")
    return ".".join(parts[1:3]) if parts[1:2] == ["methods"] else "".join(parts[1:2]) or "core"


def test_no_imports_run_in_a_circle() -> None:
    assert find_circle({module: dependencies(module, When.TYPING) for module in MODULES}) == []


def test_a_circle_is_found_wherever_it_is_closed() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert not find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    source = (
        "import one\n"
        "if TYPE_CHECKING:\n    import two\nelse:\n    import three\n"
        "def work():\n    from four import five\n    load('squadron.core.cli')\n"
    )
    assert list(read_imports(ast.parse(source))) == [
        Import("one"), Import("two", When.TYPING), Import("three"), Import("four.five", When.LAZY),
        Import("squadron.core.cli", When.LAZY),
    ]  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    """From methods to capabilities to core. The command line alone knows capabilities, by the
    names of their commands' modules; nothing imports it."""
    own = _room(module)
    for other in dependencies(module, When.TYPING):
        room = _room(other)
        if own == "core":
            assert room == "core" or (module == CLI and other.endswith(".command")), f"core imports {other}"
        elif own.startswith("methods"):
            assert not room.startswith("methods.") or room == own, f"a method imports its sibling {other}"
        else:
            assert not room.startswith("methods"), f"a capability imports {other}"
        assert other != CLI, "the command line is imported by jobs alone"


@pytest.mark.parametrize("module", [name for name in MODULES if name.endswith(".algorithm")])
def test_the_algorithm_never_imports_ray(module: str) -> None:
    """Nor does what it imports of its own method, even in a function; nor what is loaded with it from anywhere."""
    own = {one for one in reachable(module, When.TYPING) if _room(one) == _room(module)}
    found = {name for one in own for name in names(one, When.TYPING)}
    found |= {name for one in reachable(module, When.LOADED) for name in names(one, When.LOADED)}
    assert "ray" not in {name.partition(".")[0] for name in found}


def test_the_command_line_loads_the_standard_library_alone() -> None:
    """So that `squadron --help` answers at once. The modules of capabilities' commands are loaded with it."""
    commands = {other for other in dependencies(CLI, When.LAZY) if _room(other) != "core"}
    assert commands
    ours = {one for module in (CLI, *commands) for one in reachable(module, When.LOADED)}
    others = {name.partition(".")[0] for one in ours for name in names(one, When.LOADED)}
    assert others - {"squadron"} <= sys.stdlib_module_names
