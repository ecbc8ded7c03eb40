"""The page that a run ends with: one HTML file that needs nothing beside it and nothing from a network."""

from __future__ import annotations

import base64
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squadron.core.config import flatten, show_yaml
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.masking import mask_secrets, mask_text
from squadron.core.panels import Chart, Film, Images, Panel, Table, Text, Tree, TreeNode

FAILURES_SHOWN = 50
_TEMPLATE = Path(__file__).with_name("report.html.j2")
_PIXEL_ART_UP_TO = 160
_PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
_VIDEOS = {".mp4": "video/mp4", ".webm": "video/webm"}


@dataclass
class StageView:
    """One stage as the report shows it; the files that its panels name lie in `folder`.

    A `status` of `finished` or `unfinished` is coloured.
    """

    name: str
    seconds: float
    status: str
    panels: list[Panel]
    folder: Folder
    purpose: str = ""
    changed: Callable[[str], str] = lambda name: ""
    """Says what is wrong with a picture: an empty text if nothing is."""


@dataclass
class RunView:
    """All that the report says about a run."""

    title: str
    summary: str
    figures: list[tuple[str, str]]
    stages: list[StageView]
    failures: list[dict[str, Any]] = field(default_factory=list)
    config_yaml: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    next_commands: list[str] = field(default_factory=list)


def render(view: RunView) -> str:
    """The report as a complete HTML document.

    Images and films are embedded, charts are inline SVG, every text is escaped, and secrets are masked. A file that is
    missing or unreadable is named in its place and spoils nothing.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_masked
    )
    environment.filters |= {"duration": format_duration, "rows": _rows}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        view=view,
        stages=[(stage, [_show(panel, stage) for panel in stage.panels]) for stage in view.stages],
        total_seconds=sum(stage.seconds for stage in view.stages),
        failures=_failure_table(view.failures),
        config_yaml=_masked_yaml(view.config_yaml),
        manifest=_manifest_rows(view.manifest),
    )


def _masked(shown: Any) -> Any:
    """What the page shows of a value: a text without secrets; embedded pictures as they are."""
    if not isinstance(shown, str) or shown.startswith("data:"):
        return shown
    return type(shown)(mask_text(str(shown)))


def format_duration(seconds: float) -> str:
    """A time that a person reads at a glance: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


_HALF_PAGE_PX = 480


@dataclass
class _Shown:
    """A panel made ready for the template: `content` is the columns, drawing, media or steps that it shows, and
    `words` say what a drawing shows.
    """

    panel: Panel
    wide: bool
    content: Any = None
    words: str = ""
    note: str = ""


def _show(panel: Panel, stage: StageView) -> _Shown:
    match panel:
        case Table():
            columns = _columns(panel.columns, panel.rows)
            return _Shown(panel, wide=len(panel.columns) > 4, content=columns, note=panel.note)
        case Images():
            captions = panel.captions or [""] * len(panel.files)
            pictures = [_embed(stage, *pair) for pair in zip(panel.files, captions, strict=True)]
            wide = len(pictures) > 3 or any(picture.width > _HALF_PAGE_PX for picture in pictures)
            return _Shown(panel, wide=wide, content=pictures)
        case Film():
            film = _embed(stage, panel.file, panel.caption)
            return _Shown(panel, wide=film.width > _HALF_PAGE_PX, content=film)
        case Text():
            return _Shown(panel, wide=len(panel.text) > 600)
        case Tree():
            return _Shown(panel, wide=True, content=_outline(panel.nodes), note=panel.note)
        case _:
            return _chart(panel)


def _chart(panel: Chart) -> _Shown:
    from markupsafe import Markup

    from squadron.core import charts

    drawing = Markup(charts.draw(panel))  # our own drawing: the SVG writer has escaped its texts
    return _Shown(panel, charts.is_wide(panel), drawing, charts.describe(panel), charts.note(panel))


@dataclass
class _Step:
    """A node in its place in the outline: the next one is a child of it (`opens`), or `closes` levels further out."""

    node: TreeNode
    opens: bool
    closes: int


def _outline(nodes: Sequence[TreeNode]) -> list[_Step]:
    order = list(_depth_first(nodes))
    depths = [depth for _, depth in order] + [0]
    return [
        _Step(node, opens=following > depth, closes=max(0, depth - following))
        for (node, depth), following in zip(order, depths[1:], strict=True)
    ]


def _depth_first(nodes: Sequence[TreeNode]) -> Iterator[tuple[TreeNode, int]]:
    """Nodes with their depths. Among siblings come first those without children, and last the chosen one.

    A loop, since a recursion would fail on a long chain of steps.
    """
    children: dict[int | None, list[int]] = defaultdict(list)
    for number, node in enumerate(nodes):
        children[node.parent].append(number)
    for siblings in children.values():
        siblings.sort(key=lambda number: (nodes[number].mark == "chosen", number in children))
    waiting = [(number, 0) for number in reversed(children[None])]
    while waiting:
        number, depth = waiting.pop()
        yield nodes[number], depth
        waiting += [(child, depth + 1) for child in reversed(children[number])]


@dataclass
class _Media:
    """A picture or film as a `data:` address, or the reason why it is not there."""

    caption: str
    address: str = ""
    width: int = 0
    height: int = 0
    is_video: bool = False
    is_small: bool = False
    problem: str = ""


def _embed(stage: StageView, name: str, caption: str) -> _Media:
    suffix = Path(name).suffix.lower()
    if suffix not in _PICTURES | _VIDEOS:
        return _Media(caption, problem=f"{name}: a browser cannot show {suffix or 'this kind of'} files")
    try:
        if problem := stage.changed(name):
            return _Media(caption, problem=problem)
        data = stage.folder.read_bytes(name)
        width, height = _picture_size(data) if suffix in _PICTURES else (0, 0)
    except InputError:
        return _Media(caption, problem=f"{name} is missing")
    except OSError:
        return _Media(caption, problem=f"{name} is not a readable picture")
    address = f"data:{(_PICTURES | _VIDEOS)[suffix]};base64,{base64.b64encode(data).decode()}"
    is_small = 0 < width <= _PIXEL_ART_UP_TO
    return _Media(caption, address, width, height, is_video=suffix in _VIDEOS, is_small=is_small)


def _picture_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels. Raises OSError if the bytes are no picture, or one of absurd size."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.size
    except Image.DecompressionBombError as error:
        raise OSError(str(error)) from None


@dataclass
class _Column:
    """One column of a table as text, and whether it reads as numbers, which stand to the right."""

    name: str
    cells: list[str]
    is_numeric: bool


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[_Column]:
    return [_column(name, [row[number] for row in rows]) for number, name in enumerate(names)]


def _rows(columns: Sequence[_Column]) -> Iterator[tuple[str, ...]]:
    return zip(*(column.cells for column in columns), strict=True)


def _column(name: str, values: Sequence[Any]) -> _Column:
    present = [value for value in values if value is not None]
    is_numeric = bool(present) and all(_is_number(value) for value in present)
    decimals = _decimals([abs(value) for value in present if isinstance(value, float)])
    return _Column(name, [format_cell(value, decimals) for value in values], is_numeric)


def _decimals(sizes: Sequence[float]) -> int | None:
    """Decimals that suit a whole column, or None where one number of decimals would hide its small values."""
    if not sizes or max(sizes) == 0 or not 1e-3 <= max(sizes) < 1e15:
        return None
    decimals = max(0, 3 - math.floor(math.log10(max(sizes))))
    smallest = min(size for size in sizes if size > 0)
    return decimals if smallest >= 10.0 ** (1 - decimals) else None


def format_cell(value: Any, decimals: int | None = None) -> str:
    """A table cell: floats to `decimals` or else to four significant digits, a dash for what is missing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}" if decimals is None else f"{value:,.{decimals}f}"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _failure_table(failures: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(dict.fromkeys(key for failure in failures for key in failure))
    rows = [[failure.get(name) for name in names] for failure in failures[:FAILURES_SHOWN]]
    return {
        "columns": _columns(names, rows),
        "count": len(failures),
        "shown": len(rows),
        "left_out": len(failures) - len(rows),
    }


def _masked_yaml(text: str) -> str:
    import yaml

    values = yaml.safe_load(text) if text.strip() else None
    if not isinstance(values, dict):
        return text
    return show_yaml(values)


def _manifest_rows(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    flat = flatten(mask_secrets(manifest)) if manifest else {}
    present = {key: value for key, value in flat.items() if value not in (None, "", [], {})}
    return [(key.removeprefix("packages."), _joined(value)) for key, value in present.items()]


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
