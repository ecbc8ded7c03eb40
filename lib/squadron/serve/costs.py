"""What requests of OpenAI's interface may cost, from what they say: before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from squadron.serve.openai_requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest

ANSWER = 1024
"""Tokens that are reserved for an answer whose length the request leaves open."""
PASS = 8192
"""Characters to be read that are one unit of work, as an answer is one."""
_CHARACTERS = 4
"""Of a token; what a request took is known when it ends."""


def chat_tokens(request: ChatCompletionRequest) -> int:
    """Tokens to be read and written."""
    most = request.max_completion_tokens or request.max_tokens or ANSWER
    return sum(len(message.text) for message in request.messages) // _CHARACTERS + request.n * most


def completion_tokens(request: CompletionRequest) -> int:
    """Tokens to be read and written."""
    return tokens_of(request.prompts) + completion_answers(request) * (request.max_tokens or ANSWER)


def completion_answers(request: CompletionRequest) -> int:
    """Answers to be written."""
    return len(request.prompts) * request.n


def embedding_tokens(request: EmbeddingRequest) -> int:
    """Tokens to be read."""
    return tokens_of(request.inputs)


def embedding_passes(request: EmbeddingRequest) -> int:
    """Units of work."""
    return 1 + embedding_tokens(request) * _CHARACTERS // PASS


def tokens_of(texts: Sequence[str | Sequence[Any]]) -> int:
    """About how many tokens there are in texts, or how many are given."""
    return sum(1 + len(text) // _CHARACTERS if isinstance(text, str) else len(text) for text in texts)
