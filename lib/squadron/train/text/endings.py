"""Where an answer ends: the token that a tokenizer's chat template puts behind what the assistant says.

It need not be the tokenizer's end of text: base models of Qwen end texts with `<|endoftext|>` and turns with
`<|im_end|>`, Gemma's with `<eos>` and `<end_of_turn>`. GLM puts nothing behind an answer: the next turn's `<|user|>`
ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

_ASKED, _SAID = "question", "answerofthemodel"


def turn_end(tokenizer: Any) -> int | None:
    """The special token that ends an assistant's turn; None without a chat template, or where its turns end in plain
    text."""
    return _turn_end(tokenizer, str(getattr(tokenizer, "chat_template", None) or ""))


def answer_end(tokenizer: Any, *, chat: bool) -> int | None:
    """The token to teach at the end of a completion: in a conversation the end of its turn, else the end of text."""
    end = turn_end(tokenizer) if chat else None
    return tokenizer.eos_token_id if end is None else end


def stop_tokens(tokenizer: Any, *named: int | Sequence[int] | None) -> list[int]:
    """Every token that an answer stops at: those `named`, such as a model's generation configuration has, the end of
    text, and the end of a turn. Each once, in this order."""
    every = [token for one in named for token in _as_list(one)]
    every += [token for token in (tokenizer.eos_token_id, turn_end(tokenizer)) if token is not None]
    return list(dict.fromkeys(every))


def with_end(tokenizer: Any, ids: Sequence[int], *, chat: bool) -> list[int]:
    """What the assistant says, as token ids, with its end behind it unless the template has put one there."""
    end = answer_end(tokenizer, chat=chat)
    return list(ids) if end is None or end in ids else [*ids, end]


# A template is rendered once for each tokenizer; a changed template is another key.
@lru_cache(maxsize=16)
def _turn_end(tokenizer: Any, template: str) -> int | None:
    if not template:
        return None
    asked, said = {"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}
    special = special_tokens(tokenizer)
    for messages in ([asked, said], [asked, said, asked]):
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception:  # a template is the model's own program, which may refuse anything
            return None
        behind = text.rpartition(_SAID)[2]
        for token in tokenizer(behind, add_special_tokens=False)["input_ids"]:
            if token in special:
                return int(token)
    return None


def special_tokens(tokenizer: Any) -> Collection[int]:
    """Ids of tokens that are no part of a text."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _as_list(tokens: int | Sequence[int] | None) -> list[int]:
    if tokens is None:
        return []
    return [tokens] if isinstance(tokens, int) else list(tokens)
