"""Tables and curves of an actor_reasoner report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from squadron.core.panels import Curves, Table
from squadron.evaluate.panels import curve, difference_table
from squadron.evaluate.scores import Scores
from squadron.methods.actor_reasoner.episodes import Outcomes
from squadron.methods.actor_reasoner.live import Account, Clock
from squadron.methods.actor_reasoner.memory import Memory
from squadron.methods.actor_reasoner.records import Driven


def driven(method: str, scores: Scores) -> Driven:
    """A method's shares, and its mean time over the episodes that succeeded."""
    passed = scores.estimate(method, "passed_s")
    return Driven(
        method=method,
        episodes=len(scores.problems),
        collided=scores.estimate(method, "collided").mean,
        succeeded=scores.estimate(method, "succeeded").mean,
        passed_s=passed.mean if passed.count else None,
    )


def methods_table(scene: str, scores: Scores) -> Table:
    """Every method on the same episodes: safety, time, comfort, and what it costs to compute."""

    def share(method: str, metric: str) -> str | None:
        return scores.estimate(method, metric, share=True).text(".1%")

    def between(method: str) -> np.ndarray:
        values = scores.of(method, "encroachment_s")
        there: np.ndarray = values[np.isfinite(values)]
        return there

    def times_real(method: str) -> float:
        return scores.total(method, "simulated_s") / max(scores.total(method, "seconds"), 1e-9)

    cells: dict[str, Callable[[str], Any]] = {
        "succeeded": lambda one: share(one, "succeeded"),
        "collided": lambda one: share(one, "collided"),
        "s to pass": lambda one: scores.estimate(one, "passed_s").text(".2f"),
        "post-encroachment time, median s": lambda one: f"{np.median(s):.2f}" if len(s := between(one)) else None,
        "of less than 1 s": lambda one: f"{np.mean(s < 1):.1%}" if len(s := between(one)) else None,
        "went first": lambda one: scores.estimate(one, "first").value(".1%"),
        "jerk, m/s³": lambda one: scores.estimate(one, "jerk").value(".1f"),
        "hardest braking, m/s²": lambda one: scores.estimate(one, "braking").value(".1f"),
        "thoughts": lambda one: int(scores.total(one, "asked")),
        "not to be read": lambda one: int(scores.total(one, "unread")),
        "times real time": lambda one: f"{times_real(one):,.0f}",
    }
    rows = [[method, *(cell(method) for cell in cells.values())] for method in scores.methods]
    note = f"The same {len(scores.problems)} episodes; in brackets 95% intervals."
    return Table(title=f"Who drives how: {scene}", columns=["method", *cells], rows=rows, note=note)


def differences(scene: str, scores: Scores, first: str) -> Table:
    """How the method differs from every other on the same episodes."""
    metrics = {
        "collisions, points": ("collided", "+.1f", 100.0),
        "successes, points": ("succeeded", "+.1f", 100.0),
        "s to pass": ("passed_s", "+.2f", 1.0),
    }
    both = "episodes that both passed", "passed_s"
    return difference_table(f"{first} against the others: {scene}", scores, first, metrics, both, "episodes")


def memory_curves(scene: str, scores: Scores, methods: Mapping[int, str]) -> Curves:
    """Success and collisions against the number of memories, by the method that has as many."""
    series = [
        curve(metric, [(size, scores.estimate(method, metric, share=True)) for size, method in methods.items()])
        for metric in ("succeeded", "collided")
    ]
    title = f"What memories are worth: {scene}"
    return Curves(title=title, x_label="memories", y_label="share of episodes", series=series)


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
