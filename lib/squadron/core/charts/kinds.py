"""One figure for each kind of chart. The colours are the page's stand-ins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from squadron.core.charts.page import CARD, COLOURS, INK, LINE, MUTED, SERIES_COLOURS
from squadron.core.panels import Bars, Cloud, Curves, Heatmap, Histogram, Points, Series

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS_OF_HALF_A_PAGE = 8
MOST_POINTS = 5000
Dashes = str | tuple[int, tuple[float, ...]]
_WIDTH, _WIDE, _HEIGHT = 5.4, 11.4, 3.1  # in inches: both widths come out with letters of one size
_ROW_HEIGHT = 0.31
_DASHES: list[Dashes] = ["-", (0, (5, 1.6)), (0, (1.3, 1.3)), (0, (7, 1.6, 1.3, 1.6))]
_MARKED_UP_TO = 12
_NAME_WIDTH, _ROW_WIDTH, _LEGEND_WIDTH = 48, 28, 62  # in characters
_TINTS = 24
_PRINTED_UP_TO = 12  # columns of a heat map
_MOST_BINS = 60


def curves(panel: Curves) -> Figure:
    """Lines, dashed apart from each other, with their bands."""
    figure, axes = _figure()
    for number, series in enumerate(panel.series):
        _curve(axes, series, COLOURS[number % SERIES_COLOURS], _DASHES[number % len(_DASHES)])
    whole = all(value == int(value) for series in panel.series for value in series.x)
    _dress(axes, panel.x_label, panel.y_label, whole=whole)
    axes.margins(x=0.02)
    _legend(figure, [series.name for series in panel.series])
    return figure


def _curve(axes: Axes, series: Series, colour: str, dashes: Dashes) -> None:
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


def histogram(panel: Histogram) -> Figure:
    """Outlines over common bins, lightly filled."""
    import numpy as np

    figure, axes = _figure()
    groups = [np.array(_present(group.values)) for group in panel.groups]
    edges = _bins(np.concatenate([np.empty(0), *groups]))
    for number, (group, values) in enumerate(zip(panel.groups, groups, strict=True)):
        counts, _ = np.histogram(values, edges)
        heights = counts / max(1, len(values)) / (np.diff(edges) if panel.scale == "density" else 1.0)
        colour, dashes = COLOURS[number % SERIES_COLOURS], _DASHES[number % len(_DASHES)]
        axes.stairs(heights, edges, color=colour, linestyle=dashes, linewidth=1.8, label=_shortened(group.name))
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.13, linewidth=0)
    _dress(axes, panel.x_label, panel.scale)
    axes.margins(x=0.02)
    axes.set_ylim(bottom=0)
    _legend(figure, [group.name for group in panel.groups])
    return figure


def _bins(values: np.ndarray) -> np.ndarray:
    """Rice's number of equal bins; values that hardly differ share one in the middle."""
    import numpy as np

    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        around = max(0.5, abs(low) * 0.01)
        low, high = low - around, high + around
    count = min(_MOST_BINS, max(1, math.ceil(2 * len(values) ** (1 / 3))))
    edges: np.ndarray = np.histogram_bin_edges(values, count, (low, high))
    return edges


def points(panel: Points) -> Figure:
    """Dots, the faint groups underneath; round and square take turns."""
    figure, axes = _figure(height=3.9)
    pairs = list(zip(panel.groups, _thinned(panel), strict=True))
    faint, vivid = ([pair for pair in pairs if pair[0].faint is wanted] for wanted in (True, False))
    handles = [_dots(axes, group.name, kept, MUTED, size=2.6, alpha=0.28) for group, kept in faint]
    for number, (group, kept) in enumerate(vivid):
        colour, square = COLOURS[number % SERIES_COLOURS], number % 2 == 1
        handles.append(_dots(axes, group.name, kept, colour, size=4.2, alpha=0.85, square=square))
    _dress(axes, panel.x_label, panel.y_label)
    axes.margins(0.04)
    if not panel.ticks:
        axes.set(xticks=[], yticks=[])
    _legend(figure, [group.name for group in panel.groups], handles)
    return figure


def _dots(
    axes: Axes,
    name: str,
    places: Sequence[tuple[float, float]],
    colour: str,
    *,
    size: float,
    alpha: float,
    square: bool = False,
) -> Any:
    """Draw a group as lines of no length with wide caps, which the page writes shortly; return its legend handle."""
    import numpy as np
    from matplotlib.lines import Line2D
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if places:
        path = Path(np.repeat(places, 2, axis=0), np.tile([Path.MOVETO, Path.LINETO], len(places)))
        path.should_simplify = False  # it would drop lines of no length
        cap: Any = "projecting" if square else "round"
        dots = PathPatch(path, fill=False, edgecolor=colour, linewidth=size, alpha=alpha, capstyle=cap, zorder=2)
        axes.add_artist(dots)
        dots.set_clip_on(False)
        axes.update_datalim(places)
    shape = "s" if square else "o"
    handle = Line2D([], [], color=colour, alpha=max(alpha, 0.5), marker=shape, markersize=size + 1, linestyle="")
    handle.set_label(_shortened(name))
    return handle


def left_out(panel: Points) -> str:
    """How many points are not drawn, in words; nothing where all are."""
    there, drawn = sum(map(len, map(_complete, panel.groups))), sum(map(len, _thinned(panel)))
    return "" if drawn == there else f"{drawn:,} of {there:,} points are drawn, evenly picked from each group."


def _thinned(panel: Points) -> list[list[tuple[float, float]]]:
    """Each group's points, at most MOST_POINTS together. Small groups stay whole; of the others, every so many-th."""
    everything = [_complete(group) for group in panel.groups]
    kept, left = list(everything), MOST_POINTS
    by_size = sorted(range(len(kept)), key=lambda number: len(kept[number]))
    for turn, number in enumerate(by_size):
        group, share = everything[number], left // (len(by_size) - turn)
        if len(group) > share:
            kept[number] = [group[index * len(group) // share] for index in range(share)]
        left -= len(kept[number])
    return kept


def _complete(group: Cloud) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(group.x, group.y, strict=True) if x is not None and y is not None]


def bars(panel: Bars) -> Figure:
    """Horizontal bars from the top down, their values in a column at the right."""
    figure, axes = _figure(height=0.75 + _ROW_HEIGHT * max(1, len(panel.bars)))
    decimals = _decimals([bar.value for bar in panel.bars if bar.value is not None])
    for row, bar in enumerate(panel.bars):
        if bar.value is not None:
            axes.barh(row, bar.value, height=0.62, color=COLOURS[0], alpha=0.75, linewidth=0)
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [row, row], color=INK, linewidth=1.3, marker="|", markersize=6)
        shown = "–" if bar.value is None else f"{bar.value:.{decimals}f}"
        axes.text(1.03, row, shown, transform=axes.get_yaxis_transform(), va="center", color=INK)
    _dress(axes, panel.label, "", grid="x")
    axes.set_yticks(range(len(panel.bars)), [_shortened(bar.name, _ROW_WIDTH) for bar in panel.bars], color=INK)
    axes.set_ylim(len(panel.bars) - 0.45, -0.55)
    if panel.reference is not None:
        line = axes.axvline(panel.reference, color=COLOURS[1], linestyle=_DASHES[1], linewidth=1.6)
        line.set_label(_shortened(panel.reference_name))
        if panel.reference_name:
            _legend(figure, [panel.reference_name], [line], alone=True)
    return figure


def heatmap(panel: Heatmap) -> Figure:
    """Tiles of one hue, the more of it the larger the value: so it reads without telling colours apart."""
    import numpy as np
    from matplotlib.colors import ListedColormap, to_rgba

    wide = len(panel.columns) > COLUMNS_OF_HALF_A_PAGE
    printed = len(panel.columns) <= _PRINTED_UP_TO
    longest = min(_ROW_WIDTH, max(map(len, panel.columns), default=0))
    slanted = longest * len(panel.columns) > (100 if wide else 40)
    height = 1.0 + _ROW_HEIGHT * max(1, len(panel.rows)) + (0.055 * longest if slanted else 0)
    figure, axes = _figure(_WIDE if wide else _WIDTH, height)
    values = np.array([_with_gaps(row) for row in panel.values]).reshape(len(panel.rows), len(panel.columns))
    if np.isfinite(values).any():
        # Printed values need a ground on which the ink is read, in light and in dark.
        tints = np.linspace(0.04, 0.58 if printed else 1.0, _TINTS)
        hue = ListedColormap([to_rgba(COLOURS[0], tint) for tint in tints])
        mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=hue, edgecolors=CARD, linewidth=1.5)
        size = 0.2 if wide else 0.45
        key = figure.colorbar(mesh, ax=axes, location="top", shrink=size, aspect=22, anchor=(0.0, 0.5), pad=0.03)
        key.set_label(panel.label, loc="left")
        key.outline.set_visible(False)
        key.ax.tick_params(length=0, pad=3, labelsize=9)
        key.locator = _ticks(4)
    if printed:
        _print_values(axes, panel)
    axes.set_xticks(np.arange(len(panel.columns)) + 0.5, [_shortened(name, _ROW_WIDTH) for name in panel.columns])
    axes.set_yticks(np.arange(len(panel.rows)) + 0.5, [_shortened(name, _ROW_WIDTH) for name in panel.rows])
    axes.tick_params(length=0, pad=5, labelcolor=INK)
    if slanted:
        axes.tick_params(axis="x", rotation=35)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.spines[:].set_visible(False)
    axes.set(xlim=(0, max(1, len(panel.columns))), ylim=(max(1, len(panel.rows)), 0))
    return figure


def _print_values(axes: Axes, panel: Heatmap) -> None:
    decimals = _decimals([value for row in panel.values for value in row if value is not None])
    for y, row in enumerate(panel.values):
        for x, value in enumerate(row):
            shown, colour = ("–", MUTED) if value is None else (f"{value:.{decimals}f}", INK)
            axes.text(x + 0.5, y + 0.5, shown, color=colour, ha="center", va="center_baseline", fontsize=9.5)


def _figure(width: float = _WIDTH, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _dress(axes: Axes, x_label: str, y_label: str, grid: Any = "y", whole: bool = False) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis=grid, color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5)
    axes.xaxis.set_major_locator(_ticks(6, whole))
    axes.yaxis.set_major_locator(_ticks(5))


def _ticks(most: int, whole: bool = False) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=most, integer=whole)


def _legend(figure: Figure, names: Sequence[str], handles: Any = None, alone: bool = False) -> None:
    """A legend above the axes, unless one group speaks for itself."""
    if len(names) < 2 and not alone:
        return
    longest = max(min(len(name), _NAME_WIDTH) for name in names)
    columns = max(1, min(3, _LEGEND_WIDTH // (longest + 6)))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=columns, frameon=False, handlelength=2.4, columnspacing=1.4
    )


def _decimals(values: Sequence[float]) -> int:
    """Decimals that give the largest of the values three digits."""
    largest = max(map(abs, values), default=0.0)
    return min(6, max(0, 2 - math.floor(math.log10(largest)))) if largest else 0


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _with_gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _shortened(name: str, width: int = _NAME_WIDTH) -> str:
    """A name that fits; a legend would leave out one that begins with an underscore."""
    visible = f"\u200b{name}" if name.startswith("_") else name
    return visible if len(visible) <= width else visible[: width - 1] + "…"
