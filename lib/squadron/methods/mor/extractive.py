"""Plans read off a question: which shape of plan it asks for, and which of its words describe nodes of each type.

W words of a question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from squadron.methods.mor.plans import Plan, Route, write_plan

NO_SHAPE, OUTSIDE = "text alone", "-"
_WORD = re.compile(r"\w+(?:[-'.]\w+)*|[^\w\s]")
_EDGES = " \t\n.,;:!?\"'“”‘’()[]"


@dataclass(frozen=True)
class Word:
    """A word of a text, and where it stands."""

    text: str
    start: int
    end: int


def split_words(text: str) -> list[Word]:
    """Words and marks of a text."""
    return [Word(match[0], match.start(), match.end()) for match in _WORD.finditer(text)]


def shape_of(plan: Plan | None) -> str:
    """What plans of one kind share: their routes."""
    if plan is None or not plan.routes:
        return NO_SHAPE
    return json.dumps([[list(one.types), list(one.relations)] for one in plan.routes])


def tag_words(words: Sequence[Word], restriction: Mapping[str, Sequence[str]]) -> list[str] | None:
    """The type that each word describes, OUTSIDE where it describes none. None where a description does not stand in
    the question word by word, so that nothing can be learned from it."""
    tags = [OUTSIDE] * len(words)
    plain = [_plain(word.text) for word in words]
    for kind, texts in restriction.items():
        for text in texts:
            wanted = [one for one in (_plain(word.text) for word in split_words(text.strip(_EDGES))) if one]
            at = _find(plain, wanted)
            if at is None:
                return None
            tags[at[0] : at[1]] = [kind] * (at[1] - at[0])
    return tags


def build_plan(query: str, words: Sequence[Word], shape: str, tags: Sequence[str]) -> Plan | None:
    """The plan of a shape and tags: each run of words of one type is a description of it. None for no shape."""
    if shape == NO_SHAPE:
        return None
    routes = tuple(Route(tuple(types), tuple(relations)) for types, relations in json.loads(shape))
    kinds = {kind for route in routes for kind in route.types}
    found: dict[str, list[str]] = {}
    for kind, start, end in _runs(tags):
        text = query[words[start].start : words[end - 1].end].strip(_EDGES)
        if kind in kinds and text:
            found.setdefault(kind, []).append(text)
    return Plan(routes, {kind: tuple(texts) for kind, texts in found.items()})


def predict_plans(predictor: Any, queries: Sequence[str], batch_size: int) -> Iterator[str | None]:
    """What an encoder with heads plans for each question, as a planner writes it; None where it plans nothing."""
    split = [split_words(query) for query in queries]
    rows = [{"words": [word.text for word in words]} for words in split]
    for query, words, found in zip(queries, split, predictor.predict(rows, batch_size), strict=True):
        shape = max(found.labels, key=found.labels.__getitem__)
        numbers = [0 if cut else int(row.argmax()) for row, cut in ((one, one[0] != one[0]) for one in found.tags)]
        tags = [predictor.tags[number] for number in numbers]
        plan = build_plan(query, words, shape, tags)
        yield None if plan is None else write_plan(plan)


def examples(asked: Iterable[tuple[str, Plan | None]]) -> Iterator[dict[str, Any]]:
    """Rows to learn from: the words of each question, its shape and its tags."""
    for query, plan in asked:
        words = split_words(query)
        tags = tag_words(words, plan.restriction) if plan is not None else [OUTSIDE] * len(words)
        yield {"words": [word.text for word in words], "label": shape_of(plan), "tags": tags}


def _runs(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Runs of one type: the type, its first word, and the word after its last."""
    start = 0
    for place in range(1, len(tags) + 1):
        if place == len(tags) or tags[place] != tags[start]:
            if tags[start] != OUTSIDE:
                yield tags[start], start, place
            start = place


def _plain(word: str) -> str:
    """A word without what writing changes; marks are nothing."""
    return re.sub(r"\W", "", word).casefold()


def _find(plain: Sequence[str], wanted: Sequence[str]) -> tuple[int, int] | None:
    """Where the wanted words stand one after the other, marks between them left out."""
    places = [place for place, word in enumerate(plain) if word]
    there = [plain[place] for place in places]
    for at in range(len(there) - len(wanted) + 1) if wanted else ():
        if there[at : at + len(wanted)] == list(wanted):
            return places[at], places[at + len(wanted) - 1] + 1
    return None
