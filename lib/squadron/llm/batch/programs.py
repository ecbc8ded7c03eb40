"""Many small programs that talk to models, side by side: what they ask is batched over actors, and answered once.

    def solve(question: str) -> Program[str]:
        (reply,) = yield Ask("solver", (ChatRequest("", user(question)),))
        return reply.text

    texts = run_programs(stage, {"1": partial(solve, "What is 6 times 7?")}, {"solver": settings})

A program is a generator: it yields what it asks, is sent the replies, and returns its result. It keeps its state in its
own variables and takes nothing from a clock or from chance, so that its history is what it was answered. Answers are
on disk, under the content of what was asked, before a program goes on: after a crash, programs run from their beginning
over the recorded answers and are where they were. That record is also the replay of a run.
"""

from __future__ import annotations

import contextlib
import functools
import math
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from squadron.core.actors import ActorPool, Outcome
from squadron.core.errors import ResourceError, SquadronError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.core.progress import progress
from squadron.core.run import Stage
from squadron.llm.batch.answer_cache import ANSWERS, SCORES, Entry, KeyedLog, spent_usd
from squadron.llm.batch.budget import LeasedBudget, Ledger
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

T = TypeVar("T")
_LARGEST_BATCH = 4096
_START_TIMEOUT_S = 1800.0
_MANY = 2**20
_WAITS = WorkerResources(cpus=0)
"""What a worker reserves that only talks to a server: nothing that those which compute could want."""


@dataclass(frozen=True)
class Ask:
    """What a program wants to know: items for one model. It is sent the replies in the same order."""

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

    `models` are the chat and reward models that programs name. Each has as many workers as fit, which start when it is
    first asked something that is not on record, and afterwards rest until another stage of the run asks a model, or
    needs their place. A worker that dies loses of the batch in hand what was not recorded yet, which is asked again;
    one that overruns `timeout_s` for a batch is replaced. A reply may hold an error, which the program deals with; the
    next run asks that item again.

    Raises ResourceError if a model cannot be used or `cap_usd`, for all of this run folder, is reached; what was
    answered until then is kept.
    """
    results: dict[str, T] = {}
    desk = _Scheduler(stage, models, timeout_s, cap_usd)
    with contextlib.closing(desk), progress(len(programs), stage.name, unit) as bar:
        ready = deque(_Session(name, make()) for name, make in programs.items())
        while len(results) < len(programs):
            while ready:
                talk = ready.popleft()
                try:
                    ask = talk.program.send(talk.replies)  # type: ignore[arg-type]
                except StopIteration as end:
                    results[talk.name] = end.value
                    bar.advance()
                    continue
                if desk.take(talk, ask):
                    ready.append(talk)
            if len(results) < len(programs):
                ready.extend(desk.wait())
        desk.rest()
    return {name: results[name] for name in programs}


@dataclass(eq=False)
class _Session:
    """A program under way: what it asked last, and the replies that have come. Before its start there are none."""

    name: str
    program: Program[Any]
    items: tuple[Item, ...] = ()
    replies: list[Reply | None] | None = None
    missing: int = 0


class _Scheduler:
    """Where programs hand in what they ask. Equal items are asked once, whoever wants to know."""

    def __init__(self, stage: Stage, models: Mapping[str, Served], timeout_s: float, cap_usd: float | None) -> None:
        shares = {name: served_resources(settings, stage.run.profile) for name, settings in models.items()}
        computing = sum(share is not None for share in shares.values())
        ledger = functools.cache(lambda: _open_ledger(stage, cap_usd))
        self._crews = {
            name: _ModelPool(stage, name, settings, computing, timeout_s, ledger) for name, settings in models.items()
        }
        self._wanted: dict[str, list[tuple[_Session, int]]] = {}

    def rest(self) -> None:
        """All is answered: leave the workers to the next stage that asks."""
        for crew in self._crews.values():
            crew.rest()

    def close(self) -> None:
        for crew in self._crews.values():
            crew.close()

    def take(self, talk: _Session, ask: Ask) -> bool:
        """Take in what a program asks. True if all of it is on record, so that the program can go on at once."""
        crew = self._crews[ask.model]
        talk.items, talk.replies, talk.missing = ask.items, [None] * len(ask.items), 0
        for place, item in enumerate(ask.items):
            key = item_key(crew.identity, item)
            if (entry := crew.known(key)) is not None:
                talk.replies[place] = reply_of(item, entry)
                continue
            talk.missing += 1
            if key not in self._wanted:
                crew.enqueue(replace(item, key=key))
            self._wanted.setdefault(key, []).append((talk, place))
        return talk.missing == 0

    def wait(self) -> list[_Session]:
        """Wait for answers, and return the programs that can go on."""
        busy = [crew for crew in self._crews.values() if crew.dispatch()]
        ready = []
        for crew in busy:
            for entry in crew.collect(1.0 if len(busy) == 1 else 0.05):
                for talk, place in self._wanted.pop(entry["key"]):
                    assert talk.replies is not None
                    talk.replies[place] = reply_of(talk.items[place], entry)
                    talk.missing -= 1
                    if talk.missing == 0:
                        ready.append(talk)
        return ready


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
    _session: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
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
            self._pool = self._hire()
        if self._pool is None:
            return False
        while self.queue and (idle := len(self._pool) - self._pool.outstanding) > 0:
            count = min(_LARGEST_BATCH, math.ceil(len(self.queue) / idle))
            batch = [self.queue.popleft() for _ in range(count)]
            name = f"{self._session}-{self._batches:06d}"
            self._batches += 1
            self._asked[name] = batch
            post = _Assignment(self.settings, self._folder, self.ledger())
            self._pool.submit(name, "answer", post, name, batch, timeout_s=self.timeout_s)
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

    def rest(self) -> None:
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
            return [failed_entry(item, f"{self.name}: {outcome.failure.message}") for item in items]
        entries, stopped = outcome.value
        if stopped:
            fix = "mend the cause and give the same command: only what is missing is asked again"
            raise ResourceError(f"{self.name} stopped: {stopped}", fix=fix)
        return list(entries)

    def _hire(self) -> ActorPool:
        """Workers that an earlier stage left, if they are of the right kind, else new ones."""
        profile = self.stage.run.profile
        share, count = served_resources(self.settings, profile), 1
        # A process lets go of a card's memory for sure when it ends: with GPUs, another model gets other processes.
        same = self.identity if share is not None and share.gpus else ""
        self._kind = f"{share} {self.sharing} {same}"
        if (resting := self.stage.run.idle.reuse(self._kind)) is not None:
            pool: ActorPool = resting
            return pool
        if share is not None:
            special = None if share == profile.worker else share  # of usual workers, as many as were asked for
            count = max(1, self.stage.claim_workers(f"{self.stage.name} ({self.name})", _MANY, special) // self.sharing)
        else:
            self.stage.claim_cluster()
        return ActorPool(_Worker, count, share or _WAITS, purpose=self.name, start_timeout_s=_START_TIMEOUT_S)


def _open_ledger(stage: Stage, cap_usd: float | None) -> Any:
    """What all models may spend together; None without a cap."""
    import ray

    return None if cap_usd is None else ray.remote(num_cpus=0)(Ledger).remote(cap_usd, spent_usd(stage.run.folder))


@dataclass(frozen=True)
class _Assignment:
    """What a worker is to do: which model to hold, where its answers go, and whose money it spends."""

    settings: Served
    folder: Folder
    ledger: Any


class _Worker:
    """Holds one model at a time: the one that it was last asked for."""

    def __init__(self) -> None:
        self._post: _Assignment | None = None
        self._model: Any = None

    def answer(self, post: _Assignment, name: str, items: Sequence[Item]) -> tuple[list[Entry], str]:
        """Entries for all items, and what stopped the model, if something did. What another worker recorded of this
        batch before it died is not asked again."""
        log, file = KeyedLog(post.folder), f"{name}.jsonl"
        entries = log.read(file)
        left = [item for item in items if item.key not in entries]
        try:
            with log.writer(file) as writer:
                for entry in _recorded(answer(self._hold(post), left), writer):
                    entries[entry["key"]] = entry
        except (SquadronError, MemoryError) as error:
            return [], str(error) or type(error).__name__
        return [entries[item.key] for item in items], ""

    def _hold(self, post: _Assignment) -> Any:
        if self._post != post:
            if self._model is not None:
                self._model.close()
            self._post, self._model = None, None
            self._model = open_served(post.settings, LeasedBudget(post.ledger) if post.ledger is not None else None)
            self._post = post
        return self._model


def _recorded(entries: Iterator[Entry], writer: Any) -> Iterator[Entry]:
    for entry in entries:
        writer.write(entry)
        yield entry
