"""Chains of boxes: a row for each path, with the relation's name over each arrow."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from squadron.core.charts.page import CARD, COLOURS, INK, LINE, MUTED
from squadron.core.masking import mask_text
from squadron.core.panels import Chain, Paths, Stop

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _ROW, _BOX = 11.4, 0.98, 0.76  # in inches: the page's width, the pitch of rows, the height of a box
_LEFT, _RIGHT = 1.3, 0.75  # what stands before the first box and after the last
_PITCH = 3.3  # from box to box at most
_SHARE = 0.66  # of the pitch that a box takes; the arrow has the rest
_LINES = 2  # of a label, and of a relation
_LETTERS = 12.5  # in an inch
_BLANK = "\u200b"


def draw(panel: Paths) -> Figure:
    """Every row from left to right; a chain whose end is right has its last box framed, and says so."""
    from matplotlib.figure import Figure

    height = max(len(panel.rows), 1) * _ROW
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    longest = max((len(chain.stops) for chain in panel.rows), default=1)
    pitch = min(_PITCH, (_WIDTH - _LEFT - _RIGHT) / (longest - 1 + _SHARE))
    for number, chain in enumerate(panel.rows):
        _chain(axes, chain, (number + 0.5) * _ROW, pitch)
    return figure


def in_words(chain: Chain) -> str:
    """A chain for those who cannot see it."""
    steps = [f"{_arrow(stop)} {stop.label}" for stop in chain.stops[1:]]
    return " ".join((f"{chain.title}:", chain.stops[0].label, *steps, *(["(right)"] if chain.right else [])))


def _chain(axes: Axes, chain: Chain, middle: float, pitch: float) -> None:
    width = _SHARE * pitch
    _lines(axes, _LEFT - 0.15, middle, _wrapped(chain.title, _LEFT - 0.15, _LINES), INK, 9.5, "right")
    for place, stop in enumerate(chain.stops):
        left = _LEFT + place * pitch
        if place:
            start = left - pitch + width
            axes.annotate("", (left, middle), (start, middle), arrowprops={"arrowstyle": "->", "color": MUTED, "lw": 1})
            names = _wrapped(stop.relation, pitch - width - 0.1, _LINES)
            names.sort(key=lambda line: line != _BLANK)  # the last line stands over the arrow
            _lines(axes, (start + left) / 2, middle - 0.17, names, MUTED, 8, "center")
        _box(axes, stop, left, middle, width, chain.right and place == len(chain.stops) - 1)
    mark = "✓ right" if chain.right else _BLANK
    end = _LEFT + (len(chain.stops) - 1) * pitch + width
    axes.text(end + 0.08, middle, mark, color=INK, fontsize=9.5, va="center")


def _box(axes: Axes, stop: Stop, left: float, middle: float, width: float, framed: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    edge, weight = (COLOURS[0], 2.2) if framed else (LINE, 1.2)
    style = "round,pad=0,rounding_size=0.07"
    corner = (left, middle - _BOX / 2)
    axes.add_patch(FancyBboxPatch(corner, width, _BOX, style, facecolor=CARD, edgecolor=edge, linewidth=weight))
    score = _BLANK if stop.score is None else f"{stop.score:.3g}"
    room = max(width - 0.2 - len(score) / _LETTERS, 0.3)
    (kind,) = _wrapped(stop.type, room, 1)
    axes.text(left + 0.09, middle - 0.23, kind, color=MUTED, fontsize=8, va="center")
    axes.text(left + width - 0.09, middle - 0.23, score, color=MUTED, fontsize=8, va="center", ha="right")
    _lines(axes, left + 0.09, middle + 0.1, _wrapped(stop.label, width - 0.18, _LINES), INK, 9.5, "left")


def _lines(axes: Axes, x: float, middle: float, lines: list[str], colour: str, size: float, align: str) -> None:
    """Lines under each other. Each is drawn, even a blank one, so that a text alone never changes the drawing."""
    pitch = size / 58
    for number, line in enumerate(lines):
        y = middle + (number - (len(lines) - 1) / 2) * pitch
        axes.text(x, y, line, color=colour, fontsize=size, va="center", ha=align)


def _wrapped(text: str, inches: float, lines: int) -> list[str]:
    """A text in so many lines of this width, the last cut short where it does not fit. Secrets are masked while they
    are whole."""
    width = max(4, int(inches * _LETTERS))
    found = textwrap.wrap(mask_text(text), width, break_on_hyphens=False)
    if len(found) > lines:
        found = [*found[: lines - 1], f"{found[lines - 1][: width - 1]}…"]
    return [*found, *[_BLANK] * (lines - len(found))]


def _arrow(stop: Stop) -> str:
    return f"–{stop.relation}→" if stop.relation else "→"
