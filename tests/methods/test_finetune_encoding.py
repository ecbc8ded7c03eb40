"""From records to token ids: what is a target, what ends a sequence, what is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.data.records import read_records
from squadron.data.rows import ArrowRows, write_rows
from squadron.methods.finetune.config import DataConfig, ObjectiveName
from squadron.methods.finetune.encoding import check_template, encoder
from squadron.train.models.families import make_family_model
from squadron.train.text.fitting import cut
from squadron.train.text.tokenizer import load_tokenizer, train_tokenizer

TALK = [
    {"role": "user", "content": "two and two?"},
    {"role": "assistant", "content": "four"},
    {"role": "user", "content": "and one more?"},
    {"role": "assistant", "content": "five"},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["two and two? four", "and one more? five", "Question: 12 + 7 = 19"], 300, folder)
    return AutoTokenizer.from_pretrained(folder)


def encode(objective: ObjectiveName, data: DataConfig, tokenizer: Any, example: dict[str, Any]) -> dict[str, Any]:
    (row,) = encoder(objective, data, tokenizer)(example)
    return row


def targets(tokenizer: Any, row: dict[str, Any]) -> str:
    kept = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert all(token == label for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100)
    text: str = tokenizer.decode(kept)
    return text


def test_any_text_comes_back_from_the_trained_tokenizer_and_digits_stand_alone(tokenizer: Any) -> None:
    for text in ("12 + 7 = 19", "Ünïcode → 漢字\n\ttabs", "<|end|>"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert len(tokenizer("1234", add_special_tokens=False)["input_ids"]) == 4


def test_only_the_completion_is_a_target_unless_all_is_asked_for(tokenizer: Any) -> None:
    record = {"prompt": "two and two?", "completion": " four"}
    row = encode("sft", DataConfig(prompt_format="Question: {prompt}"), tokenizer, record)
    assert tokenizer.decode(row["input_ids"]) == "Question: two and two? four<|end|>"
    assert targets(tokenizer, row) == " four<|end|>" and row["length"] == len(row["input_ids"])
    everything = encode("sft", DataConfig(train_on="all"), tokenizer, record)
    assert targets(tokenizer, everything) == "two and two? four<|end|>"


def test_in_a_conversation_what_the_assistant_says_is_the_target(tokenizer: Any) -> None:
    data = DataConfig.model_validate({"columns": {"messages": "messages"}})
    row = encode("sft", data, tokenizer, {"messages": TALK})
    assert tokenizer.decode(row["input_ids"]) == tokenizer.apply_chat_template(TALK, tokenize=False)
    assert targets(tokenizer, row) == "four<|end|>\nfive<|end|>\n"


def test_a_step_has_no_end_and_its_context_is_the_prompt(tokenizer: Any) -> None:
    record = {"prompt": "two and two?\nStep 1: add\n", "chosen": "Step 2: four", "rejected": "Step 2: five"}
    row = encode("dpo", DataConfig(end_of_sequence=False), tokenizer, record)
    assert tokenizer.decode(row["chosen_ids"]) == record["chosen"]
    assert tokenizer.decode(row["prompt_ids"]) == record["prompt"]
    ended = encode("dpo", DataConfig(), tokenizer, record)
    assert ended["chosen_ids"] == [*row["chosen_ids"], tokenizer.eos_token_id]
    assert row["packed_length"] == 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


def test_a_step_is_judged_at_its_last_token(tokenizer: Any) -> None:
    record = {"prompt": "two and two?\n", "steps": ["two", "four"], "labels": [True, False]}
    row = encode("process_reward", DataConfig(), tokenizer, record)
    places = [place for place, label in enumerate(row["labels"]) if label != -100]
    assert [row["labels"][place] for place in places] == [1, 0] and places[-1] == len(row["input_ids"]) - 1
    assert tokenizer.decode(row["input_ids"][: places[0] + 1]) == "two and two?\ntwo\n"


def test_cutting_takes_from_the_end_and_never_from_a_prompt(tokenizer: Any) -> None:
    row = encode("sft", DataConfig(), tokenizer, {"prompt": "two and two?", "completion": "four " * 40})
    short = cut(row, 20)
    assert short["input_ids"] == row["input_ids"][:20] and short["labels"] == row["labels"][:20]
    pair = encode("dpo", DataConfig(), tokenizer, {"prompt": "two and two?", "chosen": "a " * 40, "rejected": "b"})
    kept = cut(pair, 20)
    assert kept["prompt_ids"] == pair["prompt_ids"] and len(kept["prompt_ids"]) + len(kept["chosen_ids"]) == 20


def test_a_model_without_a_template_is_refused_where_one_is_needed(tokenizer: Any) -> None:
    bare = type("Bare", (), {"chat_template": None})()
    check_template(bare, DataConfig())
    for data in (DataConfig(chat=True), DataConfig.model_validate({"columns": {"messages": "m"}})):
        check_template(tokenizer, data)
        with pytest.raises(ConfigError, match="no chat template"):
            check_template(bare, data)


def test_a_template_that_rewrites_what_was_asked_is_refused(tokenizer: Any) -> None:
    import copy

    odd = copy.deepcopy(tokenizer)
    odd.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(InputError, match="rewrites what was asked"):
        encode("sft", DataConfig.model_validate({"columns": {"messages": "messages"}}), odd, {"messages": TALK})


@pytest.mark.parametrize(("family", "begins"), [("llama3", "<|begin_of_text|>"), ("gemma2", "<bos>"), ("qwen2.5", "")])
def test_texts_and_prompts_begin_as_the_tokenizer_begins_a_text(tmp_path: Path, family: str, begins: str) -> None:
    tokenizer = load_tokenizer(make_family_model(tmp_path, family))
    whole = encode("sft", DataConfig.model_validate({"columns": {"text": "text"}}), tokenizer, {"text": "two and"})
    apart = encode("sft", DataConfig(), tokenizer, {"prompt": "two and", "completion": ""})
    assert whole["input_ids"] == apart["input_ids"] == [*tokenizer("two and")["input_ids"], tokenizer.eos_token_id]
    assert tokenizer.decode(whole["input_ids"]) == f"{begins}two and{tokenizer.eos_token}"


def test_a_text_that_begins_so_already_is_not_begun_twice(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_family_model(tmp_path, "llama3"))
    row = encode("sft", DataConfig(), tokenizer, {"prompt": "<|begin_of_text|>two", "completion": ""})
    assert tokenizer.decode(row["input_ids"]) == "<|begin_of_text|>two<|eot_id|>"


def test_an_encoder_classifies_a_text_between_its_own_marks(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_family_model(tmp_path, "bert", kind="encoder"))
    encode_text = encoder("classification", DataConfig(), tokenizer, ("no", "yes"))
    (row,) = encode_text({"text": "a robot carries a box to the shelf", "label": "yes"})
    assert row["input_ids"] == tokenizer("a robot carries a box to the shelf")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"])[:: len(row["input_ids"]) - 1] == ["[CLS]", "[SEP]"]
    short = cut(row, 5)
    assert short["input_ids"] == [*row["input_ids"][:4], tokenizer.sep_token_id] and row["label"] == 1


def test_only_the_place_of_the_prompt_is_replaced_in_its_format(tokenizer: Any) -> None:
    data = DataConfig(prompt_format='{"question": "{prompt}"}')
    row = encode("sft", data, tokenizer, {"prompt": "two {and} two?", "completion": "four"})
    assert tokenizer.decode(row["input_ids"]) == '{"question": "two {and} two?"}four<|end|>'


def test_rows_on_disk_are_those_that_were_written(tmp_path: Path) -> None:
    rows = [
        {"ids": list(range(n % 7)), "n": n, "text": str(n), "words": ["a", str(n)], "nested": [{"a": n}]}
        for n in range(2500)
    ]
    types = {"ids": "list<int64>", "n": "int64", "text": "string", "words": "list<string>", "nested": "json"}
    write_rows(Folder(tmp_path), "a.arrow", rows[:2000], types)
    write_rows(Folder(tmp_path), "b.arrow", rows[2000:], types)
    read = ArrowRows(Folder(tmp_path), ["a.arrow", "b.arrow"])
    assert len(read) == 2500 and write_rows(Folder(tmp_path), "none.arrow", [], types) == 0
    for number in (0, 1023, 1024, 1999, 2000, 2499):
        got = read[number]
        assert np.array_equal(got["ids"], rows[number]["ids"]) and isinstance(got["ids"], np.ndarray)
        assert (got["n"], got["text"], got["nested"]) == (number, str(number), [{"a": number}])
        assert got["words"] == ["a", str(number)]
    assert [row["n"] for row in read[10:13]] == [10, 11, 12]
    with pytest.raises(IndexError):
        read[2500]
    with pytest.raises(ValueError, match="no type is stated for late"):
        write_rows(Folder(tmp_path), "c.arrow", [*rows[:1024], {"n": 1, "late": 2}], types)


def test_records_of_every_format_are_the_same(tmp_path: Path) -> None:
    import gzip
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"prompt": f"p{n}", "answer": n} for n in range(5)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        assert [record.values for record in read_records(str(tmp_path / name))] == rows
    assert len(list(read_records(str(tmp_path)))) == 15
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-6])
    with pytest.raises(InputError, match="cut short"):
        list(read_records(str(tmp_path / "b.jsonl.gz")))
    (tmp_path / "c.parquet").write_bytes((tmp_path / "c.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match="no Parquet"):
        list(read_records(str(tmp_path / "c.parquet")))
    (tmp_path / "a.jsonl").write_text(text + "{broken\n")
    with pytest.raises(InputError, match="not valid JSON") as refused:
        list(read_records(str(tmp_path / "a.jsonl")))
    assert "a.jsonl:6" in refused.value.where
    with pytest.raises(InputError, match=r"did you mean a\.jsonl"):
        list(read_records(str(tmp_path / "aa.jsonl")))


def test_a_subset_of_a_data_set_is_named(tmp_path: Path) -> None:
    """By the hub's reader, of a data set that stands in a folder."""
    from squadron.data.record_files import _read_hub

    names = ("main", "socratic")
    listed = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in names)
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{listed}---\n")
    for name in names:
        (tmp_path / f"{name}.jsonl").write_text(f'{{"question": "{name}?"}}\n')
    for name in names:
        assert [values for _, values in _read_hub(str(tmp_path), "train", name)] == [{"question": f"{name}?"}]
    with pytest.raises(InputError, match=r"main.*socratic"):
        list(_read_hub(str(tmp_path), "train", None))


@pytest.mark.parametrize(
    ("data", "example", "what"),
    [
        ({"end_of_sequence": False}, {"messages": TALK}, "always ends"),
        ({"end_of_sequence": False, "chat": True}, {"prompt": "a", "completion": "b"}, "always ends"),
        ({"prompt_format": "Q: {prompt}"}, {"messages": TALK}, "prompt_format"),
        ({}, {"prompt": "a", "completion": "b", "tools": [{"function": {"name": "f"}}]}, "tools have their place"),
    ],
)
def test_a_setting_or_a_column_that_would_do_nothing_is_refused(
    tokenizer: Any, data: dict[str, Any], example: dict[str, Any], what: str
) -> None:
    with pytest.raises(InputError, match=what):
        encoder("sft", DataConfig.model_validate(data), tokenizer)(example)


def test_a_pair_of_messages_is_not_left_open_either(tokenizer: Any) -> None:
    example = {"messages": TALK[:1], "chosen": TALK[1:2], "rejected": [TALK[3]]}
    with pytest.raises(InputError, match="always ends"):
        encoder("dpo", DataConfig(end_of_sequence=False), tokenizer)(example)


def test_a_thought_that_was_said_before_is_still_taught(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_family_model(tmp_path, "deepseek_r1_distill"))
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "<think>hello</think>hi"}]
    (row,) = encoder("sft", DataConfig(), tokenizer)({"messages": said})
    assert targets(tokenizer, row).count("hello") == 1


def test_a_row_that_is_cut_before_its_targets_teaches_nothing_and_is_left_out(tmp_path: Path, tokenizer: Any) -> None:
    from squadron.methods.finetune.dataset import encode_chunk
    from squadron.methods.finetune.examples import EXAMPLE_TYPES, to_row
    from squadron.train.models.artifact import ModelArtifact

    folder = Folder(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "words")
    examples = [{"prompt": "12 " * 60, "completion": "7"}, {"prompt": "12", "completion": "7 " * 60}]
    rows = [to_row(example, number, "") for number, example in enumerate(examples)]
    write_rows(folder, "records.arrow", rows, EXAMPLE_TYPES)
    task = {"id": "train-0", "file": "records.arrow", "start": 0, "stop": 2}
    model = ModelArtifact.model_validate({"source": str(tmp_path / "words")})
    counts = encode_chunk(task, folder, folder, model, "sft", DataConfig(too_long="cut"), 20, False, ())
    assert (counts["rows"], counts["seen"], counts["long"], counts["empty"]) == (1, 2, 2, 1)
    (row,) = ArrowRows(folder, ["train-0.arrow"])[:]
    assert row["number"] == 1


@pytest.mark.parametrize(
    ("objective", "example"),
    [
        ("sft", {"prompt": "12", "completion": "7"}),
        ("dpo", {"prompt": "12", "chosen": "7", "rejected": "8"}),
        ("reward", {"prompt": "12", "chosen": "7", "rejected": "8"}),
        ("process_reward", {"prompt": "12", "steps": ["7", "8"], "labels": [1, 0]}),
        ("classification", {"text": "12", "label": "yes"}),
    ],
)
def test_the_rows_of_every_objective_come_back_as_they_were_encoded(
    tmp_path: Path, tokenizer: Any, objective: Any, example: dict[str, Any]
) -> None:
    from squadron.methods.finetune.dataset import encode_chunk
    from squadron.methods.finetune.examples import EXAMPLE_TYPES, to_row
    from squadron.train.models.artifact import ModelArtifact

    folder = Folder(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "words")
    write_rows(folder, "records.arrow", [to_row(example, 7, "a.jsonl:8")], EXAMPLE_TYPES)
    task = {"id": "train-0", "file": "records.arrow", "start": 0, "stop": 1}
    model = ModelArtifact.model_validate({"source": str(tmp_path / "words")})
    encode_chunk(task, folder, folder, model, objective, DataConfig(), 64, False, ("no", "yes"))
    (row,) = ArrowRows(folder, ["train-0.arrow"])
    (wanted,) = encoder(objective, DataConfig(), load_tokenizer(str(tmp_path / "words")), ("no", "yes"))(example)
    assert {name: np.asarray(value).tolist() for name, value in row.items()} == {**wanted, "number": 7}
