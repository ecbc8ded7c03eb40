"""Attacks by the form that an answer is to have: schemas, patterns and tools that compile slowly, or not at all."""

from __future__ import annotations

from typing import Any

from tests.attacks.attack import CHAT, Attack, Attacker, attack, chat, post
from tests.attacks.chats import WORKED


def schema(form: Any, **more: Any) -> dict[str, Any]:
    """A chat whose answer is to have this form."""
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": form}}, **more)


def nested(depth: int) -> dict[str, Any]:
    """A form that is nested so deep."""
    form: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        form = {"type": "object", "properties": {"a": form}, "required": ["a"], "additionalProperties": False}
    return form


def _wide(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"name {n}": {"type": "string", "maxLength": 50} for n in range(count)}}


def _tool(name: str, form: Any = None, text: str = "") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": text, "parameters": form}}


async def _distinct_forms(attacker: Attacker) -> None:
    """A hundred forms, none like another: what is kept of them has an end."""
    forms = [{"type": "object", "properties": {f"a{n}": {"type": "string"}}, "required": [f"a{n}"]} for n in range(100)]
    for start in range(0, 100, 10):
        await attacker.together(attacker.send("POST", CHAT, schema(form)) for form in forms[start : start + 10])


_DEEP_REF = {
    "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "array", "items": {"$ref": "#/$defs/a"}}]}},
    "$ref": "#/$defs/a",
}
_TREE: dict[str, Any] = {"type": "string"}
for _ in range(12):
    _TREE = {"anyOf": [_TREE, {"type": "array", "items": _TREE}]}

ATTACKS: tuple[Attack, ...] = (
    attack(
        "hostile roles",
        post(
            CHAT,
            *[
                chat() | {"messages": [{"role": role, "content": "a"}]}
                for role in ("root", "", "\0", "tool", "a" * 9999)
            ],
        ),
        "400",
    ),
    attack("a form 30 deep", post(CHAT, schema(nested(30)), times=8), WORKED),
    attack("a form that is too deep", post(CHAT, schema(nested(60)), schema(nested(200)), times=4), "400 429"),
    attack("a form of 5,000 names", post(CHAT, schema(_wide(5000)), times=8), WORKED),
    attack("a form that doubles twelve times", post(CHAT, schema(_TREE), times=4), WORKED),
    attack(
        "a form that refers to itself",
        post(CHAT, schema(_DEEP_REF), schema({"$ref": "#"}), schema({"$ref": "http://a/b"}), times=4),
        WORKED,
    ),
    attack(
        "a pattern that backtracks",
        post(
            CHAT,
            *[
                schema({"type": "string", "pattern": pattern})
                for pattern in (
                    "^(a+)+$",
                    "(a|a)*b",
                    "(((a*)*)*)*c",
                    "a{1000}",
                    "(a{1000}){1000}",
                    "[",
                    "(?=a)b",
                    "\\1",
                    "(?<=a)b",
                    "a{2,1}",
                )
            ],
        ),
        WORKED,
    ),
    attack(
        "a pattern of 100 kB", post(CHAT, schema({"type": "string", "pattern": "(ab|cd)*" * 12_000}), times=4), WORKED
    ),
    attack(
        "an enumeration of 50,000", post(CHAT, schema({"enum": [f"value {n}" for n in range(50_000)]}), times=4), WORKED
    ),
    attack(
        "lengths without end",
        post(
            CHAT,
            *[
                schema(form)
                for form in (
                    {"type": "string", "minLength": 10**9},
                    {"type": "string", "maxLength": 10**9},
                    {"type": "array", "minItems": 10**6, "items": {}},
                    {"type": "array", "maxItems": 10**9, "items": {"type": "string", "maxLength": 10**9}},
                    {"type": "integer", "minimum": -(10**300)},
                    {"type": "integer", "multipleOf": 7, "minimum": 10**18, "maximum": 10**18 + 1},
                )
            ],
        ),
        WORKED,
    ),
    attack(
        "forms that are none",
        post(
            CHAT,
            *[
                schema(form)
                for form in (
                    {"type": "nothing"},
                    {"type": []},
                    {"enum": []},
                    {"const": {}},
                    {"properties": []},
                    {"anyOf": []},
                    {"allOf": [{}, {}]},
                    {"not": {}},
                    {"$ref": 5},
                    {"required": "a"},
                    {"type": "object", "patternProperties": {"(": {}}},
                    {"if": {}, "then": {}},
                    {"format": "a" * 9999},
                )
            ],
        ),
        WORKED,
    ),
    attack("a hundred forms", _distinct_forms, WORKED),
    attack("16 answers of one form", post(CHAT, schema(nested(5), n=16), times=8), WORKED),
    attack(
        "one answer that its form breaks beside good ones",
        post(CHAT, schema({"type": "array", "minItems": 10**6, "items": {}}), *[chat()] * 5),
        WORKED,
    ),
    attack(
        "some JSON, from 40 at once",
        post(CHAT, chat(response_format={"type": "json_object"}, max_tokens=60), times=40),
        WORKED,
    ),
    attack(
        "128 tools",
        post(CHAT, chat(tools=[_tool(f"tool_{n}", nested(3), "a" * 1000) for n in range(128)]), times=8),
        WORKED,
    ),
    attack(
        "tools with hostile names",
        post(CHAT, *[chat(tools=[_tool(name)]) for name in ("", "a" * 65, "a b", "{{a}}", "\0", "é")]),
        "400 429",
    ),
    attack(
        "tools that are required, and deep",
        post(CHAT, chat(tools=[_tool("a", nested(20))], tool_choice="required"), times=4),
        WORKED,
    ),
    attack(
        "calls whose arguments are deep",
        post(
            CHAT,
            *[
                chat()
                | {
                    "messages": [
                        {
                            "role": "assistant",
                            "tool_calls": [
                                {"id": "a", "type": "function", "function": {"name": "a", "arguments": text}}
                            ],
                        },
                        {"role": "tool", "tool_call_id": "a", "content": "b"},
                    ]
                }
                for text in ("[" * 10**5, '{"a":' * 10**5, "9" * 10**5, "{" + " " * 10**6, "\\u0000")
            ],
        ),
        WORKED,
    ),
)
