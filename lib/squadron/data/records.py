"""Records from JSON, Parquet or a data set of the hub: one mapping each, with the place that an error names.

What comes from outside comes in here. Past the reader a record holds what JSON can hold, save bytes and objects that a
table of the hub brings along; what a column is to hold is asked for by its type, and refused where its line is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from squadron.core.errors import InputError, suggest
from squadron.data.record_files import kind_of, read_path

Label = str | int | float
"""What names a class or a row: a text, a number, or true or false."""


class Record(NamedTuple):
    """One record, and where it stands: file and line, or the row of a table.

    Each accessor raises InputError, which names the place, the column and what was found, for a column that is missing,
    null or of another type. `setting` is the one that names the column, if there is one; `fix` says what else to do.
    """

    where: str
    values: dict[str, Any]

    def has(self, column: str) -> bool:
        """Whether there is a value, and it is not null."""
        return self.values.get(column) is not None

    def value(self, column: str, setting: str = "") -> Any:
        """A value of any type."""
        value = self.values.get(column)
        if value is None:
            state = "is empty in" if column in self.values else "is missing from"
            fix = f"set {setting}; {suggest(column, self.values)}" if setting else suggest(column, self.values)
            raise InputError(f"the column {column!r} {state} this record", where=self.where, fix=fix)
        return value

    def text(self, column: str, setting: str = "", fix: str = "", *, blank: bool = True) -> str:
        """A text; unless `blank`, one with more than spaces in it."""
        text: str = self._typed(column, setting, "text", _is_text, fix)
        if not blank and not text.strip():
            fix = "leave this record out" + (f", or set {setting} to another column" if setting else "")
            raise InputError(f"the column {column!r} is empty in this record", where=self.where, fix=fix)
        return text

    def number(self, column: str, setting: str = "", fix: str = "") -> float:
        """A finite number."""
        return float(self._typed(column, setting, "a finite number", is_number, fix))

    def label(self, column: str, setting: str = "", fix: str = "") -> Label:
        """A text, a finite number, or true or false, as it stands there."""
        label: Label = self._typed(column, setting, "a text or a number", is_label, fix)
        return label

    def items(self, column: str, setting: str = "", fix: str = "") -> list[Any]:
        """A list of at least one item, of any types."""
        items: list[Any] = self._typed(column, setting, "a list of at least one item", _is_filled, fix)
        return items

    def texts(self, column: str, setting: str = "", fix: str = "") -> list[str]:
        """A list of at least one text."""
        return [part.text(column) for part in self._parts(column, setting, fix)]

    def labels(self, column: str, setting: str = "", fix: str = "") -> list[Label]:
        """A list of at least one label."""
        return [part.label(column) for part in self._parts(column, setting, fix)]

    def record(self, column: str, setting: str = "", fix: str = "") -> Record:
        """An object, as a record whose place is this one's and the column."""
        return Record(f"{self.where}, {column}", self._typed(column, setting, "an object", _is_object, fix))

    def records(self, column: str, setting: str = "", fix: str = "") -> list[Record]:
        """A list of at least one object, each as a record whose place is this one's and its number, from 1."""
        parts = self._parts(column, setting, fix)
        return [Record(part.where, part._typed(column, "", "an object", _is_object, fix)) for part in parts]

    def refusal(self, column: str, wanted: str, setting: str = "", fix: str = "") -> InputError:
        """The error for a column that holds something else than what is `wanted`."""
        value = self.values.get(column)
        other = f", or set {setting} to another column" if setting else ""
        what = f"the column {column!r} holds {kind_of(value)}, not {wanted}: {value!r:.60}"
        return InputError(what, where=self.where, fix=fix or f"give {wanted}{other}")

    def _typed(self, column: str, setting: str, wanted: str, fits: Callable[[Any], bool], fix: str = "") -> Any:
        value = self.value(column, setting)
        if not fits(value):
            raise self.refusal(column, wanted, setting, fix)
        return value

    def _parts(self, column: str, setting: str, fix: str) -> Iterator[Record]:
        for number, item in enumerate(self.items(column, setting, fix), start=1):
            yield Record(f"{self.where}, {column} {number}", {column: item})


def read_records(
    path: str, split: str = "train", subset: str | None = None, names: Sequence[str] = ()
) -> Iterator[Record]:
    """The records of a file or of all files in a folder (by path or fsspec URL), or of a hub data set by name; of its
    `subset`, where it has several. Lines of JSON may be lists, too, where `names` says which columns these hold.

    Raises InputError, which names the file and the line or row, for a path that is none of these, a file that is
    damaged, and whatever is no JSON object or cannot be kept as it is: half of a surrogate pair, a key that stands
    twice, a number out of range, values nested very deeply.
    """
    return (Record(where, values) for where, values in read_path(path, split, subset, names))


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold; NaN, infinities and truth values are none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def is_label(value: Any) -> bool:
    """Whether a value is a text, a number, or true or false; NaN and infinities are no numbers."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_filled(value: Any) -> bool:
    return isinstance(value, list) and bool(value)
