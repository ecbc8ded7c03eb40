"""Work for several clients: it takes turns, ends when it is called off, and is let in by what it costs."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from squadron.core.work import CalledOff, Turns, Work, current, doing, in_thread, take_turns
from squadron.serve.admission import Admission, Busy


def test_outside_of_work_a_step_is_nothing() -> None:
    take_turns()
    assert current().client == ""


def test_work_ends_at_its_next_step_when_it_is_called_off_or_late() -> None:
    work = Work()
    with doing(work):
        take_turns()
        work.call_off()
        with pytest.raises(CalledOff):
            take_turns()
    with doing(Work(within_s=0.0)), pytest.raises(CalledOff):
        take_turns()


def test_a_cancelled_call_returns_when_its_thread_has_ended() -> None:
    steps, ended = [], threading.Event()

    def compute() -> None:
        try:
            while True:
                take_turns()
                steps.append(time.monotonic())
                time.sleep(0.01)
        finally:
            ended.set()

    async def check() -> None:
        task = asyncio.create_task(in_thread(compute))
        while not steps:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()
        with doing(Work(within_s=0.05)), pytest.raises(TimeoutError):
            await in_thread(compute)

    asyncio.run(check())


def test_a_small_request_of_another_client_goes_between_the_steps_of_a_large_one() -> None:
    turns, done = Turns(), []

    def compute(steps: int) -> None:
        for _ in range(steps):
            take_turns()
            time.sleep(0.005)
        done.append(steps)

    async def ask(client: str, steps: int) -> None:
        with doing(Work(client, turns=turns)):
            await in_thread(compute, steps)

    async def check() -> None:
        large = [asyncio.create_task(ask("one", 100)) for _ in range(3)]
        await asyncio.sleep(0.1)
        await ask("other", 5)
        assert done == [5]
        await asyncio.gather(*large)

    asyncio.run(check())


def admit(requests: list[tuple[str, int]], **limits: int | bool) -> tuple[list[int], list[int], list[int]]:
    """Which of these requests, each of a client with its units, are at work, wait, and are sent away."""
    found: dict[int, str] = dict.fromkeys(range(len(requests)), "waits")

    async def ask(desk: Admission, number: int, client: str, units: int) -> None:
        try:
            async with desk.enter(client, units):
                found[number] = "works"
                await asyncio.sleep(60)
        except Busy:
            found[number] = "gone"

    async def check() -> None:
        desk = Admission(**limits)  # type: ignore[arg-type]
        tasks = []
        for number, (client, units) in enumerate(requests):
            tasks.append(asyncio.create_task(ask(desk, number, client, units)))
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with desk.enter("last", 1):  # all have made room
            pass

    asyncio.run(check())
    return tuple([n for n in found if found[n] == what] for what in ("works", "waits", "gone"))  # type: ignore[return-value]


def test_requests_are_let_in_by_their_number_and_their_work() -> None:
    limits = {"parallel": 3, "units": 10, "queue": 2, "shared": False}
    assert admit([("a", 1)] * 6, **limits) == ([0, 1, 2], [3, 4], [5])
    assert admit([("a", 6), ("a", 6), ("b", 3)], **limits) == ([0, 2], [1], [])


def test_one_client_never_has_all_nor_takes_the_others_place_in_the_line() -> None:
    limits = {"parallel": 4, "units": 100, "queue": 3, "shared": True}
    assert admit([("a", 1)] * 8 + [("b", 1)], **limits) == ([0, 1, 2, 8], [3, 4, 5], [6, 7])
    many = [("a", 1)] * 8 + [("b", 1)] * 3
    assert admit(many, **limits) == ([0, 1, 2, 8], [3, 9, 10], [4, 5, 6, 7])


def test_who_has_gone_while_others_leave_takes_no_place() -> None:
    """Those that wait are cancelled just before others leave: no place is lost to them."""

    async def check() -> None:
        desk = Admission(parallel=2, units=2, queue=3, shared=False)
        release = asyncio.Event()

        async def ask(client: str) -> None:
            async with desk.enter(client, 1):
                await release.wait()

        for _ in range(5):
            release.clear()
            tasks = [asyncio.create_task(ask(client)) for client in "abcde"]
            await asyncio.sleep(0)
            release.set()  # the first two leave at their next step, before the others hear that they are cancelled
            for waiting in tasks[2:]:
                waiting.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(one) for one in ended] == [type(None)] * 2 + [asyncio.CancelledError] * 3

    asyncio.run(check())
