"""Another server's stream, handed on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.serve.service import Context, Event
from squadron.serve.sse import Relay


def chunk(kind: str, text: str, finish: str | None, written: int) -> str:
    told: dict[str, Any] = {"delta": {"content": text}} if kind == "chat" else {"text": text}
    choice = {"index": 0, "logprobs": {"content": []}, "finish_reason": finish, **told}
    usage = {"prompt_tokens": 7, "completion_tokens": written}
    return f"data: {json.dumps({'id': 'theirs', 'model': 'theirs', 'choices': [choice], 'usage': usage})}\n\n"


def relayed(kind: str, pieces: list[str], skip: int, tells_usage: bool) -> list[Event]:
    sent = [chunk(kind, piece, None, number + 1) for number, piece in enumerate(pieces)]
    sent += [chunk(kind, "", "stop", len(pieces)), 'data: {"choices": [], "usage": {"prompt_tokens": 7}}\n\n']
    relay = Relay("ours", Context("stream-1", 5, 0, skip), tells_usage)
    return [event for text in [*sent, "data: [DONE]\n\n"] for event in relay.read(text)]


@given(st.sampled_from(["chat", "text"]), st.lists(st.text(max_size=4), max_size=8), st.integers(0, 40), st.booleans())
def test_what_has_been_sent_is_left_out_and_the_rest_is_handed_on(
    kind: str, pieces: list[str], skip: int, tells_usage: bool
) -> None:
    events = relayed(kind, pieces, skip, tells_usage)
    chunks = [json.loads(event.data) for event in events]
    assert {(one["id"], one["created"], one["model"]) for one in chunks} == {("stream-1", 5, "ours")}
    choices = [one["choices"][0] for one in chunks if one["choices"]]
    texts = [one["delta"]["content"] if kind == "chat" else one["text"] for one in choices]
    assert "".join(texts) == "".join(pieces)[skip:] and choices[-1]["finish_reason"] == "stop"
    assert [event.characters for event in events][: len(texts)] == list(map(len, texts))
    assert events[len(choices) - 1].completion_tokens == len(pieces)
    assert ("usage" in chunks[-1]) == tells_usage and not any("usage" in one for one in chunks[: len(choices)])


def test_an_error_amid_a_stream_is_raised() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        list(Relay("ours", Context("stream-1", 5, 0), False).read('data: {"error": {"message": "out of memory"}}\n\n'))
