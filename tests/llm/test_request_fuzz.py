"""Requests that nobody would write, to a chat model behind OpenAI's interface: each is answered, or refused in OpenAI's
form, and what is answered was read as it was written.

SQUADRON_FUZZ=20000 tries as many.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from squadron.llm.settings import HfModel
from squadron.serve.chat import ChatServer, chat_service
from squadron.serve.gateway import make_app
from squadron.serve.openai_requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest
from squadron.serve.spec import ServeSpec
from squadron.train.models.families import make_family_model
from tests.llm.here import Here

EXAMPLES = int(os.environ.get("SQUADRON_FUZZ", "150"))
MANY: dict[str, Any] = {
    "suppress_health_check": list(HealthCheck),
    "deadline": None,
    "derandomize": "SQUADRON_FUZZ" not in os.environ,
}
KINDS = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
}
CHANGE_NOTHING = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prediction", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "include_obfuscation", "cache_control", "annotations",
    "prompt_cache_breakpoint", "index",
}  # fmt: skip
"""What OpenAI's reference has that changes no answer, or only what it costs."""
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}
PARTS = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "refusal", "refusal": "b"}]
STARTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "say 1"}], "max_tokens": 3}),
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "developer", "content": "b", "name": "me"},
                {"role": "user", "content": PARTS[:1]},
                {"role": "assistant", "content": PARTS, "refusal": None, "annotations": [], "audio": None},
                {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "so"},
                {"role": "tool", "tool_call_id": "a", "content": "1"},
            ],
            "tools": [TOOL], "tool_choice": "auto", "max_completion_tokens": 4, "parallel_tool_calls": False,
        },
    ),
    (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "n": 2, "logprobs": True,
            "top_logprobs": 2,
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}, "stop": ["q"],
        },
    ),
    (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "x"}], "tools": [TOOL], "max_tokens": 30,
            "tool_choice": {"type": "function", "function": {"name": "f"}}, "stream": True,
            "stream_options": {"include_usage": True, "include_obfuscation": False},
        },
    ),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 2, "echo": True, "best_of": 1, "logit_bias": {"3": 5}}),
    ("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 2, "logprobs": 1, "suffix": "", "stream": True}),
    ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "base64"}),
    ("/v1/embeddings", {"input": [[1, 2], [3]], "dimensions": None, "encoding_format": None}),
]  # fmt: skip
NAMES = sorted(
    {name for kind in KINDS.values() for name in kind.model_fields} | CHANGE_NOTHING | {"top_k", "", "schema"}
)
DEEP: Any = 0
for _ in range(90):
    DEEP = {"type": "array", "items": DEEP} if isinstance(DEEP, dict) else {"type": "object"}
ODD = [
    None, True, False, 0, -1, 1, 2, 17, 2**31, 2**63, 10**30, 0.0, -0.5, 1.5, 1e300,
    "", " ", "a", "none", "required", "auto", "text", "base64", "json_object", "\x00", "\ud800", "x\udfff", "é😀",
    "<|im_end|>", "<tool_call>", "{{ 1 }}", "a" * 3000,
    [], [None], [[]], [1], ["a"], [[1]], {}, {"": 0}, {"type": "text"}, {"enum": []}, {"pattern": "("},
    {"type": "object", "properties": {"x": {"$ref": "#"}}}, {"$ref": "#/nowhere"}, {"allOf": [SCHEMA] * 3}, DEEP,
    {"type": "string", "pattern": "^(a+)+$", "minLength": 10**9},
    {"type": "json_schema", "json_schema": {"schema": DEEP}}, CALL, TOOL, SCHEMA, PARTS,
]  # fmt: skip
odd = st.sampled_from(ODD) | st.text(max_size=4) | st.integers() | st.floats()


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Any]:
    """A path, and a body with some values replaced, left out or added anywhere in it."""
    path, start = draw(st.sampled_from(STARTS))
    body: dict[str, Any] = {"model": "tiny", **copy.deepcopy(start)}
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(list(containers(body))))
        if isinstance(place, dict):
            key: Any = draw(st.sampled_from(sorted(place) or ["a"]) | st.sampled_from(NAMES))
        else:
            key = draw(st.integers(0, len(place)))
        match draw(st.sampled_from(["set", "set", "set", "drop", "repeat"])):
            case "set" if isinstance(place, dict) or key < len(place):
                place[key] = copy.deepcopy(draw(odd))
            case "drop" if isinstance(place, dict):
                place.pop(key, None)
            case _ if isinstance(place, list):
                place.insert(key, copy.deepcopy(draw(st.sampled_from(place) if place else odd)))
            case _:
                pass
    return path, body


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from containers(part)


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Sends a body to a path of a server of a small model; the answer."""
    path = make_family_model(tmp_path_factory.mktemp("model") / "tiny", "qwen2.5", context=512)
    server, loop = ChatServer(HfModel(name="tiny", path=path), max_rows=4), asyncio.new_event_loop()
    app = make_app([chat_service("tiny", path)], Here(server), ServeSpec(max_tokens=40, timeout_s=300), [])
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), base_url="http://127.0.0.1:8000"
    )

    def send(path: str, body: bytes) -> httpx.Response:
        sent = client.post(path, content=body, headers={"Content-Type": "application/json"})
        return loop.run_until_complete(sent)

    yield send
    server.close()
    loop.close()


def check_form(answer: httpx.Response) -> None:
    """An answer that is whole, or an error as OpenAI's clients read it."""
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code == 200:
        assert '{"error"' not in answer.text, answer.text
        return
    (error,) = answer.json().values()
    assert list(answer.json()) == ["error"] and set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and error["message"] and error["code"]


@given(requests())
@settings(max_examples=EXAMPLES, **MANY)
def test_a_request_is_read_as_it_was_written_or_refused(post: Any, request: tuple[str, Any]) -> None:
    path, body = request
    answer = post(path, json.dumps(body).encode())
    event(f"{answer.status_code}")
    check_form(answer)
    if answer.status_code == 200:
        read = KINDS[path].model_validate(body).model_dump(by_alias=True)
        assert_read(body, read, path)


def assert_read(given: Any, read: Any, place: str) -> None:
    """That everything that was given was read, but what is known to change nothing."""
    if isinstance(given, dict):
        for name, value in given.items():
            if (
                value is not None
                and name not in CHANGE_NOTHING
                and not (value in ("", [], {}) and read.get(name) is None)
            ):
                assert name in read, f"{place}.{name}"
                assert_read(value, read[name], f"{place}.{name}")
    elif isinstance(given, list):
        assert len(given) == len(read), place
        for number, pair in enumerate(zip(given, read, strict=True)):
            assert_read(*pair, f"{place}.{number}")
    else:
        assert type(given) is type(read) or {type(given), type(read)} == {int, float}, place
        assert given == read, place


@given(st.data())
@settings(max_examples=EXAMPLES // 4, **MANY)
def test_bodies_that_are_no_json_are_refused(post: Any, data: st.DataObject) -> None:
    path, start = data.draw(st.sampled_from(STARTS))
    body = json.dumps({"model": "tiny", **start}).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body)))
        put = data.draw(
            st.sampled_from([b"", b"\x00", b"\xff", b"\xc3", b'"', b"}", b"\\ud83d", b",", b"NaN", b"1e999", b"9" * 9])
        )
        body = body[:place] + put + body[place + data.draw(st.integers(0, 3)) :]
    check_form(post(path, body))
