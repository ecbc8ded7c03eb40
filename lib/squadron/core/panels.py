"""What a stage shows in the report: small records that travel as JSON next to the files they name."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, model_validator

from squadron.core.config import Config


def _plain_number(value: Any) -> Any:
    """NumPy scalars as Python's own; NaN and infinity, which JSON has no word for, as None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _inside_stage_folder(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"a panel names files inside its stage folder, not {name!r}")
    return name


def _as_list(values: Any) -> Any:
    return values.tolist() if hasattr(values, "tolist") else values


Cell = Annotated[bool | int | float | str | None, BeforeValidator(_plain_number)]
Number = Annotated[float | None, BeforeValidator(_plain_number)]
Numbers = Annotated[list[Number], BeforeValidator(_as_list)]
FileName = Annotated[str, AfterValidator(_inside_stage_folder)]


class Table(Config):
    """Rows under named columns. A cell without a value (None, NaN) is shown as a dash."""

    kind: Literal["table"] = "table"
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""

    @model_validator(mode="after")
    def _rows_match_columns(self) -> Table:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells for {len(self.columns)} columns")
        return self


class Series(Config):
    """One curve; with `low` and `high` it has a band. A missing y is a gap."""

    name: str
    x: Annotated[list[float], BeforeValidator(_as_list)]
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None

    @model_validator(mode="after")
    def _lengths_agree(self) -> Series:
        if (self.low is None) != (self.high is None):
            raise ValueError("a band needs both low and high")
        lengths = [len(values) for values in (self.x, self.y, self.low, self.high) if values is not None]
        if len(set(lengths)) != 1:
            raise ValueError(f"x, y, low and high differ in length: {lengths}")
        return self


class Curves(Config):
    """Curves over a common axis; put units into the labels, as in `time [s]`."""

    kind: Literal["curves"] = "curves"
    title: str
    x_label: str
    y_label: str
    series: list[Series]
    note: str = ""


class Heatmap(Config):
    """A value for every pair of a row and a column, as tiles of one hue. A missing one is left blank.

    `label` says what the values are. They are printed into the tiles where there is room.
    """

    kind: Literal["heatmap"] = "heatmap"
    title: str
    rows: list[str]
    columns: list[str]
    values: Annotated[list[Numbers], BeforeValidator(_as_list)]
    label: str
    note: str = ""

    @model_validator(mode="after")
    def _values_match_names(self) -> Heatmap:
        if len(self.values) != len(self.rows):
            raise ValueError(f"{len(self.values)} rows of values for {len(self.rows)} names")
        for name, row in zip(self.rows, self.values, strict=True):
            if len(row) != len(self.columns):
                raise ValueError(f"row {name!r} has {len(row)} values for {len(self.columns)} columns")
        return self


class Cloud(Config):
    """Points of one group. One that misses a coordinate is left out; a `faint` group is the others' background."""

    name: str
    x: Numbers
    y: Numbers
    faint: bool = False

    @model_validator(mode="after")
    def _lengths_agree(self) -> Cloud:
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} x for {len(self.y)} y")
        return self


class Points(Config):
    """Groups of points in a plane. Without `ticks`, where only nearness means something (a projection)."""

    kind: Literal["points"] = "points"
    title: str
    x_label: str = ""
    y_label: str = ""
    groups: list[Cloud]
    ticks: bool = True
    note: str = ""


class Bar(Config):
    """One bar; with `low` and `high` it has an interval."""

    name: str
    value: Number
    low: Number = None
    high: Number = None

    @model_validator(mode="after")
    def _interval_is_one(self) -> Bar:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval needs both low and high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval of {self.name!r} ends ({self.high}) below its start ({self.low})")
        return self


class Bars(Config):
    """Named bars from the top down, each with its value; `reference` is a line across them, such as a baseline."""

    kind: Literal["bars"] = "bars"
    title: str
    label: str
    bars: list[Bar]
    reference: Number = None
    reference_name: str = ""
    note: str = ""


class Sample(Config):
    """Values of one group. Missing ones are not counted."""

    name: str
    values: Numbers


class Histogram(Config):
    """How the values of groups are distributed, over bins that the groups share.

    `scale`: on the y axis the share of a group's values in a bin, or their density.
    """

    kind: Literal["histogram"] = "histogram"
    title: str
    x_label: str
    groups: list[Sample]
    scale: Literal["share", "density"] = "share"
    note: str = ""


class Axis(Config):
    """One upright axis: numbers between the smallest and the largest of its values, or names, evenly spread."""

    name: str
    names: list[str] = []
    log: bool = False


class Line(Config):
    """One line across all axes, at a number or the index of a name on each. A missing value is a gap."""

    name: str
    values: Numbers
    mark: Literal["best", "good", "rest"] = "rest"


class Parallel(Config):
    """Parallel coordinates: what each line has on each axis. The best stand out from the rest."""

    kind: Literal["parallel"] = "parallel"
    title: str
    axes: list[Axis]
    lines: list[Line]
    note: str = ""

    @model_validator(mode="after")
    def _lines_cross_all_axes(self) -> Parallel:
        if len(self.axes) < 2:
            raise ValueError("parallel coordinates need two axes")
        for line in self.lines:
            if len(line.values) != len(self.axes):
                raise ValueError(f"line {line.name!r} has {len(line.values)} values for {len(self.axes)} axes")
        return self


class Stop(Config):
    """One box of a chain, and the relation that led to it from the one before."""

    label: str
    type: str = ""
    score: Number = None
    relation: str = ""


class Chain(Config):
    """Boxes from the first to the last; `right` marks one whose end is right."""

    title: str
    stops: list[Stop] = Field(min_length=1)
    right: bool = False


class Paths(Config):
    """How something was reached: a titled row for each chain of boxes, with the relations between them."""

    kind: Literal["paths"] = "paths"
    title: str
    rows: list[Chain]
    note: str = ""


class Images(Config):
    """Pictures side by side: PNG, JPEG, WebP or GIF files in the stage folder, each with its caption."""

    kind: Literal["images"] = "images"
    title: str
    files: list[FileName]
    captions: list[str] = []

    @model_validator(mode="after")
    def _captions_match_files(self) -> Images:
        if self.captions and len(self.captions) != len(self.files):
            raise ValueError(f"{len(self.captions)} captions for {len(self.files)} files")
        return self


class Film(Config):
    """One moving picture: a GIF, WebP, MP4 or WebM file in the stage folder."""

    kind: Literal["film"] = "film"
    title: str
    file: FileName
    caption: str = ""


class Text(Config):
    """Plain text; line breaks are kept."""

    kind: Literal["text"] = "text"
    title: str
    text: str


class TreeNode(Config):
    """One step that was tried after the step at index `parent`, or after the problem itself.

    `mark` says what became of it: taken up (`chosen`), found wrong (`rejected`), passed over for a better one
    (`passed`), or taken up and later given up (`rolled_back`). `label` adds a few words, such as `3 wins`.
    """

    parent: int | None
    text: str
    mark: Literal["chosen", "rejected", "passed", "rolled_back"]
    label: str = ""


class Tree(Config):
    """A search over steps as an outline: the problem, and below every step those that were tried after it.

    A parent stands before its children in `nodes`. Among siblings the ones that others follow are shown after the ones
    that nothing follows, and the chosen one last: so siblings stay close, and the chosen path goes on below them.
    """

    kind: Literal["tree"] = "tree"
    title: str
    root: str
    nodes: list[TreeNode]
    note: str = ""

    @model_validator(mode="after")
    def _parents_come_first(self) -> Tree:
        for number, node in enumerate(self.nodes):
            if node.parent is not None and not 0 <= node.parent < number:
                raise ValueError(f"node {number} has parent {node.parent}, which is not an earlier node")
        return self


Chart = Curves | Heatmap | Points | Bars | Histogram | Parallel | Paths
Panel = Annotated[Table | Chart | Images | Film | Text | Tree, Field(discriminator="kind")]
_panel: TypeAdapter[Panel] = TypeAdapter(Panel)


def read_panel(record: dict[str, Any]) -> Panel:
    """The panel that `model_dump` wrote. Raises pydantic's ValidationError if the record is none."""
    return _panel.validate_python(record)


def files_of_panel(panel: Panel) -> list[str]:
    """The pictures and films that a panel shows, by their names in the stage's folder."""
    match panel:
        case Images():
            return list(panel.files)
        case Film():
            return [panel.file]
        case _:
            return []
