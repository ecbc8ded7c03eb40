"""What coordination's report shows: ratios and times by size, distributions, labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from squadron.core.panels import Curves, Histogram, Sample, Series, Table
from squadron.evaluate.panels import curve, estimate_table
from squadron.evaluate.scores import Scores
from squadron.evaluate.summary import estimate
from squadron.methods.coordination.benchmark import REFERENCE
from squadron.methods.coordination.config import CostName
from squadron.methods.coordination.records import Ratio, Ratios

PUBLISHED = {5: 0.985, 10: 0.965, 15: 0.957, 25: 0.95, 50: 0.937, 100: 0.924, 250: 0.913}
"""Optimality ratio of the paper's network on average completion time by robots, read off its figure (±0.01)."""


def ratios(scores: Scores, cost: CostName) -> Ratios:
    """Mean ratio with its 95% interval over problems, and seconds, of each method, kind of world and size."""
    rows = [
        Ratio(
            method=method,
            world=str(world),
            robots=int(robots),
            seconds=some.estimate(method, "seconds").mean,
            **dict(some.estimate(method, "ratio")),
        )
        for (world, robots), some in scores.groups().items()
        if some.answered_MPS.any()
        for method in some.methods
    ]
    return Ratios(cost=cost, ratios=tuple(rows))


def curves(found: Ratios) -> Iterator[Curves]:
    """Ratio to the best known plan, then time, against the number of robots: all methods, for each kind of world."""
    worlds = sorted({row.world for row in found.ratios}, reverse=True)
    rows = {
        world: [row for row in found.ratios if row.world == world and row.count and row.method != REFERENCE]
        for world in worlds  # what the exact solver adds to the best of the others is in the table, its time is given
    }
    for world in worlds:
        series = [curve(name, [(row.robots, row) for row in some]) for name, some in _by_method(rows[world])]
        if found.cost == "average_completion" and world == "open floor":
            sizes = [robots for robots in PUBLISHED if robots <= max(row.robots for row in rows[world])]
            series.append(Series(name="published network", x=sizes, y=[PUBLISHED[robots] for robots in sizes]))
        yield Curves(
            title=f"Ratio to the best known plan, {found.cost.replace('_', ' ')}, {world}",
            x_label="robots",
            y_label="least known cost over cost",
            series=series,
            note="Means over problems, with 95% intervals. The best known plan is the best that any method found.",
        )
    for world in worlds:
        series = [
            Series(name=name, x=[row.robots for row in some], y=[row.seconds for row in some])
            for name, some in _by_method(rows[world])
        ]
        yield Curves(title=f"Time, {world}", x_label="robots", y_label="seconds a problem", series=series)


def _by_method(rows: Sequence[Ratio]) -> list[tuple[str, list[Ratio]]]:
    return [(name, [row for row in rows if row.method == name]) for name in dict.fromkeys(row.method for row in rows)]


def savings_table(scores: Scores, method: str, other: str) -> Table:
    """How much less plans of one method cost than another's on the same problem, by size, and how often."""
    rows = []
    for group, some in scores.groups().items():
        theirs = some.of(other, "cost")
        saved = 1 - some.of(method, "cost") / np.where(theirs > 0, theirs, np.nan)
        found = estimate(saved)
        if found.count:
            rows.append((group, found, [f"{np.sum(saved > 1e-9)} of {found.count}"]))
    return estimate_table(
        f"What {method} saves against {other}",
        ["world", "robots"],
        "saved",
        rows,
        form=".1%",
        others=["problems on which it is cheaper"],
    )


def ratio_table(found: Ratios) -> Table:
    """Every method on every size, in numbers."""
    rows = [((row.world, row.robots, row.method), row, (f"{row.seconds:.3f}", row.missing)) for row in found.ratios]
    names, others = ["world", "robots", "method"], ["seconds", "problems without a plan"]
    return estimate_table("Methods by size", names, "ratio", rows, form=".3f", others=others)


def ratio_spread(scores: Scores, methods: Sequence[str]) -> Histogram:
    """How ratios are distributed over problems of all sizes."""
    groups = [Sample(name=name, values=scores.of(name, "ratio").ravel()) for name in methods]
    return Histogram(title="Ratios of single problems", x_label="least known cost over cost", groups=groups)


def label_table(answers: Sequence[dict[str, Any]]) -> Table:
    """How many problems of each size were solved, how well, and how fast."""
    rows: list[list[Any]] = []
    for robots in sorted({answer["robots"] for answer in answers}):
        some = [answer for answer in answers if answer["robots"] == robots]
        plans = [plan for answer in some for plan in answer["plans"]]
        proven = sum(plan["optimal"] for plan in plans) / max(1, len(plans))
        gap = max((plan["gap"] for plan in plans), default=None)
        seconds = sum(plan["seconds"] for plan in plans) / len(some)
        sizes = [float(np.mean([answer[name] for answer in some])) for name in ("nodes", "edges")]
        rows.append([robots, len(some), *sizes, len(plans), f"{proven:.1%}", gap, seconds])
    columns = [
        "robots",
        "problems",
        "intervals",
        "encounters",
        "plans",
        "proven optimal",
        "largest gap",
        "seconds each",
    ]
    note = "Intervals and encounters are means. Where a plan is not proven the best, another may cost less by the gap."
    return Table(title="Labelled problems", columns=columns, rows=rows, note=note)
