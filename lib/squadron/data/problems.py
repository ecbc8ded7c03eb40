"""Mathematical problems of benchmark files, every row checked before any is used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from squadron.core.errors import InputError
from squadron.data.answers import final_answer, is_bare
from squadron.data.arithmetic import MARKER
from squadron.data.records import Record, read_records


@dataclass(frozen=True)
class Problem:
    """A question, the final answer that a benchmark gives, and the worked solution where it gives one."""

    id: str
    question: str
    reference: str
    solution: str | None = None


def read_problems(
    path: str,
    split: str = "train",
    subset: str | None = None,
    *,
    question: str | None = None,
    answer: str | None = None,
    solution: str | None = None,
    id: str | None = None,
) -> list[Problem]:
    r"""The problems of a file, a folder or a hub data set (see `read_records`), all checked before any is returned.

    Columns that are not named are those of GSM8K (`question`, `answer`) or of MATH (`problem`, and `answer` or
    `solution`). An answer is bare, or a worked solution with the final answer behind `####` or in `\boxed`. Without a
    column of ids, a problem's id is a hash of its question.

    Raises InputError, which names the row, for a column that is missing or empty, an answer in which no final answer
    can be found, and an id that stands twice; also for a file without problems.
    """
    settings = {"question": question, "answer": answer, "solution": solution, "id": id}
    named = {setting: column for setting, column in settings.items() if column}
    problems, places, columns = list[Problem](), dict[str, str](), dict[str, str]()
    for record in read_records(path, split, subset):
        columns = columns or _columns(record.values) | named
        for setting in named:
            record.value(columns[setting], setting)
        problem = _problem(record, columns)
        if problem.id in places:
            what = f"the id {problem.id!r}" if id else "the same question"
            raise InputError(f"{what} stands twice", where=f"{places[problem.id]} and {record.where}", fix="drop one")
        places[problem.id] = record.where
        problems.append(problem)
    if not problems:
        raise InputError("there are no problems here", where=path, fix="give a file of at least one line")
    return problems


def read_questions(
    path: str, split: str = "train", subset: str | None = None, *, question: str | None = None
) -> Iterator[str]:
    """The questions of a file, a folder or a hub data set, each once and as they come; answers are not needed.

    A column that is not named is `question` or `problem`. Raises InputError, which names the row, for one that is
    missing or empty; also for a file without problems.
    """
    seen: set[str] = set()
    for record in read_records(path, split, subset):
        column = question or _columns(record.values)["question"]
        if (text := _text(record, "question", column)) not in seen:
            seen.add(text)
            yield text
    if not seen:
        raise InputError("there are no problems here", where=path, fix="give a file of at least one line")


def question_id(question: str) -> str:
    """What stands for a question where nothing else names it: sixteen hex digits of its content."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def _columns(values: Mapping[str, Any]) -> dict[str, str]:
    """Which column holds what, by the names that the first record has."""
    usual = {"question": ("question", "problem"), "answer": ("answer", "solution"), "solution": ("solution",)}
    return {setting: next((name for name in names if name in values), names[0]) for setting, names in usual.items()}


def _text(record: Record, setting: str, column: str) -> str:
    """A cell as text; OlympiadBench lists its answers."""
    listed = isinstance(record.values.get(column), list)
    labels = record.labels(column, setting) if listed else [record.label(column, setting)]
    text = ", ".join(str(label).strip() for label in labels)
    if setting == "question" and not text:
        raise InputError(f"the column {column!r} is empty in this record", where=record.where)
    return text


def _problem(record: Record, columns: dict[str, str]) -> Problem:
    texts = {setting: _text(record, setting, column) for setting, column in columns.items()
             if setting in ("question", "answer") or record.has(column)}  # fmt: skip
    answer = texts["answer"]
    worked = final_answer(answer)
    if worked is None and not is_bare(answer):
        raise InputError(
            f"no final answer can be found in the column {columns['answer']!r} of this record",
            where=record.where,
            fix=rf"end it with {MARKER} and the answer, put the answer in \boxed{{…}}, or give the answer alone",
        )
    return Problem(
        texts.get("id") or question_id(texts["question"]),
        texts["question"],
        worked or answer,
        texts.get("solution") or (answer if worked else None),
    )
