"""Conversations and texts as the tokens that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from squadron.core.errors import InputError
from squadron.serve import openai as api


class Prompts:
    """What the model `name` reads, with its answer within a context of so many tokens."""

    def __init__(self, name: str, tokenizer: Any, context: int) -> None:
        self._name, self._tokenizer, self._context = name, tokenizer, context
        self._longest_token = max(map(len, tokenizer.get_vocab()))

    def chat(self, asked: Sequence[api.Message]) -> list[int]:
        """The tokens of a conversation. Raises InputError if it does not fit, or the model takes no such one."""
        from squadron.train.models.errors import check_chat_template
        from squadron.train.text.conversations import prompt_text, token_ids

        check_chat_template(self._tokenizer, "", self._name, InputError, fix="send its prompt to /v1/completions")
        roles = {"developer": "system"}
        messages = [{"role": roles.get(one.role, one.role), "content": one.text} for one in asked]
        self._check_size(sum(len(message["content"]) for message in messages))
        try:
            text = prompt_text(self._tokenizer, messages)
        except Exception as error:  # a template is the model's own program, and says in its own words what it refuses
            raise InputError(f"the chat template of {self._name} refuses this conversation: {error}") from None
        return self._fitting(token_ids(self._tokenizer, text))

    def encode(self, text: str) -> list[int]:
        """The tokens of a text. Raises InputError if it is empty or does not fit."""
        from squadron.train.text.conversations import token_ids

        self._check_size(len(text))
        ids = token_ids(self._tokenizer, text)
        if not ids:
            raise InputError("an empty text", fix="send at least a token")
        return self._fitting(ids)

    def _check_size(self, characters: int) -> None:
        """Refuse what cannot fit, before time is spent on reading it."""
        if characters > self._context * self._longest_token:
            raise InputError(
                f"{characters:,} characters are more than the {self._context:,} tokens that {self._name} holds"
            )

    def _fitting(self, ids: list[int]) -> list[int]:
        if len(ids) >= self._context:
            raise InputError(
                f"the prompt has {len(ids):,} tokens; {self._name} holds {self._context:,} with the answer"
            )
        return ids
