"""From a record, as people have it, to an example: what an objective learns from, in one form and under its own names.

prompt, completion, system, text, label, steps, labels      as the columns of these settings hold them
messages                                                    a conversation
asked                                                       how many of its turns are no targets
chosen, rejected                                            texts, or the messages that follow `messages`
tools                                                       what the conversation may call
"""

from __future__ import annotations

import json
from typing import Any

from squadron.core.errors import InputError
from squadron.data.conversations import (
    Message,
    as_messages,
    looks_like_conversation,
    read_completion,
    read_conversation,
    read_pair,
    read_prompt,
    read_tools,
)
from squadron.data.records import Record
from squadron.methods.finetune.config import ColumnsConfig, ObjectiveName, RecordsConfig

Example = dict[str, Any]
EXAMPLE_TYPES = {"record": "int64", "where": "string", "example": "json"}
"""The columns of examples in a file."""


def read_example(objective: ObjectiveName, data: RecordsConfig, record: Record) -> Example:
    """Raises InputError, with the record and the turn, for a record that this objective cannot be learned from."""
    example = _read_as(objective, data, record)
    try:
        json.dumps(example)
    except TypeError as error:  # bytes and the like inside of messages, steps or tools
        fix = "leave it out, or write it as text"
        raise InputError(f"a value is neither text nor number: {error}", where=record.where, fix=fix) from None
    return example


def _read_as(objective: ObjectiveName, data: RecordsConfig, record: Record) -> Example:
    match objective:
        case "sft":
            return _read_supervised(data, record)
        case "dpo" | "reward":
            return _read_preference(data.columns, record)
        case "process_reward":
            return _read_steps(data.columns, record)
        case "classification":
            return _read_classified(data.columns, record)


def to_row(example: Example, number: int, where: str) -> dict[str, Any]:
    """An example as a row of `EXAMPLE_TYPES`: the `number` of its record, counted from 0, and where that stands.

    It is one column of JSON, so that nothing of it can be taken for a column of ours.
    """
    return {"record": number, "where": where, "example": example}


def _read_supervised(data: RecordsConfig, record: Record) -> Example:
    columns = data.columns
    if columns.messages:
        given = record.value(columns.messages, "data.columns.messages")
        messages = read_conversation(given, record.where, columns.messages)
        return _with_system({"messages": messages}, columns, record) | _tools(columns, record)
    if columns.text:
        return {"text": _text(record, columns.text)}
    _point_to_conversation(columns, record)
    prompt = _prompt(columns, record)
    said = record.value(columns.completion, "data.columns.completion")
    completion = read_completion(said, record.where, columns.completion)
    if isinstance(prompt, str) and isinstance(completion, str):
        example: Example = {"prompt": prompt, "completion": completion}
    else:
        asked = as_messages(prompt, "user")
        example = {"messages": asked + as_messages(completion, "assistant"), "asked": len(asked)}
    return _with_system(example, columns, record) | _tools(columns, record)


def _read_preference(columns: ColumnsConfig, record: Record) -> Example:
    name = columns.prompt or "prompt"
    given = record.values.get(columns.prompt) if columns.prompt else None
    chosen = record.value(columns.chosen, "data.columns.chosen")
    sides = chosen, record.value(columns.rejected, "data.columns.rejected")
    if all(isinstance(side, str) and not looks_like_conversation(side) for side in sides):
        record.value(name, "data.columns.prompt")
    prompt, chosen, rejected = read_pair(given, *sides, record.where, (name, columns.chosen, columns.rejected))
    example = {"prompt" if isinstance(prompt, str) else "messages": prompt, "chosen": chosen, "rejected": rejected}
    return _with_system(example, columns, record) | _tools(columns, record)


def _read_steps(columns: ColumnsConfig, record: Record) -> Example:
    prompt = _prompt(columns, record)
    steps = record.texts(columns.steps, "data.columns.steps")
    labels = record.items(columns.labels, "data.columns.labels")
    for number, label in enumerate(labels, start=1):
        if label not in (0, 1):  # true and false are 1 and 0
            what = f"a label of a step is true or false, or 1 or 0, not {label!r:.60}"
            fix = "give one of these for each step; say from which score on a step is right"
            raise InputError(what, where=f"{record.where}, {columns.labels} {number}", fix=fix)
    if len(steps) != len(labels):
        what = f"there are {len(steps)} steps and {len(labels)} labels"
        raise InputError(what, where=record.where, fix="give each step a label")
    labels = [int(label) for label in labels]
    example = {"prompt" if isinstance(prompt, str) else "messages": prompt, "steps": steps, "labels": labels}
    return _with_system(example, columns, record) | _tools(columns, record)


def _read_classified(columns: ColumnsConfig, record: Record) -> Example:
    label = record.label(columns.label, "data.columns.label")
    if isinstance(label, str) and not label.strip():
        what = f"the column {columns.label!r} is empty in this record"
        raise InputError(what, where=record.where, fix="give its class, or leave the record out")
    return {"text": _text(record, columns.text or "text"), "label": label}


def _text(record: Record, column: str) -> str:
    value = record.values.get(column)
    chat = not isinstance(value, str) and looks_like_conversation(value)
    return record.text(column, "data.columns.text", fix=f"set data.columns.messages={column}" if chat else "")


def _prompt(columns: ColumnsConfig, record: Record) -> str | list[Message]:
    name = columns.prompt or "prompt"
    return read_prompt(record.value(name, "data.columns.prompt"), record.where, name)


def _tools(columns: ColumnsConfig, record: Record) -> Example:
    """The tools that a record has, if it has some."""
    value = record.values.get(columns.tools) if columns.tools else None
    tools = read_tools(value, record.where, columns.tools or "")
    return {"tools": tools} if tools else {}


def _with_system(example: Example, columns: ColumnsConfig, record: Record) -> Example:
    """The example with the record's own system prompt before it; records may go without one."""
    if columns.system is None:
        return example
    there = record.has(columns.system) or columns.system not in record.values  # a column that is not there is refused
    system = record.text(columns.system, "data.columns.system") if there else ""
    if not system or "messages" not in example:
        return example | ({"system": system} if system else {})
    messages = example["messages"]
    if messages[0]["role"] == "system":
        what = f"the conversation has a system prompt, and the column {columns.system!r} another"
        raise InputError(
            what, where=record.where, fix="keep one; data.columns.system=null reads that of the conversation"
        )
    more = {"asked": example["asked"] + 1} if "asked" in example else {}
    return example | {"messages": [{"role": "system", "content": system}, *messages]} | more


def _point_to_conversation(columns: ColumnsConfig, record: Record) -> None:
    """Raise InputError if prompt or completion is missing and another column holds a conversation."""
    if columns.prompt in record.values and columns.completion in record.values:
        return
    for name, value in record.values.items():
        if looks_like_conversation(value):
            missing = columns.completion if columns.prompt in record.values else columns.prompt
            raise InputError(
                f"the column {missing!r} is missing from this record, and {name!r} holds a conversation",
                where=record.where,
                fix=f"set data.columns.messages={name}",
            )
