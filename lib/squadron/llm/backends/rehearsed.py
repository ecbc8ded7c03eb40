"""A stand-in of random weights: it generates as any model does, and says what fits."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from squadron.llm.chat import ChatModel, ChatReply, ChatRequest, Closing
from squadron.llm.settings import Rehearsed


class RehearsedChat(Closing):
    """Every request is answered by the model, with few tokens; then its text gives way to a reply that fits, if one
    does, up to the first stop."""

    def __init__(self, model: ChatModel, settings: Rehearsed) -> None:
        self._model, self._settings = model, settings

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """As `ChatModel.chat`."""
        asked: dict[str, ChatRequest] = {}

        def fewer() -> Iterator[ChatRequest]:
            for request in requests:
                asked[request.key] = request
                most = min(request.sampling.max_tokens, self._settings.max_tokens)
                yield replace(request, sampling=request.sampling.model_copy(update={"max_tokens": most}))

        for reply in self._model.chat(fewer()):
            text = self._say(asked.pop(reply.key)) if reply.ok else None
            yield reply if text is None else replace(reply, text=text, finish_reason="stop")

    def close(self) -> None:
        self._model.close()

    def _say(self, request: ChatRequest) -> str | None:
        text = choose_reply(self._settings.replies, request)
        for stop in request.sampling.stop if text is not None else ():
            text = text.partition(stop)[0] if text is not None else None
        return text


def choose_reply(replies: Any, request: ChatRequest) -> str | None:
    """One of the replies to the first pattern that the last message of the user holds; equal requests are told the
    same. None if no pattern fits."""
    last = next((str(one["content"]) for one in reversed(request.messages) if one["role"] == "user"), "")
    for pattern, texts in replies:
        if found := re.search(pattern, last):
            told = json.dumps([list(map(dict, request.messages)), request.sampling.seed])
            chosen = texts[int.from_bytes(hashlib.sha256(told.encode()).digest()[:4]) % len(texts)]
            return found.expand(chosen)
    return None
