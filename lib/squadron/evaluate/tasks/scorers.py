"""Whether a reply's answer is right: read from where it stands, and compared by its kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from squadron.data.answers import final_answer, is_bare, same_answer
from squadron.evaluate.tasks.items import Item, Kind

Outcome = Literal["right", "wrong", "unparsed"]


class Verdict(NamedTuple):
    """What was read, and whether it is right. What could not be read is neither right nor wrong, and has no value."""

    outcome: Outcome
    value: float | None
    read: str | None


def score(text: str, item: Item) -> Verdict:
    """The verdict on the answer part of a reply, without tags."""
    read, same = _READERS[item.kind]
    found = next((answer for stated in find_stated(text) if (answer := read(stated)) is not None), None)
    if found is None:
        return Verdict("unparsed", None, None)
    right = any((gold := read(one)) is not None and same(found, gold) for one in item.gold)
    return Verdict("right" if right else "wrong", float(right), found)


def find_stated(text: str) -> list[str]:
    r"""Where a reply states what it comes to, the surest first: the last `\boxed{…}`, each `{…}` from the last, what
    follows "answer is" or "Answer:", a last sentence, not cut off, that begins with "therefore", "thus" or "so"; all of
    it, where it is an answer alone."""
    found = [final_answer(text) if _BOXED.search(text) else None]
    found += _WRAPPED.findall(text)[::-1]
    found += _SAID.findall(text)[::-1]
    found += [hence[1] for hence in [*_HENCE.finditer(text)][-1:] if not text[hence.end() :].strip(" .*\n")]
    if "{" not in text and is_bare(text.strip()):
        found.append(text)
    return [plain for one in found if one is not None and (plain := _unwrap(one))]


def _unwrap(text: str) -> str:
    """What stands inside braces that stand around all of it."""
    text = text.strip()
    while (inner := _WRAPPED.fullmatch(text)) is not None:
        text = inner[1].strip()
    return text


def _number(text: str) -> str | None:
    numbers = _NUMBER.findall(text)
    return None if not numbers else numbers[-1] if _SENTENCE.search(text) else text.strip(" *:$€").rstrip(".")


def _choice(text: str) -> str | None:
    """The letter; none where several are named, or where it may be a word."""
    found = _LETTER.match(_plain(text))
    several = len(set(_BRACKETED.findall(text.upper()))) > 1
    return found["letter"].upper() if found and not several else None


def _boolean(text: str) -> str | None:
    text = _NOT.sub(lambda found: "false" if found[1] == "true" else "true", text.lower())
    words = set(re.findall(r"[a-z]+", text))
    true, false = bool(words & {"true", "yes"}), bool(words & {"false", "no"})
    return None if true == false else "true" if true else "false"


def _date(text: str) -> str | None:
    found = _DATE.search(text)
    return "/".join(str(int(part)) for part in found.groups()) if found else None


def _text(text: str) -> str | None:
    return " ".join(_plain(text).casefold().strip(" .").split()) or None


def _plain(text: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip(" *$")


_READERS: dict[Kind, tuple[Callable[[str], str | None], Callable[[str, str], bool]]] = {
    "number": (_number, same_answer),
    "choice": (_choice, str.__eq__),
    "boolean": (_boolean, str.__eq__),
    "date": (_date, str.__eq__),
    "text": (_text, str.__eq__),
}
_BOXED = re.compile(r"\\(?:boxed|fbox)\b")
_SAID = re.compile(r"(?:answer is|answer:)[\s*:]*([^\n]+?)(?:\.(?=\s|$)|\n|$)", re.IGNORECASE)
_HENCE = re.compile(
    r"(?:^|(?<=[.!?*:])\s)\s*(?:therefore|thus|so|hence)\b,?\s+([^\n]+?)\.(?=[\s*]|$)", re.IGNORECASE | re.MULTILINE
)
_SENTENCE = re.compile(r"[A-Za-z]{2,}\s+[A-Za-z]{2,}.*\d")
_NUMBER = re.compile(r"-?[$€]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
_WRAPPED = re.compile(r"\{((?:[^{}]|\{[^{}]*\})*)\}")
_NOT = re.compile(r"\bnot (true|false)\b")
_LETTER = re.compile(r"\(?(?P<letter>[A-Za-z])(?:[).:]|\s*$)")
_BRACKETED = re.compile(r"\(([A-Z])\)")
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
