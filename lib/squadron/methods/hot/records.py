"""What the stages of a HoT run hand to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.data.rows import RowsFile
from squadron.evaluate.tasks.items import Item
from squadron.methods.hot.config import Mode
from squadron.methods.hot.demonstrations import Demonstration
from squadron.methods.hot.tags import Reply, Span, Tagged

ITEM_TYPES = {
    "id": "string", "task": "string", "question": "string", "gold": "json", "kind": "string",
}  # fmt: skip
SHOWN_TYPES = {
    "task": "string", "question": "string", "highlighted": "string", "answer": "string", "where": "string",
    "line": "int64", "answer_line": "int64",
}  # fmt: skip
READ_TYPES = {
    "id": "string", "task": "string", "sample": "int64", "outcome": "string", "value": "float64", "read": "string",
    "reply": "string", "question": "json", "answer": "json", "faults": "json", "valid": "bool", "balanced": "bool",
    "coverage": "float64", "fidelity": "float64", "repaired": "int64",
}  # fmt: skip
"""One reply: `question` and `answer` are `{text, spans: [[id, start, end]]}`, `faults` are kinds."""


class Cell(NamedTuple):
    """A model in a mode."""

    model: str
    mode: Mode


class TaskSet(Config):
    """Questions that were drawn, and the demonstrations of each task."""

    items: RowsFile
    demonstrations: RowsFile
    tasks: tuple[str, ...]
    flaws: int
    dropped: int

    def asked(self, run: Folder) -> list[Item]:
        """All questions, task by task."""
        return [
            Item(row["id"], row["question"], tuple(row["gold"]), row["kind"], row["task"])
            for row in self.items.rows(run)
        ]

    def shown(self, run: Folder) -> dict[str, list[Demonstration]]:
        """The demonstrations by task, in their order."""
        found: dict[str, list[Demonstration]] = {name: [] for name in self.tasks}
        for row in self.demonstrations.rows(run):
            values = dict(row)
            found[values.pop("task")].append(Demonstration(**values))
        return found


class Scored(Config):
    """What was read of the replies in one mode, and what they cost."""

    mode: Mode
    model: str
    replies: RowsFile
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float

    @property
    def cell(self) -> Cell:
        """What it is the replies of."""
        return Cell(self.model, self.mode)


class Compared(Config):
    """The shares that are right, by model and mode, over all tasks alike, and those that could not be read; what HoT
    gains over the first mode, and the share of its replies without a fault, as means over models."""

    accuracy: dict[str, float | None]
    unparsed: dict[str, float]
    hot: float | None
    gain: float | None
    valid: float | None


def write_tagged(tagged: Tagged | None) -> dict[str, Any] | None:
    """A text with spans as JSON."""
    return None if tagged is None else {"text": tagged.text, "spans": [list(span) for span in tagged.spans]}


def read_tagged(written: Mapping[str, Any] | None) -> Tagged | None:
    """The text with spans again."""
    return None if written is None else Tagged(written["text"], tuple(Span(*span) for span in written["spans"]))


def kinds(reply: Reply) -> Sequence[str]:
    """The kinds of its faults, one each, in their order."""
    return list(dict.fromkeys(fault.kind for fault in reply.faults))
