"""A supervised pool of long-lived workers: every wait has a deadline, and a lost worker loses no work.

    with ActorPool(lambda: Searcher(model), count=4, resources=WorkerResources(cpus=1), purpose="tree search") as pool:
        for outcome in pool.map("search", [(question,) for question in questions], timeout_s=60):
            print(outcome.key, outcome.failure or outcome.value)

Each worker is one Ray actor that holds the object made by the factory and runs its methods one at a time. A worker
that dies is replaced and its task tried again elsewhere; a task past its deadline costs its worker, which is
replaced; a task that raises costs nothing.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from squadron.core.attempts import MAX_ATTEMPTS
from squadron.core.cluster import Cluster
from squadron.core.errors import WorkerError
from squadron.core.host import Host, last_lines, oom_kills
from squadron.core.profile import WorkerResources

_GB = 1024**3
_LONGEST_WAIT_S = 3600.0  # at a time; Ray takes no endless wait
_FEW = 64  # entries of tasks that have ended, which may stay in a heap
_TURNS = itertools.count(1)
_MAX_STARTS = 3  # in a row; a worker that cannot start that often is given up

Cause = Literal["raised", "died", "memory", "timeout", "start"]
_ADVICE: dict[Cause, str] = {
    "raised": "fix the error above; the worker lives on",
    "died": "read the last lines above; a process that was killed from outside runs again with the same command",
    "memory": "use fewer workers on a node (max_workers), reserve memory_gb for each, or make the task smaller",
    "timeout": "raise the deadline (timeout_s) or make the task smaller",
    "start": "fix the error above; if there is none, other work holds the CPUs, GPUs or memory: lower max_workers",
}


@dataclass(frozen=True)
class Failure:
    """Why a task has no result: which worker, what happened, its last words, and what to do next."""

    cause: Cause
    message: str
    detail: str = ""  # the traceback, or Ray's own account
    worker: int = -1
    pid: int = 0
    node: str = ""
    log_lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        who = f" (worker {self.worker}, pid {self.pid}, node {self.node})" if self.worker >= 0 else ""
        lines = [self.message + who]
        lines += [self.detail.rstrip()] if self.detail else []
        lines += ["last lines of its log:", *(f"  {line}" for line in self.log_lines)] if self.log_lines else []
        return "\n".join([*lines, f"next: {_ADVICE[self.cause]}"])

    def error(self) -> WorkerError:
        """The same as an error for the user."""
        text = "\n".join([self.message, self.detail.rstrip(), *self.log_lines]).strip()
        where = f"worker {self.worker}, pid {self.pid}, node {self.node}"
        return WorkerError(text, where=where, fix=_ADVICE[self.cause])


@dataclass(frozen=True)
class Outcome:
    """What became of the task `key`: its value, or its failure."""

    key: Hashable
    value: Any = None
    failure: Failure | None = None


@dataclass
class _Task:
    key: Hashable
    method: str
    args: tuple[Any, ...]
    timeout_s: float
    deaths: int = 0


@dataclass
class _Slot:
    """One place in the pool: the actor that fills it now, and what it is doing."""

    index: int
    actor: Any = None
    pending: ray.ObjectRef | None = None  # its start, or its task
    task: _Task | None = None
    deadline: float = math.inf
    turn: int = 0  # tells what it does now from what it did before
    starts: int = 0
    about: dict[str, Any] = field(default_factory=dict)


class ActorPool:
    """`count` workers made by `factory`, each reserving `resources`.

    `factory` is called in the worker, after its thread counts are set to its CPUs. `max_retries` is how often a
    task may lose its worker before it is reported as failed.

    Raises ResourceError at once if the workers can never fit on the cluster, and WorkerError if the factory fails or
    the workers have not all started after `start_timeout_s`.
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        count: int,
        resources: WorkerResources,
        *,
        purpose: str = "this stage",
        start_timeout_s: float = 120,
        max_retries: int = MAX_ATTEMPTS - 1,
        log_lines: int = 20,
    ) -> None:
        Cluster().require(count, resources, purpose)
        self._purpose, self._resources, self._start_timeout_s = purpose, resources, start_timeout_s
        self._max_retries, self._log_lines = max_retries, log_lines
        self._factory = cloudpickle.dumps(factory)
        self._queue: deque[_Task] = deque()
        # What an event costs must not grow with the number of workers: nothing below is made anew for each.
        self._idle: list[tuple[int, _Slot]] = []  # a heap: the first of them is given the next task
        self._waiting: dict[ray.ObjectRef, _Slot] = {}
        self._ready: deque[ray.ObjectRef] = deque()
        self._deadlines: list[tuple[float, int, _Slot]] = []  # a heap, in which some have ended meanwhile
        self._running = 0
        self._oom_kills = oom_kills()
        self._slots = [_Slot(index) for index in range(count)]
        self._opening = True  # the first start of all; a failure then is the user's to see at once
        try:
            for slot in self._slots:
                self._start(slot)
            while len(self._idle) < len(self._slots):
                self._step(math.inf)
        except BaseException:
            self.close()
            raise
        self._opening = False

    def __enter__(self) -> ActorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that have started."""
        return [slot.about["pid"] for slot in self._slots if slot.about]

    @property
    def outstanding(self) -> int:
        """Tasks that are queued or running."""
        return len(self._queue) + self._running

    def submit(self, key: Hashable, method: str, *args: Any, timeout_s: float) -> None:
        """Queue a call of the worker's `method`; the deadline counts from the moment it starts to run."""
        self._queue.append(_Task(key, method, args, timeout_s))
        self._dispatch()

    def poll(self, timeout_s: float) -> Outcome | None:
        """The next outcome, in the order of completion, or None if none came within `timeout_s`.

        Raises WorkerError if no worker is left and none can be started.
        """
        until = time.monotonic() + timeout_s
        while self.outstanding:
            self._dispatch()
            outcome = self._step(until)
            if outcome is not None:
                self._dispatch()
                return outcome
            if time.monotonic() >= until:
                return None
        return None

    def map(self, method: str, items: Iterable[tuple[Any, ...]], *, timeout_s: float) -> Iterator[Outcome]:
        """Call `method(*item)` for every item; outcomes come as completed, keyed by the item's position."""
        for position, item in enumerate(items):
            self.submit(position, method, *item, timeout_s=timeout_s)
        while self.outstanding:
            outcome = self.poll(timeout_s)
            if outcome is not None:
                yield outcome

    def abandon(self) -> list[Outcome]:
        """Give up all that is queued or running, and report it as timed out. Workers that were busy are replaced."""
        outcomes = [Outcome(task.key, failure=Failure("timeout", "its turn never came")) for task in self._queue]
        self._queue.clear()
        busy = [slot for slot in self._slots if slot.task is not None]
        return outcomes + [outcome for slot in busy if (outcome := self._overrun(slot))]

    def close(self) -> None:
        """Stop all workers."""
        self._queue.clear()
        for slot in self._slots:
            self._kill(slot)

    def _start(self, slot: _Slot) -> None:
        host = ray.remote(Host).options(
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            memory=int(self._resources.memory_gb * _GB) or None,
            max_restarts=0,
        )
        slot.actor = host.remote(self._factory, max(1, int(self._resources.cpus)), sys.path)
        slot.about = {}
        self._expect(slot, slot.actor.start.remote(), self._start_timeout_s)
        slot.starts += 1

    def _dispatch(self) -> None:
        while self._queue and self._idle:
            slot = heapq.heappop(self._idle)[1]
            slot.task = self._queue.popleft()
            self._running += 1
            self._expect(slot, slot.actor.call.remote(slot.task.method, slot.task.args), slot.task.timeout_s)

    def _expect(self, slot: _Slot, pending: ray.ObjectRef, timeout_s: float) -> None:
        """Note what a slot does from now on, and until when."""
        slot.pending, slot.deadline, slot.turn = pending, time.monotonic() + timeout_s, next(_TURNS)
        self._waiting[pending] = slot
        heapq.heappush(self._deadlines, (slot.deadline, slot.turn, slot))
        if len(self._deadlines) > 2 * len(self._slots) + _FEW:
            self._deadlines = [(one.deadline, one.turn, one) for one in self._waiting.values()]
            heapq.heapify(self._deadlines)

    def _clear(self, slot: _Slot) -> None:
        """Note that a slot does nothing any more."""
        self._running -= slot.task is not None
        if slot.pending is not None:
            del self._waiting[slot.pending]
        slot.pending, slot.task, slot.deadline, slot.turn = None, None, math.inf, 0

    def _step(self, until: float) -> Outcome | None:
        """Wait for one event until the given time at most, and deal with it."""
        if not self._waiting:
            raise WorkerError(f"no worker of {self._purpose} is left", fix=_ADVICE["start"])
        while self._deadlines[0][1] != self._deadlines[0][2].turn:
            heapq.heappop(self._deadlines)
        deadline, _, first = self._deadlines[0]
        patience = max(0.0, min(until, deadline, time.monotonic() + _LONGEST_WAIT_S) - time.monotonic())
        if (slot := self._find_ready(patience)) is not None:
            return self._receive(slot)
        return self._overrun(first) if time.monotonic() >= deadline else None

    def _find_ready(self, patience: float) -> _Slot | None:
        """A slot whose start or task has ended. All that have are found together: to ask takes as long as there are
        workers."""
        if not self._ready:
            waiting = list(self._waiting)
            done, _ = ray.wait(waiting, num_returns=1, timeout=patience)
            if done and len(waiting) > 1:
                done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
            self._ready.extend(done)
        while self._ready:
            if (slot := self._waiting.get(self._ready.popleft())) is not None:
                return slot
        return None

    def _receive(self, slot: _Slot) -> Outcome | None:
        task, pending = slot.task, slot.pending
        assert pending is not None
        try:
            succeeded, value = ray.get(pending, timeout=self._start_timeout_s)
        except RayTaskError as error:  # the result could not be sent
            succeeded, value = False, str(error)
        except (RayError, GetTimeoutError) as error:
            return self._replace_dead(slot, str(error))
        if task is None and not succeeded:
            return self._replace_dead(slot, value)
        self._clear(slot)
        heapq.heappush(self._idle, (slot.index, slot))
        if task is None:
            slot.about, slot.starts = value, 0
            return None
        if succeeded:
            return Outcome(task.key, value)
        failure = self._failure(slot, "raised", f"{task.method} raised {_last_line(value)}", value)
        return Outcome(task.key, failure=failure)

    def _replace_dead(self, slot: _Slot, account: str) -> Outcome | None:
        """Replace a dead worker and queue its task again, or report the task that keeps killing workers."""
        task = slot.task
        if task is None:
            self._restart(slot, self._failure(slot, "start", "a worker failed to start", account))
            return None
        if self._ran_out_of_memory(slot, account):
            failure = self._failure(slot, "memory", f"the worker ran out of memory in {task.method}", account)
        else:
            failure = self._failure(slot, "died", f"the worker died in {task.method}")
        self._restart(slot, failure)
        task.deaths += 1
        if task.deaths > self._max_retries:
            return Outcome(task.key, failure=failure)
        self._queue.appendleft(task)
        return None

    def _overrun(self, slot: _Slot) -> Outcome | None:
        """Kill and replace a worker that is past its deadline."""
        task = slot.task
        if task is None:
            text = f"a worker of {self._purpose} had not started after {self._start_timeout_s:g} s"
            free = ray.available_resources()
            detail = f"free now: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs"
            self._restart(slot, self._failure(slot, "start", text, detail))
            return None
        elapsed = time.monotonic() - slot.deadline + task.timeout_s
        text = f"{task.method} was stopped after {elapsed:.1f} s (deadline {task.timeout_s:g} s)"
        failure = self._failure(slot, "timeout", text)
        self._restart(slot, failure)
        return Outcome(task.key, failure=failure)

    def _restart(self, slot: _Slot, failure: Failure) -> None:
        self._kill(slot)
        if self._opening or slot.starts >= _MAX_STARTS:
            self._slots.remove(slot)
        else:
            self._start(slot)
        if self._opening or not self._slots:
            raise failure.error()

    def _kill(self, slot: _Slot) -> None:
        if slot.actor is not None:
            with contextlib.suppress(Exception):  # it may be dead already, or Ray shut down
                ray.kill(slot.actor)
        slot.actor = None
        self._clear(slot)

    def _failure(self, slot: _Slot, cause: Cause, message: str, detail: str = "") -> Failure:
        lines = () if cause == "raised" or not slot.about else last_lines(slot.about, self._log_lines)
        about = slot.about or {"pid": 0, "address": "not started"}
        return Failure(cause, message, detail, slot.index, about["pid"], about["address"], lines)

    def _ran_out_of_memory(self, slot: _Slot, account: str) -> bool:
        """Ray's memory monitor says so itself; the kernel's killer on this machine leaves only a count."""
        before, self._oom_kills = self._oom_kills, oom_kills()
        here = slot.about.get("node_id") == ray.get_runtime_context().get_node_id()
        return "OUT_OF_MEMORY" in account or "OutOfMemory" in account or (here and self._oom_kills > before)


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "an error"
