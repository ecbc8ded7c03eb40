"""Many small programs that talk to models, at the same time: what they ask is batched over actors, and answered once.

    def solve(question: str) -> Program[str]:
        (reply,) = yield Ask("solver", (ChatRequest("", user(question)),))
        return reply.text

    texts = run_programs(stage, {"1": partial(solve, "What is 6 times 7?")}, {"solver": settings})

A program is a generator: it yields what it asks, is sent the replies, and returns its result. It keeps its state in its
own variables and depends on no clock and no random numbers, only on the replies. These are on disk, under the content
of what was asked, before a program is resumed. After a crash, programs run from their beginning, are sent the recorded
replies, and so arrive where they were. A finished run is replayed in the same way.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from squadron.core.attempts import lost_worker, new_session
from squadron.core.errors import ResourceError, SquadronError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.core.progress import progress
from squadron.core.run import Stage
from squadron.llm.batch.answer_cache import ANSWERS, SCORES, Entry, KeyedLog, spent_usd
from squadron.llm.batch.budget import LeasedBudget, open_ledger
from squadron.llm.batch.model_client import (
    Item,
    Reply,
    Served,
    answer,
    failed_entry,
    is_chat,
    item_key,
    log_folder,
    open_served,
    reply_of,
    served_identity,
    served_resources,
)

if TYPE_CHECKING:
    from squadron.core.actors import ActorPool, Outcome

T = TypeVar("T")
_LARGEST_BATCH = 4096
_START_TIMEOUT_S = 1800.0
_MANY = 2**20
_WAITS = WorkerResources(cpus=0)
"""What a worker reserves that only waits for a server: nothing, so that all cores are left to those that compute."""


@dataclass(frozen=True)
class Ask:
    """What a program asks: items for one model. It is sent the replies in the same order."""

    model: str
    items: tuple[Item, ...]


Program = Generator[Ask, Sequence[Reply], T]


def run_programs(
    stage: Stage,
    programs: Mapping[str, Callable[[], Program[T]]],
    models: Mapping[str, Served],
    *,
    unit: str = "problem",
    timeout_s: float = 3600.0,
    cap_usd: float | None = None,
) -> dict[str, T]:
    """Run every program to its end, and return what each returned, by its name and in the order given.

    `models` are the chat and reward models that programs name. Each has as many workers as fit. They start when the
    model is first asked something that is not on record, and then stay idle until another stage of the run asks a
    model, or needs their place. When a worker dies, what it had not recorded of its batch is asked again; a worker that
    overruns `timeout_s` for a batch is replaced. A reply may hold an error, which the program deals with; the next run
    asks that item again.

    Raises ResourceError if a model cannot be used or `cap_usd`, for all of this run folder, is reached; what was
    answered until then is kept.
    """
    results: dict[str, T] = {}
    scheduler = _Scheduler(stage, models, timeout_s, cap_usd)
    with contextlib.closing(scheduler), progress(len(programs), stage.name, unit) as bar:
        ready = deque(_Session(name, make()) for name, make in programs.items())
        while len(results) < len(programs):
            while ready:
                session = ready.popleft()
                try:
                    ask = session.program.send(session.replies)  # type: ignore[arg-type]
                except StopIteration as end:
                    results[session.name] = end.value
                    bar.advance()
                    continue
                if scheduler.take(session, ask):
                    ready.append(session)
            if len(results) < len(programs):
                ready.extend(scheduler.wait())
        scheduler.leave_idle()
    return {name: results[name] for name in programs}


@dataclass(eq=False)
class _Session:
    """A program under way: what it asked last, and the replies that have come; None before its start."""

    name: str
    program: Program[Any]
    items: tuple[Item, ...] = ()
    replies: list[Reply | None] | None = None
    missing: int = 0


class _Scheduler:
    """Passes what programs ask to the pools of models. Equal items are asked once, whichever programs wait for them."""

    def __init__(self, stage: Stage, models: Mapping[str, Served], timeout_s: float, cap_usd: float | None) -> None:
        shares = {name: served_resources(settings, stage.run.profile) for name, settings in models.items()}
        computing = sum(share is not None for share in shares.values())
        ledger = functools.cache(lambda: _open_ledger(stage, cap_usd))
        self._pools = {
            name: _ModelPool(stage, name, settings, computing, timeout_s, ledger) for name, settings in models.items()
        }
        self._waiting: dict[str, list[tuple[_Session, int]]] = {}
        self._stage = stage
        self._notes: set[tuple[str, str]] = set()

    def leave_idle(self) -> None:
        """All is answered: say what models do not take, and leave the workers to the next stage that asks."""
        for model, note in sorted(self._notes):
            self._stage.headline(f"left out for {model}", note)
        for pool in self._pools.values():
            pool.leave_idle()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def take(self, session: _Session, ask: Ask) -> bool:
        """Note what a program asks. True if all of it is on record, so that the program can be resumed at once."""
        pool = self._pools[ask.model]
        session.items, session.replies, session.missing = ask.items, [None] * len(ask.items), 0
        for place, item in enumerate(ask.items):
            key = item_key(pool.identity, item)
            if (entry := pool.known(key)) is not None:
                session.replies[place] = self._read(pool, item, entry)
                continue
            session.missing += 1
            if key not in self._waiting:
                pool.enqueue(replace(item, key=key))
            self._waiting.setdefault(key, []).append((session, place))
        return session.missing == 0

    def wait(self) -> list[_Session]:
        """Wait for answers, and return the programs that can be resumed."""
        busy = [pool for pool in self._pools.values() if pool.dispatch()]
        ready = []
        for pool in busy:
            for entry in pool.collect(1.0 if len(busy) == 1 else 0.05):
                for session, place in self._waiting.pop(entry["key"]):
                    assert session.replies is not None
                    session.replies[place] = self._read(pool, session.items[place], entry)
                    session.missing -= 1
                    if session.missing == 0:
                        ready.append(session)
        return ready

    def _read(self, pool: _ModelPool, item: Item, entry: Entry) -> Reply:
        """The reply in an entry, new or on record; what it notes is told at the end."""
        if note := entry.get("note"):
            self._notes.add((pool.name, note))
        return reply_of(item, entry)


@dataclass(eq=False)
class _ModelPool:
    """One model: its record, the items that wait for it, and its workers once there are any."""

    stage: Stage
    name: str
    settings: Served
    sharing: int
    timeout_s: float
    ledger: Callable[[], Any]
    queue: deque[Item] = field(default_factory=deque)
    _pool: ActorPool | None = None
    _kind: str = ""
    _session: str = field(default_factory=new_session)
    _batches: int = 0
    _asked: dict[str, list[Item]] = field(default_factory=dict)
    _new: dict[str, Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.identity = served_identity(self.settings)
        store = ANSWERS if is_chat(self.settings) else SCORES
        self._folder = log_folder(self.stage.run.folder / store, self.settings)
        log = KeyedLog(self._folder)
        self._index, self._reader = log.index(), log.reader()

    def known(self, key: str) -> Entry | None:
        """The answer on record; of this run also a failure, which only another run asks again."""
        if key in self._new:
            return self._new[key]
        return self._reader.read(self._index.places[key]) if self._index.answers(key) else None

    def enqueue(self, item: Item) -> None:
        self.queue.append(item)

    def dispatch(self) -> bool:
        """Give idle workers an even share each of what waits. False if there is nothing to wait for."""
        if self.queue and self._pool is None:
            self._pool = self._workers()
        if self._pool is None:
            return False
        while self.queue and (idle := len(self._pool) - self._pool.outstanding) > 0:
            count = min(_LARGEST_BATCH, math.ceil(len(self.queue) / idle))
            batch = [self.queue.popleft() for _ in range(count)]
            name = f"{self._session}-{self._batches:06d}"
            self._batches += 1
            self._asked[name] = batch
            assignment = _Assignment(self.settings, self._folder, self.ledger())
            self._pool.submit(name, "answer", assignment, name, batch, timeout_s=self.timeout_s)
        return self._pool.outstanding > 0

    def collect(self, timeout_s: float) -> list[Entry]:
        """Entries of a batch that is done; none if none was within the time."""
        assert self._pool is not None
        outcome = self._pool.poll(timeout_s)
        if outcome is None:
            return []
        entries = self._entries(outcome)
        self._new.update({entry["key"]: entry for entry in entries})
        return entries

    def leave_idle(self) -> None:
        if self._pool is not None:
            self.stage.run.idle.keep(self._kind, self._pool)
            self._pool = None

    def close(self) -> None:
        self._reader.close()
        if self._pool is not None:
            self._pool.close()

    def _entries(self, outcome: Outcome) -> list[Entry]:
        items = self._asked.pop(str(outcome.key))
        if outcome.failure is not None:
            cause = lost_worker() if outcome.failure.cause == "died" else outcome.failure.message
            return [failed_entry(item, f"{self.name}: {cause}") for item in items]
        entries, stopped = outcome.value
        if stopped:
            fix = "fix the cause and give the same command: only what is missing is asked again"
            raise ResourceError(f"{self.name} stopped: {stopped}", fix=fix)
        return list(entries)

    def _workers(self) -> ActorPool:
        """Idle workers of an earlier stage, if they are of the right kind, else new ones."""
        profile = self.stage.run.profile
        share, count = served_resources(self.settings, profile), 1
        # A process lets go of a card's memory for sure when it ends: with GPUs, another model gets other processes.
        same = self.identity if share is not None and share.gpus else ""
        self._kind = f"{share} {self.sharing} {same}"
        if (idle := self.stage.run.idle.reuse(self._kind)) is not None:
            pool: ActorPool = idle
            return pool
        if share is not None:
            special = None if share == profile.worker else share  # of usual workers, as many as were asked for
            count = max(1, self.stage.claim_workers(f"{self.stage.name} ({self.name})", _MANY, special) // self.sharing)
        else:
            self.stage.claim_cluster()
        from squadron.core.actors import ActorPool  # Ray is not waited for where a run is only planned

        return ActorPool(_Worker, count, share or _WAITS, purpose=self.name, start_timeout_s=_START_TIMEOUT_S)


def _open_ledger(stage: Stage, cap_usd: float | None) -> Any:
    """What all models may spend together; None without a cap."""
    return None if cap_usd is None else open_ledger(cap_usd, spent_usd(stage.run.folder))


@dataclass(frozen=True)
class _Assignment:
    """What a worker is told with every batch: its model, where the answers go, and the ledger of what may be spent."""

    settings: Served
    folder: Folder
    ledger: Any


class _Worker:
    """Holds one model at a time: the one that it was last asked for."""

    def __init__(self) -> None:
        self._assignment: _Assignment | None = None
        self._model: Any = None

    def answer(self, assignment: _Assignment, name: str, items: Sequence[Item]) -> tuple[list[Entry], str]:
        """Entries for all items, and what stopped the model, if something did. What another worker recorded of this
        batch before it died is not asked again."""
        log, file = KeyedLog(assignment.folder), f"{name}.jsonl"
        entries = log.read(file)
        left = [item for item in items if item.key not in entries]
        try:
            with log.writer(file) as writer:
                for entry in _recorded(answer(self._hold(assignment), left), writer):
                    entries[entry["key"]] = entry
        except (SquadronError, MemoryError) as error:
            return [], str(error) or type(error).__name__
        return [entries[item.key] for item in items], ""

    def _hold(self, assignment: _Assignment) -> Any:
        if self._assignment != assignment:
            if self._model is not None:
                self._model.close()
            self._assignment, self._model = None, None
            self._model = open_served(
                assignment.settings, LeasedBudget(assignment.ledger) if assignment.ledger is not None else None
            )
            self._assignment = assignment
        return self._model


def _recorded(entries: Iterator[Entry], writer: Any) -> Iterator[Entry]:
    for entry in entries:
        writer.write(entry)
        yield entry
