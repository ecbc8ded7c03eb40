"""A stand-in of random weights: it generates as any model does, and says what fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from squadron.llm.chat import ChatModel, ChatReply, ChatRequest, Closing, cut_at_stop
from squadron.llm.settings import Rehearsed
from squadron.llm.stand_in.replies import choose_reply


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
        text = choose_reply(self._settings.replies, request.messages, request.sampling.seed)
        return None if text is None else cut_at_stop(text, request.sampling.stop)[0]
