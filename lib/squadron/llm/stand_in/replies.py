"""What stand-ins say: replies that fit what was asked, or plain words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

WORDS = ("the answer", "follows", "from", "what was given", "and", "there is", "nothing", "more to add")


def choose_reply(
    replies: Sequence[tuple[str, Sequence[str]]], messages: Sequence[Mapping[str, Any]], seed: int | None
) -> str | None:
    """One of the replies to the first pattern that the last message of the user holds; equal requests are told the
    same. A reply may hold \\1 for what the pattern found. None if no pattern fits."""
    last = next((str(one["content"]) for one in reversed(messages) if one["role"] == "user"), "")
    for pattern, texts in replies:
        if found := re.search(pattern, last):
            return found.expand(texts[_draw(messages, seed) % len(texts)])
    return None


def plain_words(messages: Sequence[Mapping[str, Any]], seed: int | None) -> str:
    """A sentence that depends on what was asked, where nothing better fits."""
    drawn = _draw(messages, seed)
    return " ".join(WORDS[(drawn >> shift) % len(WORDS)] for shift in range(0, 24, 3)).capitalize() + "."


def _draw(messages: Sequence[Mapping[str, Any]], seed: int | None) -> int:
    told = json.dumps([[dict(message) for message in messages], seed], sort_keys=True)
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:4])
