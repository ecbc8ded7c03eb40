"""From a record to the token ids of one training row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from squadron.methods.finetune.config import DataConfig, ObjectiveName, RecordsConfig
from squadron.train.models.errors import check_chat_template
from squadron.train.objectives.layout import IGNORED
from squadron.train.text.conversations import encode_conversation, prompt_text, token_ids
from squadron.train.text.endings import answer_end
from squadron.train.text.tokenizer import added_tokens

Encode = Callable[[Mapping[str, Any]], dict[str, Any]]


def wanted_columns(objective: ObjectiveName, data: RecordsConfig) -> dict[str, str]:
    """The columns that an objective reads, by the setting that names each."""
    columns = data.columns
    prompt = {"data.columns.prompt": columns.prompt}
    if objective in ("dpo", "reward"):
        return prompt | {"data.columns.chosen": columns.chosen, "data.columns.rejected": columns.rejected}
    if objective == "process_reward":
        return prompt | {"data.columns.steps": columns.steps, "data.columns.labels": columns.labels}
    if objective == "classification":
        return {"data.columns.text": columns.text or "text", "data.columns.label": columns.label}
    if columns.messages:
        return {"data.columns.messages": columns.messages}
    if columns.text:
        return {"data.columns.text": columns.text}
    return prompt | {"data.columns.completion": columns.completion}


def check_template(tokenizer: Any, data: DataConfig) -> None:
    """Raise ConfigError if conversations are to be encoded and the model has no chat template."""
    if data.chat or data.columns.messages:
        where = "data.chat" if data.chat else "data.columns.messages"
        fix = "take a model tuned for chat, or use prompt and completion columns with data.prompt_format"
        check_chat_template(tokenizer, where, fix=fix)


def encoder(objective: ObjectiveName, data: DataConfig, tokenizer: Any, classes: Sequence[Any] = ()) -> Encode:
    """The function that turns a record into a row for this objective; a row's `length` is its tokens."""
    columns = data.columns
    text = _Text(tokenizer, data)

    def sft(record: Mapping[str, Any]) -> dict[str, Any]:
        if columns.messages:
            return encode_conversation(tokenizer, record[columns.messages], data.train_on)
        if columns.text:
            ids = text.whole(record[columns.text])
            labels = list(ids)
        else:
            prompt, answer = text.prompt(record[columns.prompt]), text.answer(record[columns.completion])
            ids = prompt + answer
            labels = (list(prompt) if data.train_on == "all" else [IGNORED] * len(prompt)) + answer
        return {"input_ids": ids, "labels": labels, "length": len(ids)}

    def pair(record: Mapping[str, Any]) -> dict[str, Any]:
        prompt = text.prompt(record[columns.prompt])
        chosen, rejected = text.answer(record[columns.chosen]), text.answer(record[columns.rejected])
        row = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        if objective == "reward":
            row = {"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected}
        longest = len(prompt) + max(len(chosen), len(rejected))
        packed = 2 * len(prompt) + len(chosen) + len(rejected)
        return {**row, "length": longest, "packed_length": packed}

    def process(record: Mapping[str, Any]) -> dict[str, Any]:
        ids = text.prompt(record[columns.prompt])
        labels = [IGNORED] * len(ids)
        for step, right in zip(record[columns.steps], record[columns.labels], strict=True):
            tokens = text.ids(f"{step}\n")
            ids, labels = ids + tokens, labels + [IGNORED] * (len(tokens) - 1) + [int(right)]
        return {"input_ids": ids, "labels": labels, "length": len(ids)}

    def classified(record: Mapping[str, Any]) -> dict[str, Any]:
        ids = text.whole(record[columns.text or "text"])
        return {"input_ids": ids, "label": classes.index(record[columns.label]), "length": len(ids)}

    choice: dict[ObjectiveName, Encode] = {
        "sft": sft,
        "dpo": pair,
        "reward": pair,
        "process_reward": process,
        "classification": classified,
    }
    return choice[objective]


def cut(row: dict[str, Any], limit: int) -> dict[str, Any]:
    """The row with what is over `limit` tokens taken off its end; a prompt is never cut."""
    if "prompt_ids" in row:
        room = max(0, limit - len(row["prompt_ids"]))
        row = row | {name: row[name][:room] for name in ("chosen_ids", "rejected_ids")}
        row["packed_length"] = 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])
        return row | {"length": limit}
    if "label" in row:  # which is told by the last token
        return row | {"input_ids": row["input_ids"][: limit - 1] + row["input_ids"][-1:], "length": limit}
    names = [name for name in ("input_ids", "labels", "chosen_ids", "rejected_ids") if name in row]
    return row | {name: row[name][:limit] for name in names} | {"length": limit}


class _Text:
    """Strings to ids, with the settings of one run. Prompt and answer are encoded apart, so that where one ends and
    the other begins does not depend on what stands beside it."""

    def __init__(self, tokenizer: Any, data: DataConfig) -> None:
        self._tokenizer, self._data = tokenizer, data
        end = answer_end(tokenizer, chat=data.chat)
        self.end = [end] if data.end_of_sequence and end is not None else []
        self._begin, behind = added_tokens(tokenizer)
        self._end_of_text = behind or self.end

    def ids(self, text: str) -> list[int]:
        return token_ids(self._tokenizer, text)

    def whole(self, text: str) -> list[int]:
        """A text of its own, between what the tokenizer puts around it."""
        return self._begun(self.ids(text)) + self._end_of_text

    def prompt(self, text: str) -> list[int]:
        shaped = self._data.prompt_format.replace("{prompt}", text)
        if self._data.chat:
            return self.ids(prompt_text(self._tokenizer, [{"role": "user", "content": shaped}]))
        return self._begun(self.ids(shaped))

    def _begun(self, ids: list[int]) -> list[int]:
        """Behind the beginning that the tokenizer gives every text, once."""
        return ids if ids[: len(self._begin)] == self._begin else self._begin + ids

    def answer(self, text: str) -> list[int]:
        return self.ids(text) + self.end
