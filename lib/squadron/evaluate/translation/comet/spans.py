"""Errors that XCOMET tags in a translation, and the score they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_PENALTIES = {"minor": 1.0, "major": 5.0, "critical": 10.0}
_WORST = 25.0


class ErrorSpan(NamedTuple):
    """An error in a translation."""

    start: int
    end: int
    """Characters of the translation, the end excluded."""
    severity: str
    confidence: float
    """Mean probability of its tokens' tags."""


def decode_spans(
    probabilities_TC: np.ndarray, offsets: Sequence[tuple[int, int]], labels: Sequence[str]
) -> tuple[ErrorSpan, ...]:
    """Spans from the probabilities of no error and of each label, over the translation's tokens with those that begin
    and end it.

    As COMET reads them: tokens in a row that are tagged as any error are one span, of the first one's severity, and a
    span that no token ends, the one at the end of the text included, is none.
    """
    spans: list[ErrorSpan] = []
    first: int | None = None
    tags = probabilities_TC.argmax(1)
    for place, tag in enumerate(tags):
        if tag and first is None:
            first = place
        elif not tag and first is not None:
            sure = float(probabilities_TC[np.arange(first, place), tags[first:place]].mean())
            spans.append(ErrorSpan(offsets[first][0], offsets[place - 1][1], labels[tags[first] - 1], sure))
            first = None
    return tuple(spans)


def span_score(spans: Iterable[ErrorSpan]) -> float:
    """1 without errors, 0 from a penalty of 25: MQM with 1 for a minor error, 5 for a major and 10 for a critical."""
    penalty = sum(_PENALTIES.get(span.severity, 0.0) for span in spans)
    return (_WORST - min(_WORST, penalty)) / _WORST
