"""What makes a drawing part of the page: stand-in colours that become CSS variables, and SVG cut down to its shapes."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES_COLOURS = 6
# Stand-ins that the drawing uses and the page's CSS variables replace.
MUTED, LINE, INK, CARD = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
COLOURS = [f"#0a0c{number:02x}" for number in range(1, SERIES_COLOURS + 1)]
_VARIABLES = {MUTED: "var(--muted)", LINE: "var(--line)", INK: "var(--ink)", CARD: "var(--card)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(COLOURS, start=1)
}
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "squadron",  # the same chart gives the same bytes
    "text.color": MUTED,
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.formatter.useoffset": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
# A dot is a line of no length with wide caps: as a path of its own, a tenth of what a `<use>` for each would take.
_DOT = re.compile(r"M (-?[\d.]+) (-?[\d.]+)\s+L \1 \2\s+")


def to_svg(figure: Figure) -> str:
    """A figure as one `<svg>` element, free of fixed colours, fonts and sizes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue())


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
    tag = _DOT.sub(lambda dot: f"M{float(dot[1]):.1f} {float(dot[2]):.1f}h0", tag)
    return re.sub("|".join(_VARIABLES), lambda colour: _VARIABLES[colour.group()], tag)
