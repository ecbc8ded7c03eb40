"""Conversations as people write them: what is read, and what is refused, with the row, the turn and a form that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.data.conversations import read_conversation, read_pair, read_tools
from squadron.data.records import Record, read_records
from squadron.data.rows import ArrowRows, write_rows
from squadron.methods.finetune.config import RecordsConfig
from squadron.methods.finetune.examples import EXAMPLE_TYPES, read_example, to_row

ASK, SAY = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}
OTHER = {"role": "assistant", "content": "bye"}
SYSTEM = {"role": "system", "content": "be kind"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}


def read(value: Any) -> list[dict[str, Any]]:
    return read_conversation(value, "a.jsonl:3")


@pytest.mark.parametrize(
    "value",
    [
        [ASK, SAY],
        json.dumps([ASK, SAY]),
        [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}],
        [ASK, {"role": "assistant", "content": [{"type": "text", "text": "h"}, "i"]}],
        [ASK | {"name": None}, SAY | {"tool_calls": None}],
        [ASK, SAY | {"tool_calls": []}],
    ],
)
def test_forms_that_people_use_are_one_conversation(value: Any) -> None:
    assert read(value) == [ASK, SAY]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "tool_calls": [CALL["function"]]},
        {"role": "assistant", "function_call": CALL["function"]},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
    ],
)
def test_calls_need_no_content_and_keep_their_arguments(turn: dict[str, Any]) -> None:
    assert read([ASK, turn])[1] == {"role": "assistant", "content": None, "tool_calls": [CALL]}


def test_arguments_thoughts_and_names_stay_as_they_were_given() -> None:
    call = {"id": "x1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,  "a": null}'}}
    said = {"role": "assistant", "content": "", "reasoning_content": " so ", "tool_calls": [call]}
    back = {"role": "tool", "content": "1", "tool_call_id": "x1", "name": "f"}
    assert read([ASK, said, back, SAY]) == [ASK, said, back, SAY]
    odd = {"function": {"name": "f", "arguments": {"z": None, "a": [1, {"y": None}]}}, "type": "function"}
    assert read([ASK, {"role": "assistant", "tool_calls": [odd]}])[1]["tool_calls"] == [odd]


@pytest.mark.parametrize(
    ("value", "where", "what", "fix"),
    [
        ("hello", "a.jsonl:3", "no list of messages", "role"),
        ([], "a.jsonl:3", "no list of messages", "role"),
        ([ASK], "a.jsonl:3", "no turn of the assistant", "assistant"),
        ([ASK, {"role": "assistant", "content": None}], "turn 2", "no content", "tool_calls"),
        ([ASK, {"speaker": "bot", "text": "hi"}], "turn 2", "it has speaker, text", '"role"'),
        ([ASK, "hi"], "turn 2", "is a str", "role"),
        ([ASK, {"role": "assistant", "content": [{"type": "image"}]}], "turn 2", "no text but image", '"text"'),
        ([ASK, {"role": "tool", "content": {"a": 1}}, SAY], "turn 2", "no text but object", "JSON text"),
        ([ASK | {"tool_calls": [CALL]}, SAY], "turn 1", "user calls a tool", "assistant"),
        ([ASK, {"role": "assistant", "tool_calls": [{"id": "1"}]}], "turn 2", "names no tool", "arguments"),
        ([ASK, {"from": "function_call", "value": "weather Rome"}], "turn 2", "cannot be read", "arguments"),
        ([ASK, {"from": "function_call", "value": '{"name": "f", "arguments": "x"}'}], "turn 2", "no JSON object", "{"),
    ],
)
def test_what_cannot_be_read_names_the_turn_and_a_form_that_can(value: Any, where: str, what: str, fix: str) -> None:
    with pytest.raises(InputError) as refused:
        read(value)
    assert where in refused.value.where and "a.jsonl:3" in refused.value.where
    assert what in refused.value.what and fix in refused.value.fix


def test_tools_are_a_list_or_a_list_as_text() -> None:
    tool = {"type": "function", "function": {"name": "weather"}}
    for value in ([tool], json.dumps([tool]), [tool["function"]], json.dumps([{"name": "weather"}])):
        assert read_tools(value, "row 1") == [tool]
    assert read_tools(None, "row 1") == read_tools("", "row 1") == read_tools([], "row 1") == []
    with pytest.raises(InputError, match="no list of tools"):
        read_tools("weather", "row 1")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "asked"),
    [
        (None, [ASK, SAY], [ASK, OTHER], [ASK]),
        ("hello", [ASK, SAY], [ASK, OTHER], [ASK]),
        ("hello", [SAY], [OTHER], [ASK]),
        ("hello", SAY, OTHER, [ASK]),
        ([SYSTEM, ASK], [SAY], [OTHER], [SYSTEM, ASK]),
        ([SYSTEM, ASK], [SYSTEM, ASK, SAY], [SYSTEM, ASK, OTHER], [SYSTEM, ASK]),
        ([SYSTEM, ASK], [ASK, SAY], [ASK, OTHER], [SYSTEM, ASK]),
        ([SYSTEM], [ASK, SAY], [ASK, OTHER], [SYSTEM, ASK]),
        ("hello", [SYSTEM, ASK, SAY], [SYSTEM, ASK, OTHER], [SYSTEM, ASK]),
        (None, [ASK, SAY, ASK, SAY], [ASK, SAY, ASK, OTHER], [ASK, SAY, ASK]),
    ],
)
def test_the_prompt_of_a_pair_is_the_shared_beginning(prompt: Any, chosen: Any, rejected: Any, asked: Any) -> None:
    assert read_pair(prompt, chosen, rejected, "row 1") == (asked, [SAY], [OTHER])


def test_pairs_of_text_need_a_prompt_and_stay_text() -> None:
    assert read_pair("q", "a", "b", "row 1") == ("q", "a", "b")
    assert read_pair([SYSTEM, ASK], "a", "b", "row 1") == ([SYSTEM, ASK], "a", "b")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "what", "fix"),
    [
        (None, "a", "b", "missing", "data.columns.prompt"),
        ("q", "a", "a", "are the same", "leave this pair out"),
        (None, [ASK, SAY], [ASK, SAY], "are the same", "leave this pair out"),
        ("q", [ASK, SAY], "b", "the other a list", "both"),
        (None, [SAY], [OTHER], "nothing is asked", "data.columns.prompt"),
        (None, [ASK, SAY], [ASK | {"content": "no"}, OTHER], "part where", "assistant"),
        ("something else", [ASK, SAY], [ASK, OTHER], "not in the conversation", "data.columns.prompt=null"),
    ],
)
def test_pairs_that_are_none_are_refused(prompt: Any, chosen: Any, rejected: Any, what: str, fix: str) -> None:
    with pytest.raises(InputError) as refused:
        read_pair(prompt, chosen, rejected, "row 1")
    assert what in refused.value.what and fix in refused.value.fix and "row 1" in refused.value.where


def example(objective: Any, values: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return read_example(objective, RecordsConfig.model_validate({"columns": columns}), Record("a.jsonl:1", values))


def test_prompts_and_completions_may_be_messages_and_have_a_system_prompt() -> None:
    plain = {"prompt": "hello", "completion": "hi"}
    assert example("sft", plain) == plain
    assert example("sft", plain | {"system": "be kind"}, system="system") == plain | {"system": "be kind"}
    assert example("sft", plain | {"system": None}, system="system") == plain
    whole = {"messages": [SYSTEM, ASK, SAY], "asked": 2}
    assert example("sft", {"prompt": [SYSTEM, ASK], "completion": "hi"}) == whole
    assert example("sft", {"prompt": "hello", "completion": [SAY], "system": "be kind"}, system="system") == whole
    with pytest.raises(InputError, match="begins with a turn of the user"):
        example("sft", {"prompt": "hello", "completion": [ASK, SAY]})
    with pytest.raises(InputError, match="has a system prompt"):
        example("sft", {"messages": [SYSTEM, ASK, SAY], "s": "be rude"}, messages="messages", system="s")
    pair = example("dpo", {"chosen": [ASK, SAY], "rejected": [ASK, OTHER], "s": "be kind"}, system="s")
    assert pair == {"messages": [SYSTEM, ASK], "chosen": [SAY], "rejected": [OTHER]}


def test_a_conversation_in_another_column_is_pointed_to() -> None:
    talk = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]
    with pytest.raises(InputError, match="holds a conversation") as refused:
        example("sft", {"conversations": talk})
    assert refused.value.fix == "set data.columns.messages=conversations"
    assert example("sft", {"conversations": talk}, messages="conversations") == {"messages": [ASK, SAY]}


def test_examples_come_back_from_rows_as_they_were(tmp_path: Path) -> None:
    given = {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}], "label": 1.5}
    write_rows(Folder(tmp_path), "a.arrow", [to_row(given, 7, "a.jsonl:8")], EXAMPLE_TYPES)
    (row,) = ArrowRows(Folder(tmp_path), ["a.arrow"])
    assert row == {"record": 7, "where": "a.jsonl:8", "example": given}
    assert json.dumps(row["example"]) == json.dumps(given)  # in the same order


def test_nulls_that_a_table_adds_are_no_part_of_a_record(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    called = [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    other = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "utc"}}}
    rows = [[ASK, SAY], called, [ASK, {"role": "assistant", "content": None, "tool_calls": [other]}]]
    pq.write_table(pa.Table.from_pylist([{"messages": row} for row in rows]), tmp_path / "a.parquet")
    assert [read(record.values["messages"]) for record in read_records(str(tmp_path / "a.parquet"))] == rows


@pytest.mark.parametrize(
    ("turn", "what"),
    [
        (SAY | {"tool_calls": "weather(Rome)"}, "calls of a turn cannot be read"),
        ({"role": "tool", "content": {"text": "sunny", "temp": 3}}, "is no text but object"),
        ({"role": "tool", "content": [{"text": "sunny", "temp": 3}]}, "is no text but object"),
    ],
)
def test_nothing_of_a_turn_is_lost_without_a_word(turn: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        read([ASK, turn, SAY])


def test_the_old_role_of_functions_is_the_tools() -> None:
    assert read([ASK, SAY, {"role": "function", "name": "f", "content": "3"}, OTHER])[2]["role"] == "tool"


def test_a_column_of_tools_that_holds_none_is_named_with_the_setting() -> None:
    assert read_tools("null", "here") == read_tools(None, "here") == read_tools("", "here") == []
    for foreign in (["hammer"], "hammer", 3):
        with pytest.raises(InputError, match=r"data\.columns\.tools=null"):
            read_tools(foreign, "here")


def test_pairs_as_json_text_are_pairs_of_messages() -> None:
    one, other = [ASK, SAY], [ASK, OTHER]
    assert read_pair(None, json.dumps(one), json.dumps(other), "here") == read_pair(None, one, other, "here")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (r'[{"role": "user", "content": "\ud83d"}]', "half of a surrogate pair"),
        ('[{"role": "user", "content": "a", "content": "b"}]', "the key 'content' stands twice"),
        ('[{"role": "user", "content": "a", "n": %s}]' % ("9" * 5000), "too long"),
        ("[" * 10**5 + "]" * 10**5, "levels deep"),
    ],
)
def test_messages_as_json_text_are_kept_as_they_are_or_named(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as refused:
        read(text)
    assert refused.value.where.startswith("a.jsonl:3")
    if text.startswith("[{"):
        with pytest.raises(InputError, match=what):
            read_pair("ask", text, text.replace("a", "b"), "here")


def test_bytes_in_a_message_are_named_with_their_record() -> None:
    with pytest.raises(InputError, match=r"neither text nor number(.|\n)*a\.jsonl:1"):
        example("sft", {"messages": [ASK, SAY | {"image": b"png"}]}, messages="messages")
