"""Conversations as people write them, read into one form: a list of messages, and the tools that they may call.

A message has a `role`, a `content`, which is text or, beside a call of a tool, None, and where they are given
`tool_calls`, `tool_call_id`, `name` and what the model thought. Arguments of calls stay text or an object, as given.

Read besides OpenAI's messages: `from` and `value` (ShareGPT), content in parts, calls without `function` around them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from squadron.core.errors import InputError
from squadron.data.record_files import read_json_text

Message = dict[str, Any]

THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Fields in which people keep what a model thought before it answered."""
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_PART_FIELDS = {"type", "text", "annotations", "citations", "cache_control"}
_EXAMPLE = '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


def read_conversation(value: Any, where: str, column: str = "messages", answered: bool = True) -> list[Message]:
    """The messages of a list, or of a list as JSON text.

    Raises InputError, with the turn, for what cannot be read, and if `answered` where the assistant says nothing.
    """
    turns = read_json_text(value, column, where) if isinstance(value, str) else value
    if not isinstance(turns, Sequence) or isinstance(turns, str | bytes) or not turns:
        raise InputError(f"the column {column!r} holds no list of messages", where=where, fix=f"give {_EXAMPLE}")
    messages = [_read_message(turn, f"{where}, turn {number}") for number, turn in enumerate(turns, start=1)]
    if answered and not any(message["role"] == "assistant" for message in messages):
        roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
        what = f"this conversation has no turn of the assistant; its roles are {roles}"
        raise InputError(what, where=where, fix=f"give {_EXAMPLE}")
    return messages


def read_tools(value: Any, where: str, column: str = "tools") -> list[dict[str, Any]]:
    """The tools of a list, or of a list as JSON text; none for None or an empty text.

    Raises InputError for what is no list of tools.
    """
    tools = read_json_text(value, column, where) if isinstance(value, str) and value.strip() else value
    tools = [] if tools is None and str(value or "").strip() in ("", "null") else tools or value or []
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        fix = 'give [{"type": "function", "function": {"name": "…", "parameters": {…}}}], or the same as JSON text'
        fix += "; data.columns.tools=null leaves the column out"
        raise InputError(f"the column {column!r} holds no list of tools", where=where, fix=fix)
    return [_as_function(tool) for tool in tools]


def read_prompt(value: Any, where: str, column: str = "prompt") -> str | list[Message]:
    """A prompt: text as it is, or a list of messages."""
    _refuse_scalar(value, where, column)
    return value if isinstance(value, str) else read_conversation(value, where, column, answered=False)


def read_completion(value: Any, where: str, column: str = "completion") -> str | list[Message]:
    """A completion: text as it is, or a list of messages, or one message, that the assistant begins."""
    _refuse_scalar(value, where, column)
    if isinstance(value, str):
        return value
    messages = read_conversation([value] if isinstance(value, Mapping) else value, where, column)
    if messages[0]["role"] != "assistant":
        what = f"the column {column!r} begins with a turn of the {messages[0]['role']}"
        fix = f"begin {column!r} with the assistant, or put whole conversations into data.columns.messages"
        raise InputError(what, where=where, fix=fix)
    return messages


def read_pair(
    prompt: Any,
    chosen: Any,
    rejected: Any,
    where: str,
    columns: tuple[str, str, str] = ("prompt", "chosen", "rejected"),
) -> tuple[str | list[Message], str | list[Message], str | list[Message]]:
    """Prompt, chosen and rejected: three texts, or three lists of messages of which the last two continue the first.

    Of lists, the prompt is their shared beginning, with what a prompt of its own adds. Raises InputError if one is a
    text and the other a list, if they are equal, or if they part where the assistant does not speak.
    """
    chosen, rejected = (
        _from_text(side, column, where) for side, column in zip((chosen, rejected), columns[1:], strict=True)
    )
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            fix = f"set data.columns.prompt, or give {columns[1]!r} and {columns[2]!r} as lists of messages"
            raise InputError(f"the column {columns[0]!r} is missing from this record", where=where, fix=fix)
        _refuse_equal(chosen, rejected, where)
        return read_prompt(prompt, where, columns[0]), chosen, rejected
    sides = []
    for side, column in ((chosen, columns[1]), (rejected, columns[2])):
        if not isinstance(side, Sequence | Mapping) or isinstance(side, str):
            what = f"the column {column!r} holds {'a text' if isinstance(side, str) else 'no list'}, the other a list"
            raise InputError(what, where=where, fix="give both as text, or both as lists of messages")
        sides.append(read_conversation([side] if isinstance(side, Mapping) else side, where, column))
    asked = [] if prompt is None else as_messages(read_prompt(prompt, where, columns[0]), "user")
    one, two = (_continued(asked, side, where, columns[0]) for side in sides)
    _refuse_equal(one, two, where)
    shared = next(
        (n for n, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), len(min(one, two, key=len))
    )
    for side, column in ((one, columns[1]), (two, columns[2])):
        if shared == len(side) or side[shared]["role"] != "assistant":
            what = f"{columns[1]} and {columns[2]} part where {column} has no turn of the assistant"
            raise InputError(
                what, where=f"{where}, turn {shared + 1}", fix="let both differ in what the assistant says"
            )
    if shared == 0:
        fix = f"set data.columns.prompt, or begin {columns[1]!r} and {columns[2]!r} with what is asked"
        raise InputError(f"nothing is asked before {columns[1]} and {columns[2]}", where=where, fix=fix)
    return one[:shared], one[shared:], two[shared:]


def as_messages(value: str | list[Message], role: str) -> list[Message]:
    """A text as one message of this role; messages as they are."""
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def looks_like_conversation(value: Any) -> bool:
    """Whether a value is a list of messages of either form."""
    turns = value
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            turns = json.loads(value, parse_int=float)  # a number that is too long is no matter here
    return (
        isinstance(turns, list)
        and bool(turns)
        and all(isinstance(turn, Mapping) and ("role" in turn or "from" in turn) for turn in turns)
    )


def _read_message(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise InputError(f"a message is a {type(turn).__name__}", where=where, fix=f"give {_EXAMPLE}")
    said = {key: value for key, value in turn.items() if value is not None}
    given = said.pop("role", None) or said.pop("from", None)
    if not isinstance(given, str):
        keys = ", ".join(map(str, turn)) or "nothing"
        raise InputError(f"a message has no role; it has {keys}", where=where, fix='name it "role", or "from"')
    role = _ROLES.get(given, given)
    content = said.pop("content", None)
    content = said.pop("value", None) if content is None else content
    calls = _read_calls(said, content if given == "function_call" else None, role, where)
    text = None if given == "function_call" else _read_content(content, role, where)
    if text is None and not calls:
        fix = 'give "content" (or "value"), or "tool_calls" if the assistant calls a tool, or leave the turn out'
        raise InputError(f"a turn of the {role} has no content", where=where, fix=fix)
    return {"role": role, "content": text, **said, **({"tool_calls": calls} if calls else {})}


def _read_content(content: Any, role: str, where: str) -> str | None:
    """Text; parts of text are joined."""
    if content is None or isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else _part_text(part) for part in parts]
    if all(isinstance(text, str) for text in texts):
        return "".join(map(str, texts))
    kinds = {str(part.get("type", "object")) if isinstance(part, Mapping) else type(part).__name__ for part in parts}
    fix = (
        "write what a tool returns as JSON text" if role == "tool" else 'give text, or [{"type": "text", "text": "…"}]'
    )
    raise InputError(
        f"the content of a turn of the {role} is no text but {', '.join(sorted(kinds))}", where=where, fix=fix
    )


def _part_text(part: Any) -> str | None:
    """The text of a part that holds nothing else."""
    whole = isinstance(part, Mapping) and not {str(key) for key in part} - _PART_FIELDS
    return part.get("text") if whole else None


def _read_calls(said: Message, value: Any, role: str, where: str) -> list[dict[str, Any]]:
    """Calls of a message, which are taken out of it: of `tool_calls`, `function_call`, or ShareGPT's value."""
    found = said.pop("tool_calls", None)
    for one in (said.pop("function_call", None), value):
        found = one if found is None else found
    calls = read_json_text(found, "tool_calls", where) if isinstance(found, str) else found
    unread = isinstance(found, str) and bool(found.strip()) and calls is None
    if not calls and value is None and not unread:
        return []
    if role != "assistant":
        raise InputError(f"a turn of the {role} calls a tool", where=where, fix="only the assistant can")
    calls = [calls] if isinstance(calls, Mapping) else calls
    if not isinstance(calls, list) or not calls or not all(isinstance(call, Mapping) for call in calls):
        fix = 'give [{"type": "function", "function": {"name": "…", "arguments": {…}}}]'
        raise InputError("the calls of a turn cannot be read", where=where, fix=fix)
    return [_read_call(call, where) for call in calls]


def _read_call(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    call = _as_function(given)
    function = call["function"]
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        fix = 'give {"type": "function", "function": {"name": "…", "arguments": {…}}}'
        raise InputError("a call names no tool", where=where, fix=fix)
    arguments = function.get("arguments")
    parsed = read_json_text(arguments, "arguments", where) if isinstance(arguments, str) else arguments or {}
    if not isinstance(parsed, Mapping):
        what = f"the arguments of {function['name']} are no JSON object: {arguments!r:.60}"
        raise InputError(what, where=where, fix='give {"name": value, …}, or the same as JSON text')
    return call | {"function": {**function, "arguments": {} if arguments is None else arguments}}


def _as_function(given: Mapping[str, Any]) -> dict[str, Any]:
    """A call or a tool with OpenAI's `function` around it."""
    if "function" in given:
        return {"type": "function", **given}
    outer = {key: given[key] for key in ("id", "type") if key in given}
    return {"type": "function", **outer, "function": {key: given[key] for key in given if key not in outer}}


def _continued(asked: list[Message], side: list[Message], where: str, column: str) -> list[Message]:
    """The conversation that a prompt and one side are together. A side that does not begin with the assistant repeats
    the prompt, or the end of it, or holds its last message."""
    if side[0]["role"] == "assistant":
        return asked + side
    repeated = next((n for n in range(len(asked), 0, -1) if side[:n] == asked[len(asked) - n :]), 0)
    if repeated or all(message["role"] == "system" for message in asked):
        return asked[: len(asked) - repeated] + side
    if asked[-1] not in side:
        fix = f"leave out {column!r} (data.columns.prompt=null), or begin both conversations with it"
        raise InputError(f"the column {column!r} is not in the conversation beside it", where=where, fix=fix)
    return side


def _refuse_scalar(value: Any, where: str, column: str) -> None:
    if not isinstance(value, str | Sequence | Mapping):
        fix = "give text, or a list of messages"
        raise InputError(f"the column {column!r} holds no text: {value!r:.80}", where=where, fix=fix)


def _from_text(side: Any, column: str, where: str) -> Any:
    """A list of messages that is given as JSON text, as the list; anything else as it is."""
    return read_json_text(side, column, where) if isinstance(side, str) and looks_like_conversation(side) else side


def _refuse_equal(chosen: Any, rejected: Any, where: str) -> None:
    if chosen == rejected:
        raise InputError("chosen and rejected are the same", where=where, fix="leave this pair out")
