"""Short tasks with numbers, letters and lists, written by rule at five levels of difficulty, and a grader: a world in
which models that are trained from scratch in minutes can be told apart, and every answer can be checked.

Spaces keep letters and numbers apart, so that a model sees each of them, whichever tokens its tokenizer merges.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from squadron.data.arithmetic import MARKER, draw_problem

LEVELS = (1, 2, 3, 4, 5)
UNANSWERABLE = "(unanswerable)"

_NEAR = 0.5  # the most that an answer which is not right can get
_PATIENCE = 10_000  # draws in a row without a new instruction
_WORDS = (
    *(
        "apple",
        "bread",
        "chair",
        "dog",
        "earth",
        "fish",
        "gold",
        "hand",
        "ice",
        "jazz",
        "king",
        "leaf",
        "moon",
        "night",
    ),
    *("open", "pink", "queen", "river", "sun", "tree", "uncle", "view", "water", "year", "zoo", "book", "club", "drum"),
)


class Task(NamedTuple):
    """An instruction, its kind and level, and its answer; a worked answer ends behind the marker."""

    kind: str
    level: int
    instruction: str
    answer: str


def tasks(count: int, seed: int, kinds: Sequence[str] | None = None, levels: Sequence[int] = LEVELS) -> Iterator[Task]:
    """`count` tasks of all kinds and levels alike, no instruction twice.

    Raises ValueError for an unknown kind or level, and when no further instructions can be found.
    """
    names = KINDS if kinds is None else tuple(kinds)
    if not set(names) <= set(KINDS) or not set(levels) <= set(LEVELS) or not names or not levels:
        raise ValueError(f"kinds {names} and levels {tuple(levels)} are to be among {KINDS} and {LEVELS}")
    draw, seen, failed = random.Random(seed), set[str](), 0
    while len(seen) < count:
        task = draw_task(draw, draw.choice(names), draw.choice(levels))
        failed = failed + 1 if task.instruction in seen else 0
        if failed > _PATIENCE:
            raise ValueError(f"{count} tasks are asked for, but these kinds and levels have no more than {len(seen)}")
        if not failed:
            seen.add(task.instruction)
            yield task


def draw_task(draw: random.Random, kind: str, level: int) -> Task:
    """A task of one kind and level."""
    phrasings, make = _MAKERS[kind]
    parts, answer = make(draw, level)
    return Task(kind, level, draw.choice(phrasings).format(*parts), answer)


def blank(draw: random.Random, task: Task) -> Task:
    """The same task with what it is about left out in places, so that nobody can answer it: a template half filled in.

    Generated pools hold such instructions; their answer here is one that no model gives.
    """
    words = task.instruction.split(" ")
    filled = [place for place, word in enumerate(words) if word.isdigit() or word in _WORDS or _is_letter(word)]
    if task.kind in ("nth_letter", "count_letter"):
        blanks = set(filled[:1])  # which letter is meant: no other blank would always matter
    else:
        blanks = set(draw.sample(filled, draw.randint(1, len(filled))))
    text = " ".join("___" if place in blanks else word for place, word in enumerate(words))
    return Task(task.kind, task.level, text, UNANSWERABLE)


def grade(response: str, answer: str) -> float:
    """How right a response is: 1.0 exactly when it is the answer, less than 0.5 for a near miss, 0.0 for nonsense.

    Of a worked response what stands behind the last marker counts. Spaces, commas and brackets do not matter, and
    capitals only where the answer has some. A near miss gets half the share of items, or of one item's characters,
    that stand at their place.
    """
    given, wanted = _items(response), _items(answer)
    if not any(map(str.isupper, wanted)):
        given = [item.lower() for item in given]
    if given == wanted:
        return 1.0
    if len(given) == len(wanted) == 1:
        given, wanted = list(given[0]), list(wanted[0])
    right = sum(map(str.__eq__, given, wanted))
    return _NEAR * right / max(len(given), len(wanted), 1)


def _is_letter(word: str) -> bool:
    return len(word) == 1 and "a" <= word <= "z"


def _items(text: str) -> list[str]:
    final = text.rpartition(MARKER)[2]
    items = [item.rstrip(".") for item in final.translate(str.maketrans(",;[]()\"'", " " * 8)).split()]
    return [item for item in items if item]


_Made = tuple[tuple[object, ...], str]  # what fills a phrasing, and the answer


def _letters(draw: random.Random, count: int, alphabet: str = "abcdefghijkl") -> list[str]:
    return draw.choices(alphabet, k=count)


def _numbers(draw: random.Random, level: int) -> list[int]:
    """Distinct numbers, so that one of them is the largest."""
    return draw.sample(range(1, (9, 9, 20, 50, 99)[level - 1] + 1), level + 1)


def _text(items: Sequence[object]) -> str:
    return " ".join(map(str, items))


def _sum(draw: random.Random, level: int) -> _Made:
    largest = (9, 20, 50, 99, 99)[level - 1]
    values, signs = [draw.randint(1, largest)], list[str]()
    for _ in range(1 if level < 5 else 2):
        signs.append(draw.choice("+-") if values[-1] > 1 else "+")
        change = draw.randint(1, largest) if signs[-1] == "+" else draw.randint(1, values[-1])
        values.append(values[-1] + change * (1 if signs[-1] == "+" else -1))
    steps = [(old, sign, abs(new - old), new) for (old, new), sign in zip(pairwise(values), signs, strict=True)]
    expression = _text([values[0], *(f"{sign} {change}" for _, sign, change, _ in steps)])
    if len(steps) == 1:
        return (expression,), str(values[-1])
    return (expression,), "\n".join((*("{} {} {} = {}".format(*step) for step in steps), f"{MARKER} {values[-1]}"))


def _product(draw: random.Random, level: int) -> _Made:
    low, high = ((2, 9), (10, 19), (20, 99), (100, 999), (10, 99))[level - 1]
    factors = [draw.randint(low, high), draw.randint(2, 9) if level < 5 else draw.randint(low, high)]
    draw.shuffle(factors)
    return tuple(factors), str(factors[0] * factors[1])


def _story(draw: random.Random, level: int) -> _Made:
    problem = draw_problem(draw, steps=(level + 1) // 2, largest=(20, 50, 50, 99, 99)[level - 1])
    return (problem.question,), problem.solution


def _reverse(draw: random.Random, level: int) -> _Made:
    letters = _letters(draw, level + 1)
    return (_text(letters),), _text(letters[::-1])


def _nth_letter(draw: random.Random, level: int) -> _Made:
    letters = _letters(draw, level + 1)
    place = draw.randrange(len(letters))
    return (place + 1, _text(letters)), letters[place]


def _count_letter(draw: random.Random, level: int) -> _Made:
    letters = _letters(draw, 2 * level, draw.choice(("abc", "def", "ghi", "jkl")))
    letter = draw.choice(letters)
    return (letter, _text(letters)), str(letters.count(letter))


def _capitals(draw: random.Random, level: int) -> _Made:
    letters = _letters(draw, level + 1)
    return (_text(letters),), _text(letters).upper()


def _last_letters(draw: random.Random, level: int) -> _Made:
    words = draw.choices(_WORDS, k=level + 1)
    return (_text(words),), _text([word[-1] for word in words])


def _of_numbers(answer: Callable[[list[int]], object]) -> Callable[[random.Random, int], _Made]:
    def make(draw: random.Random, level: int) -> _Made:
        numbers = _numbers(draw, level)
        found = answer(numbers)
        return (_text(numbers),), _text(found) if isinstance(found, list) else str(found)

    return make


def _greater(draw: random.Random, level: int) -> _Made:
    numbers = _numbers(draw, level)
    limit = draw.choice(sorted(numbers)[:-1])
    return (limit, _text(numbers)), _text([number for number in numbers if number > limit])


_MAKERS: dict[str, tuple[tuple[str, ...], Callable[[random.Random, int], _Made]]] = {
    "sum": (("{}", "What is {}?", "Work out {}"), _sum),
    "product": (("{} * {}", "What is {} * {}?", "Multiply {} by {}"), _product),
    "story": (("{}",), _story),
    "reverse": (("Reverse {}", "Write {} backwards"), _reverse),
    "nth_letter": (("Letter {} of {}", "Give letter {} in {}"), _nth_letter),
    "count_letter": (("Count {} in {}", "How often is {} in {}?"), _count_letter),
    "capitals": (("Capitals of {}", "Write {} in capitals"), _capitals),
    "last_letters": (("Last letters of {}", "The ends of {}"), _last_letters),
    "sort": (("Sort {}", "Put {} in rising order"), _of_numbers(sorted)),
    "largest": (("Largest of {}", "Which is the largest? {}"), _of_numbers(max)),
    "smallest": (("Smallest of {}", "Which is the smallest? {}"), _of_numbers(min)),
    "total": (("Total of {}", "Add up {}"), _of_numbers(sum)),
    "greater": (("Keep above {}: {}", "Keep only what is above {} in {}"), _greater),
}
KINDS = tuple(_MAKERS)
