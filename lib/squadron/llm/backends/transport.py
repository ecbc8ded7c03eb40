"""Posts JSON to one address: many requests at once, within its limits, each until it is answered or refused.

Requests are read in the caller's thread, as answers are given out; they are sent from an event loop in a thread of
its own, so that answers keep coming in while the caller is busy with the last one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import aiohttp

from squadron.core.errors import ConfigError
from squadron.core.json_text import from_json, storable
from squadron.core.masking import MASK, mask_text, remember_secrets
from squadron.llm.backends.rate_limits import Limits, backoff, retry_after
from squadron.llm.batch.budget import Budget, SpendCapReached
from squadron.llm.chat import Closing, ModelUnavailable, secret

PASSING = frozenset({408, 409, 429})
"""States that may pass, besides those from 500 on: the request is sent again."""


_LEAST_KEY = 20
_MOST_BYTES = 64 * 2**20
"""What an answer may be long; one that is longer is not read to its end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was made of what a server said. `tokens`: how many the server counted, None if it did not."""

    value: Any
    tokens: int | None = None
    cost_usd: float = 0.0


Amend = Callable[[bytes, Any], bytes | None]
"""Of a body that was refused and the JSON of the refusal: the body to send in its place, None if there is none."""


@dataclass(frozen=True, slots=True)
class Call:
    """A body to post. `read` makes an answer of what comes back; a ValueError of it means: send it again. `worst_usd`:
    what an attempt can cost at most. `amend` says what to send instead of a body that the server refuses. `url`:
    another than the endpoint's."""

    key: str
    body: bytes
    read: Callable[[bytes], Answer]
    tokens: float = 0.0
    worst_usd: float = 0.0
    amend: Amend | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: an answer, or an error. `seconds`: what its last attempt took. `lost`: attempts whose
    answers came and could not be used: each may have been paid for, as much as it can cost. `reserved`: attempts that
    money was set aside for."""

    call: Call
    answer: Answer | None
    attempts: int
    seconds: float
    error: str = ""
    lost: int = 0
    reserved: int = 1

    @property
    def cost_usd(self) -> float:
        return self.lost * self.call.worst_usd + (0.0 if self.answer is None else self.answer.cost_usd)


class _Passing(Exception):
    """An attempt failed in a way that may pass. `unreached`: nobody was there to hear it; `answered`: the server had
    begun to answer, so that it may have to be paid."""

    def __init__(self, cause: str, wait: float = 0.0, *, unreached: bool = False, answered: bool = False) -> None:
        super().__init__(cause)
        self.wait, self.unreached, self.answered = wait, unreached, answered


class _Refused(Exception):
    """The server will not answer this request, however often it is asked; `body` is what it answers instead."""

    def __init__(self, cause: str, body: bytes) -> None:
        super().__init__(cause)
        self.body = body


Done = SimpleQueue[tuple[Call, "asyncio.Task[Outcome]"]]


class Endpoint(Closing):
    """One address that JSON is posted to, with its connections, limits and retries."""

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str | None,
        max_concurrency: int,
        timeout_s: float,
        max_attempts: int,
        limits: Limits | None = None,
    ) -> None:
        self.url, self._key_env, self._key = url, api_key_env, secret(api_key_env)
        remember_secrets(url)
        if self._key is not None and not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(
                f"the value of {api_key_env} cannot be a key: it holds line breaks or letters not in ASCII"
            )
        self._concurrency, self._timeout_s, self._max_attempts = max_concurrency, timeout_s, max_attempts
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._contacted = self._answered = False
        self._unreached_in_a_row = 0

    def run(self, calls: Iterable[Call], budget: Budget | None = None) -> Generator[Outcome, None, None]:
        """Make every call once, in the order of completion. At most twice `max_concurrency` are read ahead.

        Closing the iterator cancels what is under way. What that may have cost is unknown and not counted.
        """
        loop, done = self._start(), Done()
        tasks: set[asyncio.Task[Outcome]] = set()
        source, held, under_way = iter(calls), None, 0
        try:
            while True:
                while under_way < 2 * self._concurrency:
                    held = held or next(source, None)
                    if held is None or (budget is not None and not budget.reserve(held.worst_usd)):
                        break
                    loop.call_soon_threadsafe(self._begin, held, budget, tasks, done)
                    held, under_way = None, under_way + 1
                    if not done.empty():  # however slow the source, an answer does not wait for more than one question
                        break
                if not under_way:
                    if held is None:
                        return
                    raise _cap_reached(held)
                task = _settle(done, budget)
                under_way -= 1
                if task.cancelled():
                    raise RuntimeError("the model was closed while it was being asked")
                yield task.result()
        finally:
            if under_way and not loop.is_closed() and not sys.is_finalizing():
                # Waits with a limit: garbage collection may run this in the loop's own thread.
                stopped = asyncio.run_coroutine_threadsafe(_cancel(tasks), loop)
                concurrent.futures.wait([stopped], timeout=10)
            while not done.empty():
                _settle(done, budget)

    def close(self) -> None:
        """Cancel what is under way, close all connections and end the thread."""
        with self._lock:
            if self._thread is not None:
                self._loop.call_soon_threadsafe(self._closing.set)
                self._thread.join()
                self._thread = None

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._thread is None:
                ready: concurrent.futures.Future[None] = concurrent.futures.Future()
                self._thread = threading.Thread(target=self._work, args=(ready,), name="squadron-llm", daemon=True)
                self._thread.start()
                ready.result()
            return self._loop

    def _work(self, ready: concurrent.futures.Future[None]) -> None:
        with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
            runner.run(self._stay_open(ready))

    async def _stay_open(self, ready: concurrent.futures.Future[None]) -> None:
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._slots = asyncio.Semaphore(self._concurrency)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(self._timeout_s, 30.0)),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as self._session:
            ready.set_result(None)
            await self._closing.wait()

    def _begin(self, call: Call, budget: Budget | None, tasks: set[asyncio.Task[Outcome]], done: Done) -> None:
        task = self._loop.create_task(self._exchange(call, budget))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda task: done.put((call, task)))

    async def _exchange(self, call: Call, budget: Budget | None) -> Outcome:
        """Attempt a call until it is answered or refused. Waiting for the next attempt takes nobody's slot."""
        attempt = amendments = lost = 0
        reserved, given_up = 1, ""
        while not given_up:
            attempt += 1
            async with self._slots:
                await self._limits.admit(call.tokens)
                started = time.perf_counter()
                try:
                    answer = await self._post(call)
                    return Outcome(call, answer, attempt, time.perf_counter() - started, "", lost, reserved)
                except _Refused as error:
                    if (amended := _amend(call, error.body)) is not None:
                        call, amendments = amended, amendments + 1
                        continue
                    return Outcome(call, None, attempt, time.perf_counter() - started, str(error), lost, reserved)
                except _Passing as error:
                    failure, seconds = error, time.perf_counter() - started
            lost += failure.answered
            if attempt - amendments >= self._max_attempts:
                given_up = f"given up after {attempt} attempts"
            elif lost == reserved and not await _affordable(call, budget):
                given_up = "the cap leaves nothing for another attempt"
            else:
                reserved = max(reserved, lost + 1)
                await asyncio.sleep(max(failure.wait, backoff(call.key, attempt)))
        if failure.unreached:
            self._unreached_in_a_row += 1
            if not self._contacted or self._unreached_in_a_row >= 3 * self._concurrency:
                fix = "check base_url, and that the server is up and can be reached from this machine"
                raise ModelUnavailable(f"the model's server cannot be reached: {failure}", where=self.url, fix=fix)
        return Outcome(call, None, attempt, seconds, f"{failure} ({given_up})", lost, reserved)

    async def _post(self, call: Call) -> Answer:
        answered = False
        try:
            # A redirect is not followed: it could carry the key elsewhere.
            async with self._session.post(call.url or self.url, data=call.body, allow_redirects=False) as response:
                self._contacted, self._unreached_in_a_row = True, 0
                answered = response.status == 200
                body = self._without_key(await _read_body(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise _Passing(f"no connection: {_short(str(error))}", unreached=True) from None
        except TimeoutError:
            raise _Passing(f"no answer within {self._timeout_s:g} s", answered=answered) from None
        except aiohttp.ClientPayloadError:
            raise _Passing("the answer was cut off", answered=answered) from None
        except aiohttp.ClientResponseError:
            raise _Passing("the answer was cut off, or is not HTTP", answered=True) from None
        except aiohttp.ClientError as error:
            cause = _short(str(error)) or type(error).__name__
            raise _Passing(f"the connection broke: {cause}", answered=answered) from None
        if response.status != 200:
            raise self._failure(response, body)
        if response.content_type == "text/html" and not self._answered:  # else each attempt would count as paid
            fix = "check base_url: the address often ends with /v1, and a proxy's page of login answers like this"
            raise ModelUnavailable(f"a web page answers there, no model: {self.quoted(body)}", where=self.url, fix=fix)
        try:
            answer = call.read(body)
        except ValueError as error:
            raise _Passing(str(error), answered=True) from None
        self._answered = True
        if answer.tokens is not None:
            self._limits.correct(call.tokens, answer.tokens)
        return answer

    def _failure(self, response: aiohttp.ClientResponse, body: bytes) -> Exception:
        """The exception to raise for a state that is not 200. Pauses all requests where the server asks for it."""
        status = response.status
        said = f"status {status}: {self.quoted(body)}"
        if status in (401, 403):
            where = f"{self.url}, with the key in the variable {self._key_env}" if self._key_env else self.url
            fix = "let api_key_env name a variable that holds a key which may use this model"
            return ModelUnavailable(f"the server refuses the key: {said}", where=where, fix=fix)
        if status == 404 and not self._answered:
            fix = "check model and base_url; the address often ends with /v1"
            return ModelUnavailable(f"there is no such model or address: {said}", where=self.url, fix=fix)
        if status not in PASSING and status < 500:
            return _Refused(said, body)
        wait = retry_after(response.headers)
        if status == 429 and wait is not None:
            self._limits.pause(wait)
        return _Passing(said, wait or 0.0)

    def quoted(self, body: bytes) -> str:
        """What a server says went wrong, on one line, short, and without keys, which some servers repeat."""
        text = body.decode(errors="replace")
        try:
            said = from_json(body)
            said = said.get("error") or said.get("message") or said.get("detail") or said
            text = str(said.get("message") or said) if isinstance(said, dict) else str(said)
        except (ValueError, AttributeError):
            pass
        return _short(text.replace(self._key, MASK) if self._key else text)

    def _without_key(self, body: bytes) -> bytes:
        """An answer without the key that it was asked with, should a server repeat it: answers are kept in files. What
        local servers are given for a key, such as `not-needed`, may be words of an answer."""
        if self._key is None or len(self._key) < _LEAST_KEY or not any(map(str.isdigit, self._key)):
            return body
        for form in (self._key, json.dumps(self._key)[1:-1]):
            body = body.replace(form.encode(), MASK.encode())
        return body


def _amend(call: Call, refusal: bytes) -> Call | None:
    """The call with another body, if the server's refusal says how; None if it says nothing new."""
    if call.amend is None:
        return None
    try:
        body = call.amend(call.body, from_json(refusal))
    except ValueError:
        return None
    return None if body is None or body == call.body else replace(call, body=body)


def _settle(done: Done, budget: Budget | None) -> asyncio.Task[Outcome]:
    """Wait for the next call to end and pay for it."""
    call, task = done.get()
    if budget is not None:
        outcome = Outcome(call, None, 0, 0.0) if task.cancelled() or task.exception() is not None else task.result()
        budget.settle(outcome.reserved * call.worst_usd, outcome.cost_usd)
    return task


def _cap_reached(call: Call) -> SpendCapReached:
    fix = "raise the cap, or lower max_tokens: what an answer may cost at most must be left before it is asked for"
    what = f"the next request may cost {call.worst_usd:.6f} USD, which is more than is left"
    return SpendCapReached(what, where=f"request {call.key}", fix=fix)


async def _cancel(tasks: set[asyncio.Task[Outcome]]) -> None:
    stopped = list(tasks)
    for task in stopped:
        task.cancel()
    await asyncio.gather(*stopped, return_exceptions=True)


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _affordable(call: Call, budget: Budget | None) -> bool:
    """Set aside what another attempt can cost. False if that much is not left."""
    # A budget may ask a process elsewhere, for which the other calls of this loop do not wait.
    return budget is None or await asyncio.to_thread(budget.reserve, call.worst_usd)


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """Raises ClientPayloadError for a body that is cut off, or longer than any answer."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise aiohttp.ClientPayloadError
    return bytes(body)


def _short(text: str, length: int = 300) -> str:
    line = mask_text(" ".join(storable(text).split()))
    return line if len(line) <= length else line[: length - 1] + "…"
