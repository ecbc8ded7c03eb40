"""What a reply states, whether it is right, and comparisons of two modes on the same questions."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squadron.data.records import read_records
from squadron.evaluate.tasks.compare import compare_paired, holm
from squadron.evaluate.tasks.items import Item, Kind
from squadron.evaluate.tasks.scorers import score
from squadron.methods.hot.report import PUBLISHED_GAINS, PUBLISHED_READERS
from squadron.methods.hot.tags import read_reply
from tests.conftest import REAL_DATA


@pytest.mark.parametrize(
    ("kind", "gold", "text", "outcome"),
    [
        ("number", "1234", "It is {1,234}.", "right"),
        ("number", "1234", r"It is {5}. No: \boxed{\text{1234}}", "right"),
        ("number", "5", "x{1} and then {5}", "right"),
        ("number", "5", "Therefore, there are 5 boys in room 7.", "wrong"),
        ("number", "36", "Therefore, there were 36 students.", "right"),
        ("number", "5", "The answer is $5.00.", "right"),
        ("number", "5", "Answer: {cannot be told}", "unparsed"),
        ("number", "5", "I do not know.", "unparsed"),
        ("number", "5", "", "unparsed"),
        ("choice", "B", "The answer is {B}.", "right"),
        ("choice", "B", "The answer is {(b)}.", "right"),
        ("choice", "B", r"The answer is {b} \boxed{none of them}.", "right"),
        ("choice", "B", r"\boxed{\text{B}}", "right"),
        ("choice", "B", "The answer is (C) the red ball.", "wrong"),
        ("choice", "B", "Both of them are.", "unparsed"),
        ("boolean", "True", "So the answer is {yes}.", "right"),
        ("boolean", "false", "So the answer is {true}.", "wrong"),
        ("boolean", "true", "So the answer is {uncertain}.", "unparsed"),
        ("boolean", "true", "It is true that people say no.", "unparsed"),
        ("date", "01/05/2015", "So it is {1/5/2015}.", "right"),
        ("date", "01/05/2015", "So it is {January 5}.", "unparsed"),
        ("text", "Ann Lee", "The answer is {ann  lee.}", "right"),
        ("text", "Ann", "The answer is {Ann Lee}", "wrong"),
    ],
)
def test_verdicts(kind: Kind, gold: str, text: str, outcome: str) -> None:
    verdict = score(text, Item("1", "?", (gold,), kind))
    assert verdict.outcome == outcome
    assert verdict.value == {"right": 1.0, "wrong": 0.0, "unparsed": None}[outcome]


VERDICTS = [line.split("|", 3) for line in Path(__file__).with_name("hot_verdicts.txt").read_text().splitlines()]
"""Kind, accepted answer, outcome and reply, each stated by hand."""


@pytest.mark.parametrize(("kind", "gold", "outcome", "reply"), VERDICTS)
def test_stated_verdicts(kind: Kind, gold: str, outcome: str, reply: str) -> None:
    verdict = score(read_reply(reply).answer.text, Item("1", "?", (gold,), kind))
    assert verdict.outcome == outcome
    assert (verdict.value is None) == (verdict.read is None) == (outcome == "unparsed")


def gold_of(row: dict[str, Any]) -> tuple[Kind, str]:
    """The answer of a recorded question as its data set states it."""
    gold = str(row["gold"])
    match row["dataset"]:
        case "StrategyQA":
            return "boolean", gold.split()[0]
        case "drop_break":
            return "number", ast.literal_eval(gold)[0][0]
        case "date":
            return "date", gold
        case "spartQA":
            return "choice", "ABCD"[int(gold)]
        case "logical_deduction_seven_objects":
            return "choice", gold
    return "number", gold.rpartition("####")[2].strip()


def test_recorded_answers_are_read() -> None:
    """Under 2% unparsed in each of seven tasks of HoT; of CoT four answers more say that there is none."""
    path = REAL_DATA / "hot" / "recorded_answers.jsonl.gz"
    if not path.exists():
        pytest.skip("the recorded answers are not here: shared/data/hot")
    found: dict[tuple[str, str], list[str]] = {}
    for record in read_records(str(path)):
        row = record.values
        kind, gold = gold_of(row)
        for mode in ("hot", "cot"):
            text = read_reply(row[mode], row["question"]).answer.text
            verdict = score(text, Item("1", row["question"], (gold,), kind))
            found.setdefault((row["dataset"], mode), []).append(verdict.outcome)
    right = {cell: outcomes.count("right") for cell, outcomes in found.items()}
    assert all(outcomes.count("unparsed") <= 2 + (mode == "cot") for (_, mode), outcomes in found.items())
    assert {task: (right[task, "hot"], right[task, "cot"]) for task, mode in found if mode == "hot"} == {
        "GSM_Symbolic": (109, 113), "StrategyQA": (106, 100), "drop_break": (106, 106), "date": (124, 122),
        "r_GSM": (117, 100), "logical_deduction_seven_objects": (115, 118), "spartQA": (87, 84),
    }  # fmt: skip


BBH_KINDS: dict[str, Kind] = {
    "object_counting": "number", "word_sorting": "text", "causal_judgement": "boolean", "navigate": "boolean",
    "web_of_lies": "boolean",
}  # fmt: skip


def test_recorded_answers_of_big_bench_hard_are_read() -> None:
    """Each ends with "So the answer is …", which is compared with the gold answer here, or was cut off before it."""
    path = REAL_DATA / "hot" / "bbh_codex_answers.jsonl.gz"
    if not path.exists():
        pytest.skip("the recorded answers are not here: shared/data/hot")
    count = 0
    for record in read_records(str(path)):
        row = record.values
        _, said, stated = row["cot"].rpartition("So the answer is ")
        gold = row["gold"].strip("()")
        verdict = score(row["cot"], Item("1", row["question"], (gold,), BBH_KINDS.get(row["dataset"], "choice")))
        expected = "unparsed" if not said else "right" if stated.rstrip(".").strip("()") == gold else "wrong"
        assert verdict.outcome == expected, row["cot"][-80:]
        count += verdict.outcome == "unparsed"
    assert count == 72


def test_two_modes_on_the_same_questions() -> None:
    first, second = [1.0] * 8 + [0.0] * 2 + [1.0] * 10, [0.0] * 8 + [1.0] * 2 + [1.0] * 10
    found = compare_paired(first, second)
    assert (found.better, found.worse, found.questions) == (8, 2, 20)
    assert found.difference == pytest.approx(0.3) and found.low < 0.3 < found.high
    assert found.p == pytest.approx(2 * (45 + 10 + 1) / 2**10)  # two of ten coins, or fewer, on either side
    assert compare_paired([1.0], [1.0]).p == 1.0


@pytest.mark.parametrize(("questions", "right"), [(60, 0.5), (200, 0.85)])
def test_equal_models_differ_as_often_as_they_may(questions: int, right: float) -> None:
    """Of 1,000 comparisons 3 to 7% at 5%."""
    draw = np.random.default_rng(0)
    ps = [compare_paired(*(draw.random((2, questions)) < right).astype(float)).p for _ in range(1000)]
    assert 0.03 <= sum(p < 0.05 for p in ps) / 1000 <= 0.07


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_published_figures() -> None:
    """Of arXiv 2503.02003, written out by hand."""
    assert {name: gain for name, (_, gain) in PUBLISHED_GAINS.items()} == {
        "arithmetic, mean": 1.60, "question answering, mean": 2.58, "logical reasoning, mean": 2.53, "AQUA": 14.64,
        "StrategyQA": 15.07, "r-GSM": 12.73, "SpartQA": 11.88, "causal judgement": 15.5,
    }  # fmt: skip
    assert list(PUBLISHED_READERS.values()) == [(47.26, 62.38), (84.48, 78.82), (54.83, 72.21)]
