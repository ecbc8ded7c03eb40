"""Carries attacks out, and measures what they do to a neighbour, to memory, and to processors afterwards."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import psutil

from tests.attacks.attack import PATIENCE_S, Attack, Attacker
from tests.attacks.neighbour import Neighbour, neighbour
from tests.attacks.server import neighbours_requests, replicas
from tests.attacks.wire import Place

_AT_ONCE, _IDLE_SHARE, _LOOK_EVERY_S, _LONGEST_IDLE_S = 12, 0.25, 0.25, 10.0
Medians = Mapping[str, float]
"""Seconds by service."""


@dataclass(frozen=True)
class Result:
    """What came of attacks that were carried out at the same time.

    `seen` are the outcomes by attack, `wrong` those that were not expected, `leaks` answers that tell of the server's
    inside. `idle_s` is how long a replica worked on after the last client had gone.
    """

    seen: dict[str, Counter[str]]
    wrong: dict[str, Counter[str]]
    leaks: list[bytes]
    neighbour: Neighbour
    seconds: float
    idle_s: float


def listen(place: Place, seconds: float) -> Neighbour:
    """What a neighbour sees of a server that serves nobody else."""
    with neighbour(place.host, place.port, neighbours_requests(place.port)) as seen:
        time.sleep(seconds)
    return seen


def slowest(*quiet: Neighbour) -> dict[str, float]:
    """Of several quiet times, the slowest median of each service: other work is no fault of attackers."""
    return {service: max(statistics.median(one.seconds[service]) for one in quiet) for service in quiet[0].seconds}


def times_slower(seen: Neighbour, quiet: Medians) -> tuple[float, float]:
    """The median and the worst of a neighbour's answers, each as a multiple of the quiet median of its service."""
    multiples = [taken / quiet[service] for service, several in seen.seconds.items() for taken in several]
    return statistics.median(multiples), max(multiples)


def carry_out(
    place: Place, attacks: Sequence[Attack], keyed: bool = True, share: float = 1.0, at_least_s: float = 0.0
) -> Result:
    """Carry this share of these attacks out beside a neighbour, a dozen at once, each for at least so many seconds."""
    attackers = {one.name: Attacker(_elsewhere(place, number), keyed, share) for number, one in enumerate(attacks)}
    with neighbour(place.host, place.port, neighbours_requests(place.port)) as seen:
        started = time.monotonic()
        asyncio.run(_all(attacks, attackers, at_least_s))
        seconds = time.monotonic() - started
        idle_s = seconds_until_idle()
    outcomes = {name: attacker.seen for name, attacker in attackers.items()}
    allowed = {one.name: Counter(dict.fromkeys(one.expects, sys.maxsize)) for one in attacks}
    return Result(
        seen=outcomes,
        wrong={name: wrong for name, found in outcomes.items() if (wrong := found - allowed[name])},
        leaks=[leak for attacker in attackers.values() for leak in attacker.leaks],
        neighbour=seen,
        seconds=seconds,
        idle_s=idle_s,
    )


def _elsewhere(place: Place, number: int) -> Place:
    """The place as seen from an address of this machine that no other attacker comes from, where it has several."""
    return replace(place, source=f"127.0.1.{1 + number}") if sys.platform == "linux" else place


async def _all(attacks: Sequence[Attack], attackers: Mapping[str, Attacker], at_least_s: float) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(attack: Attack) -> None:
        attacker, ends = attackers[attack.name], time.monotonic() + at_least_s
        try:
            async with gate, asyncio.timeout(at_least_s + 3 * PATIENCE_S):
                await attack.act(attacker)
                while time.monotonic() < ends:
                    await attack.act(attacker)
        except TimeoutError:
            attacker.seen["without end"] += 1

    await asyncio.gather(*map(one, attacks))


def memory() -> dict[str, int]:
    """Bytes that each replica holds."""
    return {name: one.memory_info().rss for name, one in replicas().items()}


def growth(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """By which share of what it held the replica has grown that grew most."""
    return max(after[name] / size - 1 for name, size in before.items() if name in after)


def seconds_until_idle() -> float:
    """How long from now until no replica computes more than what a neighbour asks: a quarter of a core each."""
    watched = list(replicas().values())
    started = time.monotonic()
    while (begun := time.monotonic()) - started < _LONGEST_IDLE_S:
        before = [_spent(one) for one in watched]
        time.sleep(_LOOK_EVERY_S)
        passed = time.monotonic() - begun
        if all(_spent(one) - spent < _IDLE_SHARE * passed for one, spent in zip(watched, before, strict=True)):
            return begun - started
    return _LONGEST_IDLE_S


def _spent(one: psutil.Process) -> float:
    """Seconds that a process has computed; none if it has ended."""
    try:
        times = one.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
