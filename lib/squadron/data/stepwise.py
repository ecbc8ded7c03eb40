"""Word problems solved step by step, with right and wrong next steps and a worked judgement between two, or of a whole
solution: a world in which a small model can learn to reason and to judge, and every step, every verdict, every score
and every answer can be checked.

A step is one line, `Step 2: 41-17=24.`, or worked out by digits, `Step 2: 41-17 (11-7=4 4-1-1=2)=24.`; the last one
also gives the answer, `Step 3: 24*3=72, so \\boxed{72}.` A judgement first works the next step out, then compares both
candidates with it, then says `[[A]]` or `[[B]]`. For a small model the short way is the easier to write, and the long
way the easier to get right. A judgement of a whole solution does so with each step up to the first mistake, then says
`Score: 2`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from squadron.data.arithmetic import Problem

KINDS = ("result", "operand", "operator", "ending")
"""What can be wrong with a step: its result, a number that it takes, what it does with them, or where it stops."""
_WEIGHTS = (60, 18, 12, 10)
_PREFIX_ERRORS = 0.15
"""Share of the steps before a contest that are wrong, as a model's own steps can be; later steps continue from them."""
_MISTAKES = 0.3
"""Share of the steps of a scored solution that are wrong: of two steps, about half of the solutions are right."""
FULL_SCORE = 5
_NUMBER = r"(\d{1,18})"
_STEP = re.compile(
    rf"Step {_NUMBER}: {_NUMBER}([-+*]){_NUMBER}( \([-+*=\d ]*\))?={_NUMBER}(?:, so \\boxed\{{{_NUMBER}\}})?\."
)
_PATIENCE = 50


class Step(NamedTuple):
    """One operation; `last` if the answer is its result, `worked` if it is worked out."""

    number: int
    left: int
    operator: str
    right: int
    result: int
    last: bool
    worked: bool = False

    @property
    def operation(self) -> str:
        """`41-17=24`, or worked out."""
        working = f" ({work_out(self)})" if self.worked else ""
        return f"{self.left}{self.operator}{self.right}{working}={self.result}"

    @property
    def text(self) -> str:
        ending = f", so \\boxed{{{self.result}}}" if self.last else ""
        return f"Step {self.number}: {self.operation}{ending}."


class Contest(NamedTuple):
    """Two candidates for the step after `steps`, one of them right: `better` is "A" for the first, "B" for the second;
    `judgement` says why and ends with the verdict."""

    problem: Problem
    steps: tuple[str, ...]
    first: str
    second: str
    judgement: str
    better: str


class Graded(NamedTuple):
    """A solution, right or wrong, as its steps; `judgement` works them out and ends with the score, 0 to 5."""

    problem: Problem
    steps: tuple[str, ...]
    judgement: str
    score: int


def solution_steps(problem: Problem, draw: random.Random | None = None, worked: float = 0.0) -> tuple[str, ...]:
    """The right solution, a step a line; by `draw`, a share `worked` of the steps is worked out."""
    steps: list[str] = []
    for _ in problem.steps:
        steps.append(_styled(right_step(problem, steps), draw, worked).text)
    return tuple(steps)


def right_step(problem: Problem, steps: Sequence[str]) -> Step:
    """The right step after these, which may hold mistakes: it continues from their last result.

    Raises ValueError if the problem is solved already, or a step cannot be read.
    """
    if len(steps) >= len(problem.steps):
        raise ValueError(f"{len(steps)} steps are given, the problem has {len(problem.steps)}")
    left, operator, right, _ = _operation(problem.steps[len(steps)])
    if steps:
        before = read_step(steps[-1])
        if before is None:
            raise ValueError(f"not a step: {steps[-1]!r}")
        left = before.result
    result = _compute(left, operator, right)
    return Step(len(steps) + 1, left, operator, right, result, last=len(steps) + 1 == len(problem.steps))


def read_step(text: str) -> Step | None:
    """The step that a line holds, right or wrong; None if it is none, or gives another answer than its result."""
    found = _STEP.fullmatch(text.strip())
    if found is None or (found[7] is not None and found[7] != found[6]):
        return None
    number, left, right, result = (int(found[place]) for place in (1, 2, 4, 6))
    return Step(number, left, found[3], right, result, last=found[7] is not None, worked=found[5] is not None)


def is_right(problem: Problem, steps: Sequence[str], candidate: str) -> bool:
    """Whether a line is the right step after these, worked out or not; what it says in between is not checked."""
    said = read_step(candidate)
    try:
        return said is not None and right_step(problem, steps) == said._replace(worked=False)
    except ValueError:
        return False


def wrong_step(draw: random.Random, right: Step) -> Step:
    """A step that is wrong in one way."""
    for _ in range(_PATIENCE):
        kind = draw.choices(KINDS, _WEIGHTS)[0]
        wrong = _spoil(draw, right, kind)
        if wrong.result >= 0 and (wrong.result != right.result or wrong.last != right.last):
            return wrong
    return right._replace(result=right.result + 1)


def contests(asked: Iterable[Problem], seed: int, worked: float = 0.0) -> Iterator[Contest]:
    """A contest over each problem. The right side is the first in half of them, and each side is worked out in a share
    `worked`, whether it is right or wrong."""
    draw = random.Random(f"{seed} contests")
    for problem in asked:
        steps = _prefix(draw, problem, draw.randrange(len(problem.steps)), worked)
        right = right_step(problem, steps)
        pair = [_styled(step, draw, worked).text for step in (right, wrong_step(draw, right))]
        better = draw.choice("AB")
        first, second = pair if better == "A" else pair[::-1]
        yield Contest(problem, steps, first, second, judge(problem, steps, first, second), better)


def judge(problem: Problem, steps: Sequence[str], first: str, second: str) -> str:
    """The worked judgement of two candidates. Of two right or two wrong ones the first is named."""
    right = right_step(problem, steps)
    worked = f"{right._replace(worked=True).operation}{' end' if right.last else ''}."
    sides = [_compare(right, read_step(candidate)) for candidate in (first, second)]
    better = "B" if sides[1][1] and not sides[0][1] else "A"
    return f"{worked} A: {sides[0][0]} B: {sides[1][0]} [[{better}]]"


def graded(asked: Iterable[Problem], seed: int, worked: float = 0.0) -> Iterator[Graded]:
    """A scored solution of each problem; a share `worked` of its steps is worked out, right or wrong."""
    draw = random.Random(f"{seed} graded")
    for problem in asked:
        yield _grade_drawn(draw, problem, worked)


def graded_pairs(asked: Iterable[Problem], seed: int, worked: float = 0.0) -> Iterator[tuple[Graded, Graded]]:
    """Two solutions of each problem whose scores differ, the higher one first in about half of them."""
    draw = random.Random(f"{seed} graded pairs")
    for problem in asked:
        first = second = _grade_drawn(draw, problem, worked)
        while first.score == second.score:
            second = _grade_drawn(draw, problem, worked)
        yield (first, second) if draw.random() < 0.5 else (second, first)


def grade(problem: Problem, steps: Sequence[str]) -> tuple[str, int]:
    """The worked judgement of a whole solution, and its score: of five points, the share of the problem's steps that
    are right before the first mistake, rounded down."""
    lines: list[str] = []
    right_ones = 0
    for place in range(len(problem.steps)):
        right = right_step(problem, steps[:place])
        candidate = read_step(steps[place]) if place < len(steps) else None
        compared, same = _compare(right, candidate)
        lines.append(f"{right._replace(worked=True).operation}{' end' if right.last else ''}. {compared}")
        if not same:
            break
        right_ones += 1
    score = FULL_SCORE * right_ones // len(problem.steps)
    return f"{' '.join(lines)} Score: {score}", score


def work_out(step: Step) -> str:
    """An operation digit by digit from the right, with what is carried or borrowed: `2-0=2 8-4=4`."""
    lines, carried = [], 0
    left, right = str(step.left)[::-1], str(step.right)[::-1]
    if step.operator == "*":
        right = str(step.right) * len(left)
    for place in range(max(len(left), len(right) if step.operator == "+" else 0)):
        a = int(left[place]) if place < len(left) else 0
        b = int(right[place]) if place < len(right) else 0
        sign = "-" if step.operator == "-" else "+"
        value = _compute(a, step.operator, b) + (-carried if sign == "-" else carried)
        borrowed = value < 0
        more = f"{sign}{carried}" if carried else ""
        lines.append(f"{a + 10 * borrowed}{step.operator}{b}{more}={value + 10 * borrowed}")
        carried = int(borrowed) if sign == "-" else value // 10
    return " ".join(lines)


def _grade_drawn(draw: random.Random, problem: Problem, worked: float) -> Graded:
    steps: list[str] = []
    for _ in problem.steps:
        right = right_step(problem, steps)
        if right.result < 0:  # after a mistake there may be too little left
            break
        step = wrong_step(draw, right) if draw.random() < _MISTAKES else right
        steps.append(_styled(step, draw, worked).text)
        if step.last:
            break
    return Graded(problem, tuple(steps), *grade(problem, steps))


def _styled(step: Step, draw: random.Random | None, worked: float) -> Step:
    return step._replace(worked=draw is not None and draw.random() < worked)


def _prefix(draw: random.Random, problem: Problem, count: int, worked: float) -> tuple[str, ...]:
    """The first steps of a solution, some with a mistake; none where a mistake leaves too little to continue from."""
    steps: list[str] = []
    for _ in range(count):
        right = right_step(problem, steps)
        if right.result < 0:
            break
        spoil = draw.random() < _PREFIX_ERRORS
        step = wrong_step(draw, right)._replace(last=False) if spoil else right
        steps.append(_styled(step, draw, worked).text)
    whole = len(steps) == count and right_step(problem, steps).result >= 0
    return tuple(steps) if whole else solution_steps(problem, draw, worked)[:count]


def _compare(right: Step, candidate: Step | None) -> tuple[str, bool]:
    """A candidate's result next to the right one digit by digit, up to the first difference, then where it stops."""
    if candidate is None:
        return "no step wrong.", False
    said, wanted = str(candidate.result), str(right.result)
    lines: list[str] = []
    for place in range(max(len(said), len(wanted))):
        mine, other = (text[place] if place < len(text) else "_" for text in (said, wanted))
        lines.append(f"{mine}={other}" if mine == other else f"{mine}!={other}")
        if mine != other:
            return f"{' '.join(lines)} wrong.", False
    if candidate.last != right.last:
        return f"{' '.join(lines)} {'end' if candidate.last else 'no end'} wrong.", False
    return f"{' '.join(lines)} right.", True


def _spoil(draw: random.Random, right: Step, kind: str) -> Step:
    if kind == "ending":
        return right._replace(last=not right.last)
    if kind == "result":
        return right._replace(result=_another_number(draw, right.result))
    if kind == "operator":
        other = right._replace(operator=draw.choice([sign for sign in "+-*" if sign != right.operator]))
    elif draw.random() < 0.5:
        other = right._replace(left=_another_number(draw, right.left))
    else:
        other = right._replace(right=_another_number(draw, right.right))
    return other._replace(result=_compute(other.left, other.operator, other.right))


def _another_number(draw: random.Random, value: int) -> int:
    """A number that is easily taken for this one: close by, ten off, or with another digit."""
    digits = list(str(value))
    digits[draw.randrange(len(digits))] = str(draw.randrange(10))
    near = [
        value + draw.choice((-1, 1)),
        value + draw.choice((-10, 10)),
        int("".join(digits)),
        value + draw.randint(-20, 20),
    ]
    chosen = draw.choices(near, (30, 20, 35, 15))[0]
    return chosen if chosen >= 0 and chosen != value else value + 1


def _operation(step: str) -> tuple[int, str, int, int]:
    left, operator, right, _, result = step.split()
    return int(left), operator, int(right), int(result)


def _compute(left: int, operator: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator]
