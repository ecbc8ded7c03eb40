"""Answers mean the same or they do not, however they are written; files that cannot be verified are refused."""

from __future__ import annotations

import gzip
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.data.answers import final_answer, is_right, same_answer
from squadron.data.problems import Problem, read_problems, read_questions

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "math" / "gsm8k_test.jsonl"
ALTERATIONS = (
    "one more",
    "other sign",
    "digits swapped",
    "ten times",
    "a tenth",
    "one digit less",
    "a comma as a point",
)

decimals = st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=3)


@pytest.fixture(scope="module")
def gsm8k() -> list[Problem]:
    if not GSM8K.exists():
        pytest.skip(f"the GSM8K test set is not at {GSM8K}")
    return read_problems(str(GSM8K))


def _write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _altered(reference: str, how: str, draw: random.Random) -> str | None:
    """The reference with something changed, or None if this change leaves the value as it is."""
    digits = reference.replace(",", "")
    number = int(digits)
    swap = draw.randrange(max(1, len(digits) - 1))
    wrong = {
        "one more": f"{number + 1:,}",
        "other sign": f"{-number}",
        "digits swapped": digits[:swap] + digits[swap : swap + 2][::-1] + digits[swap + 2 :],
        "ten times": f"{number * 10:,}",
        "a tenth": f"{Decimal(number) / 10}",
        "one digit less": digits[:-1],
        "a comma as a point": reference.replace(",", "."),
    }[how]
    try:
        return None if Fraction(wrong.replace(",", "")) == number else wrong
    except ValueError:  # nothing is left, or the sign stands within
        return None


def test_every_reference_of_gsm8k_is_right_by_itself(gsm8k: list[Problem]) -> None:
    assert len(gsm8k) == 1319 and len({problem.id for problem in gsm8k}) == 1319
    for problem in gsm8k:
        assert problem.solution is not None and is_right(problem.solution, problem.reference)
        assert is_right(f"It is \\boxed{{{problem.reference}}}.", problem.solution)
        assert is_right(f"#### {int(problem.reference.replace(',', '')):,}.00 dollars", problem.reference)


def test_altered_references_of_gsm8k_are_wrong(gsm8k: list[Problem]) -> None:
    draw, altered = random.Random(0), dict.fromkeys(ALTERATIONS, 0)
    while sum(altered.values()) < 200:
        problem, how = draw.choice(gsm8k), draw.choice(ALTERATIONS)
        if (wrong := _altered(problem.reference, how, draw)) is not None:
            assert problem.solution is not None
            assert not is_right(f"so\n#### {wrong}", problem.solution), (wrong, problem.reference)
            assert not is_right(f"so $\\boxed{{{wrong}}}$", problem.reference), (wrong, problem.reference)
            altered[how] += 1
    assert min(altered.values()) > 0, altered


def test_the_library_agrees_with_the_fast_path(gsm8k: list[Problem]) -> None:
    for problem in random.Random(1).sample(gsm8k, 25):
        number = int(problem.reference.replace(",", ""))
        assert same_answer(rf"\frac{{{2 * number}}}{{2}}", problem.reference)
        assert not same_answer(rf"\frac{{{2 * number + 1}}}{{2}}", problem.reference)


@given(decimals, decimals)
def test_numbers_are_the_same_exactly_when_their_values_are(first: Decimal, second: Decimal) -> None:
    for writing in (f"{first:,}", f"${first}", f"{first}0", f"{first} apples", rf"\text{{{first}}}", f"**{first}**."):
        assert same_answer(writing, str(first))
        assert same_answer(writing, str(second)) == (first == second)
    assert same_answer(f"{first}%", str(first)) and same_answer(f"{first}\\%", str(first / 100))


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("1,000", "1000"),
        ("1{,}000", "1 000"),
        (r"11,\! 111,\! 100", "11111100"),
        ("$18", "18"),
        ("18 dollars", r"\$18"),
        ("18 apples per day", "18"),
        (r"5\text{ cm}^2", "5"),
        ("60 km/h", "60"),
        ("5 million", "5,000,000"),
        ("1.5e3", "1500"),
        ("−5", "-5"),
        ("50%", "50"),
        (r"50\%", "0.5"),
        (r"\frac{1}{2}", "50%"),
        ("0.5", r"\frac{1}{2}"),
        (r"\frac12", "2/4"),
        ("3 1/2", r"\frac{7}{2}"),
        ("0.333333", "1/3"),
        (r"90^\circ", "90"),
        (r"\sqrt{50}", r"5\sqrt2"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
        ("x^2+2x+1", "(x+1)^2"),
        ("x = 5", "5"),
        ("2 < x", "x > 2"),
        ("x > 2", r"(2,\infty)"),
        ("{2, 1}", r"\{1, 2\}"),
        ("1, -2", "-2,1"),
        (r"\left(\frac{1}{2}, 3\right)", "(0.5,3)"),
        (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 4/2 \end{pmatrix}"),
        (r"\text{Evelyn}", "evelyn"),
        (r"\textbf{(C)}", "C"),
        ("1011_{2}", "1011_2"),
    ],
)
def test_the_same_in_another_writing(answer: str, reference: str) -> None:
    assert same_answer(answer, reference) and same_answer(reference, answer)
    assert is_right(rf"Thus $\boxed{{{answer}}}$.", reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("17 18", "18"),
        ("17 18", "35"),
        ("17 or 18", "18"),
        ("18 or more", "18"),
        ("18 and 5 pears", "5"),
        ("18 million", "18"),
        ("18x", "18"),
        ("2 x/y", "2"),
        ("12,34", "1234"),
        ("5000%", "50%"),
        ("0.0000001", "0.0000002"),
        (r"2\times10^{-7}", r"3\times10^{-7}"),
        (r"\frac{1}{3}", "0.33"),
        (r"\frac{1}{0}", r"\frac{2}{0}"),
        ("10^{100}", "10^{101}"),
        ("(2,3)", "(3,2)"),
        ("[0,1)", "(0,1]"),
        ("x>2", r"x\ge2"),
        ("x_1", "x_2"),
        ("a=3,b=4", "a=4,b=3"),
        ("listen", "silent"),
        ("10 a.m.", "10 p.m."),
        ("1011_2", "1011_3"),
        ("18", "18 is the answer here and not more"),
    ],
)
def test_what_differs(answer: str, reference: str) -> None:
    assert not same_answer(answer, reference) and not same_answer(reference, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{5}$. No: \boxed{\frac{1}{2}}!", r"\frac{1}{2}"),
        (r"\boxed{17}, or rather \boxed{18", "17"),
        (r"\boxed{\left\{ x \right.}} {", r"\left\{ x \right."),
        (r"\boxed{\boxed{5}} and \fbox{6}", "6"),
        (r"$\boxed 7$", "7"),
        (r"\boxed{5} #### 6", "5"),
        ("#### 5\nno\n####  1,234 \nNext question", "1,234"),
        (r"#### \frac{1}{2}", r"\frac{1}{2}"),
        ("18", None),
        ("####", None),
        (r"\boxed{ }", None),
        ("", None),
    ],
)
def test_final_answers(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer
    assert answer is not None or not is_right(text, "18")


@settings(max_examples=50)
@given(st.text("0123456789.,$%/ -+xe{}\\", max_size=8), st.text(max_size=8))
def test_any_text_is_judged(answer: str, other: str) -> None:
    for text in (answer, other):
        assert is_right(f"#### {text}", "18") in (True, False)


def test_threads_get_the_verdicts_of_their_own_answers() -> None:
    def judge(number: int) -> tuple[bool, bool]:
        return same_answer(rf"\frac{{{number}}}{{7}}", f"{2 * number}/14"), same_answer(rf"\frac{{{number}}}{{7}}", "0")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(judge, range(1, 33))) == [(True, False)] * 32


def test_a_hostile_answer_is_wrong_within_its_time_and_the_next_one_is_judged() -> None:
    with ThreadPoolExecutor(1) as pool:
        for hostile in ("9^{9^{9^9}}", "9**9**9**9", "9" * 100_000, r"\boxed{" * 20_000, r"\(" * 20_000):
            start = time.monotonic()
            assert not pool.submit(is_right, rf"\boxed{{{hostile}}}", "387420489").result()
            assert time.monotonic() - start < 60  # 3 s of processor time, on a machine that may be busy
        start = time.monotonic()
        assert not pool.submit(same_answer, "9^{9^{9^9}}", "387420489").result()
        assert time.monotonic() - start < 3, "the verdict is not remembered"
    assert same_answer(r"\frac{6}{8}", "0.75")


@pytest.mark.parametrize(
    ("row", "reference", "solution"),
    [
        ({"question": "q?", "answer": "1+1=2\n#### 2"}, "2", "1+1=2\n#### 2"),
        ({"question": "q?", "answer": "18 apples per person"}, "18 apples per person", None),
        ({"question": "q?", "answer": 0}, "0", None),
        ({"problem": "q?", "solution": r"It is $\boxed{\frac12}$."}, r"\frac12", r"It is $\boxed{\frac12}$."),
        ({"problem": "q?", "answer": r"\text{all of them}", "solution": "look"}, r"\text{all of them}", "look"),
    ],
)
def test_usual_files(tmp_path: Path, row: dict[str, Any], reference: str, solution: str | None) -> None:
    (problem,) = read_problems(_write(tmp_path / "rows.jsonl", row))
    assert (problem.question, problem.reference, problem.solution) == ("q?", reference, solution)
    assert problem.id == read_problems(_write(tmp_path / "again.jsonl", row | {"answer": "5", "solution": "6"}))[0].id


def test_named_columns_in_compressed_lines_and_tables(tmp_path: Path) -> None:
    rows = [{"ask": f"q{number}", "truth": f"{number}", "how": "so", "key": number} for number in range(3)]
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for name in ("rows.jsonl.gz", "rows.parquet"):
        path = str(tmp_path / name)
        problems = read_problems(path, question="ask", answer="truth", solution="how", id="key")
        assert problems == [Problem(str(number), f"q{number}", f"{number}", "so") for number in range(3)]


@pytest.mark.parametrize(
    ("row", "named", "message"),
    [
        ({"question": "b"}, {}, "the column 'answer' is missing"),
        ({"answer": "1"}, {}, "the column 'question' is missing"),
        ({"question": " ", "answer": "1"}, {}, "the column 'question' is empty"),
        ({"question": "b", "answer": None}, {}, "the column 'answer' is empty"),
        ({"question": "b", "answer": ""}, {}, "no final answer"),
        ({"question": "b", "answer": "####"}, {}, "no final answer"),
        ({"question": "b", "answer": "1+1=2\nso 2"}, {}, "no final answer"),
        ({"question": "b", "answer": "The answer is 2."}, {}, "no final answer"),
        ({"question": "b", "answer": r"that makes \boxed{2"}, {}, "no final answer"),
        ({"question": "a", "answer": "2"}, {}, "the same question stands twice"),
        ({"question": "b", "answer": "2", "key": 1}, {"id": "key"}, "the id '1' stands twice"),
        ({"question": "b", "answer": "2"}, {"id": "key"}, "the column 'key' is missing"),
        ({"question": "b", "answer": "2", "key": 2}, {"solution": "how"}, "the column 'how' is missing"),
    ],
)
def test_what_cannot_be_verified_is_refused(
    tmp_path: Path, row: dict[str, Any], named: dict[str, str], message: str
) -> None:
    path = _write(tmp_path / "rows.jsonl", {"question": "a", "answer": "1", "key": 1, "how": "so"}, row)
    with pytest.raises(InputError, match=message) as caught:
        read_problems(path, **named)
    assert f"{path}:2" in caught.value.where


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no problems"):
        read_problems(_write(tmp_path / "rows.jsonl"))


def test_questions_are_read_once_each_without_their_answers(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.jsonl", {"problem": "a"}, {"problem": "b", "answer": "no"}, {"problem": "a"})
    assert list(read_questions(path)) == ["a", "b"]
    with pytest.raises(InputError, match="missing"):
        list(read_questions(path, question="ask"))
    with pytest.raises(InputError, match="empty"):
        list(read_questions(_write(tmp_path / "blank.jsonl", {"problem": " "})))
    with pytest.raises(InputError, match="no problems here"):
        list(read_questions(_write(tmp_path / "none.jsonl")))
