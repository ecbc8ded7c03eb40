"""The world of short tasks: answers are right, and the grader tells right from near and from nonsense."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.data.arithmetic import MARKER
from squadron.data.tasks import KINDS, LEVELS, Task, blank, draw_task, grade, tasks

drawn = st.builds(
    lambda seed, kind, level: draw_task(random.Random(seed), kind, level),
    st.integers(0, 10**6),
    st.sampled_from(KINDS),
    st.sampled_from(LEVELS),
)


def _after(instruction: str, count: int) -> list[str]:
    """The last items of an instruction, without its words and signs."""
    return instruction.replace("?", " ").replace(":", " ").split()[-count:]


@given(drawn)
def test_an_answer_is_right_whatever_its_spaces_and_an_altered_one_is_not(task: Task) -> None:
    final = task.answer.rpartition(MARKER)[2].strip()
    assert grade(task.answer, task.answer) == grade(final, task.answer) == grade(f"so\n#### {final}.", task.answer) == 1
    assert grade(f"[{', '.join(final.split())}]", task.answer) == 1
    for wrong in (f"{final} 1", f"1{task.answer}" if MARKER not in task.answer else f"{task.answer}1", final[:-1], ""):
        assert grade(wrong, task.answer) <= 0.5


@given(st.text(), st.text())
def test_any_two_texts_have_a_grade(response: str, answer: str) -> None:
    assert grade(response, answer) == 1 or 0 <= grade(response, answer) < 0.5


@given(drawn.filter(lambda task: task.kind in ("reverse", "capitals", "sort", "largest", "smallest", "total")))
def test_answers_are_what_python_makes_of_the_instruction(task: Task) -> None:
    items = [item for item in _after(task.instruction, 99) if item.isdigit() or len(item) == 1]
    assert len(items) == task.level + 1
    if task.kind in ("reverse", "capitals"):
        assert task.answer == " ".join(items[::-1] if task.kind == "reverse" else map(str.upper, items))
        return
    numbers = [int(item) for item in items]
    found = {"sort": sorted(numbers), "largest": max(numbers), "smallest": min(numbers), "total": sum(numbers)}
    assert task.answer == str(found[task.kind]).replace(",", "").strip("[]")


@given(st.integers(0, 10**6), st.sampled_from(LEVELS))
def test_arithmetic_is_right(seed: int, level: int) -> None:
    for kind in ("sum", "product"):
        task = draw_task(random.Random(seed), kind, level)
        expression = "".join(word for word in task.instruction if word in "0123456789+-*")
        if task.instruction.startswith("Multiply"):
            expression = "*".join(word for word in task.instruction.split() if word.isdigit())
        assert int(task.answer.rpartition(MARKER)[2]) == eval(expression) >= 0


@given(st.integers(0, 10**6), st.sampled_from(LEVELS))
def test_what_is_picked_by_a_place_a_letter_or_a_limit(seed: int, level: int) -> None:
    def parts(kind: str, count: int) -> tuple[str, list[str], str]:
        task = draw_task(random.Random(seed), kind, level)
        words = task.instruction.replace("?", "").replace(":", "").split()
        return next((word for word in words if word.isdigit() or len(word) == 1), ""), words[-count:], task.answer

    place, letters, letter = parts("nth_letter", level + 1)
    assert letters[int(place) - 1] == letter
    letter, letters, count = parts("count_letter", 2 * level)
    assert letters.count(letter) == int(count) > 0
    limit, numbers, kept = parts("greater", level + 1)
    assert kept.split() == [number for number in numbers if int(number) > int(limit)] and kept
    _, words, ends = parts("last_letters", level + 1)
    assert ends.split() == [word[-1] for word in words]


def test_tasks_are_a_function_of_the_seed_and_differ() -> None:
    first, again, other = (list(tasks(2000, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({task.instruction for task in first}) == 2000
    assert {task.kind for task in first} == set(KINDS) and {task.level for task in first} == set(LEVELS)
    assert {(task.kind, task.level) for task in tasks(50, 3, ["sort", "sum"], [2])} == {("sort", 2), ("sum", 2)}


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="have no more than"):
        list(tasks(1000, 0, ["product"], [1]))
    for kinds, levels in ((["poem"], [1]), (["sum"], [6]), ([], [1]), (["sum"], [])):
        with pytest.raises(ValueError, match="are to be among"):
            next(tasks(1, 0, kinds, levels))


@pytest.mark.parametrize(
    ("response", "answer", "expected"),
    [
        (" c  B a\n", "c b a", 1.0),
        ("(3, 5, 8).", "3 5 8", 1.0),
        ("A B", "A B", 1.0),
        ("a b", "A B", 0.0),
        ("A b", "A B", 0.25),
        ("4 + 5 = 9\n#### 9", "9", 1.0),
        ("#### 9\nno: #### 8", "9", 0.0),
        ("9", "4 + 5 = 9\n#### 9", 1.0),
        ("3 5", "3 5 8", 1 / 3),
        ("3 8 5", "3 5 8", 0.5 / 3),
        ("147", "142", 1 / 3),
        ("1423", "142", 0.375),
        ("I do not know", "142", 0.0),
        ("", "142", 0.0),
        ("", "", 1.0),
    ],
)
def test_grades(response: str, answer: str, expected: float) -> None:
    assert grade(response, answer) == pytest.approx(expected)


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(KINDS), level=st.sampled_from(LEVELS))
def test_a_task_with_blanks_is_about_what_nobody_can_know(seed: int, kind: str, level: int) -> None:
    task = draw_task(random.Random(seed), kind, level)
    blanked = blank(random.Random(seed), task)
    assert "___" in blanked.instruction and blanked.instruction.count(" ") == task.instruction.count(" ")
    assert grade(task.answer, blanked.answer) < 0.5 and grade("", blanked.answer) == 0
