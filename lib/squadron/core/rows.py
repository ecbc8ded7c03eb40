"""Work over rows on Ray Data: every row is answered once, failed rows are kept and retried, and a restart goes on.

Workers write their answers themselves, as Parquet parts in the stage folder, so nothing large passes through the
driver. A part is named by its row, so that a row answered twice (a worker lost after writing) is kept once.

Ray Data's own checkpointing by id column was looked at: it counts every written row as finished, failures too, so it
cannot retry them; here a row is finished when its part says `ok`.
"""

from __future__ import annotations

import faulthandler
import hashlib
import io
import json
import logging
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from squadron.core import console
from squadron.core.errors import InputError, ResourceError, SquadronError, WorkerError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources

if TYPE_CHECKING:
    from squadron.core.run import Stage

Row = dict[str, Any]
MAX_ATTEMPTS = 3


def map_rows(
    stage: Stage,
    rows: Sequence[Row],
    function: Callable[..., Any],
    *,
    key: str = "id",
    unit: str = "row",
    timeout_s: float = 600.0,
    resources: WorkerResources | None = None,
    batch_size: int = 1,
    **constructor_arguments: Any,
) -> list[Row]:
    """Answer every row with `function(row) -> dict` on the cluster; return the answers that succeeded, in row order.

    `function` is a plain function, or a class that is built once a worker with `constructor_arguments` and then called.
    Rows and answers are JSON values; `rows[i][key]` identifies a row across restarts. A row that raises, that overruns
    `timeout_s`, or that kills its worker three times is kept as a failure with its cause: `stage.failures()` lists
    them, and the next run tries them again. `resources` of a worker are the profile's unless given. A worker is handed
    `batch_size` rows, each answered and kept by itself: more than one where a row takes less than a second or so, of
    which the handing over would be a good part.

    Raises InputError on missing or repeated ids before work starts, WorkerError if the cluster is lost.
    """
    ids = _checked_ids(rows, key)
    parts = stage.folder / "rows"
    answers = _read_parts(parts, ids)
    pending = [row for row in rows if not answers.get(str(row[key]), {}).get("ok")]
    if len(pending) < len(rows):
        console.say(f"  {len(rows) - len(pending)} of {len(rows)} were done before")
    if pending:
        stale = {f"{_part_name(str(row[key]))}.parquet" for row in pending} & set(parts.ls())
        for name in stale:  # failures; what is there from now on is this run's
            parts.remove(name)
        _compute(
            stage,
            pending,
            function,
            key,
            unit,
            timeout_s,
            parts,
            resources,
            batch_size,
            constructor_arguments,
        )
        answers = _read_parts(parts, ids)
    lost = {"ok": False, "error": "its worker was lost before it answered"}
    answers = {identifier: answers.get(identifier, lost) for identifier in ids}
    failures = {identifier: answer["error"] for identifier, answer in answers.items() if not answer["ok"]}
    for identifier, error in failures.items():
        stage.fail(identifier, error)
    if failed := len(failures):
        console.say(
            f"  [yellow]{failed} of {len(rows)} failed[/yellow]; they are kept and the next run tries them again"
        )
    return [json.loads(answers[i]["answer"]) for i in ids if answers[i]["ok"]]


def _compute(
    stage: Stage,
    pending: list[Row],
    function: Callable[..., Any],
    key: str,
    unit: str,
    timeout_s: float,
    parts: Folder,
    resources: WorkerResources | None,
    batch_size: int,
    arguments: dict[str, Any],
) -> None:
    workers = stage.claim_workers(f"{stage.name} ({unit})", len(pending), resources)
    share = resources or stage.run.profile.worker
    import ray

    from squadron.core.progress import progress

    quiet_ray_data()
    attempts = parts / "attempts" / uuid.uuid4().hex[:8]  # a killed run's workers may still write to theirs
    answerer = (function, arguments, parts, attempts, key, timeout_s)
    form: dict[str, Any] = {"fn": _answer_batch, "fn_args": answerer, "compute": ray.data.TaskPoolStrategy(workers)}
    if isinstance(function, type):
        actors = ray.data.ActorPoolStrategy(size=workers)
        form = {"fn": _ResidentAnswerer, "fn_constructor_args": answerer, "compute": actors}
    blocks = -(-len(pending) // batch_size)
    rows = ray.data.from_items([{"row": json.dumps(row)} for row in pending], override_num_blocks=blocks)
    dataset = rows.map_batches(
        **form,
        batch_size=batch_size,
        num_cpus=share.cpus,
        num_gpus=share.gpus or None,
        memory=share.memory_gb * 2**30 or None,
    )
    try:
        with progress(len(pending), stage.name, unit) as bar:
            for batch in dataset.iter_batches(batch_size=1, prefetch_batches=0):
                for text in filter(None, batch["stop"]):
                    raise ResourceError(**json.loads(str(text)))
                bar.advance(len(batch["id"]))
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        what = f"the workers of {stage.name} stopped: {last[0]}"
        raise WorkerError(what, fix="give the same command again to go on") from error


def quiet_ray_data() -> None:
    """The stage has a progress bar of its own; Ray Data's logs still go to its log files."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


def _answer_batch(batch: dict[str, Any], *answerer: Any) -> dict[str, list[str]]:
    """A task's side: Ray reuses its process for the next row, so nothing is loaded twice."""
    return _Answerer(*answerer).batch(batch)


class _ResidentAnswerer:
    """An actor's side, for functions that are classes: built once, then called on every row."""

    def __init__(self, *answerer: Any) -> None:
        self.answerer = _Answerer(*answerer)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return self.answerer.batch(batch)


class _Answerer:
    """Answers rows and writes their parts."""

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        parts: Folder,
        attempts: Folder,
        key: str,
        timeout_s: float,
    ) -> None:
        from squadron.core.host import settle_worker

        settle_worker()
        self.function = function(**arguments) if isinstance(function, type) else function
        self.arguments = {} if isinstance(function, type) else arguments
        self.parts, self.attempts, self.key, self.timeout_s = parts, attempts, key, timeout_s

    def batch(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        rows = [json.loads(str(text)) for text in batch["row"]]
        return {"id": [str(row[self.key]) for row in rows], "stop": [self._answer_or_stop(row) for row in rows]}

    def _answer_or_stop(self, row: Row) -> str:
        """Answer a row. A full disk is not the row's fault, and no other would fare better: say so to the driver."""
        try:
            self._answer(row)
        except ResourceError as error:
            return json.dumps({"what": error.what, "where": error.where, "fix": error.fix})
        return ""

    def _answer(self, row: Row) -> None:
        name = _part_name(str(row[self.key]))
        attempt = self._count_attempt(name)
        if attempt > 1 and self.parts.exists(f"{name}.parquet"):
            return  # its worker died later, over another of the rows that it was handed
        if attempt > MAX_ATTEMPTS:
            error = f"its worker died or overran {self.timeout_s:g} s on each of {MAX_ATTEMPTS} attempts"
            return self._write(name, row, None, error, 0.0)
        started = time.monotonic()
        # A row that hangs, in C code too, takes its worker down with a stack trace; Ray starts another.
        faulthandler.dump_traceback_later(self.timeout_s, exit=True, file=2)
        try:
            answer, error = json.dumps(self.function(row, **self.arguments)), ""
        except ResourceError:
            raise
        except Exception as failure:
            ours = isinstance(failure, SquadronError)
            answer, error = None, str(failure) if ours else "".join(traceback.format_exception_only(failure)).strip()
        finally:
            faulthandler.cancel_dump_traceback_later()
        self._write(name, row, answer, error, time.monotonic() - started)

    def _count_attempt(self, name: str) -> int:
        count = 1 + (self.attempts.read_json(name) if self.attempts.exists(name) else 0)
        self.attempts.write_json(name, count)
        return int(count)

    def _write(self, name: str, row: Row, answer: str | None, error: str, seconds: float) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        record = {
            "id": str(row[self.key]),
            "ok": answer is not None,
            "answer": answer or "",
            "error": error,
            "seconds": seconds,
        }
        stream = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([record]), stream)
        self.parts.write_bytes(f"{name}.parquet", stream.getvalue())


def _checked_ids(rows: Sequence[Row], key: str) -> list[str]:
    missing = [n for n, row in enumerate(rows) if key not in row]
    if missing:
        raise InputError(f"{len(missing)} rows have no {key!r}", where=f"first is row {missing[0]}")
    repeated = [identifier for identifier, count in Counter(str(row[key]) for row in rows).items() if count > 1]
    if repeated:
        raise InputError(f"{len(repeated)} ids occur more than once", where=", ".join(repeated[:5]))
    return [str(row[key]) for row in rows]


def _read_parts(parts: Folder, ids: Sequence[str]) -> dict[str, Row]:
    """The newest answer of each row that has one. A part that cannot be read counts as not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    there = set(parts.ls())

    def read(identifier: str) -> Row | None:
        name = f"{_part_name(identifier)}.parquet"
        if name not in there:
            return None
        try:
            row: Row = pq.read_table(pa.BufferReader(parts.read_bytes(name))).to_pylist()[0]
        except (pa.ArrowInvalid, OSError, IndexError):
            return None
        return row

    with ThreadPoolExecutor(8) as threads:
        found = zip(ids, threads.map(read, ids), strict=True)
    return {identifier: row for identifier, row in found if row is not None}


def _part_name(identifier: str) -> str:
    readable = "".join(c if c.isalnum() or c in "-_" else "-" for c in identifier)[:40]
    return f"{readable}-{hashlib.sha256(identifier.encode()).hexdigest()[:8]}"
