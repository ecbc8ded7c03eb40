"""A chat model behind OpenAI's interface: the official client, unmodified, and answers that depend on nothing but what
was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import numpy as np
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as conformance

from squadron.llm.backends.hf import HfChat
from squadron.llm.chat import ChatRequest, Sampling
from squadron.llm.settings import HfModel
from squadron.serve.auth_limits import read_key
from squadron.serve.chat import ChatServer, chat_service
from squadron.serve.gateway import make_app
from squadron.serve.service import Context
from squadron.serve.spec import KeyLimits, ServeSpec
from tests.llm.here import Here
from tests.llm.tiny import store_tiny_chat

WORDS = [f"say {number} words, please" + " now" * (number % 7) for number in range(9)]
KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store_tiny_chat(tmp_path_factory.mktemp("models") / "chat", WORDS * 4)


@pytest.fixture(scope="module")
def server(path: str) -> Iterator[ChatServer]:
    server = ChatServer(HfModel(name="tiny", path=path), max_rows=8)
    yield server
    server.close()


@pytest.fixture
def app(server: ChatServer, path: str) -> Any:
    return make_app([chat_service("tiny", path)], Here(server), ServeSpec(max_tokens=80), [read_key(KEY)])


def client(app: Any, key: str = KEY) -> openai.AsyncOpenAI:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return openai.AsyncOpenAI(
        api_key=key, base_url="http://test/v1", max_retries=0, http_client=httpx.AsyncClient(transport=transport)
    )


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def chat(app: Any, text: str = WORDS[0], **settings: Any) -> Any:
    asked = {"model": "tiny", "messages": say(text), "temperature": 0, "max_tokens": 20, **settings}
    return asyncio.run(client(app).chat.completions.create(**asked))


def test_answers_are_those_of_one_conversation_at_a_time(app: Any, path: str) -> None:
    """Greedy and drawn answers, of conversations that join and leave a batch at different times."""
    lengths = [3, 20, 7, 1, 15, 9, 30, 2, 11, 5, 17, 4]
    drawn = [0.0 if number % 2 else 0.9 for number in range(len(lengths))]

    async def ask(model: openai.AsyncOpenAI, number: int) -> Any:
        await asyncio.sleep(0.004 * number)
        return await model.chat.completions.create(
            model="tiny", messages=say(WORDS[number % 9]), max_tokens=lengths[number], temperature=drawn[number],
            top_p=0.9, seed=number,
        )  # fmt: skip

    async def all_of_them() -> list[Any]:
        model = client(app)
        return await asyncio.gather(*(ask(model, number) for number in range(len(lengths))))

    answers = asyncio.run(all_of_them())
    with HfChat(HfModel(name="tiny", path=path, batch_size=1)) as alone:
        for number, answer in enumerate(answers):
            sampling = Sampling(max_tokens=lengths[number], temperature=drawn[number], top_p=0.9, seed=number)
            request = ChatRequest(str(number), tuple(say(WORDS[number % 9])), sampling)
            (expected,) = alone.chat([request])
            assert answer.choices[0].message.content == expected.text
            assert answer.choices[0].finish_reason == expected.finish_reason
            assert answer.usage.completion_tokens == expected.completion_tokens
            assert answer.usage.prompt_tokens == expected.prompt_tokens


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_stream_is_the_answer_in_pieces(app: Any, temperature: float) -> None:
    async def stream() -> tuple[str, list[Any]]:
        chunks = await client(app).chat.completions.create(
            model="tiny", messages=say(WORDS[1]), max_tokens=30, temperature=temperature, seed=5, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        seen = [chunk async for chunk in chunks]
        return "".join(chunk.choices[0].delta.content or "" for chunk in seen if chunk.choices), seen

    text, seen = asyncio.run(stream())
    whole = chat(app, WORDS[1], max_tokens=30, temperature=temperature, seed=5)
    assert text == whole.choices[0].message.content
    assert seen[0].choices[0].delta.role == "assistant" and len({chunk.id for chunk in seen}) == 1
    assert [one.choices[0].finish_reason for one in seen if one.choices][-1] == whole.choices[0].finish_reason
    assert seen[-1].usage == whole.usage


def test_another_replica_goes_on_where_one_was_lost(server: ChatServer) -> None:
    from squadron.serve.openai_requests import ChatCompletionRequest

    request = ChatCompletionRequest(model="tiny", messages=say(WORDS[2]), max_tokens=30, temperature=1, stream=True)

    async def text(skip: int) -> str:
        parts = server.stream_chat(request, Context("id", 0, seed=7, skip=skip))
        several = [events async for events in parts]
        assert all(several), "the gateway takes a part for one that says something"
        chunks = [json.loads(event.data) for events in several for event in events]
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)

    whole = asyncio.run(text(0))
    assert len(whole) > 5
    assert [asyncio.run(text(skip)) for skip in (1, 4, len(whole))] == [whole[1:], whole[4:], ""]


def test_a_stop_ends_an_answer_and_is_no_part_of_it_in_a_stream_either(app: Any) -> None:
    whole = chat(app, WORDS[3], temperature=1, seed=1, max_tokens=40).choices[0].message.content
    stop = whole[8:11]
    expected = whole[: whole.find(stop)]
    cut = chat(app, WORDS[3], temperature=1, seed=1, max_tokens=40, stop=[stop, "never said"]).choices[0]
    assert cut.message.content == expected and cut.finish_reason == "stop"

    async def stream() -> str:
        chunks = await client(app).chat.completions.create(
            model="tiny", messages=say(WORDS[3]), max_tokens=40, temperature=1, seed=1, stop=stop, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    assert asyncio.run(stream()) == expected


def test_logprobs_are_those_of_the_model(app: Any, path: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    answer = chat(app, WORDS[4], logprobs=True, top_logprobs=3).choices[0]
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    ids = tokenizer.apply_chat_template(say(WORDS[4]), add_generation_prompt=True, return_tensors="pt")["input_ids"]
    for told in answer.logprobs.content[:5]:
        with torch.no_grad():
            logp = model(input_ids=ids).logits[0, -1].log_softmax(-1)
        top = logp.topk(3)
        assert [one.logprob for one in told.top_logprobs] == pytest.approx(top.values.tolist(), abs=1e-4)
        assert told.logprob == pytest.approx(top.values[0].item(), abs=1e-4)
        ids = torch.cat([ids, top.indices[None, :1]], dim=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"presence_penalty": 1.5},
        {"frequency_penalty": 0.7, "presence_penalty": -0.3},
        {"logit_bias": {"40": 5, "41": 4.5}, "frequency_penalty": 2},
    ],
)
def test_penalties_and_biases_change_logits_as_openai_says(app: Any, path: str, settings: Any) -> None:
    """Against a loop that computes every token from the whole text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    ids = tokenizer.apply_chat_template(say(WORDS[3]), add_generation_prompt=True, return_tensors="pt")["input_ids"]
    said: list[int] = []
    for _ in range(12):
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1]
        for token in range(len(logits)):
            times = said.count(token)
            logits[token] += settings.get("logit_bias", {}).get(str(token), 0)
            logits[token] -= times * settings.get("frequency_penalty", 0)
            logits[token] -= (times > 0) * settings.get("presence_penalty", 0)
        said.append(int(logits.argmax()))
        ids = torch.cat([ids, logits.argmax()[None, None]], dim=1)
    answer = chat(app, WORDS[3], max_tokens=12, **settings).choices[0].message.content
    assert answer == tokenizer.decode(said, skip_special_tokens=True)
    assert answer != chat(app, WORDS[3], max_tokens=12).choices[0].message.content


def test_json_has_the_form_that_was_asked_for(app: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 9}, "kind": {"enum": ["a", "b"]}},
        "required": ["count", "kind"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}
    for seed in range(5):
        answer = chat(app, temperature=1, seed=seed, max_tokens=60, response_format=form).choices[0]
        value = json.loads(answer.message.content)
        assert answer.finish_reason == "stop" and set(value) == {"count", "kind"}
        assert 0 <= value["count"] <= 9 and value["kind"] in "ab"
    with pytest.raises(openai.BadRequestError, match="response_format"):
        chat(app, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}})


@pytest.mark.parametrize("streams", [False, True])
def test_a_schema_that_grows_too_large_amid_an_answer_is_refused(app: Any, streams: bool) -> None:
    large = {"type": "string", "pattern": "^(a+)+$", "minLength": 10**9}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": large}}
    with pytest.raises(openai.APIError, match="cannot be held to this schema") as caught:
        answer = chat(app, response_format=form, max_tokens=80, stream=streams)
        asyncio.run(_all_chunks(answer))
    assert caught.value.param == "response_format" and caught.value.type == "invalid_request_error"


async def _all_chunks(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def test_completions_and_embeddings(app: Any, path: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    async def complete(**settings: Any) -> Any:
        return await client(app).completions.create(model="tiny", max_tokens=6, temperature=0, **settings)

    several = asyncio.run(complete(prompt=["say 1", "say 2"], n=2, logprobs=1))
    assert len(several.choices) == 4 and several.choices[0].text == several.choices[1].text
    assert "".join(several.choices[2].logprobs.tokens) == several.choices[2].text

    async def embed(**settings: Any) -> Any:
        return await client(app).embeddings.create(model="tiny", input=["say 1", "say 2 words"], **settings)

    floats, packed = asyncio.run(embed(encoding_format="float")), asyncio.run(embed())  # the client asks for base64
    vectors = np.array([one.embedding for one in floats.data])
    assert np.allclose(vectors, [one.embedding for one in packed.data], atol=1e-6)
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    for text, vector in zip(["say 1", "say 2 words"], vectors, strict=True):
        with torch.no_grad():
            mean = model.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert vector == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)


def test_nobody_gets_more_tokens_than_the_server_gives(server: ChatServer, path: str) -> None:
    spec = ServeSpec(max_tokens=5, keys={"more": KeyLimits(max_tokens=9)})
    app = make_app([chat_service("tiny", path)], Here(server), spec, [read_key("less:one"), read_key("more:two")])

    async def ask(key: str, **settings: Any) -> Any:
        return await client(app, key).chat.completions.create(model="tiny", messages=say(WORDS[0]), seed=1, **settings)

    bias: dict[str, int] = {"1": -100}  # no end of its own
    for key, most in (("one", 5), ("two", 9)):
        assert asyncio.run(ask(key, logit_bias=bias)).usage.completion_tokens == most
        assert asyncio.run(ask(key, logit_bias=bias, max_completion_tokens=3)).usage.completion_tokens == 3
        with pytest.raises(openai.BadRequestError, match=f"at most {most}"):
            asyncio.run(ask(key, max_tokens=10))
    completion = asyncio.run(client(app, "one").completions.create(model="tiny", prompt="say", logit_bias=bias))
    assert completion.usage.completion_tokens == 5  # not the sixteen of OpenAI's default


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"model": "another"}, openai.NotFoundError, "no model called 'another'"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"max_tokens": 81}, openai.BadRequestError, "at most 80"),
        ({"max_tokens": 10**12}, openai.BadRequestError, "max_tokens"),
        ({"presence_penalty": 3}, openai.BadRequestError, "presence_penalty"),
        ({"logit_bias": {"seven": 3}}, openai.BadRequestError, "logit_bias"),
        ({"logit_bias": {"70000": 3}}, openai.BadRequestError, "no token 70000"),
        ({"n": 2, "stream": True}, openai.BadRequestError, "cannot be streamed"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools"),
        ({"messages": say("word " * 50)}, openai.BadRequestError, "tokens; tiny holds 96"),
        ({"messages": say("x" * 1_000_000)}, openai.BadRequestError, "1,000,000 characters"),
        ({"messages": say("x" * 1_000_000), "stream": True}, openai.BadRequestError, "1,000,000 characters"),
    ],
)
def test_what_cannot_be_answered_is_said_at_once(app: Any, settings: Any, kind: Any, said: str) -> None:
    started = time.process_time()
    with pytest.raises(kind, match=said):
        chat(app, **settings)
    assert time.process_time() - started < 1


def test_keys_and_models_by_the_client(app: Any) -> None:
    with pytest.raises(openai.AuthenticationError):
        asyncio.run(_first_model(client(app, "wrong")))
    assert asyncio.run(_first_model(client(app))) == "tiny"
    assert asyncio.run(client(app).models.retrieve("tiny")).id == "tiny"
    with pytest.raises(openai.NotFoundError):
        asyncio.run(client(app).models.retrieve("another"))


async def _first_model(model: openai.AsyncOpenAI) -> str:
    return next(iter([one.id async for one in model.models.list()]))


def test_whoever_stops_listening_makes_room(server: ChatServer) -> None:
    from squadron.serve.openai_requests import ChatCompletionRequest

    request = ChatCompletionRequest(model="tiny", messages=say(WORDS[0]), max_tokens=70, temperature=1, stream=True)

    async def leave_and_ask() -> float:
        for _ in range(20):  # more than share a batch
            parts = server.stream_chat(request, Context("id", 0, seed=1))
            await anext(parts)
            await parts.aclose()
        started = time.process_time()
        await server.chat(request.model_copy(update={"stream": False, "max_tokens": 1}))
        return time.process_time() - started

    assert asyncio.run(leave_and_ask()) < 1


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
def test_whatever_is_sent_is_answered_as_the_document_says(app: Any, mode: GenerationMode) -> None:
    """No 5xx, and no status, content type or body that the OpenAPI document does not tell of."""
    known = schemathesis.openapi.from_asgi("/openapi.json", app)
    checks = [
        schemathesis.checks.not_a_server_error,
        conformance.status_code_conformance,
        conformance.content_type_conformance,
        conformance.response_schema_conformance,
    ]
    operations = [found.ok() for found in known.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/v1/chat/completions", "/v1/embeddings", "/metrics"}
    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=12, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        def answer_is_documented(case: Any) -> None:
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                case.body["model"] = "tiny"  # few would guess it
            answer = case.call(headers={"Authorization": f"Bearer {KEY}"})
            case.validate_response(answer, checks=checks)
            assert answer.elapsed < 60

        with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # a GET without parameters cannot be sent wrongly
            answer_is_documented()


def test_nobody_waits_for_a_server_that_has_ended(path: str) -> None:
    from squadron.serve.openai_requests import ChatCompletionRequest

    server = ChatServer(HfModel(name="tiny", path=path), max_rows=1)
    request = ChatCompletionRequest(model="tiny", messages=say(WORDS[0]), max_tokens=70, temperature=1, seed=1)

    async def ask_and_end() -> list[Any]:
        asked = [asyncio.create_task(server.chat(request)) for _ in range(4)]  # three of them wait
        await asyncio.sleep(0.05)
        await asyncio.to_thread(server.close)
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)

    answers = asyncio.run(ask_and_end())
    assert any("the server is ending" in str(answer) for answer in answers)
