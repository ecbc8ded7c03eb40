"""Progress of long work, with rate and time left: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

ItemT = TypeVar("ItemT")
LINE_EVERY_S = 10.0


class _Display(Protocol):
    def update(self, done: float) -> None: ...

    def close(self, done: float) -> None: ...


class Progress:
    """Counts what is done and shows it. Use as a context manager, or iterate with `over`.

    with progress(400, "collect demos", "episode") as bar:
        bar.advance()
    """

    def __init__(self, display: _Display, done: float) -> None:
        self._display = display
        self.done = done

    def advance(self, count: float = 1) -> None:
        """Note that `count` more units, or a part of one, are done."""
        self.done += count
        self._display.update(self.done)

    def over(self, items: Iterable[ItemT]) -> Iterator[ItemT]:
        """The same items; each counts as done when the next is asked for."""
        with self:
            for item in items:
                yield item
                self.advance()

    def close(self) -> None:
        """Show where the work stands for the last time."""
        self._display.close(self.done)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def progress(
    total: int | None,
    description: str,
    unit: str = "item",
    *,
    done: int = 0,
    line_every_s: float | None = None,
) -> Progress:
    """Start showing the progress of `total` units of work (None: nobody knows how many).

    `done` counts units that an earlier run finished: they are part of the total, not of the rate. On a
    terminal this is a live bar; elsewhere one line at most every `line_every_s` seconds (None: every ten) and one
    at the end. A closed standard output silences it and disturbs nothing.
    """
    display = _Bar if _on_terminal() else _Lines
    every_s = LINE_EVERY_S if line_every_s is None else line_every_s
    return Progress(display(total, description, unit, done, every_s), done)


@contextlib.contextmanager
def following(bar: Progress, count: Callable[[], float], every_s: float = 1.0) -> Iterator[None]:
    """Let `bar` stand at `count()`, which is asked every so often while the block runs, in a thread of its own."""
    over, lock = threading.Event(), threading.Lock()

    def follow() -> None:
        while not over.wait(every_s):
            try:
                done = count()
            except Exception:  # the bar only shows; whoever waits for the work says what is wrong
                continue
            with lock:
                if not over.is_set():
                    bar.advance(max(0, done - bar.done))

    threading.Thread(target=follow, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            over.set()


def describe(done: float, total: int | None, unit: str, rate: float) -> str:
    """Where work stands: `120/400 episodes, 3.4/s, 1:22 left`. `rate` is in units a second, 0 if unknown. A part of
    the first unit is told, as in `0.25/1 policy`; of later ones, those that are whole."""
    count = f"{done:.2f}" if 0 < done < 1 else f"{math.floor(done)}"
    count = count if total is None else f"{count}/{total}"
    parts = [f"{count} {_plural(unit, math.ceil(done) if total is None else total)}"]
    if rate > 0:
        parts.append(_format_rate(rate))
        if total is not None and total > done:
            parts.append(f"{_clock((total - done) / rate)} left")
    return ", ".join(parts)


class _Lines:
    """Plain lines for log files and pipes."""

    def __init__(self, total: int | None, description: str, unit: str, done: int, line_every_s: float) -> None:
        self._total, self._description, self._unit = total, description, unit
        self._done_before, self._line_every_s = done, line_every_s
        self._started = self._last = time.monotonic()
        self._closed = False

    def update(self, done: float) -> None:
        now = time.monotonic()
        if now - self._last >= self._line_every_s:
            self._last = now
            self._print(done, now)

    def close(self, done: float) -> None:
        if not self._closed:
            self._closed = True
            self._print(done, time.monotonic(), ending=True)

    def _print(self, done: float, now: float, ending: bool = False) -> None:
        elapsed = now - self._started
        rate = (done - self._done_before) / elapsed if elapsed > 0 else 0.0
        end = f", {_clock(elapsed)} in all" if ending else ""
        _say(f"{self._description}: {describe(done, self._total, self._unit, rate)}{end}")


class _Bar:
    """A live bar on a terminal."""

    def __init__(self, total: int | None, description: str, unit: str, done: int, line_every_s: float) -> None:
        self._total, self._unit, self._done_before = total, unit, done
        self._started = time.monotonic()
        self._rich = _rich_progress()
        self._task = self._rich.add_task(description, total=total, completed=done, status="")
        self._rich.start()

    def update(self, done: float) -> None:
        elapsed = time.monotonic() - self._started
        rate = (done - self._done_before) / elapsed if elapsed > 0 else 0.0
        with _silencing_closed_output():
            self._rich.update(self._task, completed=done, status=describe(done, self._total, self._unit, rate))

    def close(self, done: float) -> None:
        self.update(done)
        with _silencing_closed_output():
            self._rich.stop()


def _rich_progress() -> RichProgress:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    description = TextColumn("{task.description}", markup=False)
    status = TextColumn("{task.fields[status]}", markup=False)
    return RichProgress(description, BarColumn(bar_width=28), status, TimeElapsedColumn())


def _on_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):
        return False


def _say(line: str) -> None:
    with _silencing_closed_output():
        print(line, flush=True)


@contextlib.contextmanager
def _silencing_closed_output() -> Iterator[None]:
    """Let no closed pipe (`squadron run … | head`) end hours of work, now or when Python flushes at exit."""
    try:
        yield
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except (ValueError, AttributeError):
        if sys.stdout is not None and not sys.stdout.closed:
            raise


def _format_rate(rate: float) -> str:
    if rate >= 1:
        return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"
    return f"{1 / rate:.3g} s each" if rate > 1 / 60 else f"{_clock(1 / rate)} each"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _plural(unit: str, count: int) -> str:
    if count == 1:
        return unit
    if unit.endswith("y") and unit[-2:-1] not in "aeiou":
        return f"{unit[:-1]}ies"
    return unit + ("es" if unit.endswith(("s", "x", "ch", "sh")) else "s")
