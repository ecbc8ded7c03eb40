"""What a stage shows in the report: small records that travel as JSON beside the files they name."""

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


Panel = Annotated[Table | Curves | Images | Film | Text, Field(discriminator="kind")]
_panel: TypeAdapter[Panel] = TypeAdapter(Panel)


def read_panel(record: dict[str, Any]) -> Panel:
    """The panel that `model_dump` wrote. Raises pydantic's ValidationError if the record is none."""
    return _panel.validate_python(record)
