"""Servers as they are: what they refuse is learned, turns continue where they ended, thinking is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squadron.core.errors import ConfigError
from squadron.llm.backends.openai_client import OpenAiChat, continue_turn
from squadron.llm.backends.parameters import Parameters, refused_parameter
from squadron.llm.chat import ChatReply, ChatRequest, Sampling, user
from squadron.llm.settings import OpenAiModel
from squadron.llm.stand_in import PROFILES, StandIn, find_profile

SAMPLING = Sampling(max_tokens=256, temperature=0.7, top_p=0.9, seed=3, stop=("\n",))
REPLIES = [("colour", ["Step 1: red.\nStep 2: blue."])]


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with StandIn(REPLIES) as running:
        yield running


def ask(address: str, *requests: ChatRequest, **changes: Any) -> list[ChatReply]:
    settings = OpenAiModel(**{"name": "local", "model": "o1", "base_url": address, "max_concurrency": 4, **changes})
    with OpenAiChat(settings) as model:
        return sorted(model.chat(requests), key=lambda reply: reply.key)


def asked(count: int, sampling: Sampling = SAMPLING) -> list[ChatRequest]:
    return [ChatRequest(str(number), user(f"colour {number}"), sampling) for number in range(count)]


@pytest.mark.parametrize("name", PROFILES)
def test_every_kind_of_server_answers_whatever_it_takes(server: StandIn, name: str) -> None:
    address = server.play_profile(PROFILES[name])
    replies = ask(address, *asked(12))
    assert [reply.text for reply in replies] == ["Step 1: red."] * 12, replies
    assert {reply.finish_reason for reply in replies} == {"stop"}


def test_what_a_model_does_not_take_is_learned_once_and_noted() -> None:
    with StandIn(REPLIES) as server:
        address = server.play("o1", "https://api.openai.com/v1")
        requests = asked(40)
        settings = OpenAiModel(name="o1", model="o1", base_url=address, max_concurrency=1)
        with OpenAiChat(settings) as model:
            first = list(model.chat(requests[:1]))
            refused = sum(server.refused.values())
            rest = list(model.chat(requests[1:]))
            assert sum(server.refused.values()) == refused, "what is known is not tried again"
        assert refused == 4 and set(server.refused) == {"max_tokens", "temperature", "top_p", "stop"}
    for reply in first + rest:
        assert reply.ok and "temperature 0.7" in reply.note and "top_p 0.9" in reply.note
        assert reply.reasoning_tokens == PROFILES["openai-reasoning"].reasons < reply.completion_tokens


def test_a_server_that_knows_no_more_to_say_is_asked_no_more(server: StandIn) -> None:
    """What cannot be left out is refused, after one attempt."""
    (reply,) = ask(server.play("gpt-4o", "https://api.openai.com/v1"), asked(1)[0], extra_body={"top_k": 5})
    assert not reply.ok and "top_k" in reply.error and reply.attempts == 1


def test_stated_beforehand_nothing_is_tried() -> None:
    with StandIn(REPLIES) as server:
        address = server.play("gpt-4o", "https://api.openai.com/v1")
        replies = ask(address, *asked(4), drop_params=("temperature", "top_p", "seed"))
        assert all(reply.ok for reply in replies) and not server.refused


def test_thinking_that_takes_all_tokens_is_a_failure_that_says_so(server: StandIn) -> None:
    address = server.play("o1", "https://api.openai.com/v1")
    short = SAMPLING.model_copy(update={"max_tokens": 16})
    (reply,) = ask(address, *asked(1, short), completion_usd_per_million=1.0)
    assert "raise max_tokens" in reply.error and reply.finish_reason == "error"
    assert reply.reasoning_tokens == 16 and reply.cost_usd == pytest.approx(16e-6)


@pytest.mark.parametrize(("said", "thought", "total", "paid"), [(2, 9, 0, 11), (20, 10, 31, 30), (20, 10, 21, 20)])
def test_thinking_that_is_counted_apart_is_paid_too(said: int, thought: int, total: int, paid: int) -> None:
    settings = OpenAiModel(name="x", model="x", completion_usd_per_million=1.0)
    details = {"completion_tokens_details": {"reasoning_tokens": thought}}
    usage = {"prompt_tokens": 1, "completion_tokens": said, **details, **({"total_tokens": total} if total else {})}
    payload = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": usage}
    with OpenAiChat(settings) as model:
        answer = model._read(1, 0.0, SAMPLING, "", json.dumps(payload).encode())
    assert answer.value.completion_tokens == paid and answer.cost_usd == pytest.approx(paid * 1e-6)


@pytest.mark.parametrize(
    "message",
    [
        {"content": "", "reasoning": "hm"},
        {"content": " \n", "reasoning_content": "hm"},
        {"content": None, "reasoning": "hm"},
        {"content": ""},
    ],
)
def test_an_answer_of_thinking_alone_is_no_answer(message: dict[str, Any]) -> None:
    with OpenAiChat(OpenAiModel(name="x", model="x")) as model:
        payload = {"choices": [{"message": message, "finish_reason": "length"}]}
        assert "raise max_tokens" in model._read(1, 0.0, SAMPLING, "", json.dumps(payload).encode()).value.error


def test_servers_continue_turns_as_their_addresses_do() -> None:
    found = {
        "https://api.deepseek.com/v1": "none",
        "https://api.deepseek.com/beta": "prefix",
        "https://api.mistral.ai/v1": "prefix",
        "http://127.0.0.1:11434/v1": "last_message",
        "http://gpu-7:8000/v1": "continue_final_message",
    }
    assert {url: OpenAiModel(name="m", model="m", base_url=url).continues_by for url in found} == found


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ({"error": {"message": "Unsupported parameter: 'max_tokens' …", "param": "max_tokens",
                    "code": "unsupported_parameter"}}, "max_tokens"),
        ({"error": {"message": "Unsupported value: 'temperature' does not support 0 …", "param": "temperature",
                    "code": "unsupported_value"}}, "temperature"),
        ({"error": {"message": "Unrecognized request argument supplied: seed", "param": None, "code": None}}, "seed"),
        ({"object": "error", "message": "top_p is not supported by this model", "code": 400}, "top_p"),
        ({"detail": "Extra inputs are not permitted: stop"}, "stop"),
        ({"error": "unknown field seed"}, "seed"),
        ({"error": {"message": "max_tokens is too large: 9", "param": "max_tokens", "code": "invalid_value"}}, None),
        ({"error": {"message": "this model's maximum context length is 4096 tokens", "param": "messages"}}, None),
        ({"error": {"message": "Unrecognized request argument supplied: top_k", "param": "top_k"}}, None),
        (["what"], None),
        ({"error": {"message": "`temperature` is deprecated for this model."}}, "temperature"),
        ({"error": {"message": "Invalid value: 'x'. Stop using it.", "param": "messages[0].role"}}, None),
        ({"error": {"message": "logprobs is not supported; see max_tokens", "param": "logprobs"}}, None),
        ({"error": {"message": "temperature 3 is not allowed", "param": "temperature",
                    "code": "invalid_value"}}, None),
    ],
)  # fmt: skip
def test_which_parameter_a_refusal_is_about(error: Any, named: str | None) -> None:
    body = dict.fromkeys(("max_tokens", "temperature", "top_p", "seed", "stop", "top_k"), 1)
    assert refused_parameter(body, error) == named


def test_a_parameter_that_was_not_sent_is_not_learned() -> None:
    known = Parameters()
    error = {"error": {"message": "Unsupported parameter", "param": "seed", "code": "unsupported_parameter"}}
    assert not known.learn({"max_tokens": 1}, error) and not known.dropped


@pytest.mark.parametrize("how", ["continue_final_message", "prefix", "last_message"])
def test_a_turn_is_continued_without_the_space_that_templates_trim(server: StandIn, how: str) -> None:
    """The model writes it first, so that a step which ends with its line is not over before it began."""
    messages = (*user("which colour"), {"role": "assistant", "content": "Step 0: look.\n"})
    sent, _, trimmed = continue_turn([dict(one) for one in messages], how)
    assert sent[-1]["content"] == "Step 0: look." and trimmed == "\n"
    with StandIn([("colour", ["\nStep 1: red.\nStep 2: blue."])]) as writing:
        (reply,) = ask(writing.play("m", "http://host:8000/v1"), ChatRequest("k", messages, SAMPLING), continuation=how)
    assert (reply.text, reply.finish_reason) == ("Step 1: red.", "stop")


@pytest.mark.parametrize("family", ["llama3.1", "gemma2", "qwen2.5"])
def test_with_its_tokenizer_a_turn_is_continued_from_the_very_prompt_of_hf(tmp_path: Path, family: str) -> None:
    from squadron.train.models.families import make_family_model
    from squadron.train.text.conversations import prompt_text, token_ids
    from squadron.train.text.tokenizer import load_tokenizer

    path = make_family_model(tmp_path, family, hidden_size=16)
    messages = [*user("which colour"), {"role": "assistant", "content": "Step 0: look.\n"}]
    prompt = prompt_text(load_tokenizer(path), messages)
    assert prompt.endswith("Step 0: look.\n")
    seen: list[Any] = []
    with StandIn(REPLIES) as server:
        answer = server.answer
        server.answer = lambda path, body: seen.append((path, body)) or answer(path, body)  # type: ignore[func-returns-value, method-assign]
        request = ChatRequest("k", tuple(messages), SAMPLING)
        (reply,) = ask(server.play("m", "http://host:8000/v1"), request, tokenizer=path)
    ids = token_ids(load_tokenizer(path), prompt)
    assert [(at.rpartition("/")[2], body["prompt"]) for at, body in seen] == [("completions", ids)]
    assert reply.ok and reply.text


@pytest.mark.parametrize("changes", [{"continuation": "none"}, {"base_url": "https://api.openai.com/v1"}])
def test_a_model_that_cannot_continue_a_turn_is_told_apart(changes: dict[str, Any]) -> None:
    settings = OpenAiModel.model_validate({"name": "m", "model": "m", "base_url": "http://host/v1", **changes})
    request = ChatRequest("k", (*user("a"), {"role": "assistant", "content": "b"}))
    with OpenAiChat(settings) as model, pytest.raises(ConfigError, match="cannot continue"):
        list(model.chat([request]))


def test_kinds_of_servers_are_known_by_their_addresses() -> None:
    found = {
        ("o1", "https://api.openai.com/v1"): "openai-reasoning",
        ("gpt-5-mini", "https://my.openai.azure.com/openai/v1"): "openai-reasoning",
        ("gpt-4o-mini", "https://api.openai.com/v1"): "openai",
        ("deepseek-chat", "https://api.deepseek.com/v1"): "deepseek",
        ("llama3", "http://127.0.0.1:11434/v1"): "ollama",
        ("Qwen/Qwen3-8B", "http://gpu-7:8000/v1"): "vllm",
    }
    assert {asked: find_profile(*asked).name for asked in found} == found
