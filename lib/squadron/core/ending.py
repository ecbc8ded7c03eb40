"""How a command ends when it is asked to: by Ctrl-C, by SIGTERM (Slurm, Kubernetes, systemd), or by a terminal that
closes.

The first signal raises `Ended` in the main thread, whose cleanup saves what is done. A second one ends the process at
once, and so does a thread of our own `GRACE_S` after the first: whatever the main thread does by then, be it a long
computation in C, a library that catches everything, or a thread that is waited for at exit. Since every file is whole
or absent, that loses nothing but time. Processes that this one has started, Ray's among them, end with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GRACE_S = 8.0
"""From the first signal to the end: `docker stop` kills after 10 s, Slurm and Kubernetes after 30."""
_LAST_S = 4.0
"""Of which the interpreter and Ray have so much, once the command itself has ended."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_S = 0.3
"""Signals so close together are one: `timeout` signals its child and its child's group, a closing terminal too."""


class Ended(KeyboardInterrupt):
    """A signal has asked this process to end."""


class _State:
    asked: int = 0
    """The first signal that came; 0: none."""
    deadline: float = 0.0
    pipe: int = -1
    """Wakes the watching thread."""
    closing: bool = False
    """The command is over, and the interpreter ends."""
    farewell: str = ""


_state = _State()


def heed_signals() -> None:
    """From now on, end this process in order when a signal asks for it. For a process of our own, in its main thread.

    A signal that the process was started to ignore, as by `nohup`, stays ignored.
    """
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if not heeded:
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    _state.pipe = writer
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in heeded:
        signal.signal(number, _end)
    os.register_at_fork(after_in_child=_forget)
    sys.unraisablehook = _hide_ended(sys.unraisablehook)
    threading.Thread(target=_watch, args=(reader, set(heeded)), name="signals", daemon=True).start()


def status(error: BaseException | None = None) -> int | None:
    """The exit status of a command that was asked to end; None if nobody has asked."""
    if _state.asked:
        return 128 + _state.asked
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


def on_late_end(words: str) -> None:
    """What is said where the main thread does not come to its end in time, and so cannot say it itself."""
    _state.farewell = words


def close() -> None:
    """The command is over: a signal that comes now interrupts nothing any more."""
    _state.closing = True
    _state.farewell = ""
    if _state.asked:
        take_time(_LAST_S)


def take_time(seconds: float) -> None:
    """The end that was asked for may take so long from now on; a second signal still ends it at once."""
    _state.deadline = time.monotonic() + seconds
    if _state.pipe >= 0:
        os.write(_state.pipe, b"\0")


@contextlib.contextmanager
def keeping_handlers() -> Iterator[None]:
    """Keep this process's handlers where a library sets its own: `ray.init` has one for SIGTERM that exits with status
    15, and one in C++ that prints its stack, and aborts three seconds later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    told = before[signal.SIGTERM]
    try:
        yield
    except SystemExit as error:  # by Ray's handler
        signal.alarm(0)  # which Ray's other one has set, to abort
        if error.code == signal.SIGTERM and callable(told):
            told(signal.SIGTERM, None)
        raise
    finally:
        if told not in (signal.SIG_DFL, None):
            for number, handler in before.items():
                signal.signal(number, handler)


def _end(number: int, frame: Any) -> None:
    """Raise `Ended` at the first signal; the watching thread counts."""
    first, _state.asked = not _state.asked, _state.asked or number
    if first and not _state.closing:
        raise Ended


def _watch(pipe: int, heeded: set[int]) -> None:
    """End the process at a second signal, or when time is over."""
    first, came = 0, 0.0
    while True:
        left = max(0.0, _state.deadline - time.monotonic()) if first else None
        ready, _, _ = select.select([pipe], [], [], left)
        now = time.monotonic()
        if not ready:
            if now >= _state.deadline:
                _leave(first, _state.farewell)
            continue
        for number in os.read(pipe, 64):
            if number not in heeded:
                continue
            if not first:
                first, came = number, now
                _state.deadline = max(_state.deadline, now + GRACE_S)
            elif now - came > _SAME_S:
                _leave(number)


def _leave(number: int, words: str = "") -> None:
    with contextlib.suppress(OSError, ValueError):
        if words and select.select([], [2], [], 0)[1]:  # a pipe that nobody empties would hold us up
            os.write(2, f"{words}\n".encode())
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError, ValueError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
    os._exit(128 + number)


def _forget() -> None:
    """A forked process ends by signals as any other does, and wakes nobody here."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            if signal.getsignal(number) is _end:
                signal.signal(number, signal.SIG_DFL)


def _hide_ended(before: Any) -> Any:
    """Python prints an exception in a finalizer, and goes on; of `Ended` there is nothing to tell."""

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Ended):
            before(unraisable)

    return hook
