"""Much keyed work on pools of actors, by Ray Data: every key is answered once, and a restart asks for what is missing.

A pool serves one or several members (models, reward models) that need the same share of a node; each of its actors
holds one member at a time. Work comes in parts: some row numbers of one member. A worker writes each answer to its
member's log as it comes; only counts pass through the driver.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from squadron.core import console
from squadron.core.errors import ResourceError, SquadronError, WorkerError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.core.run import Stage
from squadron.llm.batch.answer_cache import Entry, KeyedLog
from squadron.llm.batch.budget import Budget, LeasedBudget, Ledger

MAX_ATTEMPTS = 3
_POLL_S, _REPORT_S = 0.25, 0.5


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
class Outcome:
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
) -> Outcome:
    """Answer all rows of all pools. Each sequence of pools runs in turn, the sequences beside each other.

    `cap_usd` bounds `spent_usd` and all that this run pays, together. A member that cannot go on stops alone: the
    others go on, and `Outcome.stopped` says why. Raises WorkerError if the cluster is lost.
    """
    import ray

    from squadron.core.progress import progress

    stage.claim_cluster()
    ledger: Any = ray.remote(num_cpus=0)(Ledger).remote(cap_usd, spent_usd)
    outcome = Outcome()
    errors: list[BaseException] = []

    def in_turn(pools: Sequence[Pool]) -> None:
        try:
            for pool in pools:
                outcome.stopped.update(_run_pool(pool, stage.name, ledger))
        except BaseException as error:
            errors.append(error)

    total = sum(len(work.rows) for pools in side_by_side for pool in pools for work in pool.work)
    threads = [threading.Thread(target=in_turn, args=[pools], daemon=True) for pools in side_by_side if pools]
    with progress(done + total, stage.name, unit, done=done) as bar:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(_POLL_S)
            outcome.answered, outcome.failed = ray.get(ledger.counts.remote())
            bar.advance(done + outcome.answered + outcome.failed - bar.done)
        outcome.answered, outcome.failed = ray.get(ledger.counts.remote())
        bar.advance(done + outcome.answered + outcome.failed - bar.done)
    if errors:
        _raise(errors[0], stage.name)
    for name, why in outcome.stopped.items():
        console.say(f"  [yellow]{console.plain(name)} stopped: {console.plain(why)}[/yellow]")
    return outcome


def _run_pool(pool: Pool, name: str, ledger: Any) -> dict[str, str]:
    """One Ray Data execution; what stopped a member, by its name."""
    import ray

    from squadron.core.ray_data import quiet_ray_data

    quiet_ray_data()
    session = uuid.uuid4().hex[:8]
    parts = [
        {"work": number, "part": f"{session}-{start:09d}", "rows": work.rows[start : start + work.part_size].tobytes()}
        for number, work in enumerate(pool.work)
        for start in range(0, len(work.rows), work.part_size)
    ]
    if not parts:
        return {}
    reserve = pool.resources
    answered = ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
        _Asker,
        fn_constructor_args=(pool.work, ledger),
        compute=ray.data.ActorPoolStrategy(size=min(pool.size, len(parts))),
        batch_size=1,
        num_cpus=reserve.cpus,
        num_gpus=reserve.gpus or None,
        memory=reserve.memory_gb * 2**30 or None,
    )
    stopped: dict[str, str] = {}
    for batch in answered.iter_batches(batch_size=1, prefetch_batches=0):
        for number, why in zip(batch["work"], batch["stopped"], strict=True):
            if why:
                stopped[pool.work[int(number)].member.name] = str(why)
    return stopped


class _Asker:
    """An actor of a pool."""

    def __init__(self, work: tuple[Work, ...], ledger: Any) -> None:
        from squadron.core.host import settle_worker

        settle_worker()
        self._work, self._ledger = work, ledger
        self._opened: Any = None
        self._number = -1
        self._stack = contextlib.ExitStack()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        numbers = [int(number) for number in batch["work"]]
        parts = zip(numbers, batch["part"], batch["rows"], strict=True)
        stopped = [self._part(number, str(part), np.frombuffer(rows, np.int64)) for number, part, rows in parts]
        return {"work": numbers, "stopped": stopped}

    def _part(self, number: int, part: str, rows: np.ndarray) -> str:
        """Answer a part, or what is left of it if its last worker died. Returns what stopped the member, or nothing."""
        work, file = self._work[number], f"{part}.jsonl"
        log = KeyedLog(work.log)
        keys = work.member.keys(rows.tolist())
        attempt = _count_attempt(work.log, part)
        if attempt > 1:
            answered = log.read(file)
            left = [place for place, key in enumerate(keys) if key not in answered]
            rows, keys = rows[left], [keys[place] for place in left]
        tally = _Tally(self._ledger)
        with log.writer(file) as writer:
            if attempt > MAX_ATTEMPTS:
                error = f"its worker died on each of {MAX_ATTEMPTS} attempts"
                for key in keys:
                    writer.write({"key": key, "error": error})
                    tally.add({"error": error})
                tally.send()
                return ""
            try:
                for entry in work.member.answer(self._open(number), rows.tolist()):
                    writer.write(entry)
                    tally.add(entry)
            except (SquadronError, MemoryError) as error:
                return str(error) or type(error).__name__
            finally:
                tally.send()
        return ""

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


def _count_attempt(folder: Folder, part: str) -> int:
    attempts = folder / "attempts"
    count = 1 + (int(attempts.read_json(part)) if attempts.exists(part) else 0)
    attempts.write_json(part, count)
    return count


def _raise(error: BaseException, name: str) -> None:
    import ray

    if isinstance(error, SquadronError):
        raise error
    if isinstance(error, ray.exceptions.RayError):
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        what = f"the workers of {name} stopped: {last[0]}"
        raise WorkerError(what, fix="give the same command again to go on") from error
    raise error


def refuse_stopped(outcome: Outcome, asked: Callable[[], int]) -> None:
    """Raise ResourceError if members stopped; `asked` counts the rows that are still without an answer."""
    if not outcome.stopped:
        return
    why = "\n".join(f"{name}: {text}" for name, text in outcome.stopped.items())
    fix = "mend the cause and give the same command: only what is missing is asked again"
    raise ResourceError(f"{asked():,} requests are unanswered\n{why}", fix=fix)
