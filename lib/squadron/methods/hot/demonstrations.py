"""Demonstrations: worked examples that a prompt shows, read and checked for faults, and for leaks of test questions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from squadron.core.errors import InputError
from squadron.data.records import Record, read_records
from squadron.methods.hot.config import DemonstrationsConfig
from squadron.methods.hot.tags import read_tags, similarity, strip_tags


@dataclass(frozen=True)
class Demonstration:
    """A question, the same with facts in tags if it has them, and an answer with the same tags or none.

    `where` says which text it stands in, `line` and `answer_line` where in that text its parts begin, if it is one.
    """

    question: str
    highlighted: str | None
    answer: str
    where: str = ""
    line: int = 0
    answer_line: int = 0

    def place(self, line: int = 0) -> str:
        """Where it stands, or a line of it."""
        line = line or self.line
        return f"{self.where}, line {line} of its text" if line else self.where


@dataclass(frozen=True)
class Flaw:
    """Something that is wrong with a demonstration; it is shown and kept, as published ones have some."""

    place: str
    said: str


def read_demonstrations(config: DemonstrationsConfig) -> list[Demonstration]:
    """The demonstrations of a file: rows of `{question, highlighted, answer}`, or texts in the published form, of which
    `dataset` and `mode` choose.

    Raises InputError, by file and line, for what is neither, and for a file in which there is none.
    """
    found: list[Demonstration] = []
    seen: set[str] = set()
    for record in read_records(str(config.path)):
        if not record.has("text"):
            found.append(_read_row(record))
            continue
        seen.add(dataset := str(record.values.get("dataset", "")))
        if config.dataset in (None, dataset) and record.values.get("mode", config.mode) == config.mode:
            found += parse_demonstrations(record.text("text", blank=False), record.where)
    if not found:
        what = f"no demonstration of {config.dataset or 'any data set'} in mode {config.mode}"
        names = f"; there are {', '.join(sorted(seen))}" if seen else ""
        raise InputError(f"{what}{names}", where=str(config.path), fix="correct dataset or mode, or give another file")
    return found[: config.shots]


def parse_demonstrations(text: str, where: str = "") -> list[Demonstration]:
    """The demonstrations of a text in the published form: lines that begin with `Question:`, `Reformatted Question:`
    (missing where the question itself has tags, or none has) and `Answer:`, and go on until the next.

    Raises InputError for one without question or answer.
    """
    starts = [found.start() for found in _QUESTION.finditer(text)]
    if not starts or text[: starts[0]].strip():
        raise InputError("a demonstration begins with `Question:`", where=where, fix="begin each with `Question:`")
    found = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        line = text.count("\n", 0, start) + 1
        answer = _ANSWER.search(text, start, end)
        if answer is None:
            place = f"{where}, line {line} of its text"
            raise InputError("a demonstration without `Answer:`", where=place, fix="add its answer")
        asked = _HEAD.sub("", text[start : answer.start()])
        raw, head, again = asked.partition("Reformatted Question:")
        highlighted = again.strip() if head else (raw.strip() if read_tags(raw).spans else None)
        answer_line = text.count("\n", 0, answer.start()) + 1
        plain = strip_tags(raw).strip()
        found.append(Demonstration(plain, highlighted, text[answer.end() : end].strip(), where, line, answer_line))
    return found


def find_flaws(demonstrations: Iterable[Demonstration]) -> list[Flaw]:
    """Tags that are not as they should be, part by part, questions that were changed, and answers without `{…}`."""
    flaws: list[Flaw] = []
    for one in demonstrations:
        answer = read_tags(one.answer)
        known = read_tags(one.highlighted) if one.highlighted is not None else None
        parts = (("question", known, one.highlighted or "", one.line), ("answer", answer, one.answer, one.answer_line))
        for part, tagged, text, line in parts:
            if tagged is not None and tagged.faults:
                opened, closed = len(_OPENING.findall(text)), len(_CLOSING.findall(text))
                kinds = ", ".join(sorted({f"{fault.kind} {fault.tag}" for fault in tagged.faults}))
                flaws.append(Flaw(one.place(line), f"{part} with {opened} opening and {closed} closing tags: {kinds}"))
        if known is not None and (unknown := answer.ids - known.ids):
            flaws.append(
                Flaw(
                    one.place(one.answer_line),
                    f"answer with facts that the question lacks: {', '.join(sorted(unknown))}",
                )
            )
        if known is not None and (kept := similarity(known.text, one.question)) < _SAME:
            flaws.append(Flaw(one.place(), f"question repeated with changes: {kept:.0%} alike"))
        if not _BRACES.search(one.answer):
            flaws.append(Flaw(one.place(), "answer without {…} around what it comes to"))
    return flaws


def find_leaks(
    demonstrations: Sequence[Demonstration], questions: Mapping[str, str]
) -> list[tuple[Demonstration, str]]:
    """Each demonstration that shows a question of the test, with the id of that question: the same words in the same
    order, whatever their case and marks, or one that holds the other whole. `questions` are texts by id."""
    asked = {" ".join(_WORD.findall(text.casefold())): name for name, text in questions.items()}
    long = [words for words in asked if words.count(" ") >= _LONG]
    leaks = []
    for one in demonstrations:
        shown = " ".join(_WORD.findall(one.question.casefold()))
        held = (words for words in long if shown.count(" ") >= _LONG and (words in shown or shown in words))
        words = shown if shown in asked else next(held, None)
        if words is not None:
            leaks.append((one, asked[words]))
    return leaks


def refuse_leaks(leaks: Sequence[tuple[Demonstration, str]]) -> None:
    """Raise InputError if there is any."""
    for one, name in leaks:
        fix = "leave the demonstration out (leaks: drop does so), or the question"
        what = f"a demonstration shows the test question {name!r}: {one.question[-60:]!r}"
        raise InputError(what, where=one.place(), fix=fix)


def _read_row(record: Record) -> Demonstration:
    highlighted = record.text("highlighted", blank=False) if record.has("highlighted") else None
    return Demonstration(
        record.text("question", blank=False), highlighted, record.text("answer", blank=False), record.where
    )


_QUESTION = re.compile(r"^Question:[ \t]*", re.MULTILINE)
_HEAD = re.compile(r"\AQuestion:[ \t]*")
_ANSWER = re.compile(r"^[ \t]*Answer:[ \t]*", re.MULTILINE)
_OPENING, _CLOSING = re.compile(r"<fact\d+>"), re.compile(r"</fact\d+>")
_BRACES = re.compile(r"\{[^{}]*\w[^{}]*\}")
_WORD = re.compile(r"\w+")
_SAME = 0.9
_LONG = 8
