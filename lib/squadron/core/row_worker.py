"""A worker's side of `map_rows`: it answers batches of rows and writes what the next run, or its successor, needs.

    rows/<run>-<batch>.jsonl            each line the answers of some rows: {"ids": […], "answers": […], "errors": {…}}
    rows/attempts/<run>-<batch>.jsonl   which rows of the batch were begun, so that the one that kills workers is found

Nothing here knows Ray.
"""

from __future__ import annotations

import faulthandler
import json
import math
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from squadron.core.attempts import MAX_ATTEMPTS, AttemptLog, lost_worker
from squadron.core.disk_errors import explain_disk_error, is_full
from squadron.core.errors import ResourceError, SquadronError
from squadron.core.folder import Folder
from squadron.core.json_text import from_json, to_json
from squadron.core.line_log import LineWriter, files_of, find_rows
from squadron.core.masking import mask_text
from squadron.core.row_progress import reporting

Row = dict[str, Any]

_WRITE_S = 1.0  # answers are on disk after this time at most, and the time of the row in hand
_GROWTH = 8  # a batch begins with one row; each time, at most so many times more are begun together


@dataclass(frozen=True)
class RowJob:
    """What workers do with rows, as it travels to them."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    folder: Folder
    key: str
    timeout_s: float


def answer_batch(batch: dict[str, Any], job: RowJob) -> dict[str, Any]:
    """The work of a Ray task. Ray reuses its process for the next batch, so nothing is loaded twice."""
    return RowWorker(job)(batch)


class RowWorker:
    """Answers batches of rows. In an actor it builds a `function` that is a class once, for all of them."""

    def __init__(self, job: RowJob) -> None:
        resident = isinstance(job.function, type)
        self._job = job
        self._function = job.function(**job.arguments) if resident else partial(job.function, **job.arguments)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A full disk is not a row's fault, and no other would fare better: it is told to the driver."""
        try:
            self._answer(str(batch["name"]), from_json(batch["rows"]))
            stop = ""
        except ResourceError as error:
            stop = json.dumps({"what": error.what, "where": error.where, "fix": error.fix})
        return {"name": batch["name"], "stop": stop}

    def _answer(self, name: str, rows: list[Row]) -> None:
        """Answer the rows that no earlier worker has answered.

        Rows are begun together, as many as are done in about a second, and their answers are written together. A worker
        that dies may have died of any of them: its successor begins these one by one.
        """
        attempts, size = AttemptLog(self._job.folder, name), 1
        begun = attempts.counts()
        left = self._unanswered(name, rows) if begun else list(range(len(rows)))
        with LineWriter(self._job.folder, f"{name}.jsonl") as writer:
            while left:
                answers = _Answers()
                if begun[left[0]] >= MAX_ATTEMPTS:
                    answers.errors[self._id(rows[left[0]])] = lost_worker(self._job.timeout_s)
                    writer.write_line(answers.line())
                else:
                    some = left[: 1 if begun[left[0]] else size]
                    attempts.begin(some[0], some[-1] + 1)
                    with reporting(self._job.folder, name):
                        size = self._answer_some([rows[place] for place in some], answers, writer)
                left = left[len(answers) :]

    def _answer_some(self, rows: list[Row], answers: _Answers, writer: LineWriter) -> int:
        """Answer these rows, or as many as can be begun within a second, and write the answers. Returns how many to
        begin together next."""
        function, key, watchdog = self._function, self._job.key, _Watchdog(self._job.timeout_s)
        started = now = time.monotonic()
        try:
            for row in rows:
                watchdog.begin_row(now)
                try:
                    answer = to_json(function(row))
                except ResourceError:  # not the row's fault
                    raise
                except Exception as failure:
                    if is_full(failure):
                        raise explain_disk_error(failure) or failure from failure
                    answers.errors[str(row[key])] = _cause(failure)
                else:
                    answers.ids.append(str(row[key]))
                    answers.texts.append(answer)
                now = time.monotonic()
                if now - started > _WRITE_S:
                    break
        finally:
            watchdog.rest()
            writer.write_line(answers.line())
        return max(1, min(_GROWTH * len(answers), int(len(answers) * _WRITE_S / max(now - started, 1e-6))))

    def _id(self, row: Row) -> str:
        return str(row[self._job.key])

    def _unanswered(self, name: str, rows: list[Row]) -> list[int]:
        answers, errors = read_answers(self._job.folder, files_of(self._job.folder, f"{name}.jsonl"))
        known = answers.keys() | errors.keys()
        return [place for place, row in enumerate(rows) if self._id(row) not in known]


class _Answers:
    """Answers to some rows, as JSON texts, and the causes of those that failed."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.texts: list[bytes] = []
        self.errors: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.ids) + len(self.errors)

    def line(self) -> bytes:
        ids, errors = to_json(self.ids), to_json(self.errors)
        return b'{"ids":%s,"answers":[%s],"errors":%s}' % (ids, b",".join(self.texts), errors)


class _Watchdog:
    """Ends this process, with a stack trace, if a row takes longer than `timeout_s`, also where it hangs in C code.

    Arming it starts a thread, so it is armed at most ten times a second: a row has `timeout_s` and up to a tenth of a
    second more, and at most a tenth of `timeout_s`.
    """

    def __init__(self, timeout_s: float) -> None:
        self._slack_s = min(0.1, timeout_s / 10)
        self._timeout_s, self._armed = timeout_s, -math.inf

    def begin_row(self, now: float) -> None:
        if now - self._armed >= self._slack_s:
            faulthandler.dump_traceback_later(self._timeout_s + self._slack_s, exit=True, file=2)
            self._armed = now

    def rest(self) -> None:
        faulthandler.cancel_dump_traceback_later()


def _cause(failure: Exception) -> str:
    """What a row's failure is kept as: our own errors speak for themselves."""
    if isinstance(failure, SquadronError):
        return str(failure)
    return mask_text("".join(traceback.format_exception_only(failure)).strip())


def read_answers(folder: Folder, files: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The answers and the errors in these files, by the ids of their rows; of several, the last. Lines that hold
    anything else count as not there: their rows are answered again."""
    answers: dict[str, Any] = {}
    errors: dict[str, str] = {}
    with ThreadPoolExecutor(8) as threads:
        for lines in threads.map(partial(find_rows, folder), files):
            for line in lines:
                match line:
                    case {"ids": [*ids], "answers": [*found], "errors": {**failed}} if len(ids) == len(found):
                        answers.update(zip(map(str, ids), found, strict=True))
                        errors.update({str(row): str(cause) for row, cause in failed.items()})
    return answers, errors
