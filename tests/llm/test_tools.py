"""Tools behind OpenAI's interface: models that have to call one by their grammar, a model that has learned to, and
answers given back as the next request's history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from squadron.core.errors import InputError
from squadron.llm.decoding.call_grammar import call_grammar
from squadron.llm.decoding.grammar import Grammars
from squadron.llm.settings import HfModel
from squadron.serve.chat import ChatServer, chat_service
from squadron.serve.gateway import make_app
from squadron.serve.spec import ServeSpec
from squadron.train.models.families import make_family_model
from squadron.train.text.calls import call_form
from tests.llm.here import Here

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS, "strict": True}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "the time"}}
ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
SAID = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
CALLING = ("qwen3", "llama3.1", "gptoss")


@pytest.fixture(scope="module")
def client_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], openai.AsyncOpenAI]]:
    """`client_of(family)`: a client of a server of a small model of the family; "trained": of one that calls a tool."""
    servers: list[ChatServer] = []

    @cache
    def make(name: str) -> openai.AsyncOpenAI:
        family = "qwen2.5" if name == "trained" else name
        path = make_family_model(tmp_path_factory.mktemp("family") / name, family, texts=[SAID] * 20)
        if name == "trained":
            learn_to_say(path, SAID)
        servers.append(ChatServer(HfModel(name="tiny", path=path), max_rows=4))
        app = make_app([chat_service("tiny", path)], Here(servers[-1]), ServeSpec(), [])
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        http = httpx.AsyncClient(transport=transport)
        return openai.AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:8000/v1", http_client=http, max_retries=0)

    yield make
    for server in servers:
        server.close()


def learn_to_say(path: str, answer: str) -> None:
    """Train a model until it says this, and nothing else, to what is asked with tools."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from squadron.serve.openai_requests import ChatCompletionRequest
    from squadron.serve.prompts import as_tools
    from squadron.train.text.conversations import encode_turns

    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    request = ChatCompletionRequest.model_validate({"model": "m", "messages": ASKED, "tools": [WEATHER, CLOCK]})
    (row,) = encode_turns(tokenizer, [*ASKED, {"role": "assistant", "content": answer}], as_tools(request))
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    model.save_pretrained(path)


def ask(client: openai.AsyncOpenAI, messages: list[Any] = ASKED, **settings: Any) -> Any:
    asked: dict[str, Any] = {"model": "tiny", "messages": messages, "max_tokens": 80, **settings}
    return asyncio.run(client.chat.completions.create(**asked))


@pytest.mark.parametrize("family", CALLING)
def test_a_model_that_has_to_call_a_tool_does_and_its_answer_is_the_next_request_s_history(
    client_of: Any, family: str
) -> None:
    client = client_of(family)
    messages = list(ASKED)
    for seed, choice in enumerate(["required", {"type": "function", "function": {"name": "weather"}}]):
        answer = ask(client, messages, tools=[WEATHER], tool_choice=choice, seed=seed).choices[0]
        (call,) = answer.message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert answer.finish_reason == "tool_calls" and answer.message.content is None
        assert call.function.name == "weather" and call.id.startswith("call_")
        assert arguments["city"] in ("Paris", "Rome") and 1 <= arguments["days"] <= 9
        # As clients do: with every field that the answer has, nulls too.
        messages += [answer.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}]
    plain = ask(client, messages, tools=[WEATHER, CLOCK], max_tokens=4)
    said = plain.choices[0].message.model_dump()
    assert ask(client, [*messages, said, *ASKED], tool_choice="none", tools=[CLOCK], max_tokens=4).choices[0]
    assert plain.usage.prompt_tokens > ask(client, max_tokens=4).usage.prompt_tokens


@pytest.mark.parametrize("family", CALLING)
def test_a_stream_tells_the_same_calls(client_of: Any, family: str) -> None:
    client = client_of(family)

    async def stream() -> Any:
        async with client.chat.completions.stream(
            model="tiny", messages=ASKED, tools=[WEATHER, CLOCK], tool_choice="required", seed=3, max_tokens=80
        ) as chunks:
            seen = [event.chunk async for event in chunks if event.type == "chunk"]
            return seen, await chunks.get_final_completion()

    seen, gathered = asyncio.run(stream())
    whole = ask(client, tools=[WEATHER, CLOCK], tool_choice="required", seed=3).choices[0]
    choice = gathered.choices[0]
    assert choice.finish_reason == whole.finish_reason == "tool_calls"
    assert [one.function.arguments for one in choice.message.tool_calls] == [
        one.function.arguments for one in whole.message.tool_calls
    ]
    assert not choice.message.content and seen[0].choices[0].delta.role == "assistant"


def test_a_model_that_has_learned_to_calls_a_tool_where_it_may(client_of: Any) -> None:
    client = client_of("trained")
    free = {**WEATHER, "function": {**WEATHER["function"], "strict": False}}
    for weather in (WEATHER, free):  # held to the schema, and as it likes
        answer = ask(client, tools=[weather, CLOCK], temperature=0).choices[0]
        (call,) = answer.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris", "days": 2})
        assert answer.finish_reason == "tool_calls"
    # Of a tool that is not there, and where none is offered, it is what it says.
    other = {**CLOCK, "function": {**CLOCK["function"], "name": "weather2"}}
    for settings in ({"tools": [other, CLOCK]}, {"tools": [free, CLOCK], "tool_choice": "none"}):
        answer = ask(client, temperature=0, **settings).choices[0]
        assert answer.message.tool_calls is None and answer.finish_reason in ("stop", "length")
    cut = ask(client, tools=[free, CLOCK], temperature=0, max_tokens=8).choices[0]
    assert cut.finish_reason == "length" and SAID.startswith(cut.message.content) and not cut.message.tool_calls


@pytest.mark.parametrize("family", ["qwen3", "llama3.1", "gptoss"])
def test_an_answer_is_free_until_it_calls_a_tool(tmp_path: Path, family: str) -> None:
    """And then held to the schema; another call or text may follow."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_family_model(tmp_path, family))
    ends = {tokenizer.eos_token_id}
    around = call_form(tokenizer).around
    assert around is not None
    text = call_grammar(tokenizer, around, {"weather": PARAMETERS, "clock": None}, ends, required=False)
    grammars = Grammars(tokenizer, ends)
    before, between, behind = around
    good = before + "weather" + between + '{"city":"Paris","days":2}' + behind

    def takes(answer: str) -> bool:
        grammar = grammars.lark(text, "tools")
        try:
            for token in tokenizer(answer, add_special_tokens=False)["input_ids"]:
                grammar.accept(token)
        except InputError:
            return False
        return True

    assert all(map(takes, [good, "Hello {} there.", f"I look. {good}", good + good, f"<think>\nso</think>\n{good}"]))
    assert takes(good.replace("weather", "clock").replace("days", "anything"))
    assert not any(map(takes, [good.replace("Paris", "Pisa"), good.replace("days", "day"), good.replace("we", "wo")]))


def test_what_a_model_cannot_do_is_said(client_of: Any) -> None:
    glm, gemma = client_of("glm4moe"), client_of("gemma3")
    assert ask(glm, tools=[CLOCK], max_tokens=2).choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError, match="does not write the arguments of calls as JSON") as caught:
        ask(glm, tools=[CLOCK], tool_choice="required")
    assert caught.value.param == "tool_choice"
    with pytest.raises(openai.BadRequestError, match="no place for tools") as caught:
        ask(gemma, tools=[CLOCK])
    assert caught.value.param == "tools" and caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="no place for calls"):
        call = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
        back = {"role": "tool", "tool_call_id": "a", "content": "noon"}
        ask(gemma, [*ASKED, {"role": "assistant", "tool_calls": [call]}, back])
    bad = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": 1}}}},
    }
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client_of("qwen3"), tools=[bad], tool_choice="required")
    assert caught.value.param == "tools"
