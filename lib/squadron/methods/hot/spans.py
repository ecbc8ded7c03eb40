"""Facts between a question and its answer, for other tools: as segments, as JSON, and as a drawing in SVG.

write_json(reply)   {"question": …, "answer": …, "facts": [{"id": "1", "question": [[0, 7]], "answer": [[12, 19]]}]}
write_svg(reply)    the same as a picture: each fact of the question linked to where the answer relies on it
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from squadron.core.json_text import storable
from squadron.methods.hot.tags import Reply, Tagged

COLOURS = 19
"""As many as the paper's pages have. Further facts take them again, and are told apart by their numbers."""
MOST_SPANS = 400
"""Of a text that are shown: a model may write thousands."""
_TURN = 7  # round the colours in steps of seven, so that neighbours differ
_COLUMNS, _WIDE, _HIGH, _MARGIN, _GAP = 88, 8.4, 26, 24, 90
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Segment(NamedTuple):
    """A stretch of text with the numbers of the facts around it, the innermost last, and of those that end with it."""

    text: str
    facts: tuple[str, ...]
    ends: tuple[str, ...]


def segments(tagged: Tagged) -> list[Segment]:
    """The text in stretches at whose borders facts begin or end; together they are the text."""
    spans = tagged.spans[:MOST_SPANS]
    begin, end = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for number, span in sorted(enumerate(spans), key=lambda pair: (pair[1].start, -pair[1].end)):
        begin[span.start].append(number)
        end[span.end].append(number)
    found, around = [], list[int]()
    for start, stop in pairwise(sorted({0, len(tagged.text), *begin, *end})):
        around = [one for one in around if spans[one].end > start] + begin[start]
        ends = tuple(spans[one].id for one in around if spans[one].end == stop)
        found.append(Segment(tagged.text[start:stop], tuple(spans[one].id for one in around), ends))
    return found


def colours(reply: Reply) -> dict[str, int]:
    """The colour of each fact by its number, 0 to 18: in the order of the question, then of the answer."""
    order = [span.id for part in _parts(reply) for span in part.spans[:MOST_SPANS]]
    return {fact: number % COLOURS for number, fact in enumerate(dict.fromkeys(order))}


def hue(colour: int) -> float:
    """The hue of a colour, in degrees."""
    return colour * _TURN % COLOURS * 360 / COLOURS


def write_json(reply: Reply) -> dict[str, Any]:
    """Both texts without tags, and of each fact the stretches [start, end) of either, in characters."""
    question = reply.question or Tagged("")
    facts = {span.id: {"id": span.id, "question": [], "answer": []} for part in _parts(reply) for span in part.spans}
    for name, part in (("question", question), ("answer", reply.answer)):
        for span in part.spans:
            facts[span.id][name].append([span.start, span.end])  # type: ignore[attr-defined]
    return {"question": question.text, "answer": reply.answer.text, "facts": list(facts.values())}


class _Box(NamedTuple):
    """A stretch of a fact on one line, in pixels."""

    fact: str
    left: float
    top: float
    width: float
    first: bool


def write_svg(reply: Reply) -> str:
    """The question above, the answer below, facts underlaid, and a curve from each fact of the question to each of its
    places in the answer. It holds no script and asks for nothing."""
    shade, texts, boxes = colours(reply), list[str](), list[list[_Box]]()
    top = float(_MARGIN)
    for part in _parts(reply):
        lines, placed = _lay_out(part, top)
        texts += lines
        boxes.append(placed)
        top += (len(lines) or 1) * _HIGH + _GAP
    width, height = _COLUMNS * _WIDE + 2 * _MARGIN, top - _GAP + _MARGIN
    rects = [_rect(box, shade[box.fact]) for placed in boxes for box in placed]
    links = list(_links(boxes, shade)) if len(boxes) == 2 else []
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="ui-monospace, monospace" font-size="14">',
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
        *rects, *links, *texts, "</svg>\n",
    ])  # fmt: skip


def _parts(reply: Reply) -> list[Tagged]:
    return [reply.answer] if reply.question is None else [reply.question, reply.answer]


def _lay_out(part: Tagged, top: float) -> tuple[list[str], list[_Box]]:
    """The lines of a text as SVG, and the boxes of its facts."""
    lines, boxes, seen = [], list[_Box](), set[int]()
    for row, (start, end) in enumerate(_wrap(part.text)):
        y, line = top + row * _HIGH, part.text[start:end]
        for number, span in enumerate(part.spans[:MOST_SPANS]):
            first, last = max(span.start, start), min(span.end, end)
            if first < last:
                left = _MARGIN + _width(part.text[start:first]) * _WIDE
                wide = _width(part.text[first:last]) * _WIDE
                boxes.append(_Box(span.id, left, y, wide, number not in seen))
                seen.add(number)
        length = _width(line) * _WIDE
        held = f' textLength="{length:g}" lengthAdjust="spacingAndGlyphs"' if length else ""
        said = escape(_UNFIT.sub("\ufffd", storable(line)).expandtabs(1))
        lines.append(f'<text x="{_MARGIN}" y="{y + 15:g}" xml:space="preserve"{held}>{said}</text>')
    return lines, boxes


def _wrap(text: str) -> Iterator[tuple[int, int]]:
    """Where lines of at most `_COLUMNS` columns begin and end, broken at spaces where there are any."""
    place = 0
    for paragraph in text.splitlines(keepends=True):
        end = place + len(paragraph.rstrip("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"))
        start = place
        while start < end:
            stop, columns = start, 0
            while stop < end and (columns := columns + _width(text[stop])) <= _COLUMNS:
                stop += 1
            space = text.rfind(" ", start + 1, stop) if stop < end else -1
            stop = space + 1 if space > 0 else max(stop, start + 1)
            yield start, stop
            start = stop
        place += len(paragraph)


def _width(text: str) -> int:
    """Columns of a text: two for wide characters, none for marks that stand over others."""
    return sum(0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


def _rect(box: _Box, colour: int) -> str:
    return (
        f'<rect x="{box.left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" height="20" rx="3" '
        f'fill="hsl({hue(colour):.0f} 85% 84%)" stroke="hsl({hue(colour):.0f} 60% 40%)">'
        f"<title>fact {box.fact}</title></rect>"
    )


def _links(boxes: list[list[_Box]], shade: dict[str, int]) -> Iterator[str]:
    """Curves between the first lines of facts."""
    count = 0
    for one in boxes[0]:
        for other in boxes[1]:
            if one.fact == other.fact and one.first and other.first and count < MOST_SPANS:
                count += 1
                x1, y1 = one.left + one.width / 2, one.top + 20
                x2, y2 = other.left + other.width / 2, other.top
                half = (y2 - y1) / 2
                yield (
                    f'<path d="M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + half:.1f} {x2:.1f} {y2 - half:.1f} {x2:.1f} {y2:.1f}" '
                    f'fill="none" stroke="hsl({hue(shade[one.fact]):.0f} 70% 40%)" stroke-width="1.5"/>'
                )
