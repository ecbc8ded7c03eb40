"""Answers are read where they are certain, and refused with their text where they are not."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from squadron.core.config import Config
from squadron.core.errors import SquadronError
from squadron.llm.parsing import Unreadable, read_choice, read_json, read_number


class Verdict(Config):
    score: int
    why: str = ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
containers = st.lists(json_values, max_size=3) | st.dictionaries(st.text(), json_values, max_size=3)


@settings(deadline=None)
@given(containers, st.sampled_from([None, 2]))
def test_json_is_found_wherever_it_stands(value: object, indent: int | None) -> None:
    written = json.dumps(value, indent=indent, ensure_ascii=False)
    assert read_json(written) == value
    assert read_json(f"Sure:\n```json\n{written}\n```\nDone.") == value
    assert read_json(f'I said "so (see [1]).\nHere it is: {written} – as you asked.') == value


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), json_values, min_size=1, max_size=3), st.data())
def test_json_that_is_cut_off_is_refused(value: object, data: st.DataObject) -> None:
    written = json.dumps(value)
    cut = data.draw(st.integers(2, len(written) - 1))
    with pytest.raises(Unreadable):
        read_json("Here: " + written[:cut])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('first {"a": 1}, then {"a": 2}', {"a": 2}),
        ('```\n{"a": 1}\n```\nor\n```json\n[3]\n```', [3]),
        ('```python\nprint()\n```\n{"a": "b}"}', {"a": "b}"}),
        ('use { sparingly: {"a": {"b": []}}', {"a": {"b": []}}),
        ("17", 17),
    ],
)
def test_json_the_last_part_counts(text: str, value: object) -> None:
    assert read_json(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "no", "{'a': 1}", '{"a": [1, 2],}', '{"a": NaN}', '{"a": 1, "a": 2}', "__import__('os')", "[" * 5000],
)
def test_json_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_json(text)


def test_json_becomes_the_model_or_an_error_that_says_why() -> None:
    assert read_json('I think {"score": 3, "why": "short"} [2]', Verdict) == Verdict(score=3, why="short")
    with pytest.raises(Unreadable, match=r"no Verdict \(score: .*Field required; mark: .*not permitted.*"):
        read_json('{"mark": 3}', Verdict)
    with pytest.raises(Unreadable, match="no JSON"):
        read_json("[3]!", Verdict)


def test_an_error_shows_the_answer_in_short_and_travels() -> None:
    with pytest.raises(Unreadable) as caught:
        read_number("begin " + "word " * 500 + "end", 0, 1)
    error = caught.value
    assert isinstance(error, SquadronError) and isinstance(error, ValueError)
    assert "begin" in str(error) and "end”" in str(error) and len(str(error)) < 400
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@given(st.integers(0, 1000), st.sampled_from(["score: {}", "**Rating:** {}/100", "[[{}]]", '{{"score": {}}}', "{}"]))
def test_a_number_that_was_written_is_read(hundredths: int, form: str) -> None:
    value = hundredths / 10
    assert read_number("My view.\n" + form.format(value) + "\n", 0, 100) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/10", 8),
        ("I would give this 8 out of 10.", 8),
        ("It has 3 flaws and 2 strengths.\nFinal score: 7", 7),
        ("Score: 4\nOn reflection.\nScore: 6", 6),
        ("**Score (1-10):** 8 – good", 8),
        ("Overall rating = [[9.5]]", 9.5),
        ("final_score: 5.", 5),
        ("Score:\n\n6", 6),
        ("5, that is 5", 5),
        ("Score: +3", 3),
        ("Score: 8 (2 small errors)", 8),
    ],
)
def test_numbers(text: str, value: float) -> None:
    assert read_number(text, 1, 10) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "good",
        "nan",
        "score: nan",
        "score: inf",
        "score: 1e999",
        "score: 11",
        "score: -3",
        "score: 0",
        "7 or 8",
        "score: 7 or 8",
        "score: 7-8",
        "score: 7, 8",
        "score: 7 score: 8",
        "score: 4/5",
        "score: 80%",
        "score: 8,5",
        "score: 1,000",
        "Score: 7\nscore: none",
        "version3",
    ],
)
def test_numbers_that_are_uncertain_are_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_number(text, 1, 10)


@given(st.text() | st.text("score:[]/ 0123456789.,-en%\n", max_size=30))
@example("score: ١٢")
@example("²")
def test_any_text_gives_a_number_in_range_or_is_refused(text: str) -> None:
    try:
        assert 0 <= read_number(text, 0, 10) <= 10
    except Unreadable as error:
        assert error.where


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A is wordy, B is right. [[B]]", "B"),
        ("Verdict: A", "A"),
        ("**Final verdict:** B.", "B"),
        ("verdict: a", "A"),
        ("Some thoughts on A and B.\n\nTie", "tie"),
        ("B", "B"),
        ('{"winner": "A"}', "A"),
        ("I lean to [[A]].\nBut the proof fails, so [[B]]", "B"),
    ],
)
def test_choices(text: str, choice: str) -> None:
    assert read_choice(text, ["A", "B", "tie"]) == choice


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A good answer.",
        "verdict: neither",
        "verdict: A or B",
        "verdict: (A), (B)",
        "[[A]] and [[B]]",
        "[[C]]",
        "A\nB",
        "verdict: Above",
    ],
)
def test_choices_that_are_uncertain_are_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_choice(text, ["A", "B"])


def test_of_choices_that_begin_alike_the_longest_counts() -> None:
    choices = ["A", "A>B", "A>>B", "B>A"]
    for choice in choices:
        assert read_choice(f"Verdict: [[{choice}]]", choices) == choice
    with pytest.raises(ValueError, match="differ"):
        read_choice("a", ["a", "A"])


@given(st.text() | st.text("verdict: AB[]\n", max_size=30))
def test_any_text_gives_a_choice_or_is_refused(text: str) -> None:
    try:
        assert read_choice(text, ["A", "B"]) in ("A", "B")
    except Unreadable as error:
        assert error.where
