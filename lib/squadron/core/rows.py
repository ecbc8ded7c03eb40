"""Work over rows on Ray Data: every row is answered once, failed rows are kept and tried again, and a restart resumes.

    answers = map_rows(stage, [{"id": "a", "n": 3}], square)

Workers are handed rows in batches. They write the answers themselves, about once a second, to a file in the stage
folder that only the batch has (`core/row_worker.py`), so that a kill of any process costs about a second's work.

Ray Data's own checkpointing by id column counts every written row as finished, failures too, so it cannot retry them;
here a row is finished when it has an answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from squadron.core import console
from squadron.core.attempts import AttemptLog, new_session
from squadron.core.errors import InputError, ResourceError
from squadron.core.json_text import to_json
from squadron.core.line_log import line_files
from squadron.core.profile import WorkerResources
from squadron.core.progress import following, progress
from squadron.core.row_progress import read_progress
from squadron.core.row_worker import Row, RowJob, RowWorker, answer_batch, read_answers

if TYPE_CHECKING:
    from squadron.core.run import Stage

_FEW_ROWS = 300  # for a worker; with fewer, a row may well take minutes, and each is a batch of its own
_BATCHES_EACH, _LARGEST_BATCH, _LARGEST_BYTES = 32, 8192, 16 * 2**20
_FEWEST_EACH, _MANY_BATCHES = 4, 20_000  # each batch costs the driver a hundredth of a second
_MOST_ASKED = 64  # batches whose files the bar looks at; of more workers, the others are taken to be as far
_LOOK_S, _LOOK_REMOTE_S = 1.0, 10.0


def map_rows(
    stage: Stage,
    rows: Sequence[Row],
    function: Callable[..., Any],
    *,
    key: str = "id",
    unit: str = "row",
    timeout_s: float = 600.0,
    resources: WorkerResources | None = None,
    batch_size: int | None = None,
    **constructor_arguments: Any,
) -> list[Row]:
    """Answer every row with `function(row) -> dict` on the cluster; return the answers that succeeded, in row order.

    `function` is a plain function, or a class that is built once a worker with `constructor_arguments` and then called.
    Rows and answers are JSON values; `rows[i][key]` identifies a row across restarts. A row that raises, that overruns
    `timeout_s`, or that kills its worker is kept as a failure with its cause: `stage.failures()` lists them, and the
    next run tries them again. A row is given up after three attempts; the other rows of its batch are answered.

    `resources` of a worker are the profile's unless given. A worker is handed `batch_size` rows at a time: unless
    given, one where there are few rows, and up to thousands where there are many.

    Raises InputError on missing or repeated ids before work starts, ResourceError if the disk is full, and WorkerError
    if the cluster is lost. What was answered until then is kept.
    """
    ids = _checked_ids(rows, key)
    folder = stage.folder / "rows"
    answers, _ = read_answers(folder, line_files(folder))
    pending = [row for row, identifier in zip(rows, ids, strict=True) if identifier not in answers]
    if len(pending) < len(rows):
        console.say(f"  {len(rows) - len(pending)} of {len(rows)} were done before")
    errors: dict[str, str] = {}
    if pending:
        workers = stage.claim_workers(f"{stage.name} ({unit})", len(pending), resources)
        share = resources or stage.run.profile.worker
        size = batch_size or default_batch_size(len(pending), workers, len(to_json(pending[0])))
        job, session = RowJob(function, constructor_arguments, folder, key, timeout_s), new_session()
        _answer_all(stage, pending, job, session, size, workers, share, unit)
        new, errors = read_answers(folder, line_files(folder, session))
        answers |= new
    if list(answers) == ids:  # the usual case, in which looking up a million ids is saved
        return list(answers.values())
    failed = [identifier for identifier in ids if identifier not in answers]
    for identifier in failed:
        stage.fail(identifier, errors.get(identifier, "its worker was lost before it answered"))
    if failed:
        console.say(
            f"  [yellow]{len(failed)} of {len(rows)} failed[/yellow]; they are kept and the next run tries them again"
        )
    return [answers[identifier] for identifier in ids if identifier in answers]


def _answer_all(
    stage: Stage, rows: list[Row], job: RowJob, session: str, size: int, workers: int, share: WorkerResources, unit: str
) -> None:
    """Let workers answer all rows, in batches of `size`."""
    from squadron.core.ray_data import explaining_lost_workers, run_batches

    batches: list[dict[str, Any]] = [
        {"name": f"{session}-{number:06d}", "rows": to_json(rows[start : start + size])}
        for number, start in enumerate(range(0, len(rows), size))
    ]
    worker = RowWorker if isinstance(job.function, type) else answer_batch
    under_way = {str(batch["name"]): None for batch in batches}  # in the order in which they are begun

    def done() -> float:
        """Rows of finished batches, those that attempts at others have left behind, and what rows in hand report."""
        first = list(islice(under_way, min(2 * workers, _MOST_ASKED)))
        begun: float = sum(AttemptLog(job.folder, name).reached() for name in first) if size > 1 else 0
        begun += sum(read_progress(job.folder, name) for name in first)
        begun *= max(1, workers / _MOST_ASKED)
        return min((len(batches) - len(under_way)) * size + begun, len(rows))

    with explaining_lost_workers(stage.name), progress(len(rows), stage.name, unit) as bar:
        with following(bar, done, _LOOK_S if job.folder.path else _LOOK_REMOTE_S):
            for batch in run_batches(batches, worker, (job,), workers, share):
                if batch["stop"]:
                    raise ResourceError(**json.loads(str(batch["stop"])))
                del under_way[str(batch["name"])]
        bar.advance(len(rows) - bar.done)


def default_batch_size(rows: int, workers: int, bytes_each: int) -> int:
    """One row where there are few: they may take minutes each, and no worker shall have several while another has
    none. Else so many that each worker gets some dozen batches, fewer on clusters of many hundred workers, and no batch
    is large."""
    if rows < _FEW_ROWS * workers:
        return 1
    each = max(_FEWEST_EACH, min(_BATCHES_EACH, _MANY_BATCHES // workers))
    return max(1, min(rows // (workers * each), _LARGEST_BATCH, _LARGEST_BYTES // bytes_each))


def _checked_ids(rows: Sequence[Row], key: str) -> list[str]:
    try:
        ids = [str(row[key]) for row in rows]
    except KeyError:
        missing = [number for number, row in enumerate(rows) if key not in row]
        raise InputError(f"{len(missing)} rows have no {key!r}", where=f"first is row {missing[0]}") from None
    if len(set(ids)) < len(ids):
        repeated = [identifier for identifier, count in Counter(ids).items() if count > 1]
        raise InputError(f"{len(repeated)} ids occur more than once", where=", ".join(repeated[:5]))
    return ids
