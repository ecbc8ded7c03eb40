"""What is trained on has a target that was meant: labels are checked, answers are there, no row is too long."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.data.records import Record
from squadron.methods.finetune.config import DataConfig, ObjectiveName, RecordsConfig
from squadron.methods.finetune.dataset import read_data
from squadron.methods.finetune.encoding import encoder
from squadron.methods.finetune.examples import read_example
from squadron.train.text.fitting import Fitting, TooLong, cut, teaches, tokens
from squadron.train.text.tokenizer import load_tokenizer, train_tokenizer
from tests.unit.test_models import make_stage

EXAMPLES = int(os.environ.get("SQUADRON_FUZZ", "150"))
OBJECTIVES: tuple[ObjectiveName, ...] = ("sft", "dpo", "reward", "process_reward", "classification")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["two and two? four", "and one more? five", "user assistant system"], 300, folder)
    return load_tokenizer(str(folder))


def sequences(row: Any) -> list[list[int]]:
    """The sequences that a model reads of a row."""
    if "input_ids" in row:
        return [list(row["input_ids"])]
    return [[*row.get("prompt_ids", []), *row[side]] for side in ("chosen_ids", "rejected_ids")]


texts = st.text("ab ?\n", max_size=24)
messages = st.lists(texts.filter(str.strip), min_size=1, max_size=3).map(
    lambda said: [
        {"role": role, "content": text} for one in said for role, text in (("user", one), ("assistant", f"{one}!"))
    ]
)
examples: dict[ObjectiveName, st.SearchStrategy[dict[str, Any]]] = {
    "sft": st.one_of(
        st.fixed_dictionaries({"prompt": texts, "completion": texts}),
        st.fixed_dictionaries({"text": texts}),
        st.fixed_dictionaries({"messages": messages}),
    ),
    "dpo": st.fixed_dictionaries({"prompt": texts, "chosen": texts, "rejected": texts}),
    "reward": st.fixed_dictionaries({"prompt": texts, "chosen": texts, "rejected": texts}),
    "process_reward": st.lists(st.tuples(texts, st.integers(0, 1)), min_size=1, max_size=4).map(
        lambda pairs: {"prompt": "ab", "steps": [step for step, _ in pairs], "labels": [right for _, right in pairs]}
    ),
    "classification": st.fixed_dictionaries({"text": texts, "label": st.integers(0, 2)}),
}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_row_is_longer_than_stated_or_without_a_target(tokenizer: Any, data: st.DataObject) -> None:
    objective = data.draw(st.sampled_from(OBJECTIVES))
    example = data.draw(examples[objective])
    how = DataConfig(end_of_sequence="messages" in example or data.draw(st.booleans()), train_on="completion")
    limit, packed = data.draw(st.integers(2, 40)), objective in ("sft", "dpo") and data.draw(st.booleans())
    too_long: TooLong = data.draw(st.sampled_from(("cut", "leave_out")))
    rows = encoder(objective, how, tokenizer, (0, 1, 2))(example)
    fitting = Fitting(limit, too_long, packed, causal=objective != "process_reward")
    kept = [(row, fitted) for row in rows if (fitted := fitting.fit(row)) is not None]
    assert fitting.seen == len(rows) == len(kept) + fitting.empty + fitting.long * (too_long == "leave_out")
    assert fitting.long == sum(tokens(row, packed) > limit for row in rows)
    for row, fitted in kept:
        read = sequences(fitted)
        assert max(map(len, read)) <= limit and (not packed or sum(map(len, read)) <= limit)
        assert tokens(fitted, packed) == (sum(map(len, read)) if packed else max(map(len, read)))
        assert fitted is row or tokens(row, packed) > limit
        if objective in ("dpo", "reward"):
            assert read[0] != read[1] and fitted.get("prompt_ids") == row.get("prompt_ids")
        elif objective != "classification":
            assert any(label != -100 for label in fitted["labels"][objective != "process_reward" :])
            assert fitted["input_ids"] == row["input_ids"][: len(fitted["input_ids"])]


def test_pairs_of_which_only_the_prompt_is_left_or_that_are_cut_to_the_same_are_left_out(tokenizer: Any) -> None:
    encode = encoder("dpo", DataConfig(), tokenizer)
    (long,) = encode({"prompt": "7" * 80, "chosen": "yes", "rejected": "no"})
    (alike,) = encode({"prompt": "two?", "chosen": "a" * 80 + "b", "rejected": "a" * 80 + "c"})
    (good,) = encode({"prompt": "two?", "chosen": "a", "rejected": "b"})
    fitting = Fitting(30, "cut")
    assert list(fitting.rows([long, alike, good])) == [good]
    assert fitting.counts() == {
        "rows of more than 30 tokens, cut": "2 of 3",
        "rows with nothing to learn, left out": "2 of 3",
    }
    assert not teaches(cut(long, 30)) and not teaches(cut(alike, 30)) and teaches(cut(alike, 100))


def test_a_pair_that_is_packed_is_cut_so_that_both_sides_fit(tokenizer: Any) -> None:
    (pair,) = encoder("dpo", DataConfig(), tokenizer)({"prompt": "ab", "chosen": "a" * 50, "rejected": "bb"})
    short = cut(pair, 20, packed=True)
    assert short["packed_length"] == 20 and short["rejected_ids"] == pair["rejected_ids"]
    assert short["chosen_ids"] == pair["chosen_ids"][: len(short["chosen_ids"])]


STEP_LABELS = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.sampled_from(["1", "+", "true", None, [1], {}]),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(STEP_LABELS, min_size=1, max_size=3))
def test_labels_of_steps_are_true_or_false_and_nothing_else(labels: list[Any]) -> None:
    record = Record("s.jsonl:7", {"prompt": "p", "steps": ["s"] * len(labels), "labels": labels})
    if all(isinstance(label, int | float) and label in (0, 1) for label in labels):
        read = read_example("process_reward", RecordsConfig(), record)["labels"]
        assert read == labels and all(type(label) is int for label in read)
        return
    with pytest.raises(InputError) as told:
        read_example("process_reward", RecordsConfig(), record)
    assert told.value.where.startswith("s.jsonl:7, labels ")


@pytest.mark.parametrize("label", [None, [0], {"a": 1}, "", "  ", float("nan"), float("inf")])
def test_a_class_is_a_word_or_a_number(label: Any) -> None:
    with pytest.raises(InputError) as told:
        read_example("classification", RecordsConfig(), Record("c.jsonl:7", {"text": "t", "label": label}))
    assert told.value.where == "c.jsonl:7"


@pytest.mark.parametrize("odd", ["1", True, False])
def test_labels_of_two_types_are_refused_where_the_second_begins(tmp_path: Path, odd: Any) -> None:
    path = tmp_path / "l.jsonl"
    labels = [0, 1, 2.5, 1.0, odd, odd]
    path.write_text("".join(json.dumps({"text": f"t{n}", "label": label}) + "\n" for n, label in enumerate(labels)))
    with pytest.raises(InputError, match="that of the first record") as told:
        read_data(make_stage(tmp_path), "classification", RecordsConfig(path=str(path)))
    assert told.value.where == f"{path}:5"


def test_numbers_are_classes_by_their_value(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text("".join(json.dumps({"text": "t", "label": label}) + "\n" for label in (1, 0, 1.0, 0.5)))
    assert read_data(make_stage(tmp_path), "classification", RecordsConfig(path=str(path))).classes == (0, 0.5, 1)


def test_labels_that_are_no_classes_do_not_reach_a_loss() -> None:
    from squadron.train.objectives.contrastive import Contrastive
    from squadron.train.objectives.reward import Classification, ProcessReward

    for label in (0.9, -1, -100, True):
        with pytest.raises(InputError):
            Classification(0).collate([{"input_ids": [1, 2], "label": label}])
    for labels in ([-100, 0.6], [-100, -1]):
        with pytest.raises(InputError):
            ProcessReward(0).collate([{"input_ids": [1, 2], "labels": labels}])
    with pytest.raises(InputError, match="no token"):
        Contrastive(0).collate([{"query_ids": [1], "positive_ids": []}])
