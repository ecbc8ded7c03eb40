"""From an example to the token ids of training rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from squadron.core.blanks import fill_in
from squadron.core.errors import InputError
from squadron.data.conversations import Message, as_messages
from squadron.methods.finetune.config import DataConfig, ObjectiveName
from squadron.train.models.errors import check_chat_template
from squadron.train.objectives.layout import IDS, IGNORED, PREFERENCE_TYPES, SUPERVISED_TYPES
from squadron.train.text.conversations import encode_answers, encode_turns, token_ids
from squadron.train.text.fitting import pair_row, reward_row
from squadron.train.text.templates import render, template_form
from squadron.train.text.tokenizer import added_tokens

Row = dict[str, Any]
Encode = Callable[[Mapping[str, Any]], list[Row]]
ROW_TYPES: dict[ObjectiveName, dict[str, str]] = {
    "sft": SUPERVISED_TYPES,
    "dpo": PREFERENCE_TYPES,
    "reward": {"chosen_ids": IDS, "rejected_ids": IDS, "length": "int64", "packed_length": "int64"},
    "process_reward": SUPERVISED_TYPES,
    "classification": {"input_ids": IDS, "label": "int64", "length": "int64"},
}
"""The columns of each objective's rows in a file, besides the `number` of their record."""
_NO_TEMPLATE = "take a model tuned for chat, or use prompt and completion columns with data.prompt_format"


def check_template(tokenizer: Any, data: DataConfig, chats: bool = False) -> None:
    """Raise ConfigError if conversations are to be encoded, which `chats` says too, and the model has no chat
    template."""
    if data.chat or data.columns.messages or chats:
        where = "data.chat" if data.chat else "data.columns.messages" if data.columns.messages else "data.path"
        check_chat_template(tokenizer, where, fix=_NO_TEMPLATE)


def encoder(objective: ObjectiveName, data: DataConfig, tokenizer: Any, classes: Sequence[Any] = ()) -> Encode:
    """The function that turns an example into rows for this objective; a row's `length` is its tokens.

    An example is one row; a conversation may be several, where the chat template renders earlier turns otherwise.
    """
    text = _Text(tokenizer, data)

    def sft(example: Mapping[str, Any]) -> list[Row]:
        if "text" in example:
            ids = text.whole(example["text"])
            return [{"input_ids": ids, "labels": list(ids), "length": len(ids)}]
        if (messages := text.asked(example)) is not None:
            text.refuse_open_turns()
            asked = example.get("asked", 0)
            if "messages" not in example:
                messages, asked = [*messages, *as_messages(example["completion"], "assistant")], len(messages)
            return encode_turns(
                tokenizer,
                messages,
                example.get("tools", ()),
                asked=asked,
                train_on=data.train_on,
                last_only=data.mask_history,
            )
        prompt, answer = text.prompt(example["prompt"]), text.answer(example["completion"])
        labels = (list(prompt) if data.train_on == "all" else [IGNORED] * len(prompt)) + answer
        return [{"input_ids": prompt + answer, "labels": labels, "length": len(labels)}]

    def pair(example: Mapping[str, Any]) -> list[Row]:
        sides = example["chosen"], example["rejected"]
        if (messages := text.asked(example)) is not None:
            tools = example.get("tools", ())
            if not all(isinstance(side, str) for side in sides):
                text.refuse_open_turns()
            prompt, (chosen, rejected) = encode_answers(tokenizer, messages, sides, tools, ended=data.end_of_sequence)
        else:
            prompt, (chosen, rejected) = text.prompt(example["prompt"]), map(text.answer, sides)
        if objective == "reward":
            return [reward_row(prompt + chosen, prompt + rejected)]
        return [pair_row(prompt, chosen, rejected)]

    def process(example: Mapping[str, Any]) -> list[Row]:
        if (messages := text.asked(example)) is not None:
            tools = example.get("tools", ())
            fitted = template_form(tokenizer).fit(messages, tools)
            ids = text.ids(render(tokenizer, fitted, tools, answer_next=True))
        else:
            ids = text.prompt(example["prompt"])
        labels = [IGNORED] * len(ids)
        for step, right in zip(example["steps"], example["labels"], strict=True):
            tokens = text.ids(f"{step}\n")
            if not tokens:
                raise InputError(f"the step {step!r} has no token", where="steps", fix="leave it out")
            ids, labels = ids + tokens, labels + [IGNORED] * (len(tokens) - 1) + [int(right)]
        return [{"input_ids": ids, "labels": labels, "length": len(ids)}]

    def classified(example: Mapping[str, Any]) -> list[Row]:
        ids = text.whole(example["text"])
        return [{"input_ids": ids, "label": classes.index(example["label"]), "length": len(ids)}]

    choice: dict[ObjectiveName, Encode] = {
        "sft": sft,
        "dpo": pair,
        "reward": pair,
        "process_reward": process,
        "classification": classified,
    }
    return choice[objective]


class _Text:
    """Strings to ids, with the settings of one run. Prompt and answer are encoded apart, so that where one ends and
    the other begins does not depend on what stands beside it; those of a chat template are not."""

    def __init__(self, tokenizer: Any, data: DataConfig) -> None:
        self._tokenizer, self._data = tokenizer, data
        end = tokenizer.eos_token_id
        self.end = [end] if data.end_of_sequence and end is not None else []
        self._begin, behind = added_tokens(tokenizer)
        self._end_of_text = behind or self.end

    def ids(self, text: str) -> list[int]:
        return token_ids(self._tokenizer, text)

    def whole(self, text: str) -> list[int]:
        """A text of its own, between what the tokenizer puts around it."""
        return self._begun(self.ids(text)) + self._end_of_text

    def asked(self, example: Mapping[str, Any]) -> list[Message] | None:
        """The messages of an example, or of its prompt where prompts are put into the chat template; None where they
        are not."""
        if (messages := example.get("messages")) is None and not self._data.chat:
            if "system" in example:
                fix = "set data.chat=true, or leave it out by data.columns.system=null"
                raise InputError(
                    "a system prompt has its place in a chat template", where="data.columns.system", fix=fix
                )
            if "tools" in example:
                fix = "set data.chat=true, or leave them out by data.columns.tools=null"
                raise InputError("tools have their place in a chat template", where="data.columns.tools", fix=fix)
            return None
        check_chat_template(self._tokenizer, "data.columns", fix=_NO_TEMPLATE)
        if messages is not None and self._data.prompt_format != "{prompt}":
            what = "a conversation is not put into prompt_format"
            raise InputError(what, where="data.prompt_format", fix="leave it out, or give prompts as text")
        if messages is not None:
            return list(messages)
        system = [{"role": "system", "content": example["system"]}] if "system" in example else []
        return [*system, {"role": "user", "content": self._shaped(example["prompt"])}]

    def refuse_open_turns(self) -> None:
        """Raise InputError where answers are not to end, and turns of a chat template always do."""
        if not self._data.end_of_sequence:
            fix = "leave it out, or give prompt and answers as text"
            raise InputError("a turn of a conversation always ends", where="data.end_of_sequence", fix=fix)

    def prompt(self, text: str) -> list[int]:
        return self._begun(self.ids(self._shaped(text)))

    def _begun(self, ids: list[int]) -> list[int]:
        """Behind the beginning that the tokenizer gives every text, once."""
        return ids if ids[: len(self._begin)] == self._begin else self._begin + ids

    def answer(self, text: str) -> list[int]:
        return self.ids(text) + self.end

    def _shaped(self, prompt: str) -> str:
        return fill_in(self._data.prompt_format, prompt=prompt)
