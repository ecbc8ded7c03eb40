"""State of conversations that a service keeps between requests: bounded, expiring, and in one place for all replicas.

A session is named by its client and a name of the client's, so that nobody sees another's. It holds the last few items
and how many there were. The sessions live in an actor, which outlives replicas, and ends once none is there.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from pydantic import Field

from squadron.core.config import Config

Item = tuple[str, ...]
_NAMESPACE = "squadron-sessions"
_EVERY_S, _MISSED_AFTER_S, _WAIT_S = 5.0, 60.0, 10.0


class SessionLimits(Config):
    """How much is kept. What nothing was added to for longest goes first: of one client, then of all."""

    items: int = Field(8, ge=1, description="of a session, the last ones")
    sessions: int = Field(10_000, ge=1, description="of all clients")
    sessions_per_client: int = Field(2_000, ge=1)
    characters: int = Field(64_000_000, ge=1, description="of all sessions")
    idle_s: float = Field(3600.0, gt=0, description="without anything added, after which a session is forgotten")


class Session(NamedTuple):
    """How many items there were, and the last of them."""

    length: int
    items: tuple[Item, ...]


EMPTY = Session(0, ())


class Sessions(Protocol):
    """Where sessions are kept."""

    def read(self, client: str, name: str) -> Session:
        """A client's session; one that is not known is empty."""
        ...

    def put(self, client: str, name: str, session: Session, after: int) -> bool:
        """Let this be the client's session, of which the last items are kept. False, and nothing changes, unless it had
        this many items until now."""
        ...


class LocalSessions:
    """Sessions in this process."""

    def __init__(self, limits: SessionLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()  # the one that was put last stands last
        self._names: dict[str, OrderedDict[str, None]] = {}
        self._characters = 0

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, client: str, name: str) -> Session:
        """A client's session; one that is not known, or to which nothing was added for too long, is empty."""
        self._expire()
        return self._kept[client, name].session if (client, name) in self._kept else EMPTY

    def put(self, client: str, name: str, session: Session, after: int) -> bool:
        """As `Sessions.put`."""
        if self.read(client, name).length != after:
            return False
        if (client, name) in self._kept:
            self._forget(client, name)
        kept = _Kept(Session(session.length, session.items[-self._limits.items :]), self._clock())
        self._kept[client, name] = kept
        self._characters += kept.characters
        own = self._names.setdefault(client, OrderedDict())
        own[name] = None
        if len(own) > self._limits.sessions_per_client:
            self._forget(client, next(iter(own)))
        while len(self._kept) > self._limits.sessions or self._characters > self._limits.characters:
            self._forget(*next(iter(self._kept)))
        return True

    def _expire(self) -> None:
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if self._clock() - kept.put_at <= self._limits.idle_s:
                return
            self._forget(*key)

    def _forget(self, client: str, name: str) -> None:
        self._characters -= self._kept.pop((client, name)).characters
        own = self._names[client]
        del own[name]
        if not own:
            del self._names[client]


class _Kept(NamedTuple):
    """One session."""

    session: Session
    put_at: float

    @property
    def characters(self) -> int:
        return sum(len(text) for item in self.session.items for text in item)


def open_sessions(name: str, limits: SessionLimits) -> Sessions:
    """The sessions of a service of this name: those that its other replicas have, too; without Ray, of this process."""
    import ray

    return SharedSessions(name, limits) if ray.is_initialized() else LocalSessions(limits)


class SharedSessions:
    """Sessions in an actor that all replicas of a service find by its name, and keep."""

    def __init__(self, name: str, limits: SessionLimits) -> None:
        self._name, self._limits = name, limits
        self._actor = self._find()
        threading.Thread(target=self._keep, daemon=True, name="sessions").start()

    def read(self, client: str, name: str) -> Session:
        """As `Sessions.read`."""
        found: Session = self._ask("read", client, name)
        return found

    def put(self, client: str, name: str, session: Session, after: int) -> bool:
        """As `Sessions.put`."""
        return bool(self._ask("put", client, name, session, after))

    def _ask(self, method: str, *arguments: Any) -> Any:
        """What the actor says. One that was lost with its node is replaced by an empty one."""
        import ray
        from ray.exceptions import RayActorError

        try:
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=_WAIT_S)
        except RayActorError:
            self._actor = self._find()
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=_WAIT_S)

    def _find(self) -> Any:
        import ray

        options: dict[str, Any] = {
            "name": self._name, "namespace": _NAMESPACE, "get_if_exists": True, "lifetime": "detached", "num_cpus": 0,
        }  # fmt: skip
        return ray.remote(SessionStore).options(**options).remote(self._limits)

    def _keep(self) -> None:
        from ray.exceptions import RayError

        while True:
            time.sleep(_EVERY_S)
            try:
                self._ask("keep")
            except RayError:
                continue  # the next round, or a request, finds another


class SessionStore(LocalSessions):
    """What the actor holds, for as long as some replica keeps it: once none has for a minute, its process ends."""

    def __init__(self, limits: SessionLimits) -> None:
        super().__init__(limits)
        self._kept_at = time.monotonic()
        threading.Thread(target=self._end_when_missed, daemon=True).start()

    def keep(self) -> None:
        """Stay."""
        self._kept_at = time.monotonic()

    def _end_when_missed(self) -> None:
        while (left_s := _MISSED_AFTER_S - (time.monotonic() - self._kept_at)) > 0:
            time.sleep(left_s)
        os._exit(0)
