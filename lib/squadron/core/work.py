"""Work for several clients in one process: it can be called off while a thread computes it, and its steps take turns.

Code that computes for long says where a step ends, and knows nothing of requests:

    for batch in batches:
        take_turns()
        compute(batch)

Outside of such work `take_turns` does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
_MOST_THREADS = 256
_SLICE_S = 0.02
"""For so long work goes on before it looks whether others wait."""
_LOOK_EVERY_S = 0.2
_FORGET_S = 10.0
"""After so long a client's use counts for less by a factor e."""


class CalledOff(BaseException):
    """The work around is wanted no longer. No Exception: whatever catches those must not go on with it."""


class Usage:
    """Seconds of computing that clients have used lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._used: dict[str, tuple[float, float]] = {}

    def of(self, client: str) -> float:
        """What a client has used."""
        used, at = self._used.get(client, (0.0, 0.0))
        return used * math.exp((at - self._clock()) / _FORGET_S)

    def note(self, clients: Sequence[str], seconds: float) -> None:
        """These have used it together."""
        now = self._clock()
        self._used = {one: known for one, known in self._used.items() if now - known[1] < 10 * _FORGET_S}
        for client, share in Counter(clients).items():
            self._used[client] = (self.of(client) + seconds * share / len(clients), now)


class Turns:
    """Lets one piece of work compute at a time: of those that wait, one of the client that has used the least lately,
    and of its own the one that has used the least."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._changed = clock, threading.Condition()
        self._waiting: list[Work] = []
        self._running: Work | None = None
        self._since = 0.0
        self._usage = Usage(clock)

    def take(self, work: Work) -> None:
        """Wait for a turn. Raises CalledOff."""
        with self._changed:
            self._waiting.append(work)
            try:
                while self._running is not None or self._next() is not work:
                    self._changed.wait(_LOOK_EVERY_S)
                    work.check()
                self._running, self._since = work, self._clock()
            finally:
                self._waiting.remove(work)
                self._changed.notify_all()

    def give_back(self, work: Work) -> None:
        """End a turn, if this work has it."""
        with self._changed:
            if self._running is work:
                self._note(work, self._clock() - self._since)
                self._running = None
                self._changed.notify_all()

    def pass_on(self, work: Work) -> None:
        """Let others go first that have used less. Raises CalledOff."""
        if self._clock() - self._since < _SLICE_S:
            return
        with self._changed:
            now = self._clock()
            if self._running is not work or now - self._since < _SLICE_S:
                return
            self._note(work, now - self._since)
            self._since = now
            rival = self._next()
            if rival is None or self._use(rival) >= self._use(work):
                return
            self._running = None
            self._changed.notify_all()
        self.take(work)

    def _next(self) -> Work | None:
        return min(self._waiting, key=self._use, default=None)

    def _use(self, work: Work) -> tuple[float, float]:
        """Seconds that its client has used lately, and it itself."""
        return self._usage.of(work.client), work.used_s

    def _note(self, work: Work, seconds: float) -> None:
        work.used_s += seconds
        self._usage.note([work.client], seconds)


class Work:
    """What one request of a client takes, until `within_s` seconds from now; its steps take turns with others'."""

    def __init__(self, client: str = "", within_s: float | None = None, turns: Turns | None = None) -> None:
        self.client, self.used_s, self._turns = client, 0.0, turns
        self._until = None if within_s is None else time.monotonic() + within_s
        self._off = threading.Event()

    def call_off(self) -> None:
        """End it at its next step. From any thread."""
        self._off.set()

    def check(self) -> None:
        """Raises CalledOff if it was called off, or its time is over."""
        if self._off.is_set() or (self._until is not None and time.monotonic() > self._until):
            raise CalledOff

    def step(self) -> None:
        """The end of a step. Raises CalledOff."""
        self.check()
        if self._turns is not None:
            self._turns.pass_on(self)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Compute when it is this work's turn. Raises CalledOff."""
        if self._turns is None:
            yield
            return
        self._turns.take(self)
        try:
            yield
        finally:
            self._turns.give_back(self)


_current: contextvars.ContextVar[Work | None] = contextvars.ContextVar("squadron_work", default=None)
_threads = ThreadPoolExecutor(_MOST_THREADS, "work")


def current() -> Work:
    """The work that is being done; outside of any, work of its own."""
    return _current.get() or Work()


@contextlib.contextmanager
def doing(work: Work) -> Iterator[Work]:
    """What happens inside is this work, in threads of `in_thread` too."""
    before = _current.set(work)
    try:
        yield work
    finally:
        with contextlib.suppress(ValueError):  # an asynchronous generator may be closed by another task than began it
            _current.reset(before)


def take_turns() -> None:
    """A step of the work at hand has ended: others have their turn. Raises CalledOff if it is wanted no longer."""
    if (work := _current.get()) is not None:
        work.step()


async def in_thread(call: Callable[..., Result], *arguments: object, alone: bool = True) -> Result:
    """What a call gives that is computed in a thread, as part of the work at hand: when it is its turn, or next to
    others if it need not be `alone`. Raises TimeoutError when its time is over. Cancelled, it ends that work at its
    next step, and returns when the thread has ended."""
    work = current()

    def compute() -> Result:
        with doing(work), work.turn() if alone else contextlib.nullcontext():
            work.check()
            return call(*arguments)

    future = asyncio.get_running_loop().run_in_executor(_threads, contextvars.copy_context().run, compute)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        work.call_off()
        await _ended(future)
        raise
    except CalledOff:
        raise TimeoutError from None


async def _ended(future: asyncio.Future[Result]) -> None:
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # nobody else looks at it
