"""Which requests are at work at a service, and which wait: by their number and their work, clients in turn."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_SHARE = 0.75
"""Of a service, what one client of several can have at a time: there is room for the others when they come."""


class Busy(Exception):
    """As many requests wait as may."""


@dataclass(eq=False)
class _Waiting:
    client: str
    units: int
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Admission:
    """Lets requests to one service in: `parallel` of them with `units` of work together, while `queue` others wait.

    Of those that wait, one of the client is next that has the least at work, and of its own the first to come. Where
    too many wait, the last of the client that has the most of them is sent away. With `shared`, no client has all.
    """

    def __init__(self, parallel: int, units: int, queue: int, shared: bool) -> None:
        share = _SHARE if shared else 1.0
        self._parallel, self._units, self._queue = parallel, units, queue
        self._own_parallel, self._own_units = math.ceil(parallel * share), math.ceil(units * share)
        self._requests: Counter[str] = Counter()
        self._work: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Waiting]] = {}

    @contextlib.asynccontextmanager
    async def enter(self, client: str, units: int) -> AsyncIterator[None]:
        """Be at work with so many units. Raises Busy."""
        one = _Waiting(client, units)
        self._waiting.setdefault(client, deque()).append(one)
        self._admit()
        self._send_away()
        try:
            await one.admitted
            yield
        finally:
            self._leave(one)
            self._admit()

    def _admit(self) -> None:
        while (one := self._next()) is not None:
            self._take_out(one)
            if one.admitted.done():  # whoever waited has gone, and has yet to hear of it
                continue
            self._requests[one.client] += 1
            self._work[one.client] += one.units
            one.admitted.set_result(None)

    def _next(self) -> _Waiting | None:
        heads = (several[0] for several in self._waiting.values())
        return min(filter(self._fits, heads), key=lambda one: self._work[one.client], default=None)

    def _fits(self, one: _Waiting) -> bool:
        if not self._requests.total():
            return True
        room = (
            self._requests.total() < self._parallel
            and self._work.total() + one.units <= self._units
            and self._requests[one.client] < self._own_parallel
        )
        return room and (not self._requests[one.client] or self._work[one.client] + one.units <= self._own_units)

    def _send_away(self) -> None:
        if sum(map(len, self._waiting.values())) > self._queue:
            longest = max(self._waiting.values(), key=len)
            last = longest[-1]
            self._take_out(last)
            if not last.admitted.done():
                last.admitted.set_exception(Busy())

    def _leave(self, one: _Waiting) -> None:
        if one.admitted.done() and not one.admitted.cancelled() and one.admitted.exception() is None:
            self._requests[one.client] -= 1
            self._work[one.client] -= one.units
            self._requests, self._work = +self._requests, +self._work
        else:
            self._take_out(one)

    def _take_out(self, one: _Waiting) -> None:
        several = self._waiting.get(one.client, deque())
        with contextlib.suppress(ValueError):
            several.remove(one)
        if not several:
            self._waiting.pop(one.client, None)
