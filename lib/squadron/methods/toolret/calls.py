"""Calls of tools: read from what a model writes, and compared with those that are right."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from squadron.llm.parsing import Unreadable, read_json

_RESULT = re.compile(r"API_call_(\d+)")


@dataclass(frozen=True)
class Call:
    """One call: the tool's name and what it is given."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_calls(text: str) -> list[Call]:
    """The calls of an answer: a JSON list of {name, arguments}, one of them, or {calls: […]}; also as OpenAI's and
    Seal-Tools' forms have them (function, api, parameters, arguments as a text of JSON).

    Raises Unreadable if it holds none.
    """
    value = read_json(text)
    if isinstance(value, dict):
        value = next((value[key] for key in ("calls", "tool_calls", "calling") if key in value), [value])
    if not isinstance(value, list):
        raise Unreadable("no list of calls", where=text[:80])
    return [_call(one, text) for one in value]


def gold_calls(calling: Sequence[Mapping[str, Any]]) -> list[Call]:
    """Seal-Tools' calls; results that other calls take are numbered by the order of the list."""
    names = {name: place for place, call in enumerate(calling) for name in call.get("responses", [])}

    def renamed(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"API_call_\d+", lambda found: f"API_call_{names.get(found[0], found[0][9:])}", value)
        if isinstance(value, Mapping):
            return {key: renamed(one) for key, one in value.items()}
        return [renamed(one) for one in value] if isinstance(value, list) else value

    return [Call(str(call["api"]), renamed(call.get("parameters") or {})) for call in calling]


def right_tools(found: Sequence[Call], gold: Sequence[Call]) -> bool:
    """Whether just these tools are called, each as often."""
    return Counter(call.name for call in found) == Counter(call.name for call in gold)


def right_calls(found: Sequence[Call], gold: Sequence[Call]) -> bool:
    """Whether the calls are those that are right, with the same arguments, in any order.

    Values are compared as `normal` writes them. A result of another call is known by that call's tool.
    """
    if not right_tools(found, gold):
        return False
    first, second = _by_tool(found), _by_tool(gold)
    return all(Counter(first[name]) == Counter(second[name]) for name in second)


def normal(value: Any) -> Any:
    """A value as it is compared: texts without case, outer and repeated spaces; numbers by their value, also where one
    stands as a text; keys of objects in any order."""
    if isinstance(value, bool) or value is None:
        return str(value).casefold()
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), normal(one)) for key, one in value.items()))
    if isinstance(value, list | tuple):
        return tuple(normal(one) for one in value)
    text = " ".join(str(value).split()).casefold()
    try:
        return float(text) if re.fullmatch(r"[-+]?\d+(\.\d+)?", text) else text
    except (ValueError, OverflowError):
        return text


def _by_tool(calls: Sequence[Call]) -> dict[str, list[str]]:
    """The arguments of each tool's calls, as texts that are equal where they count as equal."""
    names = [call.name for call in calls]

    def named(found: re.Match[str]) -> str:
        place = int(found[1])
        return f"result of {names[place]}" if place < len(names) else found[0]

    def resolved(value: Any) -> Any:
        if isinstance(value, str):
            return _RESULT.sub(named, value)
        if isinstance(value, Mapping):
            return {key: resolved(one) for key, one in value.items()}
        return [resolved(one) for one in value] if isinstance(value, list) else value

    arguments: dict[str, list[str]] = {}
    for call in calls:
        arguments.setdefault(call.name, []).append(repr(normal(resolved(call.arguments))))
    return arguments


def _call(value: Any, text: str) -> Call:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    name = next((value[key] for key in ("name", "api") if key in value), None) if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise Unreadable("a call names no tool", where=text[:80])
    arguments: Any = next((value[key] for key in ("arguments", "parameters") if value.get(key) is not None), {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            raise Unreadable("the arguments of a call are no JSON", where=text[:80]) from None
    if not isinstance(arguments, dict):
        raise Unreadable("the arguments of a call are no object", where=text[:80])
    return Call(name, arguments)
