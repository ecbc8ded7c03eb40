"""A stream of OpenAI's chunks that another server gives, handed on as an answer of this one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from squadron.serve.service import Context, Event


class Relay:
    """Hands on chunks under the name of this answer, without the characters that have been sent before. Each event has
    what was read and written up to it, for which every chunk must bring its `usage`; `tells_usage`: the client has
    asked for it."""

    def __init__(self, model: str, context: Context, tells_usage: bool) -> None:
        self._named = {"id": context.id, "created": context.created, "model": model}
        self._tells_usage, self._skip = tells_usage, context.skip

    def read(self, text: str) -> Iterator[Event]:
        """The events in a piece of text, which holds whole server-sent events. Raises RuntimeError for an error among
        them."""
        for line in text.splitlines():
            data = line.removeprefix("data: ").strip()
            if data and data != "[DONE]":
                chunk = json.loads(data)
                if "error" in chunk:
                    raise RuntimeError(str(chunk["error"].get("message", chunk["error"])))
                yield from self._event(chunk)

    def _event(self, chunk: dict[str, Any]) -> Iterator[Event]:
        usage, length = chunk.pop("usage", None) or {}, 0
        read, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        if chunk["choices"]:
            (choice,) = chunk["choices"]  # several answers cannot be streamed
            if (length := self._take(choice)) == 0 and self._skip:
                return
        elif self._tells_usage:
            chunk["usage"] = usage
        else:
            return
        yield Event(length, json.dumps(chunk | self._named), read, written)

    def _take(self, choice: dict[str, Any]) -> int:
        """Cut off what has been sent; how many characters are left."""
        told, name = (choice["delta"], "content") if "delta" in choice else (choice, "text")
        whole = told.get(name) or ""
        if self._skip == 0:
            return len(whole)
        kept = whole[self._skip :]
        # Nothing is left to be cut where the answer ends: it may be shorter than what another replica had sent.
        self._skip = 0 if kept or choice.get("finish_reason") else self._skip - len(whole)
        told[name], choice["logprobs"] = kept, None
        return len(kept)
