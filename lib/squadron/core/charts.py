"""Curves as inline SVG whose colours follow the page, in light and in dark."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from squadron.core.panels import Curves, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES_COLOURS = 6
SIZE_INCHES = (5.4, 3.1)
_DASHES: list[str | tuple[int, tuple[float, ...]]] = [
    "-",
    (0, (5, 1.6)),
    (0, (1.3, 1.3)),
    (0, (7, 1.6, 1.3, 1.6)),
]
_MARKED_UP_TO = 12
_NAME_WIDTH, _LEGEND_WIDTH = 48, 62  # in characters
# Stand-ins that the drawing uses and the page's CSS variables replace.
_INK, _FAINT = "#0a0b01", "#0a0b02"
_COLOURS = [f"#0a0c{number:02x}" for number in range(1, SERIES_COLOURS + 1)]
_VARIABLES = {_INK: "var(--muted)", _FAINT: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_COLOURS, start=1)
}
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "squadron",  # the same curves give the same bytes
    "text.color": _INK,
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.formatter.useoffset": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw(panel: Curves) -> str:
    """The chart of a panel as one `<svg>` element, free of fixed colours, fonts and sizes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        for number, series in enumerate(panel.series):
            _draw_series(axes, series, _COLOURS[number % SERIES_COLOURS], _DASHES[number % len(_DASHES)])
        _dress(axes, panel)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue())


def _draw_series(axes: Axes, series: Series, colour: str, dashes: str | tuple[int, tuple[float, ...]]) -> None:
    y = _with_gaps(series.y)
    marker = "o" if len(series.x) <= _MARKED_UP_TO else None
    axes.plot(
        series.x,
        y,
        color=colour,
        linestyle=dashes,
        linewidth=1.8,
        marker=marker,
        markersize=3.5,
        label=_shortened(series.name),
    )
    if series.low is not None and series.high is not None:
        low, high = _with_gaps(series.low), _with_gaps(series.high)
        axes.fill_between(series.x, low, high, color=colour, alpha=0.16, linewidth=0)


def _dress(axes: Axes, panel: Curves) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5)
    axes.margins(x=0.02)
    whole = all(value == int(value) for series in panel.series for value in series.x)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if len(panel.series) > 1:
        longest = max(min(len(series.name), _NAME_WIDTH) for series in panel.series)
        columns = max(1, min(3, _LEGEND_WIDTH // (longest + 6)))
        axes.figure.legend(loc="outside upper left", ncols=columns, frameon=False, handlelength=2.4, columnspacing=1.4)


def _with_gaps(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _shortened(name: str) -> str:
    """A name that fits the legend, which would leave out one that begins with an underscore."""
    visible = f"\u200b{name}" if name.startswith("_") else name
    return visible if len(visible) <= _NAME_WIDTH else visible[: _NAME_WIDTH - 1] + "…"


def _inline(svg: str) -> str:
    """Leave out what belongs to a file of its own: prologue, fixed size, style sheet, group names, fonts."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", lambda tag: _inline_tag(tag.group()), svg).strip()


def _inline_tag(tag: str) -> str:
    if tag.startswith("<svg"):
        tag = re.sub(r' (?:width|height)="[^"]*"', "", tag)
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r'font-family: [^;"]*', "font-family: inherit", tag)
    return re.sub("|".join(_VARIABLES), lambda colour: _VARIABLES[colour.group()], tag)
