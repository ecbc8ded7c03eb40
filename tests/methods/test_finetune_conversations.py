"""The inputs that people with hub models have, from a file to what is trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from squadron.core.cli import main
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.data.rows import ArrowRows, write_rows
from squadron.methods.finetune.config import DataConfig, ObjectiveName
from squadron.methods.finetune.dataset import encode_row, find_records
from squadron.methods.finetune.encoding import encoder
from squadron.methods.finetune.examples import EXAMPLE_TYPES, read_example, to_row
from squadron.train.models.families import make_family_model
from squadron.train.objectives.layout import IGNORED

ASK, SAY = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}
ARGUMENTS = {"city": "Rome", "days": [1, None], "ü": {"a": None}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "tells the weather"}}]
CALLING = [
    {"role": "system", "content": "be nice"},
    {"role": "user", "content": "weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "it is sunny"},
]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The tokenizer of a family's stand-in."""
    from transformers import AutoTokenizer

    @cache
    def made(name: str) -> Any:
        return AutoTokenizer.from_pretrained(make_family_model(tmp_path_factory.mktemp("family") / name, name))

    return made


def encoded(
    tokenizer: Any, folder: Path, records: list[dict[str, Any]], objective: ObjectiveName = "sft", **settings: Any
) -> list[dict[str, Any]]:
    """The rows of records, by way of a file and of what is stored of it."""
    path = folder / "records.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    data = DataConfig.model_validate({"path": str(path), **settings})
    encode = encoder(objective, data, tokenizer)
    examples = [read_example(objective, data, record) for record in find_records(data)]
    return [
        row
        for number, one in enumerate(examples)
        for row in encode_row(encode, to_row(one, number, f"line {number + 1}"))
    ]


def shown(tokenizer: Any, row: dict[str, Any]) -> list[str]:
    """A row's text: first what is given, then what is taught."""
    given = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED]
    return [tokenizer.decode(given), tokenizer.decode([label for label in row["labels"] if label != IGNORED])]


MESSAGES = {"columns": {"messages": "messages"}}


@pytest.mark.parametrize("name", ["llama3.1", "qwen2.5", "qwen3", "gptoss", "glm4moe"])
def test_a_call_that_comes_after_a_thousand_rows_is_taught_as_it_was_given(
    load: Callable[[str], Any], tmp_path: Path, name: str
) -> None:
    other = [ASK, {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "clock", "arguments": {"zone": "utc"}}}]}]  # fmt: skip
    records = [{"messages": [ASK, SAY]}] * 1030 + [{"messages": CALLING, "tools": TOOLS}, {"messages": other}]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    data = DataConfig.model_validate({"path": str(path), **MESSAGES})
    found = enumerate(find_records(data))
    stored = (to_row(read_example("sft", data, record), number, record.where) for number, record in found)
    write_rows(Folder(tmp_path), "records.arrow", stored, EXAMPLE_TYPES)
    rows = encode_row(encoder("sft", data, load(name)), ArrowRows(Folder(tmp_path), ["records.arrow"])[1030])
    mine = [shown(load(name), row) for row in rows]
    taught, given = "".join(said for _, said in mine), mine[-1][0]
    if name == "glm4moe":
        wanted = ["<arg_key>city</arg_key>\n<arg_value>Rome<", "<arg_value>[1, null]<", '<arg_value>{"a": null}<']
    else:
        wanted = [json.dumps(ARGUMENTS, ensure_ascii=False)]
    assert all(one in taught for one in wanted) and "it is sunny" in taught
    assert "tells the weather" in given and "be nice" in given and "sunny" in given
    assert "None" not in taught + given and "zone" not in taught


@pytest.mark.parametrize("name", ["qwen2.5", "deepseekv3", "qwen3"])
def test_arguments_that_are_text_are_not_quoted_again(load: Callable[[str], Any], tmp_path: Path, name: str) -> None:
    said = json.dumps({"city": "Rome"})
    call = {"type": "function", "function": {"name": "weather", "arguments": said}}
    talk = [ASK, {"role": "assistant", "content": None, "tool_calls": [call]}]
    (row,) = encoded(load(name), tmp_path, [{"messages": talk}], **MESSAGES)
    assert said in shown(load(name), row)[1]


def test_what_a_template_would_leave_out_is_refused_with_the_record(load: Callable[[str], Any], tmp_path: Path) -> None:
    thinking = [ASK, SAY | {"reasoning_content": "so"}]
    two = [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}]
    for name, record, where, what in (
        ("llama3", {"messages": CALLING}, "turn 3", "no place for calls"),
        ("llama3", {"messages": [ASK, SAY], "tools": TOOLS}, "tools", "no place for tools"),
        ("qwen2.5", {"messages": thinking}, "turn 2", "no place for 'reasoning_content'"),
        ("llama3.1", {"messages": two}, "turn 2", "one call a turn"),
        ("gemma2", {"messages": [{"role": "system", "content": "s"}, ASK, SAY]}, "turn", "System role not supported"),
    ):
        with pytest.raises(InputError, match=what) as refused:
            encoded(load(name), tmp_path, [{"messages": [ASK, SAY]}, record], **MESSAGES)
        assert "line 2" in refused.value.where and where in refused.value.where and refused.value.fix


def test_thinking_comes_in_the_field_that_a_template_reads(load: Callable[[str], Any], tmp_path: Path) -> None:
    for name, field in (("qwen3", "thinking"), ("gptoss", "reasoning_content")):
        (row,) = encoded(load(name), tmp_path, [{"messages": [ASK, SAY | {field: "because"}]}], **MESSAGES)
        assert "because" in shown(load(name), row)[1]


def test_every_answer_is_taught_once_or_the_last_alone(load: Callable[[str], Any], tmp_path: Path) -> None:
    talk = [ASK, SAY, {"role": "user", "content": "more"}, {"role": "assistant", "content": "bye"}]
    for name, count in (("qwen3", 2), ("qwen2.5", 1)):
        rows = encoded(load(name), tmp_path, [{"messages": talk}], **MESSAGES)
        assert len(rows) == count and {row["number"] for row in rows} == {0}
        taught = "".join(shown(load(name), row)[1] for row in rows)
        assert taught.count("hi<|im_end|>") == taught.count("bye<|im_end|>") == 1
        (last,) = encoded(load(name), tmp_path, [{"messages": talk}], mask_history=True, **MESSAGES)
        given, taught = shown(load(name), last)
        assert "hi" in given and "hi<|im_end|>" not in taught and "bye" in taught
        (everything,) = encoded(load(name), tmp_path, [{"messages": talk}], train_on="all", **MESSAGES)
        assert shown(load(name), everything) == ["", load(name).apply_chat_template(talk, tokenize=False)]


def test_forms_of_the_same_conversation_give_the_same_rows(load: Callable[[str], Any], tmp_path: Path) -> None:
    tokenizer = load("qwen2.5")
    system = {"role": "system", "content": "be kind"}
    (wanted,) = encoded(tokenizer, tmp_path, [{"messages": [system, ASK, SAY]}], **MESSAGES)
    shares = [
        {"from": "system", "value": "be kind"},
        {"from": "human", "value": "hello"},
        {"from": "gpt", "value": "hi"},
    ]
    asked = {"prompt": "hello", "completion": "hi", "system": "be kind"}
    for record, settings in (
        ({"conversations": shares}, {"columns": {"messages": "conversations"}}),
        ({"prompt": [system, ASK], "completion": "hi"}, {}),
        ({"prompt": [system, ASK], "completion": [SAY]}, {}),
        (asked, {"chat": True, "columns": {"system": "system"}}),
    ):
        assert encoded(tokenizer, tmp_path, [record], **settings) == [wanted]
    with pytest.raises(InputError, match="system prompt") as refused:
        encoded(tokenizer, tmp_path, [asked], columns={"system": "system"})
    assert "data.chat=true" in refused.value.fix


@pytest.mark.parametrize("objective", ["dpo", "reward"])
def test_pairs_of_conversations_are_those_of_texts_in_the_template(
    load: Callable[[str], Any], tmp_path: Path, objective: ObjectiveName
) -> None:
    tokenizer, bye = load("llama3.1"), SAY | {"content": "bye"}
    pair = {"prompt": "hello", "chosen": "hi", "rejected": "bye"}
    (wanted,) = encoded(tokenizer, tmp_path, [pair], objective, chat=True)
    lists = {"chosen": [ASK, SAY], "rejected": [ASK, bye]}
    for record in (lists, lists | {"prompt": "hello"}, {"prompt": [ASK], "chosen": [SAY], "rejected": [bye]}):
        assert encoded(tokenizer, tmp_path, [record], objective) == [wanted]
    ids = wanted["prompt_ids"] + wanted["chosen_ids"] if objective == "dpo" else wanted["chosen_ids"]
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template([ASK, SAY], tokenize=False)
    (steps,) = encoded(tokenizer, tmp_path, [pair], "dpo", chat=True, end_of_sequence=False)
    assert tokenizer.decode(steps["chosen_ids"]) == "hi"


def test_a_row_is_shown_as_the_model_gets_it(
    load: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "talk.jsonl"
    talk = [ASK, SAY, {"role": "user", "content": "more [b]?"}, {"role": "assistant", "content": "bye"}]
    path.write_text("".join(f"{json.dumps({'messages': one})}\n" for one in ([ASK, SAY], talk)))
    words = ["plan", "finetune", "smoke", f"data.path={path}", f"model.path={load('qwen3').name_or_path}"]
    assert main([*words, "data.columns.messages=messages", "--show-row", "2"]) == 0
    out = capsys.readouterr().out
    assert "Record 2" in out and "2 rows" in out and "turn 2" in out and "turn 4" in out
    assert "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nbye<|im_end|>\n⟧" in out
    assert "user\nmore [b]?<|im_end|>" in out and "assistant\nhi<|im_end|>" in out
    assert main([*words, "data.columns.messages=messages", "--show-row", "3"]) == 2
    assert "give 1 to 2" in capsys.readouterr().err
    assert main([*words, "--show-row", "1"]) == 2
    assert "set data.columns.messages=messages" in capsys.readouterr().err
    assert main(["plan", "flame", "--show-row", "1"]) == 2
    assert "flame has no rows to show" in capsys.readouterr().err
    assert main(["plan", "finetune", "smoke", "--show-row", "1"]) == 0
    assert "⟦" in capsys.readouterr().out
