"""The world of word problems: every solution is right, every answer can be checked."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.data.arithmetic import MARKER, final_answer, is_correct, problems
from squadron.data.records import read_records

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "math"


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(20, 99))
def test_every_step_is_right_and_leads_to_the_answer(seed: int, steps: int, largest: int) -> None:
    (problem,) = problems(1, seed, steps, steps, largest)
    before = None
    for step in problem.steps:
        expression, _, result = step.partition(" = ")
        left, operator, right = expression.split()
        assert before in (None, left) and 0 < int(result) <= largest
        assert {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[operator] == int(
            result
        )
        before = result
    assert len(problem.steps) == steps and problem.answer == int(result)
    assert is_correct(problem.solution, problem.solution)
    assert not is_correct(problem.solution + "1", problem.solution)


def test_problems_are_a_function_of_the_seed_and_differ() -> None:
    first, again, other = (list(problems(500, seed)) for seed in (1, 1, 2))
    assert first == again != other and len({problem.question for problem in first}) == 500


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 1,234", 1234),
        ("so #### 5\nno: #### 7.50", Decimal("7.5")),
        ("#### $18", 18),
        ("#### -3.", -3),
        ("18", None),
        ("####", None),
        ("#### nan", None),
        ("#### many", None),
    ],
)
def test_the_number_behind_the_marker(text: str, answer: object) -> None:
    assert final_answer(text) == answer


@pytest.mark.skipif(not GSM8K.exists(), reason="the GSM8K files are not here")
def test_gsm8k_references_verify_and_altered_ones_do_not() -> None:
    records = [record.values for record in read_records(str(GSM8K / "gsm8k_test.jsonl"))]
    assert len(records) == 1319
    for record in records:
        reference = record["answer"]
        assert is_correct(reference, reference)
        head, _, number = reference.rpartition(MARKER)
        assert not is_correct(f"{head}{MARKER} {int(number.replace(',', '')) + 1}", reference)
