"""A study: items that people read and judge on a page, and a log of what each said and how long it took.

The page asks for a reader's items, shows them one by one, measures how long each is looked at, and sends a record for
each. A record is a sealed line of a log in the study's folder. Each process that serves the study writes to a file of
its own, and all read all files. Of several records of one reader for one item the first holds, so that one that is
sent again changes nothing.
"""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.json_text import storable
from squadron.core.line_log import append_row, line_files, read_rows

MOST_CHARACTERS = 20_000
"""Of an answer."""
MOST_DETAILS = 20
Reader = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$", description="a name that tells nobody who it is")]
Number = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^\w{1,40}$")]


class StudyConfig(Config):
    """Who reads what."""

    arms: Literal["per item", "per reader"] = Field(
        "per item", description="per item: each reader sees all ways of showing an item in turn; per reader: one"
    )
    per_reader: int | None = Field(None, ge=1, description="items of a reader, of all strata alike; None: all")
    most_readers: int = Field(1000, ge=1, le=100_000, description="that a study takes")
    seed: int = Field(0, ge=0, description="of who reads what, in which order, shown how")


class StudyItem(Config):
    """An item, by the arms of the study what is shown of it, and what no reader is told of it."""

    id: str = Field(min_length=1, max_length=200)
    shown: dict[str, dict[str, Any]] = Field(min_length=1)
    stratum: str = Field("", description="such as whether an answer is right")


class Assigned(NamedTuple):
    """An item as a reader is to see it."""

    item: StudyItem
    arm: str


class Record(Config):
    """What a reader said to an item, and how long it took."""

    reader: Reader
    item: str = Field(min_length=1, max_length=200)
    arm: str = Field(max_length=40)
    answer: str = Field(max_length=MOST_CHARACTERS)
    seconds: Number = Field(description="that the item was on a page in sight")
    details: dict[Name, Number] = Field({}, max_length=MOST_DETAILS, description="what else the page measured")
    position: int = Field(0, ge=0, description="the item's place in this reader's order")
    at: str = Field("", max_length=40, description="when it was taken, in UTC")


def assign(items: Sequence[StudyItem], reader: str, config: StudyConfig) -> list[Assigned]:
    """What this reader sees, in this order. The same seed, items and reader give the same.

    Strata come in equal numbers as far as they last. With arms per item, each stratum goes round the arms, from a drawn
    one on, so that a reader sees each arm as often as any other to within one item a stratum.
    """
    draw = random.Random(json.dumps([config.seed, reader]))
    strata = defaultdict[str, list[StudyItem]](list)
    for item in items:
        strata[item.stratum].append(item)
    for _, several in sorted(strata.items()):
        draw.shuffle(several)
    turns = zip_longest(*(several for _, several in sorted(strata.items())))
    drawn = [item for turn in turns for item in turn if item is not None][: config.per_reader]
    start = {stratum: draw.randrange(2**16) for stratum in ["", *sorted(strata)]}
    assigned, seen = [], defaultdict[str, int](int)
    for item in drawn:
        arms = sorted(item.shown)
        number = start[""] if config.arms == "per reader" else start[item.stratum] + seen[item.stratum]
        seen[item.stratum] += 1
        assigned.append(Assigned(item, arms[number % len(arms)]))
    draw.shuffle(assigned)
    return assigned


def read_records(folder: Folder) -> list[Record]:
    """The records of a study, of each reader and item the first. Raises InputError for a file that is damaged, or was
    not written by a study; files that a page without a server gave may lie among them."""
    found: dict[tuple[str, str], Record] = {}
    for file in line_files(folder):
        for row in read_rows(folder, file, "take the file away, or restore it from a copy"):
            try:
                record = Record.model_validate(row)
            except ValidationError as error:
                first = error.errors()[0]
                what = f"this is no record of a study: {'.'.join(map(str, first['loc']))}: {first['msg']}"
                raise InputError(what, where=folder.file(file)) from None
            known = found.get((record.reader, record.item))
            if known is None or record.at < known.at:
                found[record.reader, record.item] = record
    return sorted(found.values(), key=lambda one: (one.at, one.reader, one.position))


class OpenRequest(Config):
    """Who reads."""

    reader: Reader


class OpenItem(Config):
    """An item as the page shows it."""

    item: str
    arm: str
    shown: dict[str, Any]
    done: bool


class OpenAnswer(Config):
    """All items of a reader in their order."""

    items: tuple[OpenItem, ...]


class RecordAnswer(Config):
    """Whether the record was written; False: there was one for this item."""

    kept: bool


class Study:
    """What a server loads: items, and the folder for the records. `choices` are the answers that are taken; none: any
    text."""

    def __init__(
        self, items: Sequence[StudyItem], folder: Folder, config: StudyConfig, choices: Sequence[str] = ()
    ) -> None:
        self.items, self.folder, self.config = items, folder, config
        self._choices = tuple(choices)
        self._file = f"records-{uuid.uuid4().hex[:12]}.jsonl"  # of this process alone
        self._lock = threading.Lock()
        self._done = defaultdict[str, set[str]](set)
        self._refresh()

    def open(self, request: OpenRequest) -> OpenAnswer:
        """A reader's items. Raises InputError if the study has all the readers that it takes."""
        with self._lock:
            self._refresh()
            done = self._readable(request.reader)
        given = assign(self.items, request.reader, self.config)
        shown = (OpenItem(item=i.id, arm=arm, shown=i.shown[arm], done=i.id in done) for i, arm in given)
        return OpenAnswer(items=tuple(shown))

    def record(self, request: Record) -> RecordAnswer:
        """Write a record. Raises InputError for one that this reader cannot give: of another item or arm, or with an
        answer that is none."""
        given = {
            one.item.id: (place, one.arm) for place, one in enumerate(assign(self.items, request.reader, self.config))
        }
        if given.get(request.item, (0, None))[1] != request.arm:
            what = f"the reader {request.reader} has no item {request.item[:80]!r} shown as {request.arm!r}"
            raise InputError(what, fix="reload the page")
        if self._choices and request.answer not in self._choices:
            raise InputError(f"the answer is none of {', '.join(self._choices)}")
        told = {"at": datetime.now(UTC).isoformat(timespec="microseconds"), "position": given[request.item][0]}
        record = request.model_copy(update=told | {"answer": storable(request.answer)})
        with self._lock:
            done = self._readable(request.reader)
            if request.item in done:
                return RecordAnswer(kept=False)
            append_row(self.folder, self._file, record.model_dump(mode="json"))
            self._done[request.reader].add(request.item)
        return RecordAnswer(kept=True)

    def finished(self) -> list[Record]:
        """The records of readers who have answered all of their items: what is told of them tells no reader how an
        item that they still have to judge is."""
        records = read_records(self.folder)
        by_reader = defaultdict[str, set[str]](set)
        for record in records:
            by_reader[record.reader].add(record.item)
        whole = {
            reader
            for reader, done in by_reader.items()
            if all(one.item.id in done for one in assign(self.items, reader, self.config))
        }
        return [record for record in records if record.reader in whole]

    def _readable(self, reader: str) -> set[str]:
        """What a reader has answered. Raises InputError for one too many."""
        if reader in self._done:
            return self._done[reader]
        if len(self._done) >= self.config.most_readers:
            raise InputError(f"the study has its {self.config.most_readers:,} readers", fix="raise most_readers")
        return set()

    def _refresh(self) -> None:
        for record in read_records(self.folder):
            self._done[record.reader].add(record.item)


def check_items(items: Iterable[StudyItem]) -> list[StudyItem]:
    """The items, each once. Raises InputError for none, for an id that stands twice, and for items with other arms than
    the first has."""
    found: dict[str, StudyItem] = {}
    for item in items:
        if item.id in found:
            raise InputError("an id stands twice", where=f"item {item.id}")
        found[item.id] = item
        if item.shown.keys() != next(iter(found.values())).shown.keys():
            raise InputError("not the arms of the items before", where=f"item {item.id}")
    if not found:
        raise InputError("there is nothing to read")
    return list(found.values())
