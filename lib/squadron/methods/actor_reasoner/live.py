"""By the clock: the control loop never waits for a Reasoner, whatever becomes of it.

A thread of its own keeps the Reasoners (Ray actors) at work. Each takes up the newest situations when it is free; older
ones are forgotten. One that dies or is too slow is replaced; until it is back the Actor goes by what it knows.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from squadron.core.actors import ActorPool
from squadron.core.errors import WorkerError
from squadron.core.profile import WorkerResources
from squadron.methods.actor_reasoner.benchmark import Texts, World
from squadron.methods.actor_reasoner.config import LiveConfig
from squadron.methods.actor_reasoner.policy import Car
from squadron.methods.actor_reasoner.prompts import Situation, Thought, memory_words
from squadron.sim.driving.drivers import GO_FIRST, NOTHING, YIELD

_POLL_S = 0.02
_START_S = 120.0


class LiveReasoner:
    """A Reasoner in a process of its own."""

    def __init__(self, world: World, slowed_s: float) -> None:
        self._reasoner, self._slowed_s = world.open_reasoner(), slowed_s
        self._texts = Texts(world.config.embedder)
        self._texts(["nothing"])  # its model is loaded before anybody waits for a thought

    def think(self, situations: list[Situation]) -> tuple[list[Thought], dict[str, np.ndarray]]:
        """Thoughts, and the vectors of the words that the Actor will look for under them, so that its tick need not
        compute any."""
        thoughts = self._reasoner.think(situations)
        words = sorted({memory_words(thought, said) for thought in thoughts for said in (GO_FIRST, YIELD, NOTHING)})
        vectors = dict(zip(words, self._texts(words), strict=True)) if words else {}
        time.sleep(self._slowed_s)
        return thoughts, vectors


@dataclass
class Account:
    """What the Reasoners did: thoughts given, offers that nobody took up, Reasoners lost and why, and how old (in
    seconds) situations were when their thoughts came."""

    thoughts: int = 0
    unread: int = 0
    forgotten: int = 0
    lost: int = 0
    causes: list[str] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    stopped: str = ""


@dataclass(frozen=True)
class _Offer:
    cars: Sequence[Car]
    situations: Sequence[Situation]
    at_s: float


class Mailbox:
    """Where situations are left for Reasoners, and thoughts are found. `with` starts and ends the Reasoners.

    Nothing here blocks: neither `offer` nor `take` touches Ray.
    """

    def __init__(self, make: Callable[[], LiveReasoner], texts: Texts, config: LiveConfig, resources: WorkerResources):
        self._make, self._texts, self._config, self._resources = make, texts, config, resources
        self._lock = threading.Lock()
        self._newest: _Offer | None = None
        self._come: list[tuple[Sequence[Car], Sequence[Thought]]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_thinking, daemon=True)
        self._pool: ActorPool | None = None
        self._given = -1.0
        self.account = Account()

    def __enter__(self) -> Mailbox:
        """Raises WorkerError or ResourceError if no Reasoner can be started."""
        self._pool = ActorPool(
            self._make,
            self._config.reasoners,
            self._resources,
            purpose="the Reasoner",
            start_timeout_s=_START_S,
            max_retries=0,
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert self._pool is not None
        self._pool.close()

    @property
    def pids(self) -> list[int]:
        """Processes of the Reasoners."""
        return self._pool.pids if self._pool is not None else []

    def wanted(self, tick: int) -> bool:
        """Always: what nobody takes up is replaced by the next."""
        return not self.account.stopped

    def offer(self, tick: int, cars: Sequence[Car], situations: Sequence[Situation]) -> None:
        with self._lock:
            self.account.forgotten += len(self._newest.cars) if self._newest is not None else 0
            self._newest = _Offer(cars, situations, time.monotonic())

    def take(self, tick: int) -> list[tuple[Sequence[Car], Sequence[Thought]]]:
        with self._lock:
            come, self._come = self._come, []
        return come

    def _keep_thinking(self) -> None:
        pool = self._pool
        assert pool is not None
        under_way: dict[int, _Offer] = {}
        number = 0
        try:
            while not self._ended.is_set():
                if pool.outstanding < len(pool) and (offer := self._take_up()) is not None:
                    under_way[number] = offer
                    pool.submit(number, "think", list(offer.situations), timeout_s=self._config.timeout_s)
                    number += 1
                if not pool.outstanding:
                    time.sleep(_POLL_S)
                    continue
                outcome = pool.poll(_POLL_S)
                if outcome is not None:
                    offer = under_way.pop(int(outcome.key))  # type: ignore[call-overload]
                    if outcome.failure is None:
                        self._give(offer, *outcome.value)
                    else:
                        self.account.lost += 1
                        self.account.causes.append(f"{outcome.failure.cause}: {outcome.failure.message}")
        except WorkerError as error:  # none is left, and none can be started: the Actor drives on alone
            self.account.stopped = str(error)

    def _take_up(self) -> _Offer | None:
        with self._lock:
            offer, self._newest = self._newest, None
        return offer

    def _give(self, offer: _Offer, thoughts: list[Thought], vectors: dict[str, np.ndarray]) -> None:
        """What is older than what came before, of a Reasoner that took longer, is of no use any more."""
        with self._lock:
            if offer.at_s < self._given:
                self.account.forgotten += len(offer.cars)
                return
            self._given = offer.at_s
            self._texts.learn(vectors)
            self._come.append((offer.cars, thoughts))
            self.account.thoughts += len(thoughts)
            self.account.unread += sum(bool(thought.error) for thought in thoughts)
            self.account.ages_s.append(time.monotonic() - offer.at_s)


@contextlib.contextmanager
def killing(mailbox: Mailbox, every_s: float | None) -> Iterator[None]:
    """Kill the Reasoners of this machine every so often, as a power cut would; None: never."""
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(every_s):
            for pid in mailbox.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    if every_s is not None:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if every_s is not None:
            thread.join()


class Clock:
    """Ticks of real time, and how long the work of each took. A tick whose work is not done when the next one is due is
    missed."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s, self._due_s = tick_s, 0.0
        self.work_s: list[float] = []
        self.missed = 0

    def __call__(self, tick: int) -> None:
        """Wait until this tick is due."""
        now = time.monotonic()
        if tick == 0:
            self._due_s = now
            return
        self.work_s.append(now - self._due_s)
        self._due_s += self._tick_s
        if now > self._due_s:
            self.missed += 1
            self._due_s = now  # what is lost is lost: later ticks are not hurried
        else:
            time.sleep(self._due_s - now)
