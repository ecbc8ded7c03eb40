"""Prompts, demonstrations, leaks and draws."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.data.arithmetic import problems
from squadron.data.record_files import RecordsPath
from squadron.data.records import Record, read_records
from squadron.evaluate.tasks.items import Item
from squadron.methods.hot.config import MODES, DemonstrationsConfig, DrawConfig, Mode
from squadron.methods.hot.demonstrations import (
    Demonstration,
    find_flaws,
    find_leaks,
    parse_demonstrations,
    read_demonstrations,
    refuse_leaks,
)
from squadron.methods.hot.prompts import last_sentence, shuffle_tags, write_demonstration, write_prompt
from squadron.methods.hot.reading import draw_items
from squadron.methods.hot.rehearsal import highlight
from squadron.methods.hot.tags import read_reply, read_tags, strip_tags
from tests.conftest import REAL_DATA

ONE = Demonstration(
    "Ann has 5 pens and 3 cups. How many?",
    "Ann has <fact1>5 pens</fact1> and <fact2>3 cups</fact2>. How many?",
    "<fact1>5</fact1> + <fact2>3</fact2> = 8. The answer is {8}.",
)
PUBLISHED = REAL_DATA / "hot" / "fewshot_demonstrations.jsonl.gz"
real = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published demonstrations are not here: shared/data/hot")


@pytest.fixture(scope="module")
def published() -> list[Record]:
    return list(read_records(str(PUBLISHED)))


@pytest.mark.parametrize(
    ("mode", "repeated", "in_question", "in_answer"),
    [
        ("cot", False, False, False), ("hot", True, True, True), ("question_only", True, True, False),
        ("answer_only", True, False, True), ("repeat", True, False, False), ("random_tags", True, True, True),
    ],
)  # fmt: skip
def test_an_ablation_leaves_out_tags_and_nothing_else(
    mode: Mode, repeated: bool, in_question: bool, in_answer: bool
) -> None:
    shown = write_demonstration(mode, ONE)
    reply = read_reply(shown.partition("\n")[2], ONE.question)
    assert (reply.question is not None) == repeated
    assert strip_tags(shown).count(ONE.question) == 1 + repeated
    assert bool(reply.question and reply.question.spans) == in_question
    assert bool(reply.answer.spans) == in_answer
    assert reply.answer.text == "5 + 3 = 8. The answer is {8}."


@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_shows_demonstrations_then_asks(mode: Mode) -> None:
    prompt = write_prompt(mode, "Bo has 2 {x} hats. Bo gets 3. How many hats?", [ONE, ONE])
    lines = prompt.splitlines()
    assert sum(line.startswith("Question: Ann") for line in lines) == (0 if mode == "zero_shot" else 2)
    assert sum(line.startswith("Reformatted Question: Ann") for line in lines) == (
        0 if mode in ("zero_shot", "cot") else 2
    )
    assert prompt.count("Question: Bo has 2 {x} hats.") == 1
    last = prompt.splitlines()[-1]
    assert "{…}" in last and ("How many hats?" in last) == (mode not in ("cot", "repeat"))
    assert ("<fact1>" in last) == (mode == "zero_shot")


def test_random_tags_keep_phrases_and_draw_numbers_of_the_question() -> None:
    drawn = [read_tags(shuffle_tags(ONE, seed).answer) for seed in range(20)]
    plain = read_tags(ONE.answer)
    assert all(one.text == plain.text and [s[1:] for s in one.spans] == [s[1:] for s in plain.spans] for one in drawn)
    assert {tuple(span.id for span in one.spans) for one in drawn} == {("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")}
    assert shuffle_tags(ONE, 3) == shuffle_tags(ONE, 3)


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Ann has 5. Bo has 2.5 kg. How many?", "How many?"),
        ("What is it? Answer Choices: (a) 5. (b) 6", "What is it?"),
        ("Who is last?\nOptions:\n(A) Ann is.\n(B) Bo is.", "Who is last?"),
        ("A man has pain. What is next?\nA) Rest\nB) Surgery", "What is next?"),
        ("How old is Dr. Who in 2007? Give a number.", "How old is Dr. Who in 2007?"),
        ("Add 2 and 3", "Add 2 and 3"),
    ],
)
def test_the_last_sentence_is_what_is_asked(question: str, asked: str) -> None:
    assert last_sentence(question) == asked


@given(st.text(max_size=80))
def test_any_question_has_a_last_sentence_of_its_own_words(question: str) -> None:
    assert last_sentence(question) in question


def test_problems_by_rule_have_each_number_as_a_fact() -> None:
    for problem in problems(200, seed=0):
        question, answer = highlight(problem)
        shown = Demonstration(problem.question, question.write(), answer.write())
        assert find_flaws([shown]) == [] and question.ids == answer.ids
        words = {"twice": "2", "three times": "3", "four times": "4"}
        told = {span.id: question.text[span.start : span.end] for span in question.spans}
        for span in answer.spans:
            assert answer.text[span.start : span.end] == words.get(told[span.id], told[span.id])


def test_rows_and_texts_are_read_alike(tmp_path: Path) -> None:
    row = {"question": ONE.question, "highlighted": ONE.highlighted, "answer": ONE.answer}
    text = f"{write_demonstration('hot', ONE)}\n\n{write_demonstration('hot', ONE)}"
    (tmp_path / "d.jsonl").write_text(
        f"{json.dumps(row)}\n{json.dumps({'dataset': 'x', 'mode': 'hot', 'text': text})}\n"
    )
    found = read_demonstrations(DemonstrationsConfig(path=RecordsPath(tmp_path / "d.jsonl")))
    assert [(one.question, one.highlighted, one.answer) for one in found] == 3 * [
        (ONE.question, ONE.highlighted, ONE.answer)
    ]
    assert [one.line for one in found] == [0, 1, 5]
    with pytest.raises(InputError, match="no demonstration of y in mode hot; there are x"):
        (tmp_path / "e.jsonl").write_text(json.dumps({"dataset": "x", "mode": "hot", "text": text}))
        read_demonstrations(DemonstrationsConfig(path=RecordsPath(tmp_path / "e.jsonl"), dataset="y"))


@real
def test_all_published_demonstrations_are_read(published: list[Record]) -> None:
    assert len(published) == 48
    for record in published:
        text = record.text("text")
        found = parse_demonstrations(text, record.where)
        assert len(found) == sum(line.startswith("Question:") for line in text.splitlines()) > 0
        assert all((one.highlighted is not None) == (record.values["mode"] != "cot") for one in found)
        for one in found:  # the lines that are named are those where the parts begin
            lines = text.splitlines()
            assert lines[one.line - 1].startswith("Question:") and lines[one.answer_line - 1].startswith("Answer:")


@real
def test_the_published_flaw_is_told_by_file_and_line(published: list[Record]) -> None:
    (record,) = (one for one in published if (one.values["dataset"], one.values["mode"]) == ("AQUA", "hot"))
    flaws = {flaw.place: flaw.said for flaw in find_flaws(parse_demonstrations(record.text("text"), record.where))}
    assert flaws == {
        f"{record.where}, line 19 of its text": "answer with 6 opening and 6 closing tags: cut word <fact2>",
        f"{record.where}, line 27 of its text": "answer with 7 opening and 5 closing tags: malformed <fact1>",
    }
    line = record.text("text").splitlines()[26]
    assert (line.count("<fact"), line.count("</fact")) == (7, 5)


@real
def test_published_demonstrations_show_five_of_the_recorded_questions(published: list[Record]) -> None:
    shown = [one for record in published if record.values["mode"] == "hot"
             for one in parse_demonstrations(record.text("text"), record.where)]  # fmt: skip
    rows = [record.values for record in read_records(str(PUBLISHED.with_name("recorded_answers.jsonl.gz")))]
    questions = {f"{row['dataset']} {row['index']}": row["question"] for row in rows}
    leaks = find_leaks(shown, questions)
    assert [name for _, name in leaks] == [
        "StrategyQA 40",
        *(f"logical_deduction_seven_objects {n}" for n in (2, 4, 5, 6)),
    ]
    with pytest.raises(InputError, match="shows the test question"):
        refuse_leaks(leaks)


def test_a_leak_is_found_whatever_its_case_and_marks() -> None:
    asked = {"a": "ann has 5 pens, and 3 cups: how many", "b": "Other?"}
    assert [name for _, name in find_leaks([ONE], asked)] == ["a"]
    held = {"c": f"A story. {ONE.question} Say it."}
    assert [name for _, name in find_leaks([ONE], held)] == ["c"]
    assert find_leaks([ONE], {"d": ONE.question.replace("5", "6")}) == []


ITEMS = [Item(str(n), "x" * (n * 7 % 50 + 1), ("1",), "number") for n in range(50)]


def test_draws() -> None:
    by_length = sorted(ITEMS, key=lambda item: len(item.question))
    assert set(draw_items(ITEMS, DrawConfig(how="longest", count=5))) == set(by_length[-5:])
    assert set(draw_items(ITEMS, DrawConfig(how="shortest", count=5))) == set(by_length[:5])
    drawn = [draw_items(ITEMS, DrawConfig(how="random", count=5, seed=seed)) for seed in range(40)]
    assert set().union(*drawn) == set(by_length[:-5])
    assert all(len(one) == 5 and one == sorted(one, key=ITEMS.index) for one in drawn)
    assert draw_items(ITEMS, DrawConfig(how="full")) == ITEMS
    assert len(draw_items(ITEMS, DrawConfig(count=30))) == 20  # 30 longest are left out
