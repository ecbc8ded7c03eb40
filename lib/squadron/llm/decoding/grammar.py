"""Grammars that answers follow, token by token, by llguidance. V tokens of the vocabulary."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from squadron.core.errors import InputError

if TYPE_CHECKING:
    import torch


class Grammars:
    """Grammars for the vocabulary of one tokenizer. An answer may stop at any of `ends`."""

    def __init__(self, tokenizer: Any, ends: Collection[int]) -> None:
        self._tokenizer, self._ends = tokenizer, ends
        self._vocabulary: Any = None

    def json(self, schema: dict[str, Any] | None, where: str) -> Grammar:
        """What keeps an answer to a JSON schema; to a JSON object without one.

        Raises InputError for a schema that cannot be followed, with where the request has it.
        """
        from llguidance import LLMatcher

        text = json.dumps({"type": "object"} if schema is None else schema)
        # Without the freedom to go on with spaces forever, which weak models use.
        return self._grammar(LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_flexible": False}), where)

    def lark(self, text: str, where: str) -> Grammar:
        """What keeps an answer to a grammar in llguidance's form of Lark.

        Raises InputError for one that cannot be followed, with where the request has it.
        """
        from llguidance import LLMatcher

        return self._grammar(LLMatcher.grammar_from_lark(text), where)

    def _grammar(self, grammar: str, where: str) -> Grammar:
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._vocabulary is None:
            self._vocabulary = from_tokenizer(self._tokenizer, eos_token=sorted(self._ends))
        matcher = LLMatcher(self._vocabulary, grammar)
        if error := matcher.get_error():
            raise InputError(f"{where}: {error.splitlines()[0]}", where=where)
        return Grammar(matcher, self._vocabulary.vocab_size, where)


class Grammar:
    """What one answer may go on with; `where` is where the request has it."""

    def __init__(self, matcher: Any, size: int, where: str) -> None:
        from llguidance.torch import allocate_token_bitmask

        self._matcher, self._size, self._where = matcher, size, where
        self._bits = allocate_token_bitmask(1, size)

    def copy(self) -> Grammar:
        """The same for another answer, of which nothing has been said."""
        return Grammar(self._matcher.deep_copy(), self._size, self._where)

    def mask(self, logits_V: torch.Tensor) -> None:
        """Take away, in place, what may not come next; tokens behind those that the tokenizer knows, too."""
        import torch
        from llguidance.torch import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._bits, 0)
        # llguidance's own way to apply the bits is compiled at first use, in seconds and by a C++ compiler.
        allowed = (self._bits[0, :, None] >> torch.arange(32, dtype=torch.int32)) & 1
        allowed_V = torch.zeros(len(logits_V), dtype=torch.bool)
        count = min(len(logits_V), allowed.numel())
        allowed_V[:count] = allowed.reshape(-1)[:count].bool()
        logits_V.masked_fill_(~allowed_V.to(logits_V.device), float("-inf"))

    def accept(self, token: int) -> bool:
        """Take a token; whether the answer is whole, so that nothing can follow.

        Raises InputError for one that is not allowed, as where the schema has grown too large to go on with.
        """
        if not self._matcher.consume_token(token):
            said = self._matcher.get_error().partition("\n")[0] or "no token can follow"
            raise InputError(f"{self._where}: an answer cannot be held to this schema: {said}", where=self._where)
        return bool(self._matcher.is_stopped())
