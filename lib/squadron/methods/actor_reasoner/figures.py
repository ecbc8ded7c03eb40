"""Tables and curves of an actor_reasoner report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from squadron.core.panels import Curves, Series, Table
from squadron.evaluate.statistics import cluster_bootstrap_interval, wilson_interval
from squadron.methods.actor_reasoner.episodes import Outcomes
from squadron.methods.actor_reasoner.live import Account, Clock
from squadron.methods.actor_reasoner.memory import Memory
from squadron.methods.actor_reasoner.records import Driven

Results = Mapping[tuple[str, int | None], dict[str, Any]]
"""Outcomes of methods, each with all memories (None) or some."""


def driven(method: str, result: dict[str, Any]) -> Driven:
    """A method's shares and mean time."""
    succeeded = succeeds(result)
    passed = [time for time, good in zip(result["passed_s"], succeeded, strict=True) if good]
    return Driven(
        method=method,
        episodes=len(succeeded),
        collided=float(np.mean(result["collided"])),
        succeeded=float(np.mean(succeeded)),
        passed_s=float(np.mean(passed)) if passed else None,
    )


def succeeds(result: dict[str, Any]) -> list[bool]:
    """Which episodes ended past the conflict, in time, and with nobody hurt."""
    return [time is not None and not hit for time, hit in zip(result["passed_s"], result["collided"], strict=True)]


def methods_table(scene: str, results: Results) -> Table:
    """Every method on the same episodes: safety, time, comfort, and what it costs to compute."""
    rows: list[list[Any]] = []
    for (method, size), result in results.items():
        if size is not None:
            continue
        good, hits = succeeds(result), result["collided"]
        times = [time for time in result["passed_s"] if time is not None]
        between = [value for value in result["encroachment_s"] if value is not None]
        rows.append(
            [
                method,
                _share(good),
                _share(hits),
                _mean(times),
                f"{np.median(between):.2f}" if between else None,
                f"{np.mean(np.array(between) < 1):.1%}" if between else None,
                f"{np.mean(result['first']):.1%}",
                f"{np.mean(result['jerk']):.1f}",
                f"{np.mean(result['braking']):.1f}",
                result["asked"],
                result["unread"],
                f"{result['simulated_s'] / max(result['seconds'], 1e-9):,.0f}",
            ]
        )
    columns = [
        "method",
        "succeeded",
        "collided",
        "s to pass",
        "post-encroachment time, median s",
        "of less than 1 s",
        "went first",
        "jerk, m/s³",
        "hardest braking, m/s²",
        "thoughts",
        "not to be read",
        "times real time",
    ]
    note = f"The same {len(next(iter(results.values()))['collided'])} episodes; in brackets 95% intervals."
    return Table(title=f"Who drives how: {scene}", columns=columns, rows=rows, note=note)


def differences(scene: str, results: Results, first: str) -> Table:
    """How the method differs from every other on the same episodes, with intervals of the paired difference."""
    mine = results[first, None]
    rows: list[list[Any]] = []
    for (method, size), other in results.items():
        if size is not None or method == first:
            continue
        hits = [[float(a) - float(b)] for a, b in zip(mine["collided"], other["collided"], strict=True)]
        good = [[float(a) - float(b)] for a, b in zip(succeeds(mine), succeeds(other), strict=True)]
        both = zip(mine["passed_s"], other["passed_s"], strict=True)
        times = [[a - b] for a, b in both if a is not None and b is not None]
        rows.append([method, _points(hits), _points(good), _interval(times, "{:+.2f}") if times else None, len(times)])
    columns = ["against", "collisions, points", "successes, points", "s to pass", "episodes that both passed"]
    note = "Differences on the same episodes; in brackets 95% intervals. Below 0, the method has less."
    return Table(title=f"{first} against the others: {scene}", columns=columns, rows=rows, note=note)


def memory_curves(scene: str, results: Results, first: str, count: int) -> list[Curves]:
    """Success and collisions against the number of memories."""
    sizes = sorted(size for method, size in results if method == first and size is not None)
    if not sizes:
        return []
    found = [results[first, size] for size in sizes] + [results[first, None]]
    x = [float(size) for size in [*sizes, count]]
    series = []
    for name, values in (
        ("succeeded", [succeeds(one) for one in found]),
        ("collided", [one["collided"] for one in found]),
    ):
        intervals = [wilson_interval(int(sum(value)), len(value)) for value in values]
        series.append(
            Series(
                name=name,
                x=x,
                y=[float(np.mean(value)) for value in values],
                low=[low for low, _ in intervals],
                high=[high for _, high in intervals],
            )
        )
    return [
        Curves(
            title=f"What memories are worth: {scene}", x_label="memories", y_label="share of episodes", series=series
        )
    ]


def memory_table(scene: str, memory: Memory, candidates: int, asked: int, unread: int) -> Table:
    """What the Actor remembers."""
    rows: list[list[Any]] = [[style, count] for style, count in memory.counts.items()]
    note = (
        f"Of {asked:,} thoughts {unread:,} could not be read and {candidates:,} were worth keeping; what was much like "
        "an earlier memory was not kept."
    )
    return Table(title=f"Memories: {scene}", columns=["style of the driver", "memories"], rows=rows, note=note)


def live_table(scene: str, clock: Clock, account: Account, found: Outcomes) -> Table:
    """Driving by the clock."""
    work_ms = 1000 * np.array(clock.work_s or [0.0])
    ages = account.ages_s or [float("nan")]
    rows: list[list[Any]] = [
        ["cars at once", len(found.collided)],
        ["ticks", len(clock.work_s) + 1],
        ["ticks missed", clock.missed],
        ["work of a tick, median / 99th percentile / longest, ms", " / ".join(f"{value:.1f}" for value in
         (np.median(work_ms), np.percentile(work_ms, 99), work_ms.max()))],
        ["thoughts", account.thoughts],
        ["answers that could not be read", account.unread],
        ["age of a thought when it came, median / 95th percentile, s",
         f"{np.median(ages):.2f} / {np.percentile(ages, 95):.2f}"],
        ["situations that nobody took up", account.forgotten],
        ["Reasoners lost and replaced", account.lost],
        ["succeeded", f"{found.succeeded.mean():.1%}"],
        ["collided", f"{found.collided.mean():.1%}"],
    ]  # fmt: skip
    note = account.stopped or "; ".join(sorted(set(account.causes)))
    return Table(title=f"By the clock: {scene}", columns=["what", "value"], rows=rows, note=note)


def _share(values: Sequence[bool]) -> str:
    low, high = wilson_interval(int(sum(values)), len(values))
    return f"{np.mean(values):.1%} ({low:.1%} to {high:.1%})"


def _mean(values: Sequence[float]) -> str | None:
    return _interval([[value] for value in values], "{:.2f}") if values else None


def _points(groups: Sequence[Sequence[float]]) -> str:
    return _interval([[100 * value for value in group] for group in groups], "{:+.1f}")


def _interval(groups: Sequence[Sequence[float]], form: str) -> str:
    low, high = cluster_bootstrap_interval(groups)
    mean = float(np.mean([value for group in groups for value in group]))
    return f"{form.format(mean)} ({form.format(low)} to {form.format(high)})"
