"""Questions with their accepted answers, read from records."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.rehearsal import AtMost, StandIns
from squadron.data.record_files import RecordsPath
from squadron.data.records import Record, read_records
from squadron.evaluate.tasks.items import Item, Kind


class ItemsConfig(Config):
    """Where questions come from."""

    path: RecordsPath
    split: str = Field("test", description="of a hub data set")
    subset: str | None = Field(None, description="of a hub data set that has several")
    kind: Kind = Field("text", description="how answers are compared")
    id: str | None = Field(None, description="column; None: the number of the row")
    question: str = Field("question", description="column")
    passage: str | None = Field(None, description="column of a text that stands before the question")
    choices: str | None = Field(None, description="column of a list of choices, written (A), (B), … after the question")
    gold: str = Field("answer", description="column: a text, a number, true or false, or a list of these")
    marker: str | None = Field(None, description="the answer is what stands behind it in its column, such as ####")
    limit: Annotated[int | None, AtMost(12, unset=12)] = Field(None, ge=1, description="read so many at most")

    def rehearse(self, stand_ins: StandIns) -> ItemsConfig:
        """A file of the user's as it is; made up where there is none."""
        return self.model_copy(update={"path": RecordsPath(stand_ins.rows(self.path, self.split, self._made_up))})

    def _made_up(self) -> list[dict[str, Any]]:
        """Word problems under the columns that are read."""
        from squadron.methods.hot.rehearsal import made_up_problems

        gold = {"choice": "A", "boolean": "true", "date": "01/02/2003"}.get(self.kind)
        rows = []
        for number, (question, answer) in enumerate(made_up_problems()):
            row: dict[str | None, Any] = {
                self.passage: "A passage.", self.choices: [f"{answer + more}" for more in range(4)],
                self.id: f"{number}", self.question: question, self.gold: f"{self.marker or ''} {gold or answer}",
            }  # fmt: skip
            rows.append({column: value for column, value in row.items() if column is not None})
        return rows


def read_items(config: ItemsConfig, task: str) -> list[Item]:
    """All questions. Raises InputError, by file and line, for one without text or answer, and for an id twice."""
    items: list[Item] = []
    seen: dict[str, str] = {}
    for number, record in enumerate(read_records(str(config.path), config.split, config.subset)):
        if config.limit is not None and number >= config.limit:
            break
        name = str(number) if config.id is None else str(record.label(config.id, "items.id"))
        if name in seen:
            what = f"{name!r} stands for two questions: first in {seen[name]}"
            raise InputError(what, where=record.where, fix="give each question an id of its own")
        seen[name] = record.where
        items.append(Item(name, _question(record, config), _gold(record, config), config.kind, task))
    if not items:
        raise InputError("no question", where=str(config.path), fix=f"give the task {task} questions")
    return items


def _question(record: Record, config: ItemsConfig) -> str:
    parts = [record.text(config.question, "items.question", blank=False)]
    if config.passage is not None:
        parts.insert(0, record.text(config.passage, "items.passage"))
    if config.choices is not None:
        choices = record.texts(config.choices, "items.choices")
        parts += [f"({chr(ord('A') + number)}) {choice}" for number, choice in enumerate(choices)]
    return "\n".join(parts)


def _gold(record: Record, config: ItemsConfig) -> tuple[str, ...]:
    listed = isinstance(record.value(config.gold, "items.gold"), list)
    found = record.labels(config.gold, "items.gold") if listed else [record.label(config.gold, "items.gold")]
    texts = tuple(
        str(one).rpartition(config.marker or "\n####")[2].strip() if config.marker else str(one).strip()
        for one in found
    )
    if not all(texts):
        raise InputError("a question without an answer", where=record.where, fix="give its answer, or leave it out")
    return texts
