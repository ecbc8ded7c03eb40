"""What stands in for what a preset names: small twins of models, first rows of data sets, a strict local server."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squadron.core.config import fingerprint
from squadron.core.errors import InputError
from squadron.core.inputs import InputPath
from squadron.rehearse.small_models import hub_answers, make_twin

if TYPE_CHECKING:
    from squadron.core.rehearsal import ModelKind, Replies
    from squadron.llm.stand_in import StandIn

ROWS = 64
"""Of a data set, at most."""


class _Described(InputPath):
    """A model known by what describes it: a twin has weights of its own."""

    @classmethod
    def reads(cls, name: str) -> bool:
        return super().reads(name) and name.endswith((".json", ".txt", ".model", ".jinja"))


class LocalStandIns:
    """Stand-ins in a folder of this machine; `notes` says what stands for what, and why."""

    def __init__(self, folder: Path, replies: Replies = ()) -> None:
        self.folder, self.replies = folder, replies
        self.notes: dict[str, str] = {}
        self._server: StandIn | None = None

    def model(self, path: str, kind: ModelKind, labels: Sequence[str] = ()) -> InputPath:
        """A small model of random weights in place of the one at a hub name or in a folder; each label is a token."""
        labels = [label for label in labels if len(label) > 1]  # a character is one in any case
        known = "-".join(fingerprint(one)[:6] for one in ([_Described(path), labels] if labels else [_Described(path)]))
        place = self.folder / "models" / f"{_file_name(path)}-{kind}-{known}"
        if not place.exists():
            self.notes[path] = f"random weights, few layers; {make_twin(path, kind, place, labels)}"
        return InputPath(place)

    def rows(self, path: str, split: str, records: Callable[[], Iterable[Mapping[str, Any]]]) -> InputPath:
        """A file of the first rows of a data set that can be read here, else of these records."""
        found = self._read(path, split)
        if found is None:
            found, source = [dict(record) for record in itertools.islice(records(), ROWS)], "made up"
        else:
            source = "its first rows"
        self.notes[path] = f"{len(found)} rows, {source}"
        place = self.folder / "data" / f"{_file_name(path).partition('.')[0]}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(f"{json.dumps(row, ensure_ascii=False, default=str)}\n" for row in found))
        return InputPath(place)

    def text(self, path: str, make: Callable[[], str]) -> InputPath:
        """A file as it is where there is one, else one with this text."""
        if InputPath(path).is_local:
            return InputPath(path)
        place = self.folder / "data" / _file_name(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(make())
        self.notes[path] = "made up"
        return InputPath(place)

    def endpoint(self, model: str, base_url: str) -> str:
        """The address of a local server that takes and refuses what the named one does."""
        if self._server is None:
            from squadron.llm.stand_in import StandIn

            self._server = StandIn(self.replies).__enter__()
        address = self._server.play(model, base_url)
        self.notes[f"{model} at {base_url}"] = "a local server, as strict"
        return address

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.__exit__(None, None, None)
            self._server = None

    def _read(self, path: str, split: str) -> list[dict[str, Any]] | None:
        """The first rows of what is there; None where nothing is, or the hub cannot be asked."""
        from squadron.data.records import read_records

        place = InputPath(path)
        if not place.is_local and "://" not in path and (place.is_missing or not hub_answers()):
            return None
        try:
            found = [record.values for record in itertools.islice(read_records(path, split), ROWS)]
            if not found:
                raise InputError("there are no records", where=path, fix="give a file with some")
            return found
        except InputError:
            if place.is_local or "://" in path:
                raise
            return None  # a name that only looks like one of the hub's


def _file_name(path: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", Path(path).name if InputPath(path).is_local else path).strip("-") or "unnamed"
