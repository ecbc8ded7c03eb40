"""Slots of questions about figures: what is shown, by what, how often, of when, how many, and how it is drawn.

A turn changes a slot or two, and all others persist. That is what a rewrite has to keep, so slots are what made-up
conversations are built of, what the rule rewrites by, and what rewrites are checked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

METRICS = ("revenue", "pageviews", "orders", "visits", "bookings", "refunds")
DIMENSIONS = ("country", "marketing channel", "product", "device type", "region", "campaign")
GRAINS = ("daily", "weekly", "monthly", "quarterly", "yearly", "month over month")
CHARTS = ("line chart", "bar chart", "pie chart", "table")
PERIODS = ("this month", "last month", "this year", "last year", "last quarter")
_GRAIN_WORDS: Mapping[str, Sequence[str]] = {
    "daily": ("daily", "by day", "per day"), "weekly": ("weekly", "by week", "per week"),
    "monthly": ("monthly", "by month", "per month"), "quarterly": ("quarterly", "by quarter", "per quarter"),
    "yearly": ("yearly", "annual", "by year", "per year"), "month over month": ("month over month",),
}  # fmt: skip
_PLURALS = {"countries": "country"}
_NUMBERS = {"three": 3, "five": 5, "ten": 10}
_ADDS = re.compile(r"\b(add|also|as well|too|along with|next to it)\b")
_TOP = re.compile(rf"\b(?:top|best|first) (\d+|{'|'.join(_NUMBERS)})\b")


@dataclass(frozen=True)
class Slots:
    """What a question about figures says; what it leaves open is empty."""

    metrics: tuple[str, ...] = ()
    dimension: str = ""
    grain: str = ""
    period: str = ""
    top: int = 0
    chart: str = ""

    def __bool__(self) -> bool:
        return self != Slots()

    def texts(self) -> tuple[tuple[str, ...], ...]:
        """Each slot that is filled as the texts of which one has to stand in a question."""
        return tuple(self._texts())

    def _texts(self) -> Iterator[tuple[str, ...]]:
        for metric in self.metrics:
            yield (metric,)
        if self.dimension:
            yield (self.dimension,)
        if self.grain:
            yield tuple(_GRAIN_WORDS[self.grain])
        if self.period:
            yield (self.period,)
        if self.top:
            yield f"top {self.top}", f"best {self.top}", f"first {self.top}"
        if self.chart:
            yield self.chart, self.chart.removesuffix(" chart")


def read_slots(text: str) -> tuple[Slots, bool]:
    """The slots that a text names, and whether its metrics are to be added to others."""
    low = " ".join(text.lower().split())
    for plural, one in _PLURALS.items():
        low = low.replace(plural, one)
    metrics = sorted((one for one in METRICS if _says(low, one)), key=low.index)
    grain = next((one for one in reversed(GRAINS) if any(_says(low, word) for word in _GRAIN_WORDS[one])), "")
    top = _TOP.search(low)
    chart = next((one for one in CHARTS if _says(low, one) or _says(low, one.removesuffix(" chart"))), "")
    found = Slots(
        metrics=tuple(metrics), dimension=_first(low, DIMENSIONS), grain=grain, period=_first(low, PERIODS),
        top=(_NUMBERS.get(top[1]) or int(top[1])) if top else 0, chart=chart,
    )  # fmt: skip
    return found, bool(_ADDS.search(low))


def merge(before: Slots, text: str) -> Slots:
    """The slots after a text: what it names takes the place of what was there; metrics that it adds join it."""
    named, adds = read_slots(text)
    metrics = named.metrics or before.metrics
    if adds:
        metrics = tuple(dict.fromkeys((*before.metrics, *named.metrics)))
    filled = {name: value for name, value in vars(named).items() if value and name != "metrics"}
    return replace(before, metrics=metrics, **filled)


def write(slots: Slots) -> str:
    """The question that has these slots, and no others."""
    parts = ["Show", slots.grain, " and ".join(slots.metrics) or "figures"]
    if slots.top:
        parts += ["for the top", str(slots.top)]
        parts += [slots.dimension] if slots.dimension else []
    elif slots.dimension:
        parts += ["by", slots.dimension]
    parts += [f"in {slots.period}" if slots.period else "", f"as a {slots.chart}" if slots.chart else ""]
    return f"{' '.join(part for part in parts if part)}."


def share_said(slots: Sequence[Sequence[str]], text: str) -> float:
    """The share of slots of which one text stands in `text`, whatever its case, by whole words; NaN without slots."""
    if not slots:
        return float("nan")
    words = f" {' '.join(_words(text))} "
    return sum(any(f" {' '.join(_words(one))} " in words for one in slot) for slot in slots) / len(slots)


def _words(text: str) -> list[str]:
    """Lower case, without the s of a plural, which questions have where a schema has none."""
    words = re.findall(r"[^\W_]+", text.lower())
    return [_PLURALS.get(word, word[:-1] if len(word) > 3 and word.endswith("s") else word) for word in words]


def _says(text: str, phrase: str) -> bool:
    return re.search(rf"\b{phrase}s?\b", text) is not None


def _first(text: str, phrases: Sequence[str]) -> str:
    return next((one for one in phrases if _says(text, one)), "")
