"""When a server may be asked: rates it allows, pauses it asks for, and how long to wait after a failure."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_PAUSE_S = 120.0
"""What a server may ask for at most. One that wants hours is asked again after this, until the attempts run out."""

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 60.0


class TokenBucket:
    """Spreads amounts over time: no span of t seconds sees more than `per_minute` · (t + 1) / 60, or one request.

    None: no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._rate = math.inf if per_minute is None else per_minute / 60
        self._burst = self._level = max(1.0, self._rate)
        self._filled_at = time.monotonic()

    def take(self, amount: float) -> float:
        """Take `amount` out, now or on credit. Returns how many seconds to wait before using it."""
        if self._rate == math.inf:
            return 0.0
        now = time.monotonic()
        self._level = min(self._burst, self._level + (now - self._filled_at) * self._rate) - amount
        self._filled_at = now
        return max(0.0, -self._level / self._rate)

    def give_back(self, amount: float) -> None:
        """Put back what was taken and not used; below zero, take what was used beyond that."""
        self._level += amount


class Limits:
    """What one address may be asked, shared by all that ask it from one event loop."""

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._requests, self._tokens = TokenBucket(requests_per_minute), TokenBucket(tokens_per_minute)
        self._resume_at = 0.0

    async def admit(self, tokens: float) -> None:
        """Return when a request of about so many tokens may be sent."""
        wait = max(self._requests.take(1), self._tokens.take(tokens))
        try:
            if wait > 0:
                await asyncio.sleep(wait)
            while (wait := self._resume_at - time.monotonic()) > 0:
                await asyncio.sleep(wait)
        except asyncio.CancelledError:
            self._requests.give_back(1)
            self._tokens.give_back(tokens)
            raise

    def correct(self, estimated: float, used: float) -> None:
        """A request that `estimated` tokens were taken for needed `used`."""
        self._tokens.give_back(estimated - used)

    def pause(self, seconds: float) -> None:
        """Admit nothing for so long."""
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """How many seconds a server asks to be left alone, at most LONGEST_PAUSE_S. None: it does not say.

    Understands `retry-after-ms`, and `Retry-After` as seconds, also fractions, or as an HTTP date. `now`: a time stamp;
    unless given, that of the server, where it sends its `Date`: its clock may differ from ours.
    """
    seconds = _number(headers.get("retry-after-ms"), 0.001)
    if seconds is None:
        seconds = _number(headers.get("Retry-After"))
    if seconds is None:
        moment = _moment(headers.get("Retry-After"))
        if moment is None:
            return None
        if now is None:
            now = _moment(headers.get("Date"))
        seconds = moment - (time.time() if now is None else now)
    return min(max(seconds, 0.0), LONGEST_PAUSE_S)


def _moment(text: str | None) -> float | None:
    """The time stamp of an HTTP date."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


def backoff(key: str, attempt: int) -> float:
    """Seconds to wait after failed attempt number `attempt`: exponential with full jitter, the same for equal keys."""
    longest = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (attempt - 1))
    return longest * random.Random(f"{attempt} {key}").random()


def _number(text: str | None, scale: float = 1.0) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value * scale if math.isfinite(value) else None
