"""Word problems of a few steps, written by rule, with worked solutions and a checker: a world small enough for a model
that is trained from scratch in minutes, and verifiable in every step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

MARKER = "####"
"""What stands before the final answer of a solution, as in GSM8K."""

_NAMES = ("Mia", "Tom", "Ada", "Ben", "Eva", "Leo", "Zoe", "Max", "Ida", "Sam")
_THINGS = ("shells", "coins", "books", "stamps", "apples", "pens", "cards", "stones", "keys", "cups")


class Problem(NamedTuple):
    """A question, the steps that lead to its answer, and the answer."""

    question: str
    steps: tuple[str, ...]
    answer: int

    @property
    def solution(self) -> str:
        """The steps, a line each, and the answer behind the marker."""
        return "\n".join((*self.steps, f"{MARKER} {self.answer}"))


def draw_problem(draw: random.Random, steps: int, largest: int = 99) -> Problem:
    """A problem of `steps` steps; every number on the way is between 1 and `largest`."""
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    have = draw.randint(2, max(2, largest // 2))
    sentences, worked = [f"{name} has {have} {thing}."], []
    for _ in range(steps):
        sentence, operator, other = _change(draw, name, thing, have, largest)
        result = {"+": have + other, "-": have - other, "*": have * other}[operator]
        sentences.append(sentence)
        worked.append(f"{have} {operator} {other} = {result}")
        have = result
    return Problem(" ".join((*sentences, f"How many {thing} does {name} have?")), tuple(worked), have)


def problems(count: int, seed: int, fewest_steps: int = 2, most_steps: int = 3, largest: int = 99) -> Iterator[Problem]:
    """`count` problems, no question twice. There are millions of two steps with numbers up to 30."""
    draw, seen = random.Random(seed), set[str]()
    while len(seen) < count:
        problem = draw_problem(draw, draw.randint(fewest_steps, most_steps), largest)
        if problem.question not in seen:
            seen.add(problem.question)
            yield problem


def final_answer(text: str, marker: str = MARKER) -> Decimal | None:
    """The number behind the last marker, without thousands' commas and units; None if there is none."""
    _, found, rest = text.rpartition(marker)
    words = rest.replace(",", "").replace("$", "").split()
    if not found or not words:
        return None
    try:
        number = Decimal(words[0].rstrip(".%"))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def is_correct(text: str, reference: str, marker: str = MARKER) -> bool:
    """Whether a solution ends with the number that the reference solution ends with."""
    answer, wanted = final_answer(text, marker), final_answer(reference, marker)
    return answer is not None and answer == wanted


def _change(draw: random.Random, name: str, thing: str, have: int, largest: int) -> tuple[str, str, int]:
    """One sentence that changes how many there are, and the operation it stands for."""
    kinds = ["+"] * (have < largest) + ["-"] * (have > 1) + ["*"] * (1 < have <= largest // 2)
    kind = draw.choice(kinds)
    if kind == "+":
        more = draw.randint(1, min(40, largest - have))
        return draw.choice((f"{name} finds {more} more.", f"A friend brings {more} {thing}.")), "+", more
    if kind == "-":
        less = draw.randint(1, min(40, have - 1))
        return draw.choice((f"{name} gives away {less}.", f"{less} of them get lost.")), "-", less
    times = draw.randint(2, min(4, largest // have))
    word = {2: "twice", 3: "three times", 4: "four times"}[times]
    return f"Now {name} gets {word} as many.", "*", times
