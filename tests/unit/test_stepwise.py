"""The small world of steps: solutions are right, wrong steps are wrong, judgements say why and name the right side."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.data.arithmetic import draw_problem, problems
from squadron.data.stepwise import (
    Step,
    contests,
    is_right,
    judge,
    read_step,
    right_step,
    solution_steps,
    work_out,
    wrong_step,
)

seeds = st.integers(0, 10_000)


@given(seeds, st.integers(1, 4))
def test_a_solution_is_right_step_by_step_and_ends_with_the_answer(seed: int, count: int) -> None:
    problem = draw_problem(random.Random(seed), count)
    steps = solution_steps(problem)
    assert len(steps) == count
    assert all(is_right(problem, steps[:place], step) for place, step in enumerate(steps))
    assert [f"\\boxed{{{problem.answer}}}" in step for step in steps] == [False] * (count - 1) + [True]


@given(seeds)
def test_a_wrong_step_can_be_read_and_is_wrong(seed: int) -> None:
    draw = random.Random(seed)
    problem = draw_problem(draw, 3)
    done = solution_steps(problem)[: draw.randrange(3)]
    wrong = wrong_step(draw, right_step(problem, done))
    assert read_step(wrong.text) == wrong
    assert not is_right(problem, done, wrong.text)


@given(st.integers(0, 999), st.sampled_from("+-*"), st.integers(0, 999))
def test_working_out_ends_with_the_digits_of_the_result(left: int, operator: str, right: int) -> None:
    """The last digits of the partial results, from the right, spell the result; each partial result is true."""
    if operator == "*":
        right %= 10
    if operator == "-" and right > left:
        left, right = right, left
    result = {"+": left + right, "-": left - right, "*": left * right}[operator]
    lines = work_out(Step(1, left, operator, right, result, False)).split()
    values = []
    for line in lines:
        expression, value = line.split("=")
        assert eval(expression) == int(value)
        values.append(int(value))
    digits = [value % 10 for value in values[:-1]] + [values[-1]]
    assert int("".join(map(str, reversed(digits)))) == result


def test_contests_have_one_right_side_and_a_judgement_that_names_it() -> None:
    found = list(contests(problems(400, 3), 3, worked=0.4))
    for contest in found:
        asked = contest.problem, contest.steps
        sides = [is_right(*asked, candidate) for candidate in (contest.first, contest.second)]
        assert sorted(sides) == [False, True]
        assert contest.better == ("A" if sides[0] else "B")
        assert re.findall(r"\[\[(.)\]\]", contest.judgement) == [contest.better]
        assert contest.judgement.count("right.") == contest.judgement.count("wrong.") == 1
        swapped = judge(*asked, contest.second, contest.first)
        assert swapped.endswith("[[B]]" if contest.better == "A" else "[[A]]")
        assert swapped.partition("A:")[0] == contest.judgement.partition("A:")[0]
    share = sum(contest.better == "A" for contest in found) / len(found)
    assert 0.4 < share < 0.6
    assert any(
        not is_right(one.problem, one.steps[:place], step) for one in found for place, step in enumerate(one.steps)
    )


@given(seeds)
def test_a_step_is_right_or_wrong_whether_or_not_it_is_worked_out(seed: int) -> None:
    draw = random.Random(seed)
    problem = draw_problem(draw, 3)
    done = solution_steps(problem, draw, worked=0.5)[: draw.randrange(3)]
    right = right_step(problem, done)
    for step in (right, wrong_step(draw, right)):
        worked = step._replace(worked=True)
        assert read_step(worked.text) == worked
        assert is_right(problem, done, worked.text) == is_right(problem, done, step.text) == (step == right)
        assert judge(problem, done, worked.text, right.text) == judge(problem, done, step.text, right.text)


def test_neither_the_right_nor_the_wrong_side_is_worked_out_more_often() -> None:
    found = list(contests(problems(1000, 4), 4, worked=0.35))
    right = [contest.first if contest.better == "A" else contest.second for contest in found]
    wrong = [contest.second if contest.better == "A" else contest.first for contest in found]
    for side in (right, wrong):
        assert 0.3 < sum("(" in step for step in side) / len(side) < 0.4


def test_a_step_goes_on_from_a_mistake_and_is_judged_from_there() -> None:
    problem = next(problems(1, 0, 3, 3))
    first = right_step(problem, ())
    wrong = first._replace(result=first.result + 1)
    after = right_step(problem, [wrong.text])
    assert after.left == wrong.result and is_right(problem, [wrong.text], after.text)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Step 1: 2+2=4",
        "Step 1: 2+2=.",
        "Step 1: 2+2=4, so \\boxed{5}.",
        "Step one: 2+2=4.",
        "2+2=4.",
        "Step 1: 2+2=-4.",
    ],
)
def test_what_is_no_step_is_not_read_as_one(line: str) -> None:
    assert read_step(line) is None


def test_a_solved_problem_has_no_next_step() -> None:
    problem = next(problems(1, 0))
    with pytest.raises(ValueError, match="the problem has"):
        right_step(problem, solution_steps(problem))
    assert not is_right(problem, solution_steps(problem), "Step 4: 1+1=2.")
