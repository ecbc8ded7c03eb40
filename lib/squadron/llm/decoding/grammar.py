"""Grammars that answers follow, token by token, by llguidance. V tokens of the vocabulary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from squadron.core.errors import InputError

if TYPE_CHECKING:
    import torch


class Grammars:
    """Grammars for the vocabulary of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: Any = None

    def of(self, is_json: bool, schema: dict[str, Any] | None = None) -> Grammar | None:
        """What keeps an answer to a JSON object, or to a JSON schema; None for free text.

        Raises InputError for a schema that cannot be followed.
        """
        if not is_json:
            return None
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._vocabulary is None:
            self._vocabulary = from_tokenizer(self._tokenizer)
        text = json.dumps({"type": "object"} if schema is None else schema)
        # Without the freedom to go on with spaces forever, which weak models use.
        grammar = LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_flexible": False})
        matcher = LLMatcher(self._vocabulary, grammar)
        if error := matcher.get_error():
            raise InputError(f"response_format: {error.splitlines()[0]}")
        return Grammar(matcher, self._vocabulary.vocab_size)


class Grammar:
    """What one answer may go on with."""

    def __init__(self, matcher: Any, size: int) -> None:
        from llguidance.torch import allocate_token_bitmask

        self._matcher, self._bits = matcher, allocate_token_bitmask(1, size)

    def mask(self, logits_V: torch.Tensor) -> None:
        """Take away, in place, what may not come next."""
        from llguidance.torch import apply_token_bitmask_inplace, fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._bits, 0)
        apply_token_bitmask_inplace(logits_V[None], self._bits.to(logits_V.device))

    def accept(self, token: int) -> bool:
        """Take a token; whether the answer is whole, so that nothing can follow."""
        self._matcher.consume_token(token)
        return bool(self._matcher.is_stopped())
