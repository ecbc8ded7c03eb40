"""Rewards without a model: the score that came with an answer, or a comparison with the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from squadron.core.errors import InputError
from squadron.llm.chat import Closing
from squadron.llm.rewards.reward import Answered, Score, scored


class RuleReward(Closing):
    """Scores each row by a function, which raises InputError for a row that it cannot score."""

    def __init__(self, value: Callable[[Answered], float]) -> None:
        self._value = value

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        for row in rows:
            try:
                yield scored(row.key, self._value(row))
            except InputError as error:
                yield Score(row.key, None, error.what)


def from_column(row: Answered) -> float:
    """The score that came with the answer. Raises InputError where none did."""
    if row.score is None:
        raise InputError("the input has no score for this answer")
    return row.score


def by_tasks(row: Answered) -> float:
    """How far the response agrees with the reference, between 0 and 1. Raises InputError where there is none."""
    from squadron.data.tasks import grade

    return float(grade(row.response, _reference(row)))


def by_final_answer(row: Answered) -> float:
    """Whether the response ends with the reference's number, 1 or 0. Raises InputError where that has none."""
    from squadron.data.arithmetic import MARKER, final_answer, is_correct

    reference = _reference(row)
    if final_answer(reference) is None:
        raise InputError(f"the reference answer has no number behind {MARKER}")
    return float(is_correct(row.response, reference))


def _reference(row: Answered) -> str:
    if row.reference is None:
        raise InputError("there is no reference answer to compare with")
    return row.reference
