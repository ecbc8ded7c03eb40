"""Conversations and texts as the tokens that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from squadron.core.errors import InputError
from squadron.serve.openai_requests import ChatCompletionRequest, Message

_ROLES = {"developer": "system"}


class TooLong(InputError):
    """A prompt that the model cannot hold."""

    code = "context_length_exceeded"


class Prompts:
    """What the model `name` reads, with its answer within a context of so many tokens."""

    def __init__(self, name: str, tokenizer: Any, context: int, vocabulary: int) -> None:
        self._name, self._tokenizer, self._context, self._vocabulary = name, tokenizer, context, vocabulary
        self._longest_token = max(map(len, tokenizer.get_vocab()))

    def text(self, request: ChatCompletionRequest) -> str:
        """A conversation as text, by the model's own template. Raises InputError if the model takes no such one, or it
        cannot fit."""
        from squadron.train.models.errors import check_chat_template
        from squadron.train.text.conversations import prompt_text

        check_chat_template(self._tokenizer, "", self._name, InputError, fix="send its prompt to /v1/completions")
        tools = as_tools(request)
        messages = _as_dicts(request.messages)
        self._check_size(sum(len(str(message["content"])) for message in messages))
        if tools or any("tool_calls" in message or "reasoning_content" in message for message in messages):
            messages = self._fit(messages, tools)
        try:
            return prompt_text(self._tokenizer, messages, tools)
        except Exception as error:  # a template is the model's own program, and says in its own words what it refuses
            what = f"the chat template of {self._name} refuses this conversation: {error}"
            raise InputError(what, where="messages") from None

    def encode(self, prompt: str | Sequence[int], where: str = "") -> list[int]:
        """The tokens of a text, or these tokens. Raises InputError if there are none, one is not the model's, or they
        do not fit."""
        from squadron.train.text.conversations import token_ids

        if isinstance(prompt, str):
            self._check_size(len(prompt))
            prompt = token_ids(self._tokenizer, prompt)
        if not prompt:
            raise InputError("an empty text", where=where, fix="send at least a token")
        if (largest := max(prompt)) >= self._vocabulary:
            raise InputError(f"{self._name} has no token {largest}", where=where)
        return self._fitting(list(prompt))

    def _fit(self, messages: list[dict[str, Any]], tools: Sequence[Any]) -> list[dict[str, Any]]:
        """Messages with calls, as the template wants them. What the assistant thought, and what it said beside a call,
        is left out where the template has no place for it: clients give back whole answers."""
        from squadron.train.text.templates import template_form

        form = template_form(self._tokenizer)
        for message in messages:
            if not form.thoughts:
                message.pop("reasoning_content", None)
            if "tool_calls" in message and not form.beside_calls:
                message["content"] = ""
        try:
            return form.fit(messages, tools)
        except InputError as error:
            where = "tools" if error.where == "tools" else "messages"
            raise InputError(error.what, where=where, fix="ask without tools, or another model") from None

    def _check_size(self, characters: int) -> None:
        """Refuse what cannot fit, before time is spent on reading it."""
        if characters > self._context * self._longest_token:
            raise TooLong(
                f"{characters:,} characters are more than the {self._context:,} tokens that {self._name} holds"
            )

    def _fitting(self, ids: list[int]) -> list[int]:
        if len(ids) >= self._context:
            raise TooLong(f"the prompt has {len(ids):,} tokens; {self._name} holds {self._context:,} with the answer")
        return ids


def as_tools(request: ChatCompletionRequest) -> list[dict[str, Any]]:
    """What is offered, as templates read it. Whether a schema is to be kept strictly is no part of that."""
    empty = {"type": "object", "properties": {}}
    return [
        {
            "type": "function",
            "function": {
                "name": function.name,
                "description": function.description or "",
                "parameters": function.parameters or empty,
            },
        }
        for function in request.offered
    ]


def _as_dicts(asked: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates read them. Calls are numbered anew: Mistral's templates take ids of nine letters alone."""
    ids: dict[str, str] = {}
    called: dict[str, str] = {}
    messages = []
    for one in asked:
        message: dict[str, Any] = {"role": _ROLES.get(one.role, one.role), "content": one.text}
        if one.tool_calls:
            calls = [(call.id, call.function) for call in one.tool_calls]
            ids |= {call: f"call{len(ids) + number:05}" for number, (call, _) in enumerate(calls)}
            called |= {call: function.name for call, function in calls}
            message["tool_calls"] = [
                {
                    "id": ids[call],
                    "type": "function",
                    "function": {"name": function.name, "arguments": function.arguments.strip() or "{}"},
                }
                for call, function in calls
            ]
        if one.tool_call_id is not None:
            message |= {"tool_call_id": ids[one.tool_call_id], "name": called[one.tool_call_id]}
        if thought := one.reasoning_content or one.reasoning:
            message["reasoning_content"] = thought
        messages.append(message)
    return messages
