"""The kinds of plain Python that a strategy may hold: containers, functions, and the user's own objects."""

from __future__ import annotations

import functools
import logging
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, Flag
from inspect import isclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import FunctionType, MethodType
from typing import Any

from flwr.serverapp import Grid

from squadron.core.errors import ConfigError
from squadron.federated.memory_walk import Kind, Node, Putting, Taking, exactly, instance
from squadron.federated.reach import cells, is_own, is_part, name_of, part_name


def _simple(name: str, kind: type, take: Callable[[Any], Any], put: Callable[[Any], Any]) -> Kind:
    """A kind whose values are made anew from one JSON value."""

    def take_value(walk: Taking, value: Any, where: str) -> Node:
        return {"value": take(value)}

    return Kind(name, exactly(kind), take_value, lambda walk, _, node: put(node["value"]))


def _take_set(walk: Taking, value: set[Any], where: str) -> Node:
    """Built anew from its items in order, a set may come out in another order: it is, here too."""
    items = list(value)
    value.clear()
    value.update(items)
    return {"items": walk.items(list(value), where)}


def _filled(make: Callable[[Any, Node], Any], fill: Callable[[Putting, Any, Any, Node], None]) -> Callable[..., Any]:
    """How a container is put back that may hold itself: empty first."""

    def put(walk: Putting, current: Any, node: Node) -> Any:
        made = walk.objects[node["n"]] = make(current, node)
        fill(walk, made, current, node)
        return made

    return put


def _extend(walk: Putting, made: Any, current: Any, node: Node) -> None:
    made.extend(walk.items(current, node["items"]))


def _update(walk: Putting, made: Any, current: Any, node: Node) -> None:
    for key, value in walk.pairs(current, node["items"]):
        made[key] = value


def _put_defaultdict(walk: Putting, current: Any, node: Node) -> Any:
    made: defaultdict[Any, Any] = defaultdict()
    walk.objects[node["n"]] = made
    made.default_factory = walk.put(getattr(current, "default_factory", None), node["factory"])
    _update(walk, made, current, node)
    return made


def _pairs(walk: Taking, value: Mapping[Any, Any], where: str) -> Node:
    return {"items": walk.pairs(value, where)}


def _container(name: str, kind: type, take: Callable[..., Node], put: Callable[..., Any]) -> Kind:
    return Kind(name, exactly(kind), take, put, numbered=True, early=True)


def _is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and type(value).__bases__ == (tuple,) and hasattr(value, "_fields")


def _class_of(walk: Putting, current: Any, name: str) -> Any:
    """The class of this name, or that of what is there. Raises ConfigError if there is none."""
    found = type(current) if name_of(type(current)) == name else walk.find(name)
    if not isclass(found):
        raise ConfigError(f"the saved strategy holds a {name}, which is no class")
    walk.there.reach.follow_class(found)
    return found


def _put_enum(walk: Putting, current: Any, node: Node) -> Any:
    kind = _class_of(walk, current, node["class"])
    if not issubclass(kind, Enum):
        raise ConfigError(f"{node['class']} was an Enum, and is none")
    return kind(walk.put(None, node["value"])) if issubclass(kind, Flag) else kind[node["value"]]


def _take_enum(walk: Taking, value: Enum, where: str) -> Node:
    return {"class": walk.lookup(type(value), where), "value": value.value if isinstance(value, Flag) else value.name}


def _put_namedtuple(walk: Putting, current: Any, node: Node) -> Any:
    kind = _class_of(walk, current, node["class"])
    return tuple.__new__(kind, walk.items(current, node["items"]))


def _take_function(walk: Taking, value: FunctionType, where: str) -> Node:
    name = walk.lookup(value, where)
    if not is_own(value):
        return {"name": name}
    walk.reach.follow_function(value, held=True)
    node: Node = {
        "name": name,
        "variables": walk.named({name: cell.cell_contents for name, cell in cells(value).items()}, where),
    }
    if value.__defaults__ or value.__kwdefaults__:
        node["defaults"] = walk.take(value.__defaults__, f"{where} (defaults)")
        node["keywords"] = walk.take(value.__kwdefaults__, f"{where} (defaults)")
    if vars(value):
        node["attributes"] = walk.named(vars(value), where)
    return node


def _put_function(walk: Putting, current: Any, node: Node) -> Any:
    function = current if walk.claim(current, node["name"]) else walk.find(node["name"])
    if not isinstance(function, FunctionType):
        raise ConfigError(f"the saved strategy uses a function {node['name']}, which a new one has not")
    walk.there.reach.follow_function(function, held=True)
    walk.objects[node["n"]] = function
    there = cells(function)
    for name, item in node.get("variables", {}).items():
        if name not in there:
            raise ConfigError(f"{node['name']} closed over {name}, and does not now")
        there[name].cell_contents = walk.put(there[name].cell_contents, item)
    if "defaults" in node:
        function.__defaults__ = walk.put(function.__defaults__, node["defaults"])
        function.__kwdefaults__ = walk.put(function.__kwdefaults__, node["keywords"])
    for name, item in node.get("attributes", {}).items():
        vars(function)[name] = walk.put(vars(function).get(name), item)
    return function


def _take_part(walk: Taking, value: Any, where: str) -> Node:
    _follow_part(walk, value)
    return {"name": walk.lookup(value, where, part_name(value))}


def _put_part(walk: Putting, current: Any, node: Node) -> Any:
    there = is_part(current) and part_name(current) == node["name"]
    found = current if there else walk.find(node["name"])
    _follow_part(walk.there, found)
    return found


def _follow_part(walk: Taking, part: Any) -> None:
    if isclass(part):
        walk.reach.follow_class(part)
    if isinstance(wrapped := getattr(part, "__wrapped__", None), FunctionType):
        walk.reach.follow_function(wrapped)


def _take_method(walk: Taking, value: MethodType, where: str) -> Node:
    return {"name": value.__func__.__name__, "of": walk.take(value.__self__, f"{where} (its object)")}


def _put_method(walk: Putting, current: Any, node: Node) -> Any:
    found = getattr(walk.put(getattr(current, "__self__", None), node["of"]), node["name"], None)
    if not isinstance(found, MethodType):
        raise ConfigError(f"the saved strategy holds a method {node['name']}, which the new one has not")
    return found


def _take_partial(walk: Taking, value: functools.partial[Any], where: str) -> Node:
    parts = {"func": value.func, "args": value.args, "keywords": value.keywords, "more": vars(value)}
    return {"parts": walk.named(parts, where)}


def _put_partial(walk: Putting, current: Any, node: Node) -> Any:
    parts = {name: walk.put(getattr(current, name, None), item) for name, item in node["parts"].items()}
    made = functools.partial(parts["func"], *parts["args"], **parts["keywords"])
    vars(made).update(parts["more"])
    return made


def _is_stateful(value: Any) -> bool:
    methods = (getattr(type(value), name, None) for name in ("state_dict", "load_state_dict"))
    return not isclass(value) and all(map(callable, methods))


def _take_stateful(walk: Taking, value: Any, where: str) -> Node:
    walk.needs(where, name_of(type(value)))
    return {"class": name_of(type(value)), "content": walk.take(value.state_dict(), where)}


def put_stateful(walk: Putting, current: Any, node: Node) -> Any:
    """Load a `state_dict` into what is there. Raises ConfigError if that is of another class."""
    if not walk.claim(current, node["class"]):
        raise ConfigError(f"the saved strategy holds a {node['class']}, and the new one has none in its place")
    walk.objects[node["n"]] = current
    current.load_state_dict(walk.put(None, node["content"]))
    return current


def _is_object(value: Any) -> bool:
    """Whether all that an object is lies in its attributes, which is so for classes that are written in Python and
    extend none of the built-in ones."""
    kind = type(value)
    try:
        made = object.__reduce_ex__(value, 2)
    except Exception:  # what has parts that are not in Python cannot be taken apart, or its own __getstate__ fails
        return False
    plain = kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__
    return plain and len(made) == 5 and made[1] == (kind,) and made[3] is None and made[4] is None


def _slots(kind: type) -> Iterator[tuple[str, Any]]:
    """The slots of a class with their names as they are in the class."""
    for one in kind.__mro__:
        names = vars(one).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else tuple(names):
            mangled = (
                f"_{one.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
            )
            if mangled not in ("__dict__", "__weakref__"):
                yield mangled, vars(one)[mangled]


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for name, slot in _slots(type(value)):
        try:
            found[name] = slot.__get__(value)
        except AttributeError:
            continue
    return found


def _take_object(walk: Taking, value: Any, where: str) -> Node:
    walk.reach.follow_class(type(value))
    return {"class": walk.lookup(type(value), where), "attributes": walk.named(_attributes(value), where)}


def _put_object(walk: Putting, current: Any, node: Node) -> Any:
    if walk.claim(current, node["class"]):
        made = current
    else:
        kind = _class_of(walk, current, node["class"])
        made = object.__new__(kind)
    walk.objects[node["n"]] = made
    there, slots = _attributes(made), dict(_slots(type(made)))
    for name in there.keys() - node["attributes"].keys():
        slots[name].__delete__(made) if name in slots else vars(made).pop(name)
    for name, item in node["attributes"].items():
        value = walk.put(there.get(name), item)
        if name in slots:
            slots[name].__set__(made, value)
        else:
            vars(made)[name] = value
    return made


_PATHS = {kind.__name__: kind for kind in (PurePosixPath, PureWindowsPath, type(Path()))}
FIRST = [
    _simple("complex", complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    _simple("range", range, lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    Kind("logger", instance(logging.Logger), lambda walk, value, _: {"value": value.name},
         lambda walk, _, node: logging.getLogger(node["value"])),
    Kind("grid", instance(Grid), lambda *_: {}, lambda walk, *_: walk.grid, numbered=True),
    Kind("path", lambda value: isinstance(value, PurePath) and type(value).__module__.startswith("pathlib"),
         lambda walk, value, _: {"class": type(value).__name__, "value": str(value)},
         lambda walk, _, node: _PATHS[node["class"]](node["value"])),
    Kind("enum", instance(Enum), _take_enum, _put_enum),
    Kind("tuple", exactly(tuple), lambda walk, value, where: {"items": walk.items(value, where)},
         lambda walk, current, node: tuple(walk.items(current, node["items"])), numbered=True),
    Kind("frozenset", exactly(frozenset), lambda walk, value, where: {"items": walk.items(value, where)},
         lambda walk, _, node: frozenset(walk.items(None, node["items"])), numbered=True),
    Kind("namedtuple", _is_namedtuple, lambda walk, value, where:
         {"class": walk.lookup(type(value), where), "items": walk.items(value, where)}, _put_namedtuple, numbered=True),
    _container("list", list, lambda walk, value, where: {"items": walk.items(value, where)},
               _filled(lambda *_: [], _extend)),
    _container("deque", deque, lambda walk, value, where: {"items": walk.items(value, where), "most": value.maxlen},
               _filled(lambda _, node: deque(maxlen=node["most"]), _extend)),
    _container("set", set, _take_set,
               _filled(lambda *_: set(), lambda walk, made, _, node: made.update(walk.items(None, node["items"])))),
    _container("dict", dict, _pairs, _filled(lambda *_: {}, _update)),
    _container("ordered", OrderedDict, _pairs, _filled(lambda *_: OrderedDict(), _update)),
    _container("counter", Counter, _pairs, _filled(lambda *_: Counter(), _update)),
    _container("defaultdict", defaultdict, lambda walk, value, where:
               {"factory": walk.take(value.default_factory, f"{where}.default_factory"), **_pairs(walk, value, where)},
               _put_defaultdict),
    Kind("function", exactly(FunctionType), _take_function, _put_function, numbered=True, early=True),
    Kind("method", exactly(MethodType), _take_method, _put_method, numbered=True),
    Kind("partial", exactly(functools.partial), _take_partial, _put_partial, numbered=True),
    Kind("part", is_part, _take_part, _put_part),
]  # fmt: skip
"""In the order in which they are tried."""

LAST = [
    Kind("stateful", _is_stateful, _take_stateful, put_stateful, numbered=True, early=True),
    Kind("object", _is_object, _take_object, _put_object, numbered=True, early=True),
]
