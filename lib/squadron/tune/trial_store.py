"""What a sweep knows of its trials, in files that anybody can read: after a kill, a sweep resumes from these alone.

    runs/sweep-flame-demo/
        best.yaml               the winner's configuration, ready to run
        trials/007-3f2a91/      an ordinary run folder
        records/007-3f2a91/
            trial.json          settings, status, value
            curve.jsonl         what the run logged of the metric
            log.txt             what it printed

Ray Tune could restore its own state; that unpickles, cannot be given more trials, and repeats what ended after its last
snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from squadron.core.config import fingerprint
from squadron.core.folder import Folder
from squadron.core.line_log import read_rows
from squadron.tune.space import Settings
from squadron.tune.spec import Record


@dataclass(frozen=True)
class TrialStore:
    """The records of a sweep's trials; `sweep` tells them from those of other sweeps in the same folder."""

    folder: Folder
    sweep: str

    def name(self, number: int, settings: Settings) -> str:
        """The name of a trial: its number, and a few digits that stand for the settings that it began with."""
        return f"{number:03d}-{fingerprint([self.sweep, settings])[:6]}"

    def run_folder(self, name: str) -> Folder:
        return self.folder / "trials" / name

    def notes(self, name: str) -> Folder:
        return self.folder / "records" / name

    def read(self, name: str) -> Record | None:
        notes = self.notes(name)
        return Record.model_validate(notes.read_json("trial.json")) if notes.exists("trial.json") else None

    def write(self, name: str, record: Record) -> None:
        self.notes(name).write_json("trial.json", record.model_dump(mode="json"))

    def curve(self, name: str) -> list[dict[str, Any]]:
        """What the run logged of the metric, in order."""
        return read_rows(self.notes(name), "curve.jsonl", "remove the folder of this trial's records: it is run again")

    def begun(self) -> dict[str, Settings]:
        """Trials that this sweep has started, with the settings that they started with, in order of their numbers."""
        found: dict[str, Settings] = {}
        for name in sorted((self.folder / "records").ls(), key=number_of):
            notes = self.notes(name)
            if notes.exists("proposal.json") and (row := notes.read_json("proposal.json"))["sweep"] == self.sweep:
                found[name] = row["settings"]
        return found

    def propose(self, name: str, settings: Settings) -> None:
        """Note that a trial is about to begin."""
        if not self.notes(name).exists("proposal.json"):
            self.notes(name).write_json("proposal.json", {"sweep": self.sweep, "settings": settings})


def number_of(name: str) -> int:
    """The number of the trial of this name."""
    return int(name.partition("-")[0])
