"""Calls of tools in what a model writes: each chat template has its own form of them.

The forms are response templates of transformers, whose parser reads answers by them; most are TRL's, which knows them
by the exact text of the template they belong to. Here a form belongs to every template whose calls it reads: each
template is asked once, by rendering a call and reading it back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from squadron.core.errors import InputError
from squadron.train.text.endings import special_tokens, stop_tokens
from squadron.train.text.templates import render, template_form

_CALL = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}
_LLAMA = {
    "open_pattern": r'(?:<\|python_tag\|>)?\{\s*(?:"type":\s*"function",\s*)?"name":\s*"(?P<name>[^"]+)",\s*'
    r'"parameters":\s*',
    "close_pattern": r"\}\s*$",
    "repeats": True,
    "content": "json",
    "transform": _CALL,
}
_GPT_OSS = {
    "open_pattern": r"(?:<\|channel\|>commentary)?\s*to=functions\.(?P<name>[\w-]+)\s*(?:<\|channel\|>commentary)?"
    r"\s*(?:<\|constrain\|>)?json<\|message\|>",
    "close_pattern": r"<\|call\|>\s*",
    "repeats": True,
    "content": "json",
    "transform": _CALL,
}
_MISTRAL_LIST = {
    "open": "[TOOL_CALLS]",
    "content": "json",
    "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}},
    "transform_each": True,
}
_MISTRAL = {
    "open_pattern": r"\[TOOL_CALLS\](?P<name>[\w-]+)(?:\[CALL_ID\]\w+)?\[ARGS\]",
    "close_pattern": r"(?=\[TOOL_CALLS\])",
    "repeats": True,
    "content": "json",
    "transform": _CALL,
}
_DEEPSEEK_3, _DEEPSEEK_31 = (
    {
        "open_pattern": rf"(?:<｜tool▁calls▁begin｜>\s*)?<｜tool▁call▁begin｜>{opening}",
        "close_pattern": rf"{closing}\s*<｜tool▁call▁end｜>\s*(?:<｜tool▁calls▁end｜>)?",
        "repeats": True,
        "content": "json",
        "transform": _CALL,
    }
    for opening, closing in (
        (r"function<｜tool▁sep｜>(?P<name>[\w-]+)\s*```json\s*", r"\s*```"),
        (r"(?P<name>[\w-]+)<｜tool▁sep｜>", ""),
    )
)
_OWN = (_LLAMA, _GPT_OSS, _MISTRAL_LIST, _MISTRAL, _DEEPSEEK_3, _DEEPSEEK_31)
_TRL = ("qwen3_template", "qwen3_5_template", "glm4moe_template", "gemma4_template", "lfm2_2_5_template")
_THINK, _THOUGHT = "<think>", "</think>"
_NAME, _ARGUMENTS = "probedcall", {"probedkey": "probedvalue"}


@dataclass(frozen=True)
class Call:
    """A function that a model calls, and with what."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class CallForm:
    """How a template writes calls. `around` is what stands before the name of a function, between it and its arguments,
    and behind those, where they are written as JSON; None where they are not."""

    template: Any
    around: tuple[str, str, str] | None


def call_form(tokenizer: Any) -> CallForm:
    """How a tokenizer's chat template writes calls.

    Raises InputError for one that has no place for tools or calls, or whose form of calls is not known.
    """
    if not template_form(tokenizer).tools:
        raise InputError("the chat template of this model has no place for tools", where="tools")
    return known_form(tokenizer)


def known_form(tokenizer: Any) -> CallForm:
    """`call_form`, also of a template that shows calls and no tools."""
    if not template_form(tokenizer).arguments:
        raise InputError("the chat template of this model has no place for calls of tools", where="tools")
    found = _call_form(tokenizer, str(tokenizer.chat_template))
    if found is None:
        raise InputError("how this model writes calls of tools is not known here", where="tools")
    return found


class CallReader:
    """Reads an answer piece by piece: text that is no part of a call at once, calls at its end.

    `tools` are those that were offered, in OpenAI's form; by their schemas arguments are typed that a template writes
    without quotes. An answer with a call that cannot be read, or of a tool that is not there, is text. Calls behind the
    first `most` are left out: those that the template could not show in one turn, too.
    """

    def __init__(
        self,
        tokenizer: Any,
        form: CallForm,
        tools: Sequence[Mapping[str, Any]],
        prompt: str = "",
        most: int | None = None,
    ) -> None:
        from transformers.utils.chat_parsing import ResponseParser

        self._most = most if template_form(tokenizer).several else 1
        self._names = {tool["function"]["name"] for tool in tools}
        begun = _THINK if prompt.rstrip().endswith(_THINK) else ""
        self._parser: Any = ResponseParser(form.template, prefix=begun, tools=[dict(tool) for tool in tools])
        self._hidden = _special_pattern(tokenizer, len(tokenizer))
        self._text, self._given = "", 0
        self._called, self._failed = False, False
        self._beside: list[str] = []  # what is said behind the first call

    def feed(self, text: str) -> str:
        """Take what the model wrote next; what of it is certain to be text."""
        self._text += text
        return self._advance(lambda: self._parser.feed(text))

    def finish(self) -> tuple[str, list[Call]]:
        """The rest of the text, and the calls."""
        message: dict[str, Any] = {}

        def end() -> Any:
            nonlocal message
            message, events = self._parser.finalize()
            return events

        text = self._advance(end)
        calls = [] if self._failed else _read_calls(message.get("tool_calls") or [], self._names)
        if not calls:
            return text + self._take(len(self._text)), []
        return text + self._shown("".join(self._beside)), calls[: self._most]

    def _advance(self, read: Any) -> str:
        if self._failed:
            return ""
        try:
            events = read()
        except Exception:  # a model may write anything, and the parser say anything of it
            self._failed = True
            return ""
        upto = self._given
        for event in events:
            field, kind = event["field"], event["type"]
            self._called |= field == "tool_calls"
            if self._called:
                if kind == "region_chunk" and field != "tool_calls":
                    self._beside.append(event["text"])
            elif kind == "region_chunk":
                upto += len(event["text"])
            elif field == "thought":
                mark = _THINK if kind == "region_open" else _THOUGHT
                upto += len(mark) if self._text.startswith(mark, upto) else 0
        return self._take(upto)

    def _take(self, upto: int) -> str:
        start, self._given = self._given, upto
        return self._shown(self._text[start:upto])

    def _shown(self, text: str) -> str:
        return self._hidden.sub("", text)


def _read_calls(found: Sequence[Any], names: set[str]) -> list[Call]:
    """The calls that the parser found, if all of them are some."""
    calls = []
    for one in found:
        function = one.get("function") if isinstance(one, dict) else None
        function = function if isinstance(function, dict) else {}
        name, arguments = function.get("name"), function.get("arguments")
        if name not in names or not isinstance(arguments, dict | None):
            return []
        calls.append(Call(str(name), arguments or {}))
    return calls


@lru_cache(maxsize=16)
def _call_form(tokenizer: Any, template: str) -> CallForm | None:
    own = getattr(tokenizer, "response_template", None)
    form = template_form(tokenizer)
    asked = {"role": "user", "content": "a"}
    call = {"id": "call00000", "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
    said = form.fit([asked, {"role": "assistant", "content": None, "tool_calls": [call]}])
    properties = {name: {"type": "string"} for name in _ARGUMENTS}
    parameters = {"type": "object", "properties": properties}
    tools = [{"type": "function", "function": {"name": _NAME, "description": "d", "parameters": parameters}}]
    context, whole = render(tokenizer, form.fit([asked]), answer_next=True), render(tokenizer, said)
    # Where the opening holds more than what is rendered with an answer (DeepSeek's <think>), without it.
    asked_only = context if whole.startswith(context) else render(tokenizer, said[:1])
    written = whole[len(asked_only) :]
    for one in _templates(own):
        candidate = CallForm(one, None)
        reader = CallReader(tokenizer, candidate, tools)
        reader.feed(_without_end(tokenizer, written))
        if reader.finish()[1] == [Call(_NAME, _ARGUMENTS)]:
            return CallForm(one, _around(tokenizer, one, written))
    return None


def _templates(own: Any) -> list[Any]:
    """The forms that are known, the tokenizer's own first. Only calls and thoughts are looked for: all else is text."""
    import trl.chat_template_utils as known
    from transformers.utils.chat_parsing.response_templates import load_response_template

    fields = [(own or {}).get("fields", {}).get("tool_calls"), *_OWN]
    fields[1:1] = [getattr(known, name)["fields"]["tool_calls"] for name in _TRL]
    text = {"content": "text"}
    thought = {"open": _THINK, "close": _THOUGHT, "content": "text"}
    return [
        load_response_template(
            {"start_anchor": "\0", "fields": {"tool_calls": calls, "thought": thought, "content": text}}
        )
        for calls in fields
        if calls is not None
    ]


def _around(tokenizer: Any, template: Any, written: str) -> tuple[str, str, str] | None:
    arguments = json.dumps(_ARGUMENTS)
    opening = template.fields["tool_calls"].open_re.search(written)
    name, place = written.find(_NAME, opening.start()), written.find(arguments, opening.start())
    if not 0 <= name < place:
        return None
    behind = written[place + len(arguments) :]
    return written[opening.start() : name], written[name + len(_NAME) : place], _without_end(tokenizer, behind)


def _without_end(tokenizer: Any, text: str) -> str:
    """The text without the end of the turn, which an answer is given without."""
    for token in {tokenizer.eos_token, tokenizer.convert_ids_to_tokens(stop_tokens(tokenizer)[-1])}:
        text = text.rstrip().removesuffix(token)
    return text.rstrip()


# Tokens that are added later are another key.
@lru_cache(maxsize=16)
def _special_pattern(tokenizer: Any, size: int) -> re.Pattern[str]:
    texts = tokenizer.convert_ids_to_tokens(sorted(special_tokens(tokenizer)))
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")
