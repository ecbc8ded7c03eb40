"""From a conversation to the token ids of a training row, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from squadron.core.errors import ConfigError
from squadron.train.objectives.layout import IGNORED
from squadron.train.text.endings import with_end


def encode_conversation(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], train_on: Literal["completion", "all"] = "completion"
) -> dict[str, Any]:
    """`input_ids`, `labels` and `length` of a conversation. Only what the assistant says is a target, its end of turn
    included, unless `train_on` is "all".

    Raises ConfigError if the template rewrites earlier turns, so that targets cannot be told from the rest.
    """
    ids: list[int] = []
    labels: list[int] = []
    done = ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _shape(tokenizer, messages[:number], answer_next=True)
        whole = _shape(tokenizer, messages[: number + 1], answer_next=False)
        if not before.startswith(done) or not whole.startswith(before):
            what = "the chat template rewrites earlier turns, so that targets cannot be told from the rest"
            raise ConfigError(what, where="messages", fix="use conversations of one answer")
        asked, said = token_ids(tokenizer, before[len(done) :]), token_ids(tokenizer, whole[len(before) :])
        if number == len(messages) - 1:
            said = with_end(tokenizer, said, chat=True)
        ids += asked + said
        labels += (asked if train_on == "all" else [IGNORED] * len(asked)) + said
        done = whole
    return {"input_ids": ids, "labels": labels, "length": len(ids)}


def encode_completion(tokenizer: Any, prompt: str, completion: str) -> dict[str, Any]:
    """`input_ids`, `labels` and `length` of plain text that ends; only the completion and its end are targets."""
    before, after = token_ids(tokenizer, prompt), [*token_ids(tokenizer, completion), tokenizer.eos_token_id]
    labels = [IGNORED] * len(before) + after
    return {"input_ids": before + after, "labels": labels, "length": len(labels)}


def prompt_text(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation as the text that the assistant goes on from: the opening of its turn, or the words of that turn
    which the conversation ends with."""
    begun = messages[-1]["content"] if messages[-1]["role"] == "assistant" else None
    if begun is None:
        return _shape(tokenizer, messages, answer_next=True)
    return _shape(tokenizer, messages[:-1], answer_next=True) + begun


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text as it is, with nothing added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _shape(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, answer_next: bool) -> str:
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer_next)
    return text
