"""What a sweep prints while it runs."""

from __future__ import annotations

from typing import Any

from ray import tune

from squadron.core import console
from squadron.core.report import format_cell
from squadron.tune.search import finished
from squadron.tune.spec import Record, SweepSpec
from squadron.tune.trial_store import TrialStore, number_of


class ProgressCallback(tune.Callback):
    """Says what became of each trial, and notes which were stopped early or lost."""

    def __init__(self, spec: SweepSpec, trial_store: TrialStore) -> None:
        self._spec, self._book, self._ended = spec, trial_store, len(finished(spec, trial_store))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Ray Tune is done with a trial: it has ended or failed, or it still runs and is stopped early."""
        name = str(trial)
        record = self._book.read(name)
        if record is None:
            return
        if record.status == "running":
            seen = (trial.last_result or {}).get(self._spec.metric)  # the run may be a step further by now
            record = record.model_copy(update={"status": "stopped", "value": seen})
            self._book.write(name, record)
        self._tell(name, record)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's actor was lost with its node, and so was each that was started in its place."""
        name = str(trial)
        settings = {key: trial.config[key] for key in self._spec.over}
        error = "its process was lost, and so were those that were started in its place"
        record = Record(number=number_of(name), settings=settings, status="failed", error=error)
        self._book.write(name, record)
        self._tell(name, record)

    def _tell(self, name: str, record: Record) -> None:
        self._ended += 1
        shown = ", ".join(f"{key} {format_cell(value)}" for key, value in record.settings.items())
        said = f"{self._spec.metric} {format_cell(record.value)}"
        if record.status == "failed":
            said = f"[red]failed[/red]: {console.plain(record.error.splitlines()[0][:160])}"
        elif record.status == "stopped":
            said += ", stopped early"
        console.say(f"  {self._ended}/{self._spec.trials}  {name}  {said}  [dim]{console.plain(shown)}[/dim]")
