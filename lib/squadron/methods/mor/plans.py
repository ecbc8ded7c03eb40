"""Plans: by which routes of node types a question's answers are reached, and what is known of nodes on the way.

    paper -> author -> paper <- field_of_study      two routes, [paper, author, paper] and [field_of_study, paper]

A plan is written by a model, so it may be anything: it is read as a literal of Python or JSON, never evaluated, within
bounds of size and depth. What cannot be read is no plan, and the question is then answered by text alone.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from squadron.retrieval.graph.schema import Schema

MAX_CHARACTERS, MAX_DEPTH, MAX_ROUTES = 20_000, 12, 32
_OUTERMOST = re.compile(r"\{.*\}", re.DOTALL)
_ARROW = re.compile(r"\s*(->|<-)\s*")
_KEYS = {"metapath": "routes", "metapaths": "routes", "routes": "routes", "restriction": "restriction",
         "restrictions": "restriction"}  # fmt: skip


class PlanError(ValueError):
    """What a planner wrote is no plan."""


@dataclass(frozen=True)
class Route:
    """Types of nodes from a start to the answer, and the relation of each step; None: any between the two types."""

    types: tuple[str, ...]
    relations: tuple[str | None, ...]

    @classmethod
    def of(cls, *types: str) -> Route:
        """A route by any relations."""
        return cls(types, (None,) * (len(types) - 1))

    def last(self, steps: int) -> Route:
        """Its end, of so many steps at most."""
        kept = min(steps, len(self.relations))
        return Route(self.types[len(self.types) - kept - 1 :], self.relations[len(self.relations) - kept :])


@dataclass(frozen=True)
class Plan:
    """Routes, and texts that describe nodes of a type."""

    routes: tuple[Route, ...] = ()
    restriction: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def known(self, kind: str) -> str:
        """All that is known of nodes of a type, as one text."""
        return "".join(self.restriction.get(kind, ()))


EMPTY = Plan()


def parse_plan(text: str) -> Plan:
    """The plan that a text holds, which may stand among other words.

    Routes are a text with arrows, as the paper writes them for MAG and Amazon, or lists of types, between which
    relations may stand, as it writes them for Prime. Raises PlanError for whatever is none.
    """
    match = _OUTERMOST.search(text[: MAX_CHARACTERS + 1])
    if len(text) > MAX_CHARACTERS or match is None:
        raise PlanError("too long" if len(text) > MAX_CHARACTERS else "there are no braces in it")
    found = _literal(match[0])
    if not isinstance(found, Mapping):
        raise PlanError("no dictionary")
    named = {_KEYS.get(str(key).strip().lower()): value for key, value in found.items()}
    if "routes" not in named:
        raise PlanError("it names no routes")
    routes = _routes(named["routes"])
    return Plan(tuple(dict.fromkeys(routes)), _restriction(named.get("restriction") or {}))


def validate_plan(plan: Plan, schema: Schema, targets: Sequence[str], steps: int = 2) -> tuple[Plan, tuple[str, ...]]:
    """The plan with those of its routes that can be followed, each cut to its last `steps`; and why others were left
    out. A relation that is the only one between its two types is filled in."""
    kept: list[Route] = []
    reasons: list[str] = []
    for route in (_read_relations(one, schema) for one in plan.routes):
        reason = _fault(route, schema, targets)
        if reason:
            reasons.append(reason)
            continue
        pairs = zip(route.types, route.types[1:], route.relations, strict=False)
        relations = tuple(given or _only(schema.between(first, second)) for first, second, given in pairs)
        kept.append(Route(route.types, relations).last(steps))
    restriction = {kind: texts for kind, texts in plan.restriction.items() if kind in schema.types}
    return Plan(tuple(dict.fromkeys(kept)), restriction), tuple(reasons)


def write_plan(plan: Plan) -> str:
    """A plan as planners are taught to write it: JSON, relations between the types where they are named."""
    routes = [
        [part for step in zip(route.types, (*route.relations, None), strict=True) for part in step if part is not None]
        for route in plan.routes
    ]
    restriction = {kind: list(texts) for kind, texts in plan.restriction.items()}
    return json.dumps({"routes": routes, "restriction": restriction}, ensure_ascii=False)


def _literal(text: str) -> Any:
    """A literal of JSON or Python."""
    if _depth(text) > MAX_DEPTH:
        raise PlanError("nested too deeply")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise PlanError(f"no literal: {type(error).__name__}") from None


def _depth(text: str) -> int:
    """How deeply brackets are nested, those in texts counted too: more than there are is safe."""
    deepest = depth = 0
    for letter in text:
        depth += (letter in "[{(") - (letter in ")}]")
        deepest = max(deepest, depth)
    return deepest


def _routes(value: Any) -> list[Route]:
    if isinstance(value, str):
        return _arrows(value)
    if not isinstance(value, list | tuple) or not value:
        raise PlanError("routes are no list")
    if all(isinstance(one, str) for one in value):  # one route without the list about it, or several with arrows
        several = [route for one in value for route in _arrows(one)] if any(map(_ARROW.search, value)) else []
        return several or [_stops(value)]
    if len(value) > MAX_ROUTES:
        raise PlanError(f"more than {MAX_ROUTES} routes")
    return [_stops(one) for one in value]


def _arrows(text: str) -> list[Route]:
    """Routes of `A -> B <- C`: [A, B] and [C, B]. A run of one arrow is a route; a run of `<-` is read from its end."""
    parts = _ARROW.split(text.strip())
    types, arrows = [one.strip() for one in parts[::2]], parts[1::2]
    if not all(types):
        raise PlanError("a route has an arrow without a type")
    if not arrows:
        return [Route.of(types[0])]
    routes, start = [], 0
    for place in range(1, len(arrows) + 1):
        if place == len(arrows) or arrows[place] != arrows[start]:
            run = types[start : place + 1]
            routes.append(Route.of(*(run if arrows[start] == "->" else reversed(run))))
            start = place
    return routes


def _stops(value: Any) -> Route:
    """A route as a list: types alone, or types with relations between them, which only a schema can tell apart."""
    if (
        not isinstance(value, list | tuple)
        or not value
        or not all(isinstance(one, str) and one.strip() for one in value)
    ):
        raise PlanError("a route is no list of types")
    if len(value) > 2 * MAX_DEPTH:
        raise PlanError("a route is too long")
    return Route.of(*(one.strip() for one in value))


def _restriction(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise PlanError("restrictions are no dictionary")
    found: dict[str, tuple[str, ...]] = {}
    for kind, texts in value.items():
        some = texts if isinstance(texts, list | tuple) else [texts]
        kept = tuple(str(one) for one in some if isinstance(one, str | int | float) and str(one).strip())
        if kept:
            found[str(kind).strip()] = kept
    return found


def _read_relations(route: Route, schema: Schema) -> Route:
    """A route whose every second item is no type, with these as its relations."""
    stops, between = route.types[::2], route.types[1::2]
    if len(stops) == len(between) + 1 and set(between) - set(schema.types) and not set(stops) - set(schema.types):
        return Route(stops, between)
    return route


def _fault(route: Route, schema: Schema, targets: Sequence[str]) -> str:
    """Why a route cannot be followed; an empty text if it can."""
    if unknown := [one for one in route.types if one not in schema.types]:
        return f"there is no type {unknown[0]!r}"
    if route.types[-1] not in targets:
        return f"it ends at {route.types[-1]!r}, not at {' or '.join(targets)}"
    for first, second, relation in zip(route.types, route.types[1:], route.relations, strict=False):
        names = schema.between(first, second)
        if not names or (relation is not None and relation not in names):
            return f"nothing leads from {first!r} to {second!r}" + (f" by {relation!r}" if relation else "")
    return ""


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None
