"""Keys, and how much each may use."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

_NAMED = re.compile(r"([A-Za-z0-9_.-]{1,64}):(.+)")


@dataclass(frozen=True)
class Key:
    """What is kept of a key, and what logs and limits call it."""

    name: str
    digest: bytes


def read_key(text: str) -> Key:
    """A key by what stands in the environment: `name:key`, or a key, whose name is the beginning of its digest."""
    named = _NAMED.fullmatch(text)
    known = digest(named[2] if named else text)
    return Key(named[1] if named else known.hex()[:8], known)


def digest(key: str) -> bytes:
    """What tells a key from others, and does not tell it."""
    return hashlib.sha256(key.encode()).digest()


class Allowance:
    """How much each key may still use. It fills up evenly, to one minute's worth; what is used beyond it is owed."""

    def __init__(self, per_minute: Callable[[str], float | None], clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` gives the rate of a key; None: no limit."""
        self._per_minute, self._clock = per_minute, clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait_s(self, key: str, amount: float = 1.0) -> float:
        """Seconds until a key may use `amount`, or what it can ever have; 0: now."""
        rate = self._per_minute(key)
        return 0.0 if rate is None else max(0.0, (min(amount, rate) - self._now(key, rate)) * 60 / rate)

    def use(self, key: str, amount: float = 1.0) -> None:
        """Note what a key has used."""
        if (rate := self._per_minute(key)) is not None:
            self._left[key] = (self._now(key, rate) - amount, self._clock())

    def _now(self, key: str, rate: float) -> float:
        left, at = self._left.get(key, (rate, self._clock()))
        return min(rate, left + (self._clock() - at) * rate / 60)
