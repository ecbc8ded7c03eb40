"""Charts as inline SVG whose colours follow the page, in light and in dark."""

from __future__ import annotations

from squadron.core.charts import kinds, page, parallel, paths
from squadron.core.panels import Bars, Chart, Curves, Heatmap, Histogram, Parallel, Paths, Points

SERIES_COLOURS = page.SERIES_COLOURS


def draw(panel: Chart) -> str:
    """The chart of a panel as one `<svg>` element, free of fixed colours, fonts and sizes."""
    import matplotlib as mpl

    with mpl.rc_context(page.STYLE):
        match panel:
            case Curves():
                figure = kinds.curves(panel)
            case Heatmap():
                figure = kinds.heatmap(panel)
            case Points():
                figure = kinds.points(panel)
            case Bars():
                figure = kinds.bars(panel)
            case Histogram():
                figure = kinds.histogram(panel)
            case Parallel():
                figure = parallel.draw(panel)
            case Paths():
                figure = paths.draw(panel)
        return page.to_svg(figure)


def is_wide(panel: Chart) -> bool:
    """Whether a chart takes the whole width of the page."""
    if isinstance(panel, Heatmap):
        return len(panel.columns) > kinds.COLUMNS_OF_HALF_A_PAGE
    return isinstance(panel, Parallel | Paths)


def describe(panel: Chart) -> str:
    """A chart in words, for those who cannot see it."""
    match panel:
        case Curves() | Points():
            axes = " over ".join(label for label in (panel.y_label, panel.x_label) if label)
        case Heatmap() | Bars():
            axes = panel.label
        case Histogram():
            axes = f"{panel.scale} over {panel.x_label}"
        case Parallel():
            axes = ", ".join(axis.name for axis in panel.axes)
        case Paths():
            axes = "; ".join(paths.in_words(chain) for chain in panel.rows)
    return f"{panel.title}: {axes}" if axes else panel.title


def note(panel: Chart) -> str:
    """The panel's note, and what the drawing leaves out."""
    return " ".join(filter(None, (panel.note, kinds.left_out(panel) if isinstance(panel, Points) else "")))
