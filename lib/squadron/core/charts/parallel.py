"""Parallel coordinates: an upright axis for each quantity, and a line across them for each thing that has them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from squadron.core.charts.page import COLOURS, INK, LINE, MUTED
from squadron.core.panels import Axis, Parallel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 11.4, 3.6  # in inches; the whole width of the page
_LOOKS: dict[str, dict[str, Any]] = {
    "rest": {"color": MUTED, "alpha": 0.35, "linewidth": 1.1, "zorder": 2},
    "good": {"color": COLOURS[0], "alpha": 0.7, "linewidth": 1.5, "linestyle": (0, (5, 1.6)), "zorder": 3},
    "best": {"color": COLOURS[1], "alpha": 1.0, "linewidth": 2.4, "marker": "o", "markersize": 5, "zorder": 4},
}
_LEGEND = {"best": "the best", "good": "the better quarter", "rest": "the others"}


def draw(panel: Parallel) -> Figure:
    """Every axis runs from its smallest value at the bottom to its largest at the top; ends are written beside it."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    for place, axis in enumerate(panel.axes):
        column = [line.values[place] for line in panel.lines]
        axes.axvline(place, color=LINE, linewidth=1.2, zorder=1)
        for height, text in _marks(axis, column):
            axes.text(place + 0.015, height, text, color=INK, fontsize=9, va="center", zorder=5)
    heights = [_heights(axis, [line.values[place] for line in panel.lines]) for place, axis in enumerate(panel.axes)]
    for number, line in enumerate(panel.lines):
        axes.plot(range(len(panel.axes)), [column[number] for column in heights], **_LOOKS[line.mark])
    axes.set_xticks(range(len(panel.axes)), [axis.name for axis in panel.axes], color=INK)
    axes.set(yticks=[], ylim=(-0.06, 1.06), xlim=(-0.1, len(panel.axes) - 0.6))
    axes.tick_params(length=0, pad=6)
    axes.spines[:].set_visible(False)
    shown = [mark for mark in _LEGEND if any(line.mark == mark for line in panel.lines)]
    handles = [Line2D([], [], label=_LEGEND[mark], **_LOOKS[mark]) for mark in shown]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, handlelength=2.4)
    return figure


def _heights(axis: Axis, column: list[float | None]) -> list[float]:
    """Where on an axis values stand, from 0 at the bottom to 1; NaN for one that is missing."""
    if axis.names:
        top = max(1, len(axis.names) - 1)
        return [math.nan if value is None else value / top for value in column]
    scaled = [math.nan if value is None else _scale(axis, value) for value in column]
    present = [value for value in scaled if not math.isnan(value)]
    low, high = (min(present), max(present)) if present else (0.0, 1.0)
    return [(value - low) / (high - low) if high > low else (value - low + 0.5) for value in scaled]


def _marks(axis: Axis, column: list[float | None]) -> list[tuple[float, str]]:
    """What is written beside an axis: its names, or the ends of its numbers."""
    if axis.names:
        top = max(1, len(axis.names) - 1)
        return [(number / top, name[:18]) for number, name in enumerate(axis.names)]
    present = [value for value in column if value is not None]
    if not present:
        return []
    low, high = min(present), max(present)
    return [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [(0.5, f"{low:.4g}")]


def _scale(axis: Axis, value: float) -> float:
    return math.log(value) if axis.log and value > 0 else value
