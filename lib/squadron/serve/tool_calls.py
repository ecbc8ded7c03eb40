"""Tools of a request: what holds an answer to them, and what reads calls from it."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from squadron.core.errors import InputError, SquadronError
from squadron.serve import openai as api
from squadron.serve.openai_requests import ChatCompletionRequest
from squadron.serve.prompts import as_tools

if TYPE_CHECKING:
    from squadron.llm.decoding.grammar import Grammar, Grammars
    from squadron.train.text.calls import Call, CallReader


class Toolbox:
    """Tools for one model, whose answers stop at one of `ends`."""

    def __init__(self, tokenizer: Any, grammars: Grammars, ends: Collection[int]) -> None:
        from squadron.train.text.calls import call_form

        self._tokenizer, self._grammars, self._ends = tokenizer, grammars, ends
        if getattr(tokenizer, "chat_template", None):
            with contextlib.suppress(SquadronError):  # now, and not while the first request for tools waits
                call_form(tokenizer)

    def reader(self, request: ChatCompletionRequest, prompt: str) -> CallReader | None:
        """What reads calls from an answer to this prompt; None if nothing is offered.

        Raises InputError if the model's template has no place for tools.
        """
        from squadron.train.text.calls import CallReader, call_form

        if not request.offered:
            return None
        one_call = not request.parallel_tool_calls
        return CallReader(
            self._tokenizer, call_form(self._tokenizer), as_tools(request), prompt, most=1 if one_call else None
        )

    def grammar(self, request: ChatCompletionRequest) -> Grammar | None:
        """What holds an answer to a call where one is required, and to the schemas of functions that are strict; None
        if it is free.

        Raises InputError if the model writes calls in a form that cannot be held to, or a schema cannot be followed.
        """
        from squadron.llm.decoding.call_grammar import call_grammar
        from squadron.train.text.calls import call_form

        required = request.required
        strict = any(function.strict for function in request.offered)
        if not required and not strict:
            return None
        around = call_form(self._tokenizer).around
        if around is None:
            where = "tool_choice" if required else "tools"
            what = "this model does not write the arguments of calls as JSON, so that it cannot be held to a schema"
            raise InputError(what, where=where, fix="leave tool_choice at auto, and strict out")
        schemas = {
            function.name: function.parameters or {"type": "object", "properties": {}, "additionalProperties": False}
            if required or function.strict
            else None
            for function in required or request.offered
        }
        text = call_grammar(self._tokenizer, around, schemas, self._ends, required=bool(required))
        return self._grammars.lark(text, "tools")


def tool_calls(calls: list[Call]) -> list[api.ToolCall]:
    """Calls in OpenAI's form, under names that no others have."""
    return [
        api.ToolCall(
            id=f"call_{secrets.token_hex(12)}",
            function=api.CalledFunction(name=call.name, arguments=json.dumps(call.arguments, ensure_ascii=False)),
        )
        for call in calls
    ]
