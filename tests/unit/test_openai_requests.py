"""Requests of OpenAI's interface: nulls, fields that change nothing, fields that are not offered, and histories."""

from __future__ import annotations

from typing import Any, get_type_hints

import openai.types.chat as chat_types
import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from pydantic import BaseModel, ValidationError

from squadron.serve.openai_requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest

SAY = [{"role": "user", "content": "a"}]
ASKED: dict[type[BaseModel], tuple[Any, dict[str, Any]]] = {
    ChatCompletionRequest: (chat_create_params.CompletionCreateParamsNonStreaming, {"messages": SAY}),
    CompletionRequest: (completion_create_params.CompletionCreateParamsNonStreaming, {"prompt": "a"}),
    EmbeddingRequest: (embedding_create_params.EmbeddingCreateParams, {"input": "a"}),
}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("one", "two")]
CALL = {"id": "call_1", "type": "function", "function": {"name": "one", "arguments": '{"a": 1}'}}


def chat(**settings: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "m", "messages": SAY, **settings})


@pytest.mark.parametrize("kind", ASKED, ids=lambda kind: kind.__name__)
def test_every_field_of_the_reference_is_known_and_a_null_is_as_if_it_were_left_out(kind: type[BaseModel]) -> None:
    reference, least = ASKED[kind]
    names = set(get_type_hints(reference)) - {"model", *least}
    assert names - {"stream"} <= kind.model_fields.keys()
    plain = kind.model_validate({"model": "m", **least})
    nulls = dict.fromkeys(kind.model_fields.keys() - {"model", *least})
    assert kind.model_validate({"model": "m", **least, **nulls}) == plain


def test_every_answer_of_the_reference_is_a_message() -> None:
    answer = chat_types.ChatCompletionMessage(role="assistant", content="b", annotations=[])
    for given in (
        answer.model_dump(),
        answer.model_dump(exclude_none=True),
        {**answer.model_dump(), "reasoning": None},
    ):
        assert chat(messages=[*SAY, given, *SAY]).messages[1].text == "b"
    refused = chat_types.ChatCompletionMessage(role="assistant", refusal="I won't").model_dump()
    assert chat(messages=[*SAY, refused, *SAY]).messages[1].text == "I won't"
    calling = {**answer.model_dump(), "content": None, "tool_calls": [{**CALL, "index": 0}], "reasoning_content": "so"}
    returned = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "1"}]}
    assert chat(messages=[*SAY, calling, returned]).messages[1].tool_calls[0].id == "call_1"


@pytest.mark.parametrize(
    "settings",
    [
        {"tools": []},
        {"tools": None, "tool_choice": None, "parallel_tool_calls": None},
        {"tool_choice": "none"},
        {"stop": ""},
        {"stop": []},
        {"stream_options": {"include_obfuscation": False, "include_usage": None}},
        {"metadata": {"a": "b"}, "store": True, "user": "me", "service_tier": "flex", "safety_identifier": "x"},
        {"prediction": {"type": "content", "content": "a"}, "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
        {"modalities": ["text"], "verbosity": "medium", "functions": [], "function_call": "none"},
        {"response_format": {"type": "text"}},
    ],
)
def test_what_changes_no_answer_is_taken(settings: dict[str, Any]) -> None:
    request = chat(**settings)
    assert request.stops == () and request.offered == [] and request.response_format.type == "text"


def test_parts_are_joined() -> None:
    cached = {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}
    parts = [{"type": "text", "text": "a"}, cached]
    for role in ("system", "developer", "user", "assistant"):
        assert chat(messages=[{"role": role, "content": parts, "name": "me"}, *SAY]).messages[0].text == "ab"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": "0.5"}, "temperature"),
        ({"n": True}, "n"),
        ({"stream": 1}, "stream"),
        ({"n": 17}, "n"),
        ({"audio": {"voice": "a", "format": "mp3"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"top_k": 5}, "top_k"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "three"}}}, "tool_choice"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools"),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}, "messages"),
        ({"messages": [{"role": "function", "name": "f", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "a", "audio": {"id": "a"}}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [CALL]}]}, "messages"),
        ({"messages": [*SAY, {"role": "assistant", "tool_calls": [CALL]}]}, "messages"),
        ({"messages": [*SAY, {"role": "assistant", "tool_calls": [CALL]}, *SAY]}, "messages.2"),
        ({"messages": [*SAY, {"role": "tool", "tool_call_id": "call_1", "content": "a"}]}, "messages.1"),
        ({"messages": [*SAY, {"role": "tool", "content": "a"}]}, "messages"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "["}}]}
                ]
            },
            "messages",
        ),
    ],
)
def test_what_would_change_an_answer_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        chat(**settings)
    first = caught.value.errors()[0]
    param = first.get("ctx", {}).get("param") or ".".join(map(str, first["loc"]))
    assert f"{param}.".startswith(f"{named}.")


def test_which_tools_are_offered_and_required() -> None:
    def chosen(choice: Any) -> tuple[list[str], list[str]]:
        request = chat(tools=TOOLS, tool_choice=choice)
        return [one.name for one in request.offered], [one.name for one in request.required]

    named = {"type": "function", "function": {"name": "two"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    assert chosen("auto") == chosen(None) == (["one", "two"], [])
    assert chosen("none") == ([], [])
    assert chosen("required") == (["one", "two"], ["one", "two"])
    assert chosen(named) == (["one", "two"], ["two"])
    assert chosen(allowed) == (["two"], ["two"])


@pytest.mark.parametrize(
    ("given", "read"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2, 3], [[1, 2, 3]]), ([[1, 2], [3]], [[1, 2], [3]])],
)
def test_texts_and_ids_of_tokens(given: Any, read: Any) -> None:
    assert CompletionRequest.model_validate({"model": "m", "prompt": given}).prompts == read
    assert EmbeddingRequest.model_validate({"model": "m", "input": given}).inputs == read


@pytest.mark.parametrize("given", [[], [[]], [1, "a"], [[1], "a"], [True], [1.5], [-1], 7, None])
def test_what_is_neither_text_nor_tokens(given: Any) -> None:
    for kind, name in ((CompletionRequest, "prompt"), (EmbeddingRequest, "input")):
        with pytest.raises(ValidationError):
            kind.model_validate({"model": "m", name: given})


@pytest.mark.parametrize(
    "settings", [{"best_of": 2}, {"suffix": "x"}, {"echo": True, "stream": True}, {"logprobs": 21}]
)
def test_what_completions_do_not_offer(settings: dict[str, Any]) -> None:
    assert CompletionRequest.model_validate({"model": "m", "prompt": "a", "best_of": 2, "n": 2, "suffix": ""})
    with pytest.raises(ValidationError):
        CompletionRequest.model_validate({"model": "m", "prompt": "a", **settings})
