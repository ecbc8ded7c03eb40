"""What a strategy's own code can reach besides its attributes: attributes of its classes and globals of its modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from inspect import isclass, ismodule
from pathlib import PurePath
from types import CellType, CodeType, FunctionType
from typing import Any

_LIBRARIES = sys.stdlib_module_names | {"", "builtins", "flwr", "numpy", "ray", "scipy", "sklearn", "squadron", "torch"}
_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), Enum, PurePath)
_STORES = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR", "STORE_DEREF", "DELETE_DEREF")


@dataclass(frozen=True)
class Root:
    """Something that a class, a module, a function or a cell holds. `variable`: what code that assigns it calls it."""

    holder: Any
    attribute: str
    variable: str

    @property
    def value(self) -> Any:
        return getattr(self.holder, self.attribute)


@dataclass
class Reach:
    """What was reached so far, by name. Code of libraries is taken to keep nothing."""

    roots: dict[str, Root] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)
    _stored: set[str] = field(default_factory=set)
    _words: set[str] = field(default_factory=set)
    _packages: set[str] = field(default_factory=lambda: {"builtins"})

    def mentions(self, name: str) -> bool:
        """Whether the code that was reached itself says the last word of this name of a function, class or module, and
        uses the package in which it is."""
        return name.rpartition(".")[2] in self._words and name.partition(".")[0] in self._packages

    def follow_class(self, cls: type) -> None:
        """Reach what an own class and those that it comes from hold, and what their functions reach."""
        for one in cls.__mro__:
            if not is_own(one) or id(one) in self._seen or issubclass(one, Enum):
                continue
            self._seen.add(id(one))
            self._packages.add(one.__module__.partition(".")[0])
            for name, value in list(vars(one).items()):
                if functions := list(_functions(value)):
                    for function in functions:
                        self.follow_function(function)
                elif not (name.startswith("__") or name == "_abc_impl" or is_part(value) or _is_descriptor(value)):
                    self.roots[f"{name_of(one)}:{name}"] = Root(one, name, name)

    def follow_function(self, function: FunctionType, held: bool = False) -> None:
        """Reach the globals that an own function names. Unless it is `held`, and so taken apart itself, also its
        defaults and the variables that it closes over."""
        if id(function) in self._seen or not is_own(function):
            return
        self._seen.add(id(function))
        name = name_of(function)
        for attribute in ("__defaults__", "__kwdefaults__") if not held else ():
            if getattr(function, attribute):
                self.roots[f"{name}:{attribute}"] = Root(function, attribute, attribute)
        for variable, cell in cells(function).items() if not held else ():
            self._follow(cell, "cell_contents", variable, name)
        module = sys.modules.get(function.__globals__.get("__name__", ""))
        self._packages.add(function.__module__.partition(".")[0])
        for code in _codes(function.__code__):
            self._stored |= _stores(code)
            self._words |= set(code.co_names)
            self._packages |= _imports(code)
            if module is not None and vars(module) is function.__globals__:
                for variable in set(code.co_names) & function.__globals__.keys():
                    self._follow(module, variable, variable, module.__name__)

    def is_constant(self, root: Root) -> bool:
        """Whether nothing that was reached assigns it, and it cannot change otherwise."""
        return root.variable not in self._stored and _is_constant(root.value)

    def _follow(self, holder: Any, attribute: str, variable: str, name: str) -> None:
        value = getattr(holder, attribute)
        if isinstance(value, FunctionType):
            self.follow_function(value)
        elif isclass(value):
            self.follow_class(value)
        elif not is_part(value):
            self.roots[f"{name}:{variable}"] = Root(holder, attribute, variable)
        if is_part(value):
            self._packages.add(part_name(value).partition(".")[0])
            self._words.add(part_name(value).rpartition(".")[2])


def is_own(thing: Any) -> bool:
    """Whether a class or function is the user's, and of no library."""
    module = getattr(thing, "__module__", None) or ""
    return module.partition(".")[0] not in _LIBRARIES


def cells(function: FunctionType) -> dict[str, CellType]:
    """The variables that a function closes over and that have a value."""
    closed = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell for name, cell in closed if _has_value(cell)}


def _has_value(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _functions(value: Any) -> Iterator[FunctionType]:
    """The functions behind a method, a property, a static method."""
    parts = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
    for part in parts:
        if isclass(part):
            continue
        inner = getattr(part, "__func__", part)
        if isinstance(inner := getattr(inner, "func", inner), FunctionType):  # of a cached_property
            yield inner


def is_part(value: Any) -> bool:
    """Whether it is a part of the program, which does not change: a module, a class, or a function of whatever kind
    that can be found by its name."""
    return isclass(value) or ismodule(value) or (callable(value) and find(part_name(value)) is value)


def part_name(value: Any) -> str:
    """The name by which a part of the program can be found, if it can."""
    name: str = value.__name__ if ismodule(value) else name_of(value)
    return f"numpy.{name.rpartition('.')[2]}" if type(value).__name__ == "ufunc" else name


def name_of(thing: Any) -> str:
    """The module and name of a class or function."""
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def find(name: str) -> Any:
    """The module, class or function of this name, if it is imported; None if there is none."""
    if name in sys.modules:
        return sys.modules[name]
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:end]))
        if module is not None:
            thing: Any = module
            for part in parts[end:]:
                thing = getattr(thing, part, None)
            return thing
    return None


def _is_descriptor(value: Any) -> bool:
    """Whether it is how a library gives an object an attribute, such as a slot or the field of a named tuple."""
    return hasattr(type(value), "__get__") and not is_own(type(value))


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return isinstance(value, _CONSTANTS)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _imports(code: CodeType) -> set[str]:
    """The packages that some code imports."""
    import dis

    return {str(step.argval).partition(".")[0] for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"}


def _stores(code: CodeType) -> set[str]:
    """The globals and attributes that some code assigns."""
    import dis

    return {str(step.argval) for step in dis.get_instructions(code) if step.opname in _STORES}
