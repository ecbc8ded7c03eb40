"""Many questions to models on pools of actors: every key is answered once, and a restart asks for what is missing.

A pool serves one or several members (models, reward models) that need the same share of a node; each of its actors
holds one member at a time. Work comes in parts: some row numbers of one member. A worker writes each answer to its
member's log as it comes; only counts pass through the driver.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from squadron.core import console
from squadron.core.attempts import MAX_ATTEMPTS, AttemptLog, lost_worker, new_session
from squadron.core.errors import ResourceError, SquadronError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.core.run import Stage
from squadron.llm.batch.answer_cache import Entry, KeyedLog
from squadron.llm.batch.budget import Budget, LeasedBudget, open_ledger

_REPORT_S = 0.5


class Member(Protocol):
    """One of a pool's models at work. It travels to the workers, so it holds settings and paths, not weights."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def open(self, budget: Budget) -> contextlib.AbstractContextManager[Any]:
        """Load it. Raises ResourceError if it cannot be used at all."""

    def keys(self, rows: Sequence[int]) -> list[str]:
        """The key of each row."""

    def answer(self, opened: Any, rows: Sequence[int]) -> Iterator[Entry]:
        """An entry for each row, in any order. Raises ResourceError if no more can be answered."""


@dataclass(frozen=True)
class Work:
    """A member, the rows that it has yet to answer, and the folder of its log."""

    member: Member
    rows: np.ndarray
    log: Folder
    part_size: int


@dataclass(frozen=True)
class Pool:
    """Members that share actors: each actor reserves `resources`."""

    work: tuple[Work, ...]
    resources: WorkerResources
    size: int


@dataclass
class PoolResult:
    """What a run of pools came to: counts of this run, and why members stopped, by name."""

    answered: int = 0
    failed: int = 0
    stopped: dict[str, str] = field(default_factory=dict)


def run_pools(
    stage: Stage,
    side_by_side: Sequence[Sequence[Pool]],
    *,
    unit: str,
    done: int = 0,
    cap_usd: float | None = None,
    spent_usd: float = 0.0,
) -> PoolResult:
    """Answer all rows of all pools. Each sequence of pools runs in turn, the sequences next to each other.

    `cap_usd` bounds `spent_usd` and all that this run pays, together. A member that cannot continue stops alone, and
    `PoolResult.stopped` says why. Raises WorkerError if the cluster is lost.
    """
    import ray

    from squadron.core.progress import following, progress
    from squadron.core.ray_data import explaining_lost_workers

    stage.claim_cluster()
    ledger = open_ledger(cap_usd, spent_usd)
    result = PoolResult()
    errors: list[BaseException] = []

    def in_turn(pools: Sequence[Pool]) -> None:
        try:
            for pool in pools:
                result.stopped.update(_run_pool(pool, stage.name, ledger))
        except BaseException as error:
            errors.append(error)

    def counted() -> int:
        result.answered, result.failed = ray.get(ledger.counts.remote())
        return done + result.answered + result.failed

    total = sum(len(work.rows) for pools in side_by_side for pool in pools for work in pool.work)
    threads = [threading.Thread(target=in_turn, args=[pools], daemon=True) for pools in side_by_side if pools]
    with explaining_lost_workers(stage.name), progress(done + total, stage.name, unit, done=done) as bar:
        with following(bar, counted, every_s=_REPORT_S):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]
        bar.advance(counted() - bar.done)
    for name, why in result.stopped.items():
        console.say(f"  [yellow]{console.plain(name)} stopped: {console.plain(why)}[/yellow]")
    return result


def _run_pool(pool: Pool, stage: str, ledger: Any) -> dict[str, str]:
    """Answer the rows of a pool; what stopped a member, by its name."""
    from squadron.core.ray_data import explaining_lost_workers, run_batches

    session = new_session()
    parts = [
        {"work": number, "part": f"{session}-{start:09d}", "rows": work.rows[start : start + work.part_size].tobytes()}
        for number, work in enumerate(pool.work)
        for start in range(0, len(work.rows), work.part_size)
    ]
    if not parts:
        return {}
    with explaining_lost_workers(stage):
        done = list(run_batches(parts, _PoolWorker, (pool.work, ledger), pool.size, pool.resources))
    return {pool.work[int(part["work"])].member.name: str(part["stopped"]) for part in done if part["stopped"]}


class _PoolWorker:
    """The work of an actor of a pool: it holds one member at a time."""

    def __init__(self, work: tuple[Work, ...], ledger: Any) -> None:
        self._work, self._ledger = work, ledger
        self._opened: Any = None
        self._number = -1
        self._stack = contextlib.ExitStack()

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        number, rows = int(part["work"]), np.frombuffer(part["rows"], np.int64).tolist()
        return {"work": number, "stopped": self._answer(number, str(part["part"]), rows)}

    def _answer(self, number: int, part: str, rows: list[int]) -> str:
        """Answer a part, or what is left of it if its last worker died. Returns what stopped the member, or nothing."""
        work, file = self._work[number], f"{part}.jsonl"
        log, attempts = KeyedLog(work.log), AttemptLog(work.log, part)
        keys = dict(zip(rows, work.member.keys(rows), strict=True))
        tried = attempts.counts()[0]
        if tried:
            answered = log.read(file)
            keys = {row: key for row, key in keys.items() if key not in answered}
        tally = _Tally(self._ledger)
        with log.writer(file) as writer:
            try:
                for entry in self._entries(number, keys, tried, attempts):
                    writer.write(entry)
                    tally.add(entry)
            except (SquadronError, MemoryError) as error:
                return str(error) or type(error).__name__
            finally:
                tally.send()
        return ""

    def _entries(self, number: int, keys: dict[int, str], tried: int, attempts: AttemptLog) -> Iterator[Entry]:
        """An entry for each row. Models answer many rows at once, so all that a dead worker left are tried again."""
        if tried >= MAX_ATTEMPTS:
            yield from ({"key": key, "error": lost_worker()} for key in keys.values())
            return
        attempts.begin(0, 1)
        yield from self._work[number].member.answer(self._open(number), list(keys))

    def _open(self, number: int) -> Any:
        if number != self._number:
            self._stack.close()
            self._number = -1
            budget = LeasedBudget(self._ledger)
            self._stack.callback(budget.close)
            self._opened = self._stack.enter_context(self._work[number].member.open(budget))
            self._number = number
        return self._opened


class _Tally:
    """Counts of one worker, sent now and then."""

    def __init__(self, ledger: Any) -> None:
        self._ledger, self._answered, self._failed = ledger, 0, 0
        self._sent = time.monotonic()

    def add(self, entry: Entry) -> None:
        if entry.get("error"):
            self._failed += 1
        else:
            self._answered += 1
        if time.monotonic() - self._sent > _REPORT_S:
            self.send()

    def send(self) -> None:
        self._ledger.count.remote(self._answered, self._failed)
        self._answered = self._failed = 0
        self._sent = time.monotonic()


def refuse_stopped(result: PoolResult, asked: Callable[[], int]) -> None:
    """Raise ResourceError if members stopped; `asked` counts the rows that are still without an answer."""
    if not result.stopped:
        return
    why = "\n".join(f"{name}: {text}" for name, text in result.stopped.items())
    fix = "fix the cause and give the same command: only what is missing is asked again"
    raise ResourceError(f"{asked():,} requests are unanswered\n{why}", fix=fix)
