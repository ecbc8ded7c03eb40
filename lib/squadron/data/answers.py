"""Answers to mathematical problems: read from solutions, and verified by what they mean.

Plain numbers and words are compared here, exactly and in microseconds; everything else by math-verify.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from squadron.data.arithmetic import MARKER
from squadron.data.notation import UNITS, WRAPPED, plain, tidy, to_latex
from squadron.data.verifier import Verifier

_LONGEST = 1000  # characters; no answer of a benchmark comes near


def final_answer(text: str) -> str | None:
    r"""The answer that a worked solution ends with, or None.

    It is the content of the last `\boxed{…}` or `\fbox{…}` whose braces are closed, or else the line behind the last
    `####`.
    """
    last, opened = (-1, -1), list[tuple[bool, int]]()
    for token in _BOXES.finditer(text):
        if token["single"]:
            last = max(last, token.span("single"))
        elif token["box"] or token["open"]:
            opened.append((bool(token["box"]), token.end()))
        elif token["close"] and opened:
            boxed, start = opened.pop()
            if boxed:
                last = max(last, (start, token.start()))
    if last[0] >= 0:
        return text[slice(*last)].strip() or None
    _, found, rest = text.rpartition(MARKER)
    lines = rest.strip().splitlines() if found else []
    return lines[0].strip() if lines else None


def is_right(solution: str, reference: str) -> bool:
    """Whether a solution's final answer equals the reference, which is a bare answer or a worked solution.

    A solution without a final answer is wrong. Equality and errors are those of `same_answer`.
    """
    answer = final_answer(solution)
    return answer is not None and same_answer(answer, final_answer(reference) or reference)


def same_answer(answer: str, reference: str) -> bool:
    r"""Whether two bare answers mean the same: `1,000` and `1000`, `0.5` and `\frac{1}{2}`, `2(x+1)` and `2x+2`.

    What math-verify calls the same is the same here, but for this: a decimal fraction equals an expression that agrees
    in six decimals, and another decimal fraction only if it is the same number. Words are the same letters in the same
    order. A time of day equals the same time or its figures alone: `12 pm` is `12` and `noon`, not `12 hours`. Numbers
    in a row with nothing but spaces between them are a list, not a sum, unless they are groups of thousands or a mixed
    number. `1e6` is a power of ten, `pi` and `sin` are no products of letters, and numbers in a base differ by it.

    Units and currencies are not compared. `50%` equals both 50 and 0.5. Either may stand first, except that as in
    math-verify an answer may be an equation, or a tuple, where the reference has its value, or a set.

    What math-verify cannot decide within 3 s of processor time and 2 GiB counts as different, as do answers of more
    than 1,000 characters that are not the same text. Safe in any thread and in any process.

    Raises WorkerError if the process in which math-verify runs cannot be started or is killed from outside.
    """
    if max(len(answer), len(reference)) > _LONGEST:
        return answer.strip() == reference.strip()
    answer, reference = tidy(answer), tidy(reference)
    if answer == reference:
        return answer != ""
    for compare in (_same_number, _same_words, _same_time):
        if (verdict := compare(answer, reference)) is not None:
            return verdict
    answer, reference = to_latex(answer), to_latex(reference)
    return answer == reference or _verified(answer, reference)


def is_bare(text: str) -> bool:
    """Whether a text is an answer alone, and no sentence or worked solution that lacks its final answer."""
    if not 0 < len(text) <= _LONGEST or MARKER in text or r"\boxed" in text:
        return False
    if _number(text) or (_literal(text) and len(text.split()) <= 5):
        return True
    return ("\n" not in text or r"\begin" in text) and not _SENTENCE.search(WRAPPED.sub("", text))


def _same_number(answer: str, reference: str) -> bool | None:
    """Whether two plain numbers are equal; None where one is none."""
    if (given := _number(answer)) is None or (wanted := _number(reference)) is None:
        return None
    return given[0] == wanted[0] or given[1] == wanted[1]


def _same_words(answer: str, reference: str) -> bool | None:
    """Whether two answers in words, or two numbers in a base, are spelt alike; None where one is neither."""
    if (said := _literal(answer)) is None or (meant := _literal(reference)) is None:
        return None
    return said == meant


def _same_time(answer: str, reference: str) -> bool | None:
    """Whether two answers are the same time of day; None where neither says a.m. or p.m."""
    first, second = _time(answer), _time(reference)
    if not (first and first["half"]) and not (second and second["half"]):
        return None
    if first is None or second is None:
        return False
    figures = [(int(time["hour"]), int(time["minute"] or 0)) for time in (first, second)]
    if first["half"] and second["half"]:
        return figures[0] == figures[1] and first["half"].lower() == second["half"].lower()
    return figures[0] == figures[1]


def _number(text: str) -> tuple[Fraction, Fraction] | None:
    """A plain number without its commas, currency and unit; of a percentage, also the hundredth of it."""
    match = _NUMBER.fullmatch(plain(text))
    if match is None:
        return None
    digits = Fraction(re.sub(r"[,\s]", "", match["sign"] + match["digits"]))
    number = digits * 10 ** _SCALES[(match["scale"] or "").lower()]
    return number, number / 100 if match["percent"] else number


def _literal(text: str) -> str | None:
    """Words or a number in a base, in one spelling; None for anything else."""
    text = plain(text)
    return re.sub(r"[\s.{}]", "", text).casefold() if _LITERAL.fullmatch(text) else None


def _time(text: str) -> re.Match[str] | None:
    """The hour, the minute and the half of the day of a time, of which the last two may be missing."""
    text = plain(text)
    return _TIME.fullmatch(_NOON.get(text.casefold().removeprefix("12 "), text))


_BOXES = re.compile(
    r"\\(?:boxed|fbox)\s*(?:(?P<box>\{)|(?P<single>[^\s{}$\\]+))|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL
)
_SENTENCE = re.compile(r"(?:[^\W\d_]{2,}[\s,]+){2}[^\W\d_]{2,}")
_SCALES = {"": 0, "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\s*
    (?P<digits>(?=\.?\d)(?:\d{{1,3}}(?:[,\s]\d{{3}})+|\d*)(?:\.\d*)?(?:e[-+]?\d{{1,3}})?)
    (?:\s*(?P<scale>(?a:hundred|thousand|million|billion|trillion)))?
    (?:\s*(?P<percent>%|percent(?:age)?|pct)|\s*°[CF]?)?
    {UNITS}
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LITERAL = re.compile(
    r"""
    (?=.*[^\W\d_]{3})[^\W\d_]+(?:[\s'-]+[^\W\d_]+)*  # words
    | \d[\da-f]*_\{?\d+\}?                           # 1011_2
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TIME = re.compile(r"(?P<hour>\d\d?)(?::(?P<minute>\d\d))?(?:\s*o'?clock)?(?:\s*(?P<half>[ap])\.?\s?m)?", re.IGNORECASE)
_NOON = {"noon": "12 pm", "midnight": "12 am"}


@lru_cache(maxsize=4096)
def _verified(answer: str, reference: str) -> bool:
    return _verifier.ask(answer, reference)


_verifier = Verifier()
