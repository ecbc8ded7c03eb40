"""Facts in tags: `<fact1>5 weeks</fact1>` in a question, and wherever an answer relies on it.

Any text is read, and none raises: what is not as it should be is a `Fault` with its kind and its place.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

FaultKind = Literal[
    "unclosed", "unopened", "crossed", "malformed", "empty", "cut word", "foreign", "unknown id", "no question",
    "no answer",
]  # fmt: skip
"""`unclosed`, `unopened`: a tag without its partner. `crossed`: closed in another order than opened. `malformed`: not
written `<fact1>` or `</fact1>`. `empty`: nothing between. `cut word`: begins or ends inside a word. `foreign`: a tag of
another name, such as `<result1>`. `unknown id`: in the answer, but not in the question. `no question`, `no answer`:
that part of a reply is missing."""
UNBALANCED: tuple[FaultKind, ...] = ("unclosed", "unopened")
Repair = Literal["drop", "close"]
"""What becomes of a tag without its partner: the text stays and the span goes, or an open one ends with its clause."""


class Span(NamedTuple):
    """Characters `start` to `end` of a text without tags, which are the fact of number `id`."""

    id: str
    start: int
    end: int


class Fault(NamedTuple):
    """What is wrong, the tag as it was written, and at which character of the tagged text."""

    kind: FaultKind
    tag: str
    place: int


@dataclass(frozen=True)
class Tagged:
    """A text without its tags, the spans that they marked in the order of the text, and what was wrong with them."""

    text: str
    spans: tuple[Span, ...] = ()
    faults: tuple[Fault, ...] = ()
    repaired: int = 0

    @property
    def ids(self) -> frozenset[str]:
        """The numbers of its facts."""
        return frozenset(span.id for span in self.spans)

    def write(self) -> str:
        """The text with its tags again. Spans that overlap without nesting are written as they are."""
        marks = [(span.end, 0, -span.start, f"</fact{span.id}>") for span in self.spans]
        marks += [(span.start, 1, -span.end, f"<fact{span.id}>") for span in self.spans]
        written, before = [], 0
        for place, _, _, tag in sorted(marks):
            written += [self.text[before:place], tag]
            before = place
        return "".join([*written, self.text[before:]])


@dataclass(frozen=True)
class Reply:
    """What a model replied: the question again, with facts, if it was given, and the answer that refers to them."""

    question: Tagged | None
    answer: Tagged
    faults: tuple[Fault, ...]
    """Of both parts, and between them. Places count from the beginning of the part."""

    @property
    def balanced(self) -> bool:
        """Whether each tag has its partner."""
        return not any(fault.kind in UNBALANCED for fault in self.faults)

    @property
    def valid(self) -> bool:
        """Whether question and answer are both there with facts, and nothing is wrong with any tag."""
        return not self.faults and self.question is not None and bool(self.question.spans) and bool(self.answer.spans)

    @property
    def coverage(self) -> float | None:
        """The share of the question's facts to which the answer refers; None where the question has none."""
        known = self.question.ids if self.question else frozenset()
        return len(known & self.answer.ids) / len(known) if known else None

    def fidelity(self, question: str) -> float | None:
        """How much of the question was repeated as it is; None where it was not repeated."""
        return None if self.question is None else similarity(self.question.text, question)


def read_reply(text: str, question: str = "", repair: Repair = "drop") -> Reply:
    """Read a model's reply to a question. Without the question, a reply that has no heading between its two parts is
    all answer."""
    first, second = split_reply(text, question)
    repeated = None if first is None else read_tags(first, repair)
    answer = read_tags(second, repair)
    between: list[Fault] = []
    if repeated is None:
        between.append(Fault("no question", "", 0))
    else:
        unknown = [span for span in answer.spans if span.id not in repeated.ids]
        between += [Fault("unknown id", f"<fact{span.id}>", span.start) for span in unknown]
    if not answer.text.strip():
        between.append(Fault("no answer", "", 0))
    return Reply(repeated, answer, (*(repeated.faults if repeated else ()), *answer.faults, *between))


def split_reply(text: str, question: str = "") -> tuple[str | None, str]:
    """The repeated question, if there is one, and the answer, with their tags and without their headings.

    Headings stand in bold, in any case, after spaces, on a line of their own or not. Some models write both headings
    first and then both parts: the boundary is then the next heading, or the end of the question where that is known.
    """
    head = _QUESTION.search(text)
    if head is None:
        answer = _ANSWER_LINE.match(text)
        return None, text[answer.end() :].strip() if answer else text.strip()
    rest = text[head.end() :]
    found = _ANSWER.search(rest)
    both_first = found is not None and not rest[: found.start()].strip(_MARKS)
    if found is not None and both_first:
        rest = rest[found.end() :]
        found = _ANSWER_LINE.search(rest)
    end = _end_of(question, rest) if both_first or found is None else None
    if found is None and end is None:
        return rest.strip(_MARKS) or None, ""
    if found is None or (end is not None and end < found.start() and rest[end : found.start()].strip(_MARKS)):
        return rest[:end].strip(_MARKS), rest[end:].strip()
    return rest[: found.start()].strip(_MARKS), rest[found.end() :].strip()


def read_tags(text: str, repair: Repair = "drop") -> Tagged:
    """The text without tags, with its spans and faults. Never raises; what is no tag stays in the text."""
    tags = list(_tags(text))
    plain, places, before, length = list[str](), list[int](), 0, 0
    for tag in tags:
        plain.append(text[before : tag.start])
        length += tag.start - before
        places.append(length)
        before = tag.end
    whole = "".join([*plain, text[before:]])
    spans, faults, left = _pair(tags, places)
    repaired = sum(fault.kind == "malformed" for fault in faults)
    for number in left:
        faults.append(Fault("unclosed", tags[number].written, tags[number].start))
        end = _CLAUSE.search(whole, places[number])
        if repair == "close" and end is not None:
            spans.append(Span(str(tags[number].id), places[number], end.start()))
            repaired += 1
    kept = sorted({span for span in spans if whole[span.start : span.end].strip()}, key=lambda one: one[1:])
    faults += [Fault("empty", _opening(span), span.start) for span in spans if not whole[span.start : span.end].strip()]
    faults += [Fault("cut word", _opening(span), span.start) for span in kept if _cuts(whole, span)]
    return Tagged(whole, tuple(kept), tuple(faults), repaired)


def _pair(tags: Sequence[_Tag], places: Sequence[int]) -> tuple[list[Span], list[Fault], list[int]]:
    """The spans between tags and their partners, what was wrong, and the numbers of tags that stayed open."""
    spans, faults, opened = list[Span](), list[Fault](), list[int]()
    same: dict[int | None, list[int]] = {}
    for number, tag in enumerate(tags):
        same.setdefault(tag.id, []).append(number)

    def closes_next(fact: int | None, number: int) -> bool:
        """Whether the next tag of this fact closes it."""
        place = bisect_right(same[fact], number)
        return place < len(same[fact]) and tags[same[fact][place]].closes

    for number, tag in enumerate(tags):
        if tag.id is None:
            faults.append(Fault("foreign", tag.written, tag.start))
            continue
        partner = next((one for one in reversed(opened) if tags[one].id == tag.id), None)
        reopened = not tag.closes and partner is not None and not closes_next(tag.id, number)  # <fact2>…<fact2>
        if reopened or tag.written != (f"</fact{tag.id}>" if tag.closes else f"<fact{tag.id}>"):
            faults.append(Fault("malformed", tag.written, tag.start))
        if not tag.closes and not reopened:
            opened.append(number)
        elif partner is None:
            faults.append(Fault("unopened", tag.written, tag.start))
        else:
            inside = opened[opened.index(partner) + 1 :]
            if any(closes_next(tags[one].id, number) for one in inside):
                faults.append(Fault("crossed", tag.written, tag.start))
            opened.remove(partner)
            spans.append(Span(str(tag.id), places[partner], places[number]))
    return spans, faults, opened


def similarity(text: str, reference: str) -> float:
    """1 for the same words in the same spelling, 0 for nothing alike: 1 - edit distance of characters / length of the
    longer. Spaces and line ends count as one space."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_similarity(" ".join(text.split()), " ".join(reference.split())))


def strip_tags(text: str) -> str:
    """The text without tags."""
    return read_tags(text).text


class _Tag(NamedTuple):
    start: int
    end: int
    written: str
    id: int | None
    closes: bool


def _tags(text: str) -> Iterator[_Tag]:
    """All tags of facts, and those of other names that have a number or both ends."""
    named = {False: set[str](), True: set[str]()}
    for found in _OTHER.finditer(text):
        named[bool(found["close"])].add(found["name"].casefold())
    paired = named[False] & named[True]
    for found in _TAG.finditer(text):
        written, closes = found.group(), bool(found["close"])
        if found["id"] is not None:
            yield _Tag(found.start(), found.end(), written, int(found["id"]), closes)
        elif found["name"].casefold() in paired or found["name"][-1].isdecimal():
            yield _Tag(found.start(), found.end(), written, None, closes)


def _opening(span: Span) -> str:
    return f"<fact{span.id}>"


def _cuts(text: str, span: Span) -> bool:
    """Whether a span begins or ends between two letters or digits."""
    ends = (text[place - 1 : place + 1] for place in (span.start, span.end) if place)
    return any(len(pair) == 2 and pair.isalnum() for pair in ends)


def _end_of(question: str, text: str) -> int | None:
    """Where the repeated question ends in a text with tags: behind its last words. None if they are not there."""
    words = _WORD.findall(question)[-_LAST_WORDS:]
    if not words:
        return None
    between = r"(?:[^\w<]|<[^<>]{1,40}>)+"
    tail = between.join(map(re.escape, words)) + r"(?:[^\w\n<]|<[^<>]{1,40}>)*"
    found = re.compile(tail, re.IGNORECASE).search(text)
    return found.end() if found else None


_LAST_WORDS = 6
_MARKS = " \t\r\n*_#"
_TAG = re.compile(
    r"<\s{0,3}(?P<close>/?)\s{0,3}(?:fact[\s_-]{0,3}(?P<id>\d{1,6})\s{0,3}/?>|(?P<name>[a-z][\w-]{0,40})\s{0,3}>)",
    re.IGNORECASE | re.ASCII,
)
_OTHER = re.compile(r"<(?P<close>/?)(?P<name>[a-z][\w-]{0,40})>", re.IGNORECASE | re.ASCII)
_QUESTION = re.compile(r"(?:re)?(?:formatted|formulated|stated)[ \t]{1,9}question[*_ \t]{0,9}:[*_ \t]*", re.IGNORECASE)
_HEADING = r"[#*_ \t]{0,99}answer[*_ \t]{0,9}:[*_]{0,9}"
_ANSWER = re.compile(rf"(?:^|(?<=[.?!:)>*_\"'])){_HEADING}|(?<=[ \t]{{2}}){_HEADING}", re.IGNORECASE | re.MULTILINE)
_ANSWER_LINE = re.compile(rf"^{_HEADING}", re.IGNORECASE | re.MULTILINE)
_CLAUSE = re.compile(r"[,;.?!](?=\s|$)|\n|$")
_WORD = re.compile(r"\w+")
