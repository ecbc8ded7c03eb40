"""Structured answers out of a chat model's text. What cannot be read for certain is refused, never guessed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, overload

from pydantic import ValidationError

from squadron.core.config import Config, ConfigT
from squadron.core.errors import SquadronError

_SCORE_WORDS = "score|rating|grade"
_CHOICE_WORDS = "verdict|answer|choice|winner|preference|decision"
_NUMBER = r"(?<![\w.,])[-+−]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?(?!\w|[.,]\d)"
_READING = re.compile(
    rf"(?P<number>{_NUMBER})(?:[ \t]*(?:/|out of|of)[ \t]*(?P<whole>{_NUMBER}))?[ \t]*(?P<percent>%)?", re.IGNORECASE
)
_ALTERNATIVE = re.compile(r"[ \t*_`\"')\]]*(?:[-–—,/|]|to\b|or\b|and\b)[ \t*_`\"'(\[]*|[ \t]+", re.IGNORECASE)
_BRACKET = re.compile(r"[{}\[\]]")
_BRACKET_OR_STRING = re.compile(r'[{}\[\]]|"(?:[^"\\\n]|\\.)*+(?P<closed>")?')
_CLOSERS = {"{": "}", "[": "]"}
_LIKE_JSON = re.compile(r'[{\[]\s*["{\[]')
_HEAD, _TAIL = 90, 150
_BEHIND = 1000
"""Characters behind a marker in which its value is looked for."""


class Unreadable(SquadronError, ValueError):
    """An answer does not say, or does not say for certain, what was asked for. The message holds the answer."""


@overload
def read_json(text: str, model: type[ConfigT]) -> ConfigT: ...
@overload
def read_json(text: str, model: None = None) -> Any: ...
def read_json(text: str, model: type[Config] | None = None) -> Any:
    """The JSON of an answer: the whole text, else its last fenced block, else its last bracketed part.

    With a `model` it is an object, and validated. Raises Unreadable if there is none, if it is cut off or malformed, if
    a key stands in it twice, or if the model refuses it.
    """
    value = _json_value(text, "{" if model is not None else "{[")
    if model is None:
        return value
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors())
        raise _unreadable(f"the JSON is no {model.__name__} ({'; '.join(problems)})", text) from None


def read_number(text: str, low: float, high: float) -> float:
    """The score of an answer: the number behind its last marker (`score:`, `rating:`, `[[`), else its only number.

    `8/10` and `8 out of 10` are 8 where `high` is 10. Raises Unreadable if there is no number, if several contradict
    each other, or if it is outside `low` to `high` or on another scale.
    """
    found: list[re.Match[str]] = []
    for rest in _after_markers(text, _SCORE_WORDS):
        reading = _READING.match(rest)
        if reading is None:
            raise _unreadable("no number stands behind the marker of the score", text)
        found += filter(None, (reading, _alternative(_READING, rest, reading.end())))
    found = found or list(_READING.finditer(text))
    values = {_value(reading, high, text) for reading in found}
    if len(values) != 1:
        listed = ", ".join([f"{value:g}" for value in sorted(values)[:5]] + ["…"] * (len(values) > 5))
        raise _unreadable(f"the answer holds several numbers: {listed}" if values else "the answer has no number", text)
    (value,) = values
    if not low <= value <= high:
        raise _unreadable(f"{value:g} is not between {low:g} and {high:g}", text)
    return value


def read_choice(text: str, choices: Sequence[str]) -> str:
    """Which of `choices` an answer names: behind its last marker (`verdict:`, `answer:`, `[[`), else alone on a line.
    Upper and lower case are one.

    Raises Unreadable if it names none of them, or several.
    """
    named = {choice.casefold(): choice for choice in choices}
    if len(named) != len(choices) or not choices:
        raise ValueError(f"choices must differ in more than case: {list(choices)}")
    # The longest first: of "A" and "A>B", an answer "A>B" names the second.
    longest_first = "|".join(re.escape(choice) for choice in sorted(choices, key=len, reverse=True))
    pattern = re.compile(rf"(?:{longest_first})(?!\w)", re.IGNORECASE)
    found: list[str] = []
    for rest in _after_markers(text, _CHOICE_WORDS):
        reading = pattern.match(rest)
        if reading is None:
            raise _unreadable(f"none of {', '.join(choices)} stands behind the marker of the verdict", text)
        other = _alternative(pattern, rest, reading.end())
        found += [match.group() for match in (reading, other) if match is not None]
    found = found or [bare for line in text.splitlines() if (bare := line.strip(" \t.*_`\"'()[]")).casefold() in named]
    distinct = {named[word.casefold()] for word in found if word.casefold() in named}
    if len(distinct) != 1:
        listed = ", ".join(sorted(distinct))
        what = f"the answer names several: {listed}" if distinct else f"the answer names none of {', '.join(choices)}"
        raise _unreadable(what, text)
    return distinct.pop()


def _after_markers(text: str, words: str) -> Iterator[str]:
    """What follows the markers of the last line that has any."""
    marker = rf"(?:(?<![^\W_])(?:{words})(?:[ \t]*\([^)\n]{{0,80}}\))?[*_`\"' \t]*[:=]|\[\[)[\s*_`\"'(\[<]*"
    marks = list(re.finditer(marker, text, re.IGNORECASE))
    start = text.rfind("\n", 0, marks[-1].start()) if marks else 0
    return (text[mark.end() : mark.end() + _BEHIND] for mark in marks if mark.start() > start)


def _alternative(pattern: re.Pattern[str], rest: str, end: int) -> re.Match[str] | None:
    """A second reading right behind the first, as in `7 or 8`."""
    between = _ALTERNATIVE.match(rest, end)
    return pattern.match(rest, between.end()) if between is not None else None


def _value(reading: re.Match[str], high: float, text: str) -> float:
    whole = reading["whole"]
    if (whole is not None and _float(whole) != high) or (reading["percent"] and high != 100):
        raise _unreadable(f"{reading.group().strip()} is not on the scale up to {high:g}", text)
    return _float(reading["number"])


def _float(digits: str) -> float:
    return float(digits.replace(",", "").replace("−", "-"))


def _json_value(text: str, openers: str) -> Any:
    try:
        return _loads(text)
    except (ValueError, RecursionError):
        part = _last_fenced(text)
    if part is None:
        part = _last_bracketed(text, openers)
    try:
        return _loads(part)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"the JSON is malformed: {error}", text) from None


def _last_fenced(text: str) -> str | None:
    """What stands in the last block between lines of three backticks, the first of which may say json."""
    block: str | None = None
    opened: list[str] | None = None
    for line in text.split("\n"):
        bare = line.strip(" \t\r").lower()
        if opened is None:
            opened = [] if bare.startswith("```") and bare[3:].lstrip(" \t") in ("", "json") else None
        elif bare == "```":
            block, opened = "\n".join(opened), None
        else:
            opened.append(line)
    return block


def _last_bracketed(text: str, openers: str) -> str:
    """The last balanced {…} or […] that is not part of a larger one."""
    unclosed: list[int] = []
    spans: list[tuple[int, int]] = []
    for token in _json_tokens(text, unclosed):
        if token.group() in _CLOSERS:
            unclosed.append(token.start())
        elif unclosed and _CLOSERS[text[unclosed[-1]]] == token.group():
            start = unclosed.pop()
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, token.end()))
    if any(_LIKE_JSON.match(text, start) for start in unclosed):
        raise _unreadable("the JSON is cut off", text)
    parts = [text[start:end] for start, end in spans if text[start] in openers]
    if not parts:
        raise _unreadable("the answer holds no JSON", text)
    return parts[-1]


def _json_tokens(text: str, unclosed: list[int]) -> Iterator[re.Match[str]]:
    """Brackets outside of strings. Quotation marks of the prose around it begin no string, nor do those of a line on
    which the string does not end."""
    place = endless = 0  # up to `endless` no string ends
    while place < len(text):
        if place < endless:
            token = _BRACKET.search(text, place, endless)
        else:
            token = (_BRACKET_OR_STRING if unclosed else _BRACKET).search(text, place)
        if token is None:
            if place >= endless:
                return
            place = endless
        elif token.group().startswith('"') and not token["closed"]:
            place, endless = token.start() + 1, token.end()
        else:
            place = token.end()
            if not token.group().startswith('"'):
                yield token


def _loads(text: str) -> Any:
    value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_twins)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is a ValueError
    return value


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError(f"{digits:.40} is more than a number can hold")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands in it twice")
    return values


def _unreadable(what: str, text: str) -> Unreadable:
    line = " ".join(text.split())
    if len(line) > _HEAD + _TAIL:
        line = f"{line[:_HEAD]} […] {line[-_TAIL:]}"
    return Unreadable(what, where=f"the answer “{line}”" if line else "an empty answer")
