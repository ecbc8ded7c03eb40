"""How likely an answer's tokens were, in the forms of OpenAI's interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from squadron.serve import openai as api

if TYPE_CHECKING:
    from squadron.llm.decoding.continuous import Piece


def chat_logprobs(tokenizer: Any, pieces: Sequence[Piece]) -> api.ChoiceLogprobs:
    """Those of the tokens in these pieces, as chats tell them."""

    def spelled(token: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.decode([token])
        return {"token": text, "bytes": list(text.encode(errors="replace")), "logprob": logprob}

    content = []
    for one in (one for piece in pieces for one in piece.logprobs):
        top = [api.TopLogprob(**spelled(token, logprob)) for token, logprob in one.top]
        content.append(api.TokenLogprob(**spelled(one.token, one.logprob), top_logprobs=top))
    return api.ChoiceLogprobs(content=content)


def completion_logprobs(tokenizer: Any, pieces: Sequence[Piece]) -> api.CompletionLogprobs:
    """Those of the tokens in these pieces, as completions tell them."""
    told = [one for piece in pieces for one in piece.logprobs]
    texts = [tokenizer.decode([one.token]) for one in told]
    offsets = [sum(map(len, texts[:place])) for place in range(len(texts))]
    top = [{tokenizer.decode([token]): logprob for token, logprob in one.top} for one in told]
    return api.CompletionLogprobs(
        tokens=texts, token_logprobs=[one.logprob for one in told], top_logprobs=top, text_offset=offsets
    )
