"""LangChain's client, unmodified: tools, structured answers, streams and embeddings, each answer given back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from squadron.llm.settings import HfModel
from squadron.serve.chat import ChatServer, chat_service
from squadron.serve.gateway import make_app
from squadron.serve.spec import ServeSpec
from squadron.train.models.families import make_family_model
from tests.llm.here import Here

ASKED = [SystemMessage("Be brief."), HumanMessage("What is the weather in Paris?")]


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "Rome"]
    warm: bool


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """How LangChain reaches a server of a small model in this process."""
    path = make_family_model(tmp_path_factory.mktemp("model") / "tiny", "qwen3")
    server = ChatServer(HfModel(name="tiny", path=path), max_rows=4)
    app = make_app([chat_service("tiny", path)], Here(server), ServeSpec(), [])
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app, raise_app_exceptions=False))
    url = "http://127.0.0.1:8000/v1"
    yield {"model": "tiny", "api_key": SecretStr("none"), "base_url": url, "http_async_client": http}
    server.close()


def test_an_agent_s_turns(options: dict[str, Any]) -> None:
    chat = ChatOpenAI(max_completion_tokens=60, seed=1, **options)

    async def turns() -> list[Any]:
        messages: list[Any] = list(ASKED)
        for choice in ("required", "Weather"):
            answer = await chat.bind_tools([Weather], tool_choice=choice, strict=True).ainvoke(messages)
            (call,) = answer.tool_calls
            assert call["name"] == "Weather" and Weather.model_validate(call["args"])
            messages += [answer, ToolMessage([{"type": "text", "text": "Sunny."}], tool_call_id=call["id"])]
        last = chat.bind_tools([Weather], parallel_tool_calls=False, max_completion_tokens=3)
        return [*messages, await last.ainvoke(messages)]

    messages = asyncio.run(turns())
    assert messages[-1].response_metadata["finish_reason"] in ("stop", "length")
    again = chat.ainvoke([*messages, *ASKED[1:]], max_completion_tokens=3)
    assert asyncio.run(again).usage_metadata["input_tokens"] > 0


def test_a_stream_adds_up_to_a_call(options: dict[str, Any]) -> None:
    chat = ChatOpenAI(max_completion_tokens=60, seed=1, stream_usage=True, **options)

    async def gathered() -> AIMessageChunk:
        whole: Any = None
        async for chunk in chat.bind_tools([Weather], tool_choice="any", strict=True).astream(ASKED):
            whole = chunk if whole is None else whole + chunk
        return whole

    answer = asyncio.run(gathered())
    (call,) = answer.tool_calls
    assert Weather.model_validate(call["args"]) and not answer.invalid_tool_calls
    assert answer.usage_metadata["output_tokens"] > 0
    back = [*ASKED, answer, ToolMessage("Sunny.", tool_call_id=call["id"])]
    assert asyncio.run(chat.bind_tools([Weather], max_completion_tokens=3).ainvoke(back)).usage_metadata


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_structured_answer(options: dict[str, Any], method: Any) -> None:
    chat = ChatOpenAI(max_completion_tokens=60, seed=2, temperature=0.5, logprobs=None, **options)
    assert isinstance(
        asyncio.run(chat.with_structured_output(Weather, method=method, strict=True).ainvoke(ASKED)), Weather
    )


def test_embeddings(options: dict[str, Any]) -> None:
    embedder = OpenAIEmbeddings(check_embedding_ctx_length=False, **options)
    one, two = asyncio.run(embedder.aembed_documents(["a text", "another"]))
    assert len(one) == len(two) == 64 and one != two
