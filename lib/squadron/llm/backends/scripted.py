"""A chat model that follows rules or replays a recorded file: for tests, for dry runs, and to repeat a run exactly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from squadron.data.records import read_records
from squadron.llm.chat import ChatReply, ChatRequest, Closing, Message, with_system
from squadron.llm.settings import ScriptedModel


class ScriptedChat(Closing):
    """Answers from the recording where it holds the conversation, else by the first rule that matches.

    A recording is JSON lines `{"messages": [{"role", "content"}, …], "text": …}`. Where it holds one conversation
    several times, the request's seed says which answer is given. Raises InputError for a line that is none of these.
    """

    def __init__(self, settings: ScriptedModel) -> None:
        self._settings = settings
        self._rules = [(re.compile(rule.pattern, re.DOTALL), rule.reply) for rule in settings.rules]
        self._recorded = _read(settings.replay) if settings.replay is not None else {}

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        for request in requests:
            messages = with_system(request.messages, self._settings.system)
            text = self._say(messages, request.sampling.seed or 0)
            if text is None:
                last = messages[-1]["content"] if messages else ""
                error = f"{self._settings.name} has no rule and no recording for {last[:80]!r}"
                yield ChatReply(request.key, finish_reason="error", error=error)
                continue
            asked = sum(len(message["content"].split()) for message in messages)
            yield ChatReply(request.key, text, prompt_tokens=asked, completion_tokens=len(text.split()))

    def _say(self, messages: Sequence[Message], seed: int) -> str | None:
        if answers := self._recorded.get(_conversation(messages)):
            return answers[seed % len(answers)]
        last = messages[-1]["content"] if messages else ""
        for pattern, reply in self._rules:
            if match := pattern.search(last):
                return match.expand(reply)
        return self._settings.otherwise


def _read(path: str) -> Mapping[str, list[str]]:
    recorded: dict[str, list[str]] = {}
    for record in read_records(path):
        turns = record.records("messages")
        messages = [{name: turn.text(name) for name in ("role", "content")} for turn in turns]
        recorded.setdefault(_conversation(messages), []).append(record.text("text"))
    return recorded


def _conversation(messages: Iterable[Message]) -> str:
    return json.dumps([[message["role"], message["content"]] for message in messages])
