"""What a chat template takes: whether it shows tools and calls, and in which form it wants them.

Templates differ. Qwen2.5's writes the arguments of a call as JSON, and would quote those that are JSON text already;
DeepSeek-V3's takes text alone, and shows a call only beside content that is null; Llama 3's shows no calls at all. Each
template is asked once, by rendering a small conversation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from squadron.core.errors import ConfigError, InputError
from squadron.data.conversations import THOUGHTS, Message

_TOOL, _KEY, _VALUE, _RETURNED = "probedtool", "probedkey", "probedvalue", "probedreturn"
_SAID = "probedtext"
_NO_CALLS = "the chat template of this model has no place for calls of tools"
_NO_PLACE = "take a model whose template shows them, or leave them out of the data"


@dataclass(frozen=True)
class TemplateForm:
    """How a template wants messages. `arguments` are the forms in which those of a call come out as they are; none if
    calls are not shown. `several` says whether all of a turn's calls are, `beside_calls` whether its content is too,
    `no_content` what stands there where there is none; `thoughts` are the fields that are read."""

    arguments: tuple[Literal["object", "text"], ...]
    several: bool
    beside_calls: bool
    no_content: str | None
    tools: bool
    parts: bool
    thoughts: tuple[str, ...]

    def fit(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> list[Message]:
        """The messages as the template wants them.

        Raises InputError, with the turn, for what the template would leave out without a word.
        """
        if tools and not self.tools:
            fix = f"{_NO_PLACE} (data.columns.tools=null)"
            raise InputError("the chat template of this model has no place for tools", where="tools", fix=fix)
        return [self._fit(message, f"turn {number}") for number, message in enumerate(messages, start=1)]

    def _fit(self, message: Mapping[str, Any], where: str) -> Message:
        fitted = dict(message)
        if calls := message.get("tool_calls"):
            if not self.arguments:
                raise InputError(_NO_CALLS, where=where, fix=_NO_PLACE)
            if len(calls) > 1 and not self.several:
                what = f"the chat template of this model shows one call a turn; here are {len(calls)}"
                raise InputError(what, where=where, fix="give each call a turn, with what the tool returned behind it")
            if (message["content"] or "").strip() and not self.beside_calls:
                what = "the chat template of this model shows no content beside a call"
                raise InputError(what, where=where, fix="leave the content out, or take another model")
            fitted["tool_calls"] = [self._fit_call(call) for call in calls]
            fitted["content"] = message["content"] or self.no_content
        if self.parts and isinstance(fitted["content"], str):
            fitted["content"] = [{"type": "text", "text": fitted["content"]}]
        thought = next((name for name in THOUGHTS if message.get(name)), None)
        if thought is not None and thought not in self.thoughts:
            if not self.thoughts:
                fix = f"write it into the content, as this model does, or leave {thought!r} out"
                raise InputError(f"the chat template of this model has no place for {thought!r}", where=where, fix=fix)
            fitted[self.thoughts[0]] = fitted.pop(thought)
        return fitted

    def _fit_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        arguments = call["function"]["arguments"]
        given = "text" if isinstance(arguments, str) else "object"
        if given not in self.arguments:
            arguments = json.loads(arguments) if given == "text" else json.dumps(arguments, ensure_ascii=False)
        return {**call, "function": {**call["function"], "arguments": arguments}}


def template_form(tokenizer: Any) -> TemplateForm:
    """How a tokenizer's chat template wants messages. Raises ConfigError if it shows no turns of user and assistant."""
    return _template_form(tokenizer, str(tokenizer.chat_template))


def render(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = (), *, answer_next: bool = False
) -> str:
    """A conversation as text, with the opening of the assistant's turn behind it if it is to answer.

    Raises InputError if the template refuses it.
    """
    try:
        return apply_template(tokenizer, messages, tools, answer_next=answer_next)
    except Exception as error:  # a template is a program of the model's own
        what = f"the chat template of this model refuses the conversation: {error or type(error).__name__}"
        last = f"turn {len(messages)} or before it"
        raise InputError(what, where=last, fix="give roles and an order of turns that this model knows") from error


def apply_template(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = (), *, answer_next: bool = False
) -> str:
    """`render`, with the template's own errors."""
    text: str = tokenizer.apply_chat_template(
        list(messages), tools=list(tools) or None, tokenize=False, add_generation_prompt=answer_next
    )
    return text


@lru_cache(maxsize=16)
def _template_form(tokenizer: Any, template: str) -> TemplateForm:
    asked = {"role": "user", "content": _SAID}
    plain = _try(tokenizer, [asked])
    parts = _SAID not in plain and _SAID in _try(tokenizer, [asked | {"content": [{"type": "text", "text": _SAID}]}])
    if _SAID not in plain and not parts:
        raise ConfigError("the chat template of this model does not show what a user says", where="model.path")
    fields = re.findall(r"""(?:\.|\[['"]|get\(['"]|['"])(\w+)['"]?""", template)
    function = {"name": _TOOL, "description": "d", "parameters": {"type": "object", "properties": {}}}
    forms: list[tuple[Literal["object", "text"], Any]] = [
        ("object", {_KEY: _VALUE}),
        ("text", json.dumps({_KEY: _VALUE})),
    ]
    no_content: str | None = ""
    kept: list[Literal["object", "text"]] = []
    for no_content in ("", None):
        kept = [name for name, arguments in forms if _shows_calls(tokenizer, asked, no_content, [arguments])]
        if kept:
            break
    shown = dict(forms)[kept[0]] if kept else {}
    return TemplateForm(
        arguments=tuple(kept),
        several=bool(kept) and _shows_calls(tokenizer, asked, no_content, [shown, shown]),
        beside_calls=bool(kept) and _shows_calls(tokenizer, asked, "probedcontent", [shown]),
        no_content=no_content,
        tools=_TOOL in _try(tokenizer, [asked], [{"type": "function", "function": function}]),
        parts=parts,
        thoughts=tuple(name for name in THOUGHTS if name in fields),
    )


def _shows_calls(tokenizer: Any, asked: Message, content: str | None, arguments: Sequence[Any]) -> bool:
    """Whether calls and content of a turn come out whole, and arguments that are text without quotes around them."""
    calls = [
        {"id": f"call0000{n}", "type": "function", "function": {"name": f"{_TOOL}{n}", "arguments": one}}
        for n, one in enumerate(arguments)
    ]
    said = {"role": "assistant", "content": content, "tool_calls": calls}
    back = [{"role": "tool", "name": f"{_TOOL}0", "tool_call_id": call["id"], "content": _RETURNED} for call in calls]
    text = _try(tokenizer, [asked, said, *back])
    quoted = any(isinstance(one, str) and (one not in text or f'"{one}"' in text) for one in arguments)
    wanted = (_KEY, _VALUE, _RETURNED, content or "", *(f"{_TOOL}{n}" for n in range(len(calls))))
    return all(word in text for word in wanted) and "None" not in text and not quoted


def _try(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> str:
    try:
        return render(tokenizer, messages, tools)
    except InputError:
        return ""
